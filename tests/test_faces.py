"""The face world, what it does to faces, and its judges."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from backends.metrics import faces as judges
from backends.worlds import faces


@pytest.fixture(scope="module")
def clean():
    return faces.as_tensor(faces.kept())


def psnr(a, b):
    return (-10 * (a - b).square().mean((1, 2, 3)).log10()).mean().item()


def by_pil(pictures, change):
    rows = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return torch.tensor(np.stack([np.asarray(change(Image.fromarray(row))) for row in rows])).permute(0, 3, 1, 2).float() / 255


def test_the_committed_faces():
    assert faces.kept().shape == (64, 64, 64, 3) and faces.examples().shape == (12, 64, 64, 3)
    both = np.concatenate([faces.kept(), faces.examples()]).reshape(76, -1)
    assert len(np.unique(both, axis=0)) == 76, "no face twice"
    confidence, at = judges.points(faces.as_tensor(faces.examples()) * 2 - 1)
    assert confidence.min() > 0.98
    left, right, nose, *mouth = at.unbind(1)
    assert (left[:, 0] < right[:, 0]).all() and (nose[:, 1] > left[:, 1]).all() and all((m[:, 1] > nose[:, 1]).all() for m in mouth)


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_jpeg_is_nearly_pils(clean, quality):
    def coded(picture):
        held = io.BytesIO()
        picture.save(held, "JPEG", quality=quality, subsampling=2)
        return Image.open(held)

    mine, theirs = faces.jpeg(clean[:16], torch.full((16,), float(quality))), by_pil(clean[:16], coded)
    assert psnr(mine, theirs) > psnr(theirs, clean[:16]) + 6, "far nearer to PIL's than PIL's is to the picture"


@pytest.mark.parametrize("side", [13, 37, 64, 80])
def test_resizing_is_pils(clean, side):
    mine = faces.resized(clean[:8], 64, torch.full((8,), float(side)), 80)
    theirs = by_pil(clean[:8], lambda p: p.resize((side, side), Image.Resampling.BILINEAR))
    assert (mine[..., :side, :side] - theirs).abs().max() < 1.5 / 255
    assert side == 80 or torch.equal(mine[..., side, :side], mine[..., side - 1, :side])


def test_the_blur_is_a_gaussian():
    dot = torch.zeros(1, 3, 64, 64)
    dot[..., 32, 32] = 1
    out = faces.blurred(dot, faces.chosen(blur=3.0, stretch=2.0, degrees=90))[0, 0].double()
    at = torch.arange(64) - 32.0
    assert out.sum() == pytest.approx(1, abs=1e-4)
    assert (out.sum(1) * at**2).sum().sqrt() == pytest.approx(3, abs=0.05), "down"
    assert (out.sum(0) * at**2).sum().sqrt() == pytest.approx(1.5, abs=0.05), "across"


def test_nothing_asked_is_next_to_nothing_done(clean):
    assert psnr(faces.degrade(clean[:8], faces.chosen()), clean[:8]) > 38  # JPEG at 100 remains, chroma at half size


def test_degrading_is_reproducible_and_each_picture_has_its_own(clean):
    def once(ranges=faces.TRAINED):
        return faces.degrade(clean, faces.harm(64, ranges, torch.Generator().manual_seed(3)), torch.Generator().manual_seed(4))

    y = once()
    assert torch.equal(y, once()) and y.min() >= 0 and y.max() <= 1 and y.shape == clean.shape
    assert psnr(once(faces.HARDER), clean) < psnr(y, clean) - 1
    harm = faces.harm(2000, faces.TRAINED, torch.Generator().manual_seed(0))
    assert harm.side.min() >= 16 and harm.side.max() <= faces.CANVAS and 30 <= harm.quality.min() <= harm.quality.max() <= 100
    assert 0.4 < (harm.blur == harm.across).float().mean() < 0.6


def test_identity_knows_a_degraded_face_again(clean):
    y = faces.degrade(clean, faces.chosen(blur=1, factor=2, noise=5, quality=60), torch.Generator().manual_seed(0))
    cosines = judges.identity(y * 2 - 1) @ judges.identity(clean * 2 - 1).T
    own = torch.eye(64, dtype=torch.bool)
    assert cosines.shape == (64, 64) and cosines[own].mean() > 0.6 and cosines[~own].mean() < 0.25
    assert (cosines.argmax(1) == torch.arange(64)).float().mean() > 0.95


def test_the_judges_pass_gradients(clean):
    x = (clean[:2] * 2 - 1).requires_grad_()
    (judges.identity(x).sum() + judges.points(x)[1].sum()).backward()
    assert x.grad.abs().sum() > 0
