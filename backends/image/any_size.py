"""Arbitrary-scale generation (arXiv 2403.10255): latents of one size, drawn from a prompt, decoded at any."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

from backends.denoiser import as_uint8
from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.lazy import torch
from backends.models import ASSETS
from backends.registry import method
from backends.spec import Choice, Events, Guidance, Image, Images, Result, Slider, Steps

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FOLDER = ASSETS / "emoji-ldm" / "liif"
DECODERS = ("implicit", "plain, then bicubic")
ZOOMS, WINDOW = (1, 2, 4, 8), 192  # times the latents' picture; px of its middle that are shown of each


@functools.cache
def decoder():
    """The implicit decoder, a quarter of a megabyte, on the CPU."""
    from backends.nets.emoji_liif import EmojiLiif

    return EmojiLiif.from_pretrained(FOLDER, torch_dtype=torch.float32).eval().requires_grad_(False)


class AnySize:
    """Latents (1, C, h, w) of a model, read once and asked for any part of a picture of any size."""

    def __init__(self, model, z: Tensor, implicit: bool):
        net = decoder().to(model.device)
        self.net, self.implicit, self.side = net, implicit, model.side
        self.plain, self.features = net.read(model.vae, z[:1])

    def pixels(self, times: float, window: int = 0) -> np.ndarray:
        """(n, n, 3) uint8, n the model's side `times` over; with `window`, that many px of the middle at most."""
        from backends.nets.emoji_liif import resized
        from backends.nets.sr_decoders import grid

        n = max(8, round(times * self.side))
        low, most = (max(0, (n - window) // 2), min(n, window)) if window else (0, n)
        part = slice(low, low + most)
        x = resized(self.plain, (n, n))[..., part, part]
        if self.implicit:
            at = grid((n, n), x.device).unflatten(1, (n, n))[:, part, part].flatten(1, 2)
            cell = torch.full((2,), 2 / n, device=x.device)
            added = torch.cat([self.net.query(self.features, some, cell) for some in at.split(65_536, 1)], 1)
            x = x + added.transpose(1, 2).unflatten(2, (most, most))
        return as_uint8(x)


def any_size(
    job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0,
    times: Annotated[float, Slider(0.5, 8, 0.1, unit="times", help="the picture's side for the model's 128 px")] = 4.0,
    by: Annotated[str, Choice(DECODERS, help="what decodes the latents; the second is what it is compared with")] = DECODERS[0],
) -> Events:  # fmt: skip
    """Arbitrary-scale generation.

    The picture is drawn once, as latents of one size; a decoder that answers for any point turns them into any number of pixels. All sizes show one
    picture, and what the diffusion costs does not grow with them.

    Kim & Kim, arXiv 2403.10255, section 3.2 and their generation experiments; as in “Enlarge a picture”, whose paper it is. Where we differ: the
    perceptron (LIIF: four neighbours' features with relative place and pixel size, weighed by area) reads the plain decoder's last features, 32×32 of
    them, and adds to what that decoder draws, brought to size; scenes drawn at 64 to 320 px train it (train/emoji_liif.py);
    the denoiser was not trained on through it (their alignment stage). Beyond 320 px no size was trained on.
    """
    drawn: list[AnySize] = []

    def picture(z):
        model.picture(z)  # refuses what is not finite
        drawn.append(AnySize(model, z, by == DECODERS[0]))
        return drawn[0].pixels(times)

    with closing(sample(job, model, steps=steps, guide=Guided(scale), stack=stack, picture=picture)) as events:
        for event in events:
            if isinstance(event, Result):
                zooms = Images(tuple(Image(drawn[0].pixels(f, WINDOW), f"×{f}") for f in ZOOMS))
                event = dataclasses.replace(event, aside=(*event.aside, zooms))
            yield event


if FOLDER.exists():  # not trained yet: the first half CPU minute of emoji_liif brings nothing over the plain decoder, brought to size by bicubic interpolation
    method("any_size", task=TEXT_TO_IMAGE, needs={"image", "emoji"}, holds={"patch", "wrap", "walk"}, paper=False)(any_size)
