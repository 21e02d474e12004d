"""Train the preview decoder: a millisecond's worth of convolutions from latents to pixels.

python -m backends.train.emoji_preview --minutes 2
"""

import json

import numpy as np
import torch

from backends.nets.patch_vae import PatchAutoencoderKL
from backends.nets.preview import PreviewDecoder
from backends.train.common import MODELS, Clock, Ema, arguments, autocast, save_pretrained
from backends.train.emoji_vae import scenes
from backends.worlds import emoji


def main() -> None:
    args = arguments("emoji-ldm/preview", batch=32, lr=2e-3)
    vae = PatchAutoencoderKL.from_pretrained(MODELS / "emoji-ldm/vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    net = PreviewDecoder.from_pretrained(args.out, torch_dtype=torch.float32) if (args.out / "config.json").exists() else PreviewDecoder()
    for part in (vae, net):
        part.to(args.device, memory_format=torch.channels_last)
    optimiser, ema, clock = torch.optim.AdamW(net.parameters(), lr=args.lr, fused=True), Ema(net, 0.99), Clock(args.minutes)

    def batch(rng, n, **kw):
        x = scenes(rng, n, **kw).to(args.device, memory_format=torch.channels_last)
        with torch.no_grad(), autocast(args.device):
            return vae.encode(x).latent_dist.mean.float() * vae.config.scaling_factor, x

    rng = np.random.default_rng([args.seed, 7])
    z_test, x_test = batch(np.random.default_rng(emoji.HELD_OUT_SEED), 128, held_out=True)
    while not clock.over:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * (1 - clock.seconds / clock.budget)
        z, x = batch(rng, args.batch)
        # Predictions early in a run are smooth and off the data: a little noise keeps the decoder calm there.
        with autocast(args.device):
            out = net(z + 0.1 * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z))
        loss = (out.float() - x).abs().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        ema.update(net)
    with torch.no_grad():
        mse = ((ema.net(z_test).clamp(-1, 1) - x_test) / 2).square().mean((1, 2, 3))
    save_pretrained(ema.net.cpu(), args.out)
    print(json.dumps({"psnr_db": round(float((-10 * mse.log10()).mean()), 2)}))


if __name__ == "__main__":
    main()
