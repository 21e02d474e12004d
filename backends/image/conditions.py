"""What a picture to be made must agree with: a known part, its brightness, a small version of it, or all at once.

Each is a linear map of the pixels, so one Given holds them together: `observe` is A, `back` its pseudo-inverse
A⁺ (A·A⁺ = 1 on what is observed), and x + A⁺(y − A·x) is the nearest picture that agrees exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backends import inputs
from backends.denoiser import as_uint8, from_uint8
from backends.lazy import F, torch
from backends.spec import BadInput, Image

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the Y of YCbCr
PAINTED = 128  # a mask's pixel counts as painted from here on


class Given:
    """The conditions of an EditImage job at the model's size. Pixels are (B, 3, H, W) in [-1, 1]."""

    def __init__(self, job, model):
        if job.image is None:
            raise BadInput("Add a picture to condition on.")
        self.side, self.scale = model.side, int(job.enlarge) if job.enlarge != "off" else 1
        self.grey, self.prompt = job.colour, job.prompt
        self.picture = from_uint8(inputs.square(job.image, self.side), model.device)
        self.known = torch.ones(1, 1, self.side, self.side, device=model.device)
        if job.fill:
            self.known = 1 - from_painted(job.mask, job.image, self.side).to(model.device)
        elif not (job.colour or self.scale > 1 or job.prompt):
            raise BadInput("Nothing is asked: switch on fill, colour or enlarge, or write a prompt.")
        if self.scale > 1:  # a cell of the small picture is known where all its pixels are
            self.known = (F.avg_pool2d(self.known, self.scale) > 0.999).float()
        if not self.known.any():
            raise BadInput("Everything is painted; leave some of the picture to go by.")
        # With no condition on pixels only the prompt steers.
        self.linear = job.fill or job.colour or self.scale > 1
        self.target = self.observe(self.picture)
        self._aim = None
        self.count = self.known.sum() * self.target.shape[1]

    def observe(self, pixels: Tensor) -> Tensor:
        """A: the known cells of the small, grey or whole picture; zero elsewhere."""
        if self.grey:
            pixels = (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if self.scale > 1:
            pixels = F.avg_pool2d(pixels, self.scale)
        return pixels * self.known

    def back(self, seen: Tensor) -> Tensor:
        """A⁺: every pixel of a cell alike, every channel alike where only brightness is seen (chroma stays)."""
        if self.scale > 1:
            seen = F.interpolate(seen, scale_factor=self.scale, mode="nearest")
        return seen.expand(-1, 3, -1, -1)

    def replaced(self, pixels: Tensor) -> Tensor:
        return pixels + self.back(self.target - self.observe(pixels))

    def loss(self, pixels: Tensor) -> Tensor:
        """Mean squared error of what is observed, (B,), for values in [0, 1]."""
        return (self.observe(pixels) - self.target).square().sum((1, 2, 3)) / self.count / 4

    def aim(self, model) -> Tensor:
        """The loss of what is given once encoded and decoded: what can be hoped for, known without the hidden part."""
        if self._aim is None:
            self._aim = self.loss(model.to_pixels(model.to_latents(self.back(self.target))).clamp(-1, 1))
        return self._aim

    def floor(self, model) -> Tensor:
        """The loss of the whole true picture once encoded and decoded; for reports only, it knows what is hidden."""
        return self.loss(model.to_pixels(model.to_latents(self.picture)).clamp(-1, 1))

    def shown(self) -> Image:
        """What the method is given, mid-grey where nothing is known."""
        return Image(as_uint8(self.back(self.target)), "given")


def from_painted(mask: np.ndarray | None, image: np.ndarray, side: int) -> Tensor:
    """(1, 1, side, side): 1 where the mask is painted; raises BadInput when there is nothing or not of the picture's size."""
    if mask is None:
        raise BadInput("Paint the part that is to be made anew, or switch fill off.")
    if mask.shape[:2] != image.shape[:2]:
        raise BadInput(f"The mask is {mask.shape[1]}×{mask.shape[0]} px and the picture {image.shape[1]}×{image.shape[0]}; paint it on this picture.")
    painted = inputs.square(mask, side).max(-1) >= PAINTED
    if not painted.any():
        raise BadInput("The mask is empty; paint the part that is to be made anew, or switch fill off.")
    return torch.from_numpy(painted.astype(np.float32))[None, None]
