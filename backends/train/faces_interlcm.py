"""Train InterLCM's visual and spatial encoder (arXiv 2502.02215) over the frozen latent consistency model.

    python -m backends.train.faces_interlcm --minutes 3    # needs faces-ldm, faces-lcm and faces-vae; see faces_data.py for the order

L1, half of LPIPS-like (whose values are larger than LPIPS) and after two thirds of the time 0.1 × the hinge loss of a discriminator, all on decoded pictures: gradients flow back through the
autoencoder and through every step. One pair of encoders serves both numbers of steps; the paper trains one for each.
"""

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional as F

from backends.metrics import perceptual
from backends.nets.face_encoders import FaceEncoders
from backends.nets.face_prompt import prompt
from backends.restore.consistency import boundary, embedded, timesteps, walk
from backends.train.common import MODELS, Clock, arguments, autocast
from backends.train.faces_data import Faces
from backends.train.faces_lcm import SCHEDULE
from backends.train.faces_prior import GUIDANCE, encoded, frozen_vae, held_out, likeness
from backends.train.faces_restorer import degraded, psnr
from backends.train.loop import begun, seed_of, train
from backends.worlds import faces
from backends.worlds.faces_build import sheet

TIMES = {steps: timesteps(steps)[1:] for steps in (2, 4)}  # the first step is the picture itself


def discriminator() -> nn.Module:
    """(B, 3, 64, 64) to a map of scores: how real a patch looks."""
    norm, widths = nn.utils.parametrizations.spectral_norm, (3, 48, 96, 192)
    layers = [part for a, b in zip(widths, widths[1:]) for part in (norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers, norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))


class Drawing:
    """The frozen networks, and how a degraded picture becomes a face with encoders beside them; differentiable in the encoders."""

    def __init__(self, device: str):
        self.device, self.vae = device, frozen_vae(device)
        self.lcm = UNet2DConditionModel.from_pretrained(MODELS / "faces-lcm", torch_dtype=torch.float32).eval().requires_grad_(False)
        self.lcm.to(device, memory_format=torch.channels_last)
        from diffusers import LCMScheduler

        self.bar = LCMScheduler(**SCHEDULE).alphas_cumprod.to(device)

    def __call__(self, net: FaceEncoders, y: torch.Tensor, steps: int, generator=None) -> torch.Tensor:
        """(B, 3, 64, 64) from y of that shape, both in [-1, 1], in steps − 1 evaluations."""
        z, tokens = encoded(self.vae, y), prompt(y)
        w = embedded(torch.full((len(y),), GUIDANCE, device=self.device))
        with autocast(self.device):
            context = net.context(tokens)

        def f(z, t):
            at = torch.full((len(z),), t, device=z.device)
            with autocast(self.device):
                down, middle = net.residuals(z, at, self.lcm.encoder_hid_proj(context), y)
                eps = self.lcm(
                    z, at, encoder_hidden_states=context, timestep_cond=w, down_block_additional_residuals=down, mid_block_additional_residual=middle
                )
            a = self.bar[t]
            return boundary(z, (z - (1 - a).sqrt() * eps.sample.float()) / a.sqrt(), t)

        noise = lambda: torch.randn(z.shape, device=z.device, generator=generator)  # noqa: E731
        *_, (_, x0) = walk(z, TIMES[steps], self.bar, noise, f)
        with autocast(self.device):
            return self.vae.decode(x0 / self.vae.config.scaling_factor).sample.float()


def main() -> None:
    args = arguments("faces-interlcm", batch=0, lr=5e-4, ema=0.997, adversary=0.1, lpips=0.5, fresh=False)
    gpu, device = args.device != "cpu", args.device
    args.batch = args.batch or (128 if gpu else 4)
    drawing = Drawing(device)
    ldm = UNet2DConditionModel.from_pretrained(MODELS / "faces-ldm", torch_dtype=torch.float32)
    start = FaceEncoders.of(ldm)
    net, log = begun(FaceEncoders, args.out, {"control": dict(start.config.control)}, args.fresh)
    if not log["samples"]:
        net = start
    critic = discriminator().to(device)
    judge = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.99))
    source, clock = Faces(device, seed_of(args, log)), Clock(args.minutes)
    x_test = held_out(device, 64 if gpu else 4)
    tests = {"held_out": degraded(x_test, faces.TRAINED, 0), "harder": degraded(x_test, faces.HARDER, 0)}

    def loss_of(net, average):
        x = source.draw(args.batch)
        x = x.flip(3) if torch.rand(()) < 0.5 else x
        y = degraded(x).contiguous(memory_format=torch.channels_last)
        made = drawing(net, y, 4 if torch.rand(()) < 0.5 else 2)
        loss = F.l1_loss(made, x) + args.lpips * perceptual.distance(made, x).mean()
        if clock.seconds > clock.budget * 0.6:
            with autocast(device):
                wrong = F.relu(1 + critic(made.detach())).mean() + F.relu(1 - critic(x)).mean()
            judge.zero_grad(), wrong.backward(), judge.step()
            with autocast(device):
                loss = loss - args.adversary * critic(made).float().mean() * (clock.seconds > clock.budget * 2 / 3)
        return loss

    @torch.no_grad()
    def drawn(net, y, steps):
        return drawing(net, y, steps, torch.Generator(device).manual_seed(0)).clamp(-1, 1)

    def figures(net) -> dict:
        """PSNR in dB, LPIPS-like and likeness of the kept faces, degraded as in training and harder, from three evaluations and one."""
        found = {}
        for name, y in tests.items():
            for steps in TIMES:
                made = drawn(net, y, steps)
                with torch.no_grad():
                    far = float(perceptual.distance(made, x_test).mean())
                found[f"{name}_{steps - 1}"] = {"db": round(psnr(made, x_test), 2), "lpips_like": round(far, 4)} | likeness(made, x_test)
        return found

    def rows(net):
        """For both kinds of degradation: degraded faces, three evaluations, one, the faces."""
        return sheet(torch.cat([p[:16] for y in tests.values() for p in (y, drawn(net, y, 4), drawn(net, y, 2), x_test)]), min(16, len(x_test)))

    train(args, "faces-interlcm", net, log, loss_of, figures, rows)


if __name__ == "__main__":
    main()
