"""Distil the latent face prior into a latent consistency model (Luo et al., arXiv 2310.04378): faces in one to four evaluations.

    python -m backends.train.faces_lcm --minutes 2 [--fresh 1]    # needs faces-ldm and faces-vae; see faces_data.py for the order

As there: a jump of 20 timesteps by DDIM under the teacher, guided by a scale w that the student is told (its embedding of w − 1), a Huber
loss against the student's average at the earlier end. Drawn by diffusers' LCMScheduler.
"""

import torch
from diffusers import LCMScheduler, UNet2DConditionModel

from backends.nets.face_prompt import prompt
from backends.restore.consistency import SCALE_WIDTH, boundary, embedded
from backends.train.common import MODELS, arguments, noise_like
from backends.train.faces_data import Faces
from backends.train.faces_prior import GUIDANCE, LATENTS, SCHEDULES, decoded, encoded, frozen_vae, held_out, likeness, predicted
from backends.train.loop import begun, seed_of, train
from backends.worlds.faces_build import sheet

GUIDED = (1.0, 4.0)  # scales that the student is taught
SKIP = 20  # timesteps a jump: a grid of 50
SCHEDULE = {k: v for k, v in SCHEDULES["latents"].items() if k not in ("timestep_spacing", "clip_sample")} | dict(original_inference_steps=50)


def consistent(net, bar: torch.Tensor, z: torch.Tensor, t: torch.Tensor, context: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """f(z, t): the estimate of x0, which at t = 0 is z, as LCMScheduler's."""
    a = bar[t].view(-1, 1, 1, 1)
    return boundary(z, (z - (1 - a).sqrt() * predicted(net, z, t, context, timestep_cond=embedded(scale))) / a.sqrt(), t)


@torch.no_grad()
def drawn(net, z: torch.Tensor, context: torch.Tensor, steps: int, scale: float = GUIDANCE) -> torch.Tensor:
    """Latents in `steps` evaluations from noise."""
    scheduler, generator = LCMScheduler(**SCHEDULE), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    cond = embedded(torch.full((len(z),), scale, device=z.device))
    for t in scheduler.timesteps:
        eps = predicted(net, z, t.expand(len(z)).to(z.device), context, timestep_cond=cond).cpu()
        z, x0 = (part.to(context.device) for part in scheduler.step(eps, t, z.cpu(), generator=generator, return_dict=False))
    return x0


def main() -> None:
    args = arguments("faces-lcm", batch=0, lr=5e-4, ema=0.98, fresh=False)
    gpu, device = args.device != "cpu", args.device
    args.batch = args.batch or (512 if gpu else 8)
    teacher = UNet2DConditionModel.from_pretrained(MODELS / "faces-ldm", torch_dtype=torch.float32).eval().requires_grad_(False)
    net, log = begun(UNet2DConditionModel, args.out, LATENTS | dict(time_cond_proj_dim=SCALE_WIDTH), args.fresh)
    if not log["samples"]:
        net.load_state_dict(teacher.state_dict(), strict=False)
        torch.nn.init.zeros_(net.time_embedding.cond_proj.weight)
    teacher.to(device, memory_format=torch.channels_last)
    vae, source = frozen_vae(device), Faces(device, seed_of(args, log))
    scheduler = LCMScheduler(**SCHEDULE)
    bar = scheduler.alphas_cumprod.to(device)
    test = held_out(device, 64 if gpu else 8)
    test_z, test_context = encoded(vae, test), prompt(test)

    def loss_of(net, average):
        x = source.draw(args.batch)
        z0, context = encoded(vae, x), prompt(x) * (torch.rand(len(x), 1, 1, device=device) > 0.1)
        t = torch.randint(1, 1000 // SKIP + 1, (len(x),), device=device) * SKIP - 1
        before = (t - SKIP).clamp_min(0)
        scale = GUIDED[0] + (GUIDED[1] - GUIDED[0]) * torch.rand(len(x), device=device)
        a, b = (bar[at].view(-1, 1, 1, 1) for at in (t, before))
        z = (a.sqrt() * z0 + (1 - a).sqrt() * torch.randn_like(z0)).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            plain, asked = predicted(teacher, torch.cat([z, z]), torch.cat([t, t]), torch.cat([torch.zeros_like(context), context])).chunk(2)
            eps = plain + scale.view(-1, 1, 1, 1) * (asked - plain)
            earlier = b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
            target = consistent(average, bar, earlier, before, context, scale)
        off = consistent(net, bar, z, t, context, scale) - target
        return ((off.square() + 0.001**2).sqrt() - 0.001).mean()

    def figures(net) -> dict:
        """Of held-out faces asked for by their prompts, four evaluations and one: confidence of a detector, cosines of identities."""
        return {f"steps_{k}": likeness(decoded(vae, drawn(net, noise_like(test_z), test_context, k)), test) for k in (4, 1)}

    def rows(net):
        """Held-out faces, then what four, two and one evaluations draw of their prompts, then four of no prompt."""
        z = noise_like(test_z)
        made = [drawn(net, z, test_context, k) for k in (4, 2, 1)] + [drawn(net, z, 0 * test_context, 4, 1.0)]
        return sheet(torch.cat([part[:16] for part in (test, *(decoded(vae, m) for m in made))]), min(len(test), 16))

    scheduler.save_pretrained(args.out)
    train(args, "faces-lcm", net, log, loss_of, figures, rows)


if __name__ == "__main__":
    main()
