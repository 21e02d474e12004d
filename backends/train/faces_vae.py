"""Train the face world's autoencoder: 64×64 px to a 16×16×4 latent. The loop is emoji_vae's; once a latent prior stands on it only the
decoder goes on.

python -m backends.train.faces_vae --minutes 1.5    # see faces_data.py for the order
"""

import torch

from backends.train import emoji_vae
from backends.train.common import MODELS, RUNS, arguments
from backends.train.faces_data import Faces
from backends.worlds import faces

CONFIG = dict(
    in_channels=48, out_channels=48, latent_channels=4, block_out_channels=(96,), layers_per_block=2, down_block_types=("DownEncoderBlock2D",),
    up_block_types=("UpDecoderBlock2D",), mid_block_add_attention=True, sample_size=16, scaling_factor=1.0,
)  # fmt: skip


def main() -> None:
    args = arguments("faces-vae", batch=0, lr=1.5e-3, decoder_only=False, fresh=False)
    args.batch = args.batch or (256 if args.device != "cpu" else 16)
    if (MODELS / "faces-ldm" / "config.json").exists() and not args.fresh:
        args.decoder_only = True
    torch.backends.cudnn.benchmark = True
    source = Faces(args.device, args.seed)
    emoji_vae.train(args, CONFIG, lambda rng, n: source.draw(n), faces.as_tensor(faces.kept()) * 2 - 1, RUNS / "faces-vae.pt")


if __name__ == "__main__":
    main()
