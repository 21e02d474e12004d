"""The task “Restore a face”: what the arms are given, the same for all of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends import inputs
from backends.denoiser import as_uint8, from_uint8
from backends.image.conditions import LUMA, PAINTED
from backends.lazy import torch
from backends.restore import face_finding
from backends.spec import BadInput, Events, Image, Job, Media, Note, Picture, Result, Slider, Task, Toggle
from backends.worlds import faces

if TYPE_CHECKING:
    from torch import Tensor

AT_REST = {"blur": 0.0, "factor": 1.0, "noise": 0.0, "quality": 100}


@dataclass(frozen=True)
class RestoreFace(Job):
    """With a slider set, a hole painted or the colours taken away, the picture is good and is spoilt first: then it is the reference that the figures
    compare with."""

    image: Annotated[np.ndarray | None, Picture(longest=1024, smallest=16, help="a face; in a larger picture one is looked for")] = None
    blur: Annotated[float, Slider(0, 3, 0.05, unit="px of 64", help="degrade first: σ of a Gaussian; trained up to 1.9")] = 0.0
    factor: Annotated[float, Slider(1, 8, 0.1, unit="times", help="degrade first: pixels lost along a side; trained up to 4")] = 1.0
    noise: Annotated[float, Slider(0, 40, 1, unit="of 255", help="degrade first: standard deviation; trained up to 20")] = 0.0
    quality: Annotated[int, Slider(5, 100, 1, help="degrade first: JPEG; trained down to 30, 100 leaves it out")] = 100
    mask: Annotated[
        np.ndarray | None,
        Picture(
            required=False,
            mask_of="image",
            help="a face; in a larger picture one is looked for. Paint a hole to have it filled: figures compare with what was painted over",
        ),
    ] = None
    grey: Annotated[bool, Toggle(help="take the colours away first, so that they are to be found again")] = False

    @property
    def degraded(self) -> bool:
        """Whether a slider is set."""
        return any(getattr(self, name) != value for name, value in AT_REST.items())

    def __post_init__(self):
        if self.image is not None and self.mask is not None and self.mask.shape[:2] != self.image.shape[:2]:
            (h, w), (b, a) = self.image.shape[:2], self.mask.shape[:2]
            raise BadInput(f"The mask is {a}×{b} px and the picture {w}×{h}; paint it on this picture.")


def face(name: str, title: str, *arms: dict, **sliders) -> dict:
    return {"title": title, "job": {"image": f"face_{name}.png", "seed": 1} | sliders, "arms": list(arms)}


UNTOUCHED, RESTORER, DIFFACE, INTERLCM, LAFR = ({"method": slug} for slug in ("untouched_face", "face_restorer", "difface", "interlcm", "lafr"))
RESTORE_FACE = Task(
    "restore_face", "Restore a face", RestoreFace, baseline="face_restorer", model="faces", metrics="backends.metrics.restored_faces:restore_face",
    help="A face that is blurred, small, noisy and compressed, has a hole or no colours is made whole. Drawn faces of nobody, 64 px; with the sliders a good one goes bad first.",
    examples=(
        face("laughing", "a laugh · worse than any the restorer was trained on", UNTOUCHED, RESTORER, DIFFACE, blur=2.0, factor=4.5, noise=10, quality=35),
        face("glasses", "glasses · one evaluation, three, and the same model from noise", INTERLCM | {"knobs": {"steps": 2}}, INTERLCM, {"method": "lcm_from_noise"},
             blur=1.2, factor=2.5, noise=8, quality=60),
        face("curls", "curls · a latent put right by a codebook", LAFR | {"knobs": {"align": "none"}}, LAFR | {"knobs": {"align": "fine-tuned encoder"}}, LAFR,
             blur=1.5, factor=2.5, noise=12, quality=50),
        face("cap", "a blue cap · three papers", DIFFACE, INTERLCM, LAFR, blur=1.5, factor=3.5, noise=15, quality=45),
        face("curls", "curls · beside ready networks of photographs", DIFFACE, {"method": "span_face"}, {"method": "realesrgan_face"}, blur=1.2, factor=3.0, noise=12, quality=50),
        face("glasses", "glasses · a hole over one eye", UNTOUCHED, RESTORER, DIFFACE | {"knobs": {"N": 120, "eta": 1.0}}, INTERLCM, mask="face_glasses_mask.png"),
        face("curls", "curls · colours for a grey picture", UNTOUCHED, RESTORER, INTERLCM | {"knobs": {"steps": 2}}, LAFR, grey=True),
        face("laughing", "a laugh · DifFace with little noise and much", *(DIFFACE | {"knobs": {"N": n}} for n in (20, 40, 100)), blur=2.2, factor=5.0, noise=20, quality=30),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Given:
    """`y`: what the arms get, a hole in it filled smoothly; `reference`: the good picture, or None; both (side, side, 3) uint8. `notes`: what was done to
    the upload; `hole`: (side, side) bool, or None."""

    y: np.ndarray
    reference: np.ndarray | None
    notes: tuple[str, ...]
    hole: np.ndarray | None = None


def given(job: RestoreFace, side: int = faces.SIDE) -> Given:
    """The same for the same job, wherever it is made. `side`: the model's, a multiple of 64."""
    if job.image is None:
        raise BadInput("Add a picture of a face.")
    sliders = tuple(getattr(job, name) for name in AT_REST)
    mask = None if job.mask is None else np.packbits(job.mask.max(-1) >= PAINTED).tobytes()
    return _given(job.image.tobytes(), job.image.shape, sliders if job.degraded else None, job.seed, side, job.grey, mask)


@functools.lru_cache(8)  # the arms of a comparison and their figures ask for the same
def _given(data: bytes, shape: tuple[int, ...], sliders: tuple | None, seed: int, side: int, grey: bool, mask: bytes | None) -> Given:
    """`mask`: the painted pixels' bits, row by row."""
    image, notes, hole = np.frombuffer(data, np.uint8).reshape(shape), [], None
    box = face_finding.find(image)
    if box is None:
        picture = inputs.square(image, side)
        if shape[0] != shape[1]:
            notes.append("No face was found in the picture; its middle square is taken.")
    else:
        picture = inputs.square(image[box], side)
        if picture.shape[:2] != shape[:2] and box != np.s_[0 : shape[0], 0 : shape[1]]:
            notes.append(f"A face was found; the square of {box[1].stop - box[1].start} px around it is taken.")
    if min((image if box is None else image[box]).shape[:2]) < side:
        notes.append(f"What is worked on is smaller than the {side} px that the networks work at; it was enlarged.")
    if mask is not None:
        painted = np.unpackbits(np.frombuffer(mask, np.uint8), count=shape[0] * shape[1]).reshape(shape[:2]).astype(np.uint8) * 255
        hole = inputs.square(np.repeat((painted if box is None else painted[box])[..., None], 3, -1), side)[..., 0] >= PAINTED
        if not hole.any():
            raise BadInput("What is painted lies outside the part of the picture that is worked on; paint on the face, or cut the picture to it.")
        if hole.all():
            raise BadInput("All of the face is painted; leave some of it to go by.")
    if sliders is None and not grey and hole is None:
        return Given(picture, None, tuple(notes))
    y = picture
    if sliders is not None:
        with torch.no_grad():
            x = faces.degrade((from_uint8(y) + 1) / 2, faces.chosen(*sliders), torch.Generator().manual_seed(seed))
        y = as_uint8(x * 2 - 1)
    if grey:
        y = np.repeat((y @ np.array(LUMA)).round().astype(np.uint8)[..., None], 3, -1)
    if hole is not None:
        y = filled(y, hole)
    return Given(y, picture, tuple(notes), hole)


def filled(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the hole as the biharmonic equation continues what is around it: smooth, without any knowledge of faces."""
    from skimage.restoration import inpaint_biharmonic

    return (inpaint_biharmonic(pixels, hole, channel_axis=-1).clip(0, 1) * 255).round().astype(np.uint8)


class Face:
    """What an arm works on: `y` as the model's tensor, and how it answers."""

    def __init__(self, job: RestoreFace, model):
        self.given, self.grey, self.kept_as_given = given(job, model.side), job.grey, not job.degraded
        self.y = from_uint8(self.given.y, model.device)
        self.hole = None if self.given.hole is None else torch.from_numpy(self.given.hole)[None, None].to(model.device)

    def known(self, x: Tensor) -> Tensor:
        """x with what is known of the face put in: all around a hole, and the brightness of a grey picture. Where a slider is set, nothing is known for sure."""
        if not self.kept_as_given:
            return x
        fitting = self.y if not self.grey else x + ((self.y - x) * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if self.hole is None:
            return fitting if self.grey else x
        return torch.where(self.hole, x, fitting)

    def notes(self) -> Events:
        yield from map(Note, self.given.notes)

    def show(self, x: Tensor, caption: str = "") -> Image:
        """A picture of (1, 3, H, W) in [-1, 1]."""
        return Image(as_uint8(x), caption)

    def kept(self, x: Tensor) -> Image:
        """As a result: with what is known put in, and the degraded picture under the slider."""
        return Image(as_uint8(self.known(x)), "", self.given.y)

    def result(self, x: Tensor, aside: tuple[Media, ...] = ()) -> Result:
        if not torch.isfinite(x).all():
            raise BadInput("The face broke into values that are not numbers; take less noise or more steps.")
        return Result(self.kept(x), aside)
