"""Train the photo world's autoencoder: 128×128 px to a 32×32×8 latent; the loop is emoji_vae's. Then its other decoders.

python -m backends.worlds.photos_build FOLDER           # the crops in runs/, beforehand: see there
python -m backends.train.sr_vae --minutes 2             # encoder and plain decoder; once a denoiser stands on them only the decoder goes on
python -m backends.train.sr_teacher --minutes 2
python -m backends.train.sr_teacher --arm ldm --minutes 1.5
"""

import torch

from backends.nets.sr_vae import CONFIG, SrAutoencoder
from backends.train import emoji_vae
from backends.train.common import MODELS, RUNS, arguments
from backends.worlds.photos import Crops


def plain(args) -> None:
    args.decoder_only = args.decoder_only or (not args.fresh and (MODELS / "sr-shift" / "config.json").exists())
    source = Crops(args.device, args.seed, most=0 if args.device != "cpu" else 200)
    emoji_vae.train(args, CONFIG, lambda rng, n: source.draw(n), source.held_out(len(source.kept)), RUNS / "sr-vae.pt", SrAutoencoder)


def main() -> None:
    args = arguments("sr-vae", batch=0, lr=1.5e-3, decoder_only=False, fresh=False)
    args.batch = args.batch or (128 if args.device != "cpu" else 8)
    torch.backends.cudnn.benchmark = True
    plain(args)


if __name__ == "__main__":
    main()
