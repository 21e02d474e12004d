"""A singing model small enough for tests: the real classes, random weights, boundary figures as after training."""

import dataclasses

import numpy as np
import torch

from backends import models
from backends.audio.singer import STEPS, Singer
from backends.nets.diffsinger import SingerAcoustic, SingerDenoiser
from backends.nets.hn_vocoder import HarmonicNoiseVocoder

VALIDATION = {"error": 0.01, "square": 0.3, "gap": np.linspace(1, 0, STEPS)[None].tolist()}


def tiny(seed: int = 0, zero: bool = False) -> Singer:
    """`zero`: leave the denoiser's last layer at the zeros it begins with."""
    torch.manual_seed(seed)
    acoustic = SingerAcoustic(dim=16, hidden=16, encoder_layers=1, decoder_layers=1)
    denoiser, vocoder = SingerDenoiser(condition=16, channels=16, layers=2), HarmonicNoiseVocoder(channels=16, layers=1)
    if not zero:
        torch.nn.init.normal_(denoiser.output.weight, std=0.1)
    for net in (acoustic, denoiser, vocoder):
        net.eval().requires_grad_(False)
    card = models.get("singer")
    return Singer(dataclasses.replace(card), acoustic, denoiser, vocoder, VALIDATION)
