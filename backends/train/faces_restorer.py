"""Train the restorer of faces: from a degraded picture to a clean one by L1 alone, as DifFace's (arXiv 2212.06512, section 4.1).

    python -m backends.train.faces_restorer --minutes 1    # see faces_data.py for the order

It stands where DifFace's 16 M SwinIR stands: what such a network answers is sharp where the picture says so and soft elsewhere.
"""

import torch
from torch.nn import functional as F

from backends.nets.face_unet import FaceUNet
from backends.train.common import arguments, autocast
from backends.train.faces_data import Faces
from backends.train.loop import begun, seed_of, train
from backends.worlds import faces
from backends.worlds.faces_build import sheet

CONFIG = dict(block_out_channels=(64, 96, 96), layers_per_block=1, attention=0)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures in [-1, 1] of the PSNR in dB."""
    return float((-10 * ((a - b) / 2).square().mean((1, 2, 3)).log10()).mean())


def degraded(pictures: torch.Tensor, ranges=faces.TRAINED, seed: int | None = None) -> torch.Tensor:
    """(B, 3, 64, 64) in [-1, 1], each degraded at random."""
    one, other = (None, None) if seed is None else (torch.Generator().manual_seed(seed), torch.Generator(pictures.device).manual_seed(seed))
    return faces.degrade((pictures + 1) / 2, faces.harm(len(pictures), ranges, one), other) * 2 - 1


def main() -> None:
    args = arguments("faces-restorer", batch=0, lr=2e-3, ema=0.998)
    args.batch = args.batch or (512 if args.device != "cpu" else 16)
    net, log = begun(FaceUNet, args.out, CONFIG)
    source = Faces(args.device, seed_of(args, log))
    clean = faces.as_tensor(faces.kept()).to(args.device) * 2 - 1
    tests = {"held_out": degraded(clean, faces.TRAINED, 0), "harder": degraded(clean, faces.HARDER, 0)}

    def loss_of(net, average):
        x = source.draw(args.batch)
        y = degraded(x).contiguous(memory_format=torch.channels_last)
        with autocast(args.device):
            added = net(y, 0).sample
        return F.l1_loss(y + added.float(), x)

    @torch.no_grad()
    def restored(net, y):
        with autocast(args.device):
            return net.restore(y).float()

    def figures(net) -> dict:
        """PSNR in dB of the degraded and the restored kept faces."""
        return {f"{name}_{what}_db": round(psnr(x, clean), 2) for name, y in tests.items() for what, x in (("degraded", y), ("restored", restored(net, y)))}

    def rows(net):
        return sheet(torch.cat([part[:16] for y in tests.values() for part in (clean, y, restored(net, y))]), 16)

    train(args, "faces-restorer", net, log, loss_of, figures, rows)


if __name__ == "__main__":
    main()
