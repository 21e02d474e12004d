"""MoE-SR: experts of the time and the space predict held-out noise better than one UNet of their size, and the Fourier block brings detail back.

On crops of scikit-image's photographs, which no training saw, made four times smaller. Claims of the paper as inequalities. Its identities stand in
tests/test_upscale.py.
"""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from measure import interval
from measure_upscale import drawn, figures, jobs, originals

from backends import models
from backends.denoiser import from_uint8
from backends.restore.latent_sr import SCHEDULE
from backends.restore.moe_sr import EXPERTS, stage
from backends.restore.upscale_task import given, resized

N, TIMES = 32, range(25, 1000, 50)


@pytest.mark.proof
def test_experts_and_frequencies(proof):
    proof.models = ["sr"]
    model, asked = models.load("photos-sr"), jobs(proof.seed, N)
    x, low = originals(asked), torch.cat([from_uint8(resized(given(job).small, given(job).size)) for job in asked])
    vae, bar = model.net["vae"], DDIMScheduler(**SCHEDULE).alphas_cumprod
    losses = {"experts": [], "one UNet": []}  # (timesteps, N) each
    with torch.no_grad():
        z = vae.latents(x)
        for t in TIMES:
            noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(proof.seed * 1000 + t))
            at = torch.full((N,), t)
            noisy = bar[t].sqrt() * z + (1 - bar[t]).sqrt() * noise
            for name, net in (("experts", model.net[f"stage{stage(t)}"]), ("one UNet", model.net["single"])):
                off = torch.cat([net(a, b, c) for a, b, c in zip(noisy.split(16), at.split(16), low.split(16))]) - noise
                losses[name].append(off.square().mean((1, 2, 3)).numpy())
        plain = torch.cat([vae.pixels(part) for part in z.split(8)]).clamp(-1, 1)
        fine = torch.cat([model.net["fa"](vae, part) for part in z.split(8)]).clamp(-1, 1)
    one, many = (np.stack(losses[name]) for name in ("one UNet", "experts"))
    for begin in range(0, 1000, 250):
        rows = [i for i, t in enumerate(TIMES) if begin <= t < begin + 250]
        share = 1 - many[rows].mean(0) / one[rows].mean(0)
        band = interval(share)
        proof.state(f"share by which the expert of timesteps {begin} to {begin + 249} lowers the error of held-out noise (low end of the 95 % interval; mean {share.mean():.4f})",
                    band[0], ">", 0, baseline=float(one[rows].mean()), n=N, interval=band)  # fmt: skip

    found = {"plain decoder": figures(plain, x), "refined": figures(fine, x)}
    found["LDM, plain"] = figures(drawn(model, "moe_sr", asked, experts=EXPERTS[1], refine=False), x)
    found["MoE, refined"] = figures(drawn(model, "moe_sr", asked), x)

    def gain(one: str, other: str, figure: str, sign: int = 1) -> None:
        a, b = found[one][figure], found[other][figure]
        band = interval(sign * (a - b))
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", 0, baseline=float(b.mean()), n=N, interval=band)

    gain("refined", "plain decoder", "PSNR")
    gain("refined", "plain decoder", "|ln high band|", -1)
    gain("refined", "plain decoder", "LPIPS-like", -1)
    gain("MoE, refined", "LDM, plain", "PSNR")
    gain("MoE, refined", "LDM, plain", "LPIPS-like", -1)
    proof.close()
