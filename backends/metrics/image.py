"""The figures shown under each arm of the image tabs.

Judged by networks that the methods under comparison were not trained with (detector.py, scorer.py) and by plain
distances. Figures that need the emoji world (objects present) are left out where the prompt names nothing of it.
"""

import re

import numpy as np

from backends import inputs
from backends.denoiser import from_uint8
from backends.image.concept_words import emoji_concepts
from backends.image.conditions import LUMA
from backends.image.tasks import EditImage, FindFailures, TextToImage
from backends.lazy import F, torch
from backends.models import device
from backends.spec import Image, Images, Media, Metric
from backends.worlds import emoji

NUMBERS = {word: n for n, word in emoji.COUNTS.items()} | {str(n): n for n in emoji.COUNTS}


def wanted(prompt: str) -> dict[int, int]:
    """concept -> how many the prompt asks for: “two cats and a dog” is {cat: 2, dog: 1}."""
    found: dict[int, int] = {}
    for word, concept in emoji_concepts(prompt).items():
        number = re.search(rf"\b({'|'.join(NUMBERS)}) (?:big |small )?{re.escape(word)}\b", prompt.lower())
        found[concept] = found.get(concept, 0) + (NUMBERS[number[1]] if number else 1)
    return found


def present(found, asked: dict[int, int]) -> float:
    """Share of the asked objects among what a detector found."""
    seen = [f.concept for f in found]
    return sum(min(seen.count(c), n) for c, n in asked.items()) / sum(asked.values())


def pictures(value: Media | None) -> list[np.ndarray]:
    if isinstance(value, Image):
        return [value.pixels]
    return [i.pixels for i in value.items] if isinstance(value, Images) else []


def batch(rows: list[np.ndarray], side: int = 128):
    """(n, 3, side, side) in [-1, 1]."""
    tensors = [from_uint8(p, device()) for p in rows]
    return torch.cat([t if t.shape[-2:] == (side, side) else F.interpolate(t, size=(side, side), mode="bilinear", antialias=True) for t in tensors])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels for a range of 255; 100 for equal pictures."""
    if a.shape != b.shape:
        b = _resized(b, a.shape[:2])
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    return float(min(100.0, 10 * np.log10(255**2 / max(mse, 1e-12))))


def ssim(a: np.ndarray, b: np.ndarray, span: float = 255) -> float:
    """Structural similarity, at most 1 (scikit-image's, over channels, windows of 7 px or what fits). `span`: of the values."""
    from skimage.metrics import structural_similarity

    side = min(7, *a.shape[:2])
    return float(structural_similarity(a, b, channel_axis=-1, data_range=span, win_size=side - 1 + side % 2))


def sharpness(pixels: np.ndarray) -> float:
    """Mean absolute Laplacian of the grey values, 0 to 255."""
    x = pixels @ np.array(LUMA)
    return float(np.abs(4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]).mean())


def _resized(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    import PIL.Image

    return np.asarray(PIL.Image.fromarray(pixels).resize(shape[::-1], PIL.Image.LANCZOS))


def agreement(rows: list[np.ndarray], prompt: str) -> list[Metric]:
    """100 × the scorer's mean cosine between pictures and prompt."""
    from backends.metrics import scorer

    if not prompt.strip() or not scorer.available():
        return []
    return [Metric("agreement", 100 * float(scorer.cosines(batch(rows), [prompt] * len(rows)).mean()), "higher")]


def objects_present(rows: list[np.ndarray], prompt: str, judge: str = "main") -> list[Metric]:
    from backends.metrics import detector

    asked = wanted(prompt)
    if not asked or not detector.available(judge):
        return []
    return [Metric("objects present", float(np.mean([present(f, asked) for f in detector.detect(batch(rows), judge)])), "higher")]


def text_to_image(job: TextToImage, value: Media, reference: Media | None) -> list[Metric]:
    from backends.metrics import perceptual

    rows, first = pictures(value)[:4], pictures(reference)[:1]
    if not rows:
        return []
    out = agreement(rows, job.prompt) + objects_present(rows, job.prompt)
    if first:
        out += [
            Metric("PSNR to the first", psnr(rows[0], first[0])),
            Metric("LPIPS-like to the first", float(perceptual.distance(batch(rows[:1]), batch(first)))),
        ]
    return out


def edit_image(job: EditImage, value: Media, reference: Media | None) -> list[Metric]:
    """How well the result keeps to each condition that was given.

    Objects are counted by the held-out judge: the first one and the scorer may have steered the picture.
    """
    from backends.metrics import perceptual

    rows, out = pictures(value)[:1], []
    if not rows:
        return []
    if job.image is not None:
        seen = inputs.square(job.image, rows[0].shape[0])  # the part of the upload that the methods work on
        if job.fill and job.mask is not None:
            made, given = (batch([p])[0] for p in (rows[0], seen))
            known = batch([inputs.square(_as_rgb(job.mask), rows[0].shape[0])])[0].mean(0) < 0
            if known.any():  # for values in [0, 1], as the methods' own “condition error”
                out.append(Metric("known-region MSE", float((made - given).square()[:, known].mean()) / 4, "lower"))
        out.append(Metric("LPIPS-like to the input", float(perceptual.distance(batch(rows), batch([seen]))), "lower"))
    return out + objects_present(rows, job.prompt, "second")


def _as_rgb(mask: np.ndarray) -> np.ndarray:
    mask = mask.astype(np.uint8) * (255 if mask.dtype == bool else 1)
    return mask if mask.ndim == 3 else np.repeat(mask[..., None], 3, -1)


def find_failures(job: FindFailures, value: Media, reference: Media | None) -> list[Metric]:
    """Probability that what was asked for is seen, by each judge; the arm's own notes say which of them took no part in its search."""
    from backends.metrics import detector

    rows, asked = pictures(value)[:16], list(wanted(job.prompt))
    if not rows:
        return []
    x, out = batch(rows), []
    for name, label in (("main", "object seen by the main judge"), ("second", "object seen by the second judge")):
        if asked and detector.available(name):
            out.append(Metric(label, float(detector.log_probs(x, asked, name).exp().amin(1).mean()), "lower"))
    return out + [Metric(m.name, m.value, "lower") for m in agreement(rows, job.prompt)]
