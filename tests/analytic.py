"""A Denoiser with the truth inside: a Gaussian mixture, whose x0 is known in closed form at every noise level."""

import types

import torch
from diffusers import DDIMScheduler

from backends.denoiser import Cond, Denoiser

SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)  # as Stable Diffusion's


class Posterior(torch.nn.Module):
    """The network: ε or v of a mixture with `means` (K, D) and standard deviation `std`, from E[x0 | x].

    The "text states" (B, 1, K) are the components' weights, so that a condition is a choice of weights.
    """

    def __init__(self, means, std, scheduler):
        super().__init__()
        self.means, self.std, self.scheduler = means.double(), std, scheduler
        self.config = types.SimpleNamespace(in_channels=means.shape[1])

    def forward(self, sample, timestep, encoder_hidden_states):
        x = sample.flatten(1).double()
        bar = self.scheduler.alphas_cumprod[timestep].double()
        alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
        variance = alpha**2 * self.std**2 + sigma**2
        away = x[:, None] - alpha * self.means  # (B, K, D)
        responsibility = torch.softmax(encoder_hidden_states[:, 0].double().log() - away.square().sum(-1) / (2 * variance), 1)
        x0 = (responsibility[..., None] * (self.means + alpha * self.std**2 / variance * away)).sum(1)
        out = (x - alpha * x0) / sigma if self.scheduler.config.prediction_type == "epsilon" else (alpha * x - x0) / sigma
        return types.SimpleNamespace(sample=out.float().view_as(sample))


def mixture(means, std, prediction="epsilon", zero_snr=False) -> Denoiser:
    """A genuine Denoiser around the truth; states are (B, D, 1, 1)."""
    scheduler = DDIMScheduler(**SCHEDULE, prediction_type=prediction, rescale_betas_zero_snr=zero_snr)
    return Denoiser(types.SimpleNamespace(), Posterior(means, std, scheduler), None, scheduler, None)


def weights(*w) -> Cond:
    return Cond("", torch.tensor([[w]], dtype=torch.float64))


def start(n, dim, seed=0):
    return torch.randn(n, dim, 1, 1, generator=torch.Generator().manual_seed(seed))
