"""The three networks that clean speech, behind one face, and a sound of any length cut into what they take.

Warped complex spectrograms are (B, 2, 256, frames), a row a chunk of the sound; see nets/spectrogram_unet.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import torch
from backends.models import ASSETS, Card, device
from backends.sound import resample
from backends.spec import Audio, BadInput

if TYPE_CHECKING:
    from torch import Tensor

RATE = 16_000
LONGEST, OVERLAP = 8 * RATE, RATE // 2  # samples of a chunk, and of the cross-fade between two
PARTS = ("predictive", "sgmse", "storm")


class SpeechModel:
    """`nfe` counts function evaluations at the networks, the predictive one too, one a row of their batch.

    `factor`: what warped spectrograms are multiplied by (0: the embedded networks'); `multiple`: of how many frames they must be.
    """

    def __init__(self, card: Card, nets: dict, where: str = "cpu", factor: float = 0.0, multiple: int = 0):
        from backends.nets.spectrogram_unet import MULTIPLE, SCALE

        self.card, self.net, self.device, self.nfe = card, torch.nn.ModuleDict(nets), where, 0
        self.factor, self.multiple = factor or SCALE, multiple or MULTIPLE
        for net in self.net.values():
            net.register_forward_pre_hook(self._count)

    def _count(self, _module, args):
        self.nfe += len(args[0])

    def denoise(self, y: Tensor) -> Tensor:
        """D(y): the predictive network's estimate."""
        return self.net["predictive"].denoise(y)

    def score(self, part: str, x: Tensor, t: Tensor, *beside: Tensor) -> Tensor:
        """∇ log p_t(x) given the spectrograms beside it, the process's centre the last of them."""
        return self.net[part].score(x, t, *beside)


class Chunks:
    """A sound at 16 kHz as equal overlapping chunks, each brought to a peak of 1 (officially the whole sound is): `y`, their spectrograms as the model takes them."""

    def __init__(self, sound: Audio, model: SpeechModel):
        from backends.nets.spectrogram_unet import HOP, analyse

        samples = resample(sound.samples, sound.rate, RATE)
        self.length = len(samples)
        n = max(1, math.ceil((self.length - OVERLAP) / (LONGEST - OVERLAP)))
        frames = math.ceil(math.ceil((self.length + (n - 1) * OVERLAP) / n) / HOP) + 1
        self.factor, self.size = model.factor, (math.ceil(frames / model.multiple) * model.multiple - 1) * HOP
        self.starts = [i * (self.size - OVERLAP) for i in range(n)]
        padded = np.pad(samples, (0, self.starts[-1] + self.size - self.length))
        rows = torch.from_numpy(np.stack([padded[s : s + self.size] for s in self.starts]))
        self.peaks = rows.abs().amax(1, keepdim=True).clamp_min(1e-4)  # what is stiller counts as silence
        self.y = analyse((rows / self.peaks).to(model.device), self.factor)

    def join(self, spectrograms: Tensor, caption: str = "") -> Audio:
        """The sound of (B, 2, 256, frames), neighbours faded into each other."""
        from backends.nets.spectrogram_unet import synthesise

        rows = (synthesise(spectrograms, self.size, self.factor).cpu() * self.peaks).numpy()
        if not np.isfinite(rows).all():
            raise BadInput("The sound broke into values that are not numbers; lower snr or take more steps.")
        ramp = (np.arange(OVERLAP, dtype=np.float32) + 0.5) / OVERLAP
        joined = np.zeros(self.starts[-1] + self.size, np.float32)
        for i, (start, row) in enumerate(zip(self.starts, rows, strict=True)):
            if i:
                row[:OVERLAP] *= ramp
            if i < len(rows) - 1:
                row[-OVERLAP:] *= 1 - ramp
            joined[start : start + self.size] += row
        return Audio(joined[: self.length].clip(-1, 1), RATE, caption)


def load_embedded(card: Card) -> SpeechModel:
    from backends.nets.spectrogram_unet import SpectrogramUNet

    where = device()
    nets = {part: SpectrogramUNet.from_pretrained(ASSETS / card.source / part, torch_dtype=torch.float32) for part in PARTS}
    for net in nets.values():
        net.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    model = SpeechModel(card, nets, where)
    model.denoise(torch.zeros(1, 2, 256, 16, device=where))  # kernels are chosen now, not in the first arm's time
    model.nfe = 0
    return model
