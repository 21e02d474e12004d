"""Train a face prior: unconditional in pixels, or in latents and conditioned on what a face was made from.

    python -m backends.train.faces_prior --minutes 5                     # pixels; see faces_data.py for the order
    python -m backends.train.faces_prior --space latents --minutes 3

Both predict ε, T = 1000. Pixels: β linear from 1e-4 to 0.02 (iDDPM, arXiv 2102.09672, as DifFace has it; no learned variance). Latents:
Stable Diffusion's schedule, which InterLCM's timesteps are of. Losses weigh min(SNR, 5) on x0 (Hang et al., arXiv 2303.09556).

The latent prior's “prompt” is what an ImageNet network sees in the face (nets/face_prompt.py); one in ten is left out, for classifier-free
guidance. The generator's noise was tried first: after 238,000 samples a drawn face had a cosine of identity of 0.27 to the one asked for and 0.14
to others, since to follow it is to learn the generator.
"""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from backends.metrics import faces as judges
from backends.nets.face_prompt import WIDTH, prompt
from backends.nets.face_unet import FaceUNet
from backends.nets.patch_vae import PatchAutoencoderKL
from backends.train.common import MODELS, arguments, autocast, noise_like
from backends.train.faces_data import Faces
from backends.train.loop import begun, seed_of, train
from backends.worlds import faces
from backends.worlds.faces_build import sheet

PIXELS = dict(block_out_channels=(64, 128, 128), layers_per_block=2, attention=1)
LATENTS = dict(sample_size=16, in_channels=4, out_channels=4, block_out_channels=(80, 128), layers_per_block=1, norm_num_groups=16, cross_attention_dim=96,
               encoder_hid_dim=WIDTH, encoder_hid_dim_type="text_proj", down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
               up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(1, 2))  # fmt: skip
COMMON = dict(prediction_type="epsilon", clip_sample=False, timestep_spacing="trailing")
SCHEDULES = {"pixels": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear") | COMMON,
             "latents": dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear") | COMMON}  # fmt: skip
FOLDERS = {"pixels": "faces-pixels", "latents": "faces-ldm"}
GUIDANCE = 2.0


def predicted(net, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor | None, **more) -> torch.Tensor:
    """ε, in fp32."""
    with autocast(x.device.type):
        return (net(x, t) if context is None else net(x, t, encoder_hidden_states=context, **more)).sample.float()


def losses(net, bar: torch.Tensor, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, context=None) -> torch.Tensor:
    """(B,) squared errors of ε, a number each, unweighed."""
    a = bar[t].view(-1, 1, 1, 1)
    return (predicted(net, a.sqrt() * x0 + (1 - a).sqrt() * noise, t, context) - noise).square().mean((1, 2, 3))


@torch.no_grad()
def walked(net, schedule: dict, x: torch.Tensor, steps: int, context=None, scale: float = GUIDANCE, start: int = 1000, eta: float = 0.0) -> torch.Tensor:
    """DDIM from x at timestep `start` to 0; x0 is clipped in pixels, guided in latents."""
    scheduler = DDIMScheduler(**schedule | {"clip_sample": context is None})
    scheduler.set_timesteps(steps)
    for t in (t for t in scheduler.timesteps if t < start):
        both = t.expand(len(x)).to(x.device)
        eps = predicted(net, x, both, context)
        if context is not None and scale != 1:
            plain = predicted(net, x, both, torch.zeros_like(context))
            eps = plain + scale * (eps - plain)
        x = scheduler.step(eps, t, x, eta=eta).prev_sample
    return x


@torch.no_grad()
def encoded(vae, pictures: torch.Tensor) -> torch.Tensor:
    with autocast(pictures.device.type):
        return vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean.float() * vae.config.scaling_factor


@torch.no_grad()
def decoded(vae, z: torch.Tensor) -> torch.Tensor:
    with autocast(z.device.type):
        return vae.decode(z / vae.config.scaling_factor).sample.float().clamp(-1, 1)


def frozen_vae(device: str) -> PatchAutoencoderKL:
    vae = PatchAutoencoderKL.from_pretrained(MODELS / "faces-vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    return vae.to(device, memory_format=torch.channels_last)


def held_out(device: str, n: int = 64) -> torch.Tensor:
    """(n, 3, 64, 64): faces that training never draws."""
    return (faces.as_tensor(faces.kept()[:n]) * 2 - 1).to(device)


def likeness(pictures: torch.Tensor, to: torch.Tensor) -> dict:
    """How surely pictures are faces, and whose: mean confidence, mean cosine of identities to those asked for and to others."""
    cosines = judges.identity(pictures) @ judges.identity(to).T
    own = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    return {"confidence": round(float(judges.points(pictures)[0].mean()), 4), "identity": round(float(cosines[own].mean()), 3),
            "identity_of_others": round(float(cosines[~own].mean()), 3)}  # fmt: skip


def main() -> None:
    args = arguments("faces-prior", space="pixels", batch=0, lr=1.5e-3, ema=0.998)
    if args.out == MODELS / "faces-prior":
        args.out = MODELS / FOLDERS[args.space]
    gpu, device, latent, schedule = args.device != "cpu", args.device, args.space == "latents", SCHEDULES[args.space]
    args.batch = args.batch or ((512 if latent else 256) if gpu else 16)
    net, log = begun(UNet2DConditionModel if latent else FaceUNet, args.out, LATENTS if latent else PIXELS)
    vae = frozen_vae(device) if latent else None
    source, bar = Faces(device, seed_of(args, log)), DDIMScheduler(**schedule).alphas_cumprod.to(device)
    n, steps = (64, 50) if gpu else (8, 10)
    test = held_out(device, n)
    test_x = encoded(vae, test) if latent else test
    test_context = prompt(test) if latent else None

    def loss_of(net, average):
        x, context = source.draw(args.batch), None
        if torch.rand(()) < 0.5:
            x = x.flip(3)
        if latent:
            x, context = encoded(vae, x), prompt(x) * (torch.rand(len(x), 1, 1, device=device) > 0.1)
        t = torch.randint(1000, (len(x),), device=device)
        snr = bar[t] / (1 - bar[t])
        return (losses(net, bar, x.contiguous(memory_format=torch.channels_last), t, torch.randn_like(x), context) * snr.clamp_max(5) / snr).mean()

    def figures(net) -> dict:
        """Mean squared error of ε on held-out faces, by t."""
        with torch.no_grad():
            at = {t: losses(net, bar, test_x, torch.full((n,), t, device=device), noise_like(test_x, t), test_context).mean() for t in (50, 200, 400, 700)}
        found = {"held_out_loss": {str(t): round(float(loss), 4) for t, loss in at.items()}}
        if latent:
            found["asked_for"] = likeness(decoded(vae, walked(net, schedule, noise_like(test_x), 20, test_context)), test)
        return found

    def rows(net):
        """Held-out faces; what the prior draws: in pixels from noise and from the faces at t = 400, in latents by the faces' prompts and by none."""
        x = noise_like(test_x)
        if latent:
            asked, free = (decoded(vae, walked(net, schedule, x, steps, c, scale)) for c, scale in ((test_context, GUIDANCE), (0 * test_context, 1.0)))
            print("asked for:", likeness(asked, test), "not asked for:", likeness(free, test), flush=True)
            return sheet(torch.cat([part[:16] for part in (test, decoded(vae, test_x), asked, free)]), min(n, 16))
        free = walked(net, schedule, x, steps)
        a = bar[399]
        back = walked(net, schedule, a.sqrt() * test + (1 - a).sqrt() * x, steps, start=400)
        print("from noise:", likeness(free, test), "from t = 400:", likeness(back, test), flush=True)
        return sheet(torch.cat([part[:k] for part, k in ((test, 16), (free, 48), (back, 16))]), min(n, 16))

    DDIMScheduler(**schedule).save_pretrained(args.out)
    train(args, FOLDERS[args.space], net, log, loss_of, figures, rows)


if __name__ == "__main__":
    main()
