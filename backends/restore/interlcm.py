"""InterLCM (arXiv 2502.02215) and its baselines: the same consistency model from noise, and from the picture noised (img2img)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.lazy import F
from backends.registry import method
from backends.restore.consistency import timesteps, walk
from backends.restore.face_models import FaceModel
from backends.restore.face_task import RESTORE_FACE, Face, RestoreFace
from backends.spec import Events, Images, Note, Slider, Step, Toggle

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 5  # of the wavelets
Steps = Annotated[int, Slider(2, 4, 1, help="of the consistency model's schedule; the first is the picture itself and costs nothing")]
ColourFix = Annotated[bool, Toggle(help="coarse colours from the given picture, detail from the result")]


def low_band(x: Tensor, levels: int = LEVELS) -> Tensor:
    """What à-trous wavelets leave after `levels` levels: the picture smoothed by (1, 2, 1)² at distances 1, 2, 4 …; edges repeat."""
    kernel = x.new_tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).expand(x.shape[1], 1, 3, 3)
    for level in range(levels):
        apart = 2**level
        x = F.conv2d(F.pad(x, (apart,) * 4, mode="replicate"), kernel, groups=x.shape[1], dilation=apart)
    return x


def recoloured(x: Tensor, like: Tensor) -> Tensor:
    """x's high band on the low band of `like`: StableSR's wavelet colour fix."""
    return (x - low_band(x) + low_band(like)).clamp(-1, 1)


def drawing(face: Face, model: FaceModel, states, done: int, steps: int, fix: bool, before=tuple) -> Events:
    """Steps and Result from (t, estimate of x0) after `done` steps; `before()`: pictures that stand first beside them."""
    seen = []

    def picture(x0):
        x = model.decode(x0)
        return face.known(recoloured(x, face.y) if fix and not face.grey else x)

    def shown(n):
        """The pictures before, and the first n estimates as they are."""
        return (Images((*before(), *(face.show(model.decode(x0), f"from t = {t}") for t, x0 in seen[:n]))),)

    for i, (t, x0) in enumerate(states, done + 1):
        seen.append((t, x0))
        n = len(seen)  # bound now: the runner may ask for these later, or never
        yield Step(i, steps, lambda x0=x0: face.show(picture(x0)), lambda n=n: shown(n), keep=lambda x0=x0: face.kept(picture(x0)))
    yield face.result(picture(x0), shown(len(seen)))


@method("interlcm", task=RESTORE_FACE, needs={"interlcm"})
def interlcm(job: RestoreFace, model: FaceModel, steps: Steps = 4, colour_fix: ColourFix = True) -> Events:
    """InterLCM: the picture as an intermediate state.

    A consistency model answers from any noise at once and keeps what stands there. So the degraded face's latent is taken for its estimate after the
    first step, noised to the second step's level, and finished in one or three evaluations; two encoders read the picture for it.

    Li et al., arXiv 2502.02215; details from the official code (sen-mao). Of the schedule 999, 759, 499, 259 the first step calls no network;
    the visual encoder's tokens stand in the place of a text, the spatial encoder is a ControlNet copied from the latent prior's network; only these
    two are trained, by L1, LPIPS and a discriminator on decoded pictures. Colours are fixed by wavelets, as there. Where we differ: 64 px,
    EfficientNet-Lite0's features where CLIP's are, guidance 2 where theirs is 8, one pair of encoders for both numbers of steps.
    Their supplement colours grey faces and fills holes by encoders trained for that (`_colorization_1step`, `_inpainting_1step` of their release, which a
    folder may hold in the others' place); the embedded ones were trained for neither. As there, colours are not fixed on a grey picture; what is
    known, its brightness or what surrounds the hole, is put into the result, which is ours. The embedded encoders had 210 updates, where the paper's had 15,000: all colours fixed
    alike, they beat both baselines, but not the degraded picture's own PSNR; begun at noise they find the person as well, and LPIPS-like does not tell the result
    from what the autoencoder alone keeps of the degraded picture.
    """
    face = Face(job, model)
    yield from face.notes()
    if (job.grey or face.hole is not None) and model.card.embedded:
        yield Note("These encoders were trained to restore, neither to colour nor to fill holes.")
    z = model.encode(face.y)
    yield Step(1, steps, lambda: face.show(model.decode(z), "the picture as the first estimate"))
    context = model.mended(model.prompt(face.y))
    states = walk(z, timesteps(steps)[1:], model.bars["latents"], model.noise(z, job.seed), lambda x, t: model.consistency(x, t, context, face.y))
    yield from drawing(face, model, states, 1, steps, colour_fix, lambda: (face.show(model.decode(z), "E(y) decoded"),))


@method("lcm_from_noise", task=RESTORE_FACE, needs={"lcm"}, paper=False)
def lcm_from_noise(job: RestoreFace, model: FaceModel, steps: Annotated[int, Slider(1, 8, 1, help="one evaluation each")] = 4,
                   colour_fix: ColourFix = True) -> Events:  # fmt: skip
    """The consistency model from noise.

    The same consistency model, asked for the face in the degraded picture and begun at noise: what it draws is a face, though hardly this one.
    Its colours are fixed as InterLCM's are, so that the two differ in where they begin and in the encoders alone.
    """
    face = Face(job, model)
    yield from face.notes()
    context, draw = model.prompt(face.y), model.noise(model.encode(face.y), job.seed)

    def states():
        first, *rest = timesteps(steps)
        x0 = model.consistency(draw(), first, context)
        yield first, x0
        yield from walk(x0, rest, model.bars["latents"], draw, lambda x, t: model.consistency(x, t, context))

    yield from drawing(face, model, states(), 0, steps, colour_fix)


@method("lcm_img2img", task=RESTORE_FACE, needs={"lcm"}, paper=False)
def lcm_img2img(
    job: RestoreFace,
    model: FaceModel,
    strength: Annotated[float, Slider(0.1, 1, 0.05, help="how much of the schedule the picture is noised to")] = 0.5,
    steps: Annotated[int, Slider(1, 8, 1, help="one evaluation each")] = 4,
    colour_fix: ColourFix = True,
) -> Events:
    """The consistency model, img2img.

    The usual way to draw over a picture: its latent is noised to a part of the schedule and every step from there is an evaluation, without encoders.
    Its colours are fixed as InterLCM's are.
    """
    face = Face(job, model)
    yield from face.notes()
    z, context = model.encode(face.y), model.prompt(face.y)
    times = timesteps(steps, end=strength)
    states = walk(z, times, model.bars["latents"], model.noise(z, job.seed), lambda x, t: model.consistency(x, t, context))
    yield from drawing(face, model, states, 0, steps, colour_fix, lambda: (face.show(model.decode(z), "E(y) decoded"),))
