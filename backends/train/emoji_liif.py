"""Train the emoji world's decoder for any size (first stage of arXiv 2403.10255): latents of a scene at 128 px, pixels of the same scene drawn at another size.

    python -m backends.train.emoji_liif --minutes 10

Scenes are drawn and encoded once a sitting, `--pool` of them: on two cores that is what a step would cost. The autoencoder is frozen; so is the denoiser, whose alignment through this decoder (the paper's last stage) is not done.
"""

import numpy as np
import torch
from torch.nn import functional as F

from backends.nets.emoji_liif import EmojiLiif, resized
from backends.nets.patch_vae import PatchAutoencoderKL
from backends.train.common import MODELS, arguments
from backends.train.loop import begun, seed_of, train
from backends.train.sr_teacher import sheet
from backends.worlds import emoji

SIZES, POINTS, TEST = (64, 96, 128, 192, 256, 320), 1024, (64, 192, 256, 384)


def drawn(scenes, side: int) -> torch.Tensor:
    """(n, 3, side, side) in [-1, 1]."""
    return torch.from_numpy(np.stack([emoji.render(s, side) for s in scenes])).permute(0, 3, 1, 2).float() / 127.5 - 1


def at_spots(x: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """(B, Q, 3) pixels of (B, 3, n, n) at `spots` (B, Q, 2), rows and columns."""
    return x.flatten(2).gather(2, (spots[..., 0] * x.shape[-1] + spots[..., 1])[:, None].expand(-1, 3, -1)).transpose(1, 2)


def main() -> None:
    args = arguments("emoji-ldm/liif", batch=16, lr=3e-3, ema=0.99, pool=160)
    net, log = begun(EmojiLiif, args.out, {})
    vae = PatchAutoencoderKL.from_pretrained(MODELS / "emoji-ldm/vae", torch_dtype=torch.float32).eval().requires_grad_(False).to(args.device)
    rng, held = np.random.default_rng(seed_of(args, log)), np.random.default_rng(emoji.HELD_OUT_SEED)

    @torch.no_grad()
    def read(scenes):
        """(what the perceptron reads of them at 128 px, what the plain decoder draws)."""
        heads, pictures = [], []
        for x in drawn(scenes, emoji.SIDE).to(args.device).split(8):
            head = F.silu(vae.decoder.conv_norm_out(vae.trunk(vae.encode(x).latent_dist.mean * vae.config.scaling_factor)))
            heads.append(head), pictures.append(F.pixel_shuffle(vae.decoder.conv_out(head), vae.patch))
        return torch.cat(heads), torch.cat(pictures)

    def asked(plain, wanted, generator=None):
        """(places, pixel's size, what the plain decoder draws there, what the scene shows there) of pictures, the second at the size asked for."""
        size = wanted.shape[-1]
        spots = torch.randint(size, (len(plain), POINTS, 2), generator=generator).to(plain.device)
        cell = torch.full((2,), 2 / size, device=plain.device)
        return (2 * spots.float() + 1) / size - 1, cell, at_spots(resized(plain, (size, size)), spots), at_spots(wanted, spots)

    test, fixed = [emoji.sample(held, True) for _ in range(24)], torch.Generator().manual_seed(0)
    test_head, test_plain = read(test)
    tests = {n: asked(test_plain, drawn(test, n).to(args.device), fixed) for n in TEST}
    pool = [emoji.sample(rng, False, counts=(0.45, 0.25, 0.15, 0.15)) for _ in range(args.pool)]
    head, plain = read(pool)
    targets = {n: (127.5 * (drawn(pool, n) + 1)).round().byte() for n in SIZES}

    def loss_of(net, average):
        some, size = torch.from_numpy(rng.choice(len(pool), args.batch)), int(rng.choice(SIZES))
        at, cell, before, wanted = asked(plain[some], (targets[size][some].float() / 127.5 - 1).to(plain))
        off = net.query(net.first(head[some]), at, cell) - (wanted - before)
        return off.abs().mean() + off.square().mean()

    @torch.no_grad()
    def solve(net, rounds: int = 18, ridge: float = 1e-5) -> None:
        """The last layer by least squares: its answer is linear in it, the four neighbours' shares included. A start worth minutes of steps."""
        last, net.rest[-1] = net.rest[-1], torch.nn.Identity()
        left, right = 0, 0
        for i in range(rounds):
            some, size = torch.from_numpy(rng.choice(len(pool), args.batch)), SIZES[i % len(SIZES)]
            at, cell, before, wanted = asked(plain[some], (targets[size][some].float() / 127.5 - 1).to(plain))
            h = F.pad(net.query(net.first(head[some]), at, cell), (0, 1), value=1.0).flatten(0, 1).double()
            left, right = left + h.mT @ h / len(h), right + h.mT @ (wanted - before).flatten(0, 1).double() / len(h)
        net.rest[-1] = last
        w = torch.linalg.solve(
            left / rounds + ridge * left.diagonal().mean() / rounds * torch.eye(len(left), device=left.device).double(), right / rounds
        ).float()
        last.weight.copy_(w[:-1].mT), last.bias.copy_(w[-1])

    @torch.no_grad()
    def figures(net) -> dict:
        """PSNR in dB on 24 held-out scenes, over POINTS pixels of each, of this decoder and of the plain one brought to size, against the scene drawn at that size."""
        found = {}
        for n, (at, cell, before, wanted) in tests.items():
            made = before + net.query(net.first(test_head), at, cell)
            mse = [((x.clamp(-1, 1) - wanted) / 2).square().mean((1, 2)) for x in (made, before)]
            found[str(n)] = dict(zip(("liif", "plain"), (round(float(-10 * m.log10().mean()), 2) for m in mse)))
        return {"psnr_db": found}

    @torch.no_grad()
    def rows(net):
        made = resized(test_plain[:4], (256, 256)) + net.asked(net.first(test_head[:4]), (256, 256))
        return sheet([resized(test_plain[:4], (256, 256)), made, drawn(test[:4], 256).to(made)], 4)

    if not log["samples"]:
        solve(net)
        print(figures(net), flush=True)
    train(args, "emoji-ldm/liif", net, log, loss_of, figures, rows)


if __name__ == "__main__":
    main()
