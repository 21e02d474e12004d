"""Train the priors of the 3D tab on views of the object world: latent at 128 px, from the emoji world's UNet, and in pixels at 64 px.

    python -m backends.worlds.objects_views --out runs/objects
    python -m backends.train.objects_ldm --minutes 60                    # latents
    python -m backends.train.objects_ldm --minutes 60 --space pixels
    python -m backends.train.objects_ldm --minutes 60 --common 0.6       # on a CPU: more than half of the views of twenty objects alone

Everything but the data is `emoji_ldm`'s. Views stand on plain backgrounds of any colour, half of them mirrored; a third of the captions leave the
view word out. On a GPU: --batch 512 --chunk 1024 --fill 4 --workers 3. The pixels' begins from the latents' where that is trained.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from backends.nets.patch_vae import PatchAutoencoderKL
from backends.nets.pixel_space import PixelSpace
from backends.train.common import MODELS, arguments
from backends.train.emoji_ldm import OPTIONS, UNET, Scenes, train
from backends.worlds.objects import COMMON, Thing, caption
from backends.worlds.objects_views import read

WIDTHS = dict(block_out_channels=(64, 128, 256), attention_head_dim=(1, 2, 4))
SPACES = {"latents": (UNET | WIDTHS, "objects-ldm/unet"), "pixels": (UNET | WIDTHS | dict(in_channels=48, out_channels=48), "objects-pixels/unet")}
PROMPTS = (
    "a horse, side view", "a horse, front view", "a horse, back view", "a horse, overhead view", "a red horse wearing a party hat, side view",
    "a cactus wearing a crown", "a golden dog, front view", "a teddy bear, back view", "a wooden rabbit", "a barrel with a flower on top, side view",
    "a blue bus, side view", "a snowy cactus", "a striped armchair, front view", "a birthday cake", "a fire hydrant wearing a top hat, front view", "a biplane, overhead view",
)  # fmt: skip


class Views(Scenes):
    """Scenes whose pictures are views of the corpus in `folder`, each on a background of its own."""

    folder, side, common = Path("runs/objects"), 128, 0.0
    _read: dict[bool, tuple[list, list]] = {}

    @classmethod
    def corpus(cls, kept: bool) -> tuple[list[bytes], list[dict]]:
        if kept not in cls._read:
            shards = [read(path) for path in sorted(cls.folder.glob("kept-*.npz" if kept else "train-*.npz"))]
            if not shards:
                raise SystemExit(f"No views in {cls.folder}; make them by python -m backends.worlds.objects_views.")
            cls._read[kept] = ([p for pictures, _ in shards for p in pictures], [a for _, about in shards for a in about])
        return cls._read[kept]

    def make(self, rng: np.random.Generator, n: int, samples: int, held_out=False) -> tuple:
        coded, about = self.corpus(held_out)
        rows = rng.integers(len(coded), size=n)
        if self.common and not held_out:
            known = np.flatnonzero([seen["name"] in COMMON for seen in about])
            rows = np.where(rng.random(n) < self.common, rng.choice(known, n), rows)
        pictures = np.stack([self.placed(coded[row], rng) for row in rows])
        return pictures, *self.read([said(about[row], rng) for row in rows])

    def placed(self, picture: bytes, rng: np.random.Generator) -> np.ndarray:
        """(side, side, 3) uint8: over a colour, light more often than dark; every other one mirrored."""
        seen = Image.open(io.BytesIO(picture))
        if rng.random() < 0.5:
            seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        ground = Image.new("RGB", seen.size, tuple(int(c) for c in (rng.uniform(0.05, 1, 3) ** 0.6 * 255)))
        ground.paste(seen, mask=seen.getchannel("A"))
        return np.asarray(ground if seen.width == self.side else ground.resize((self.side, self.side), Image.Resampling.BOX))


def said(about: dict, rng: np.random.Generator) -> str:
    return caption(Thing(about["name"], about["look"], about["accessory"]), about["view"] if rng.random() < 2 / 3 else "")


def main() -> None:
    args = arguments("objects-ldm", space="latents", corpus=Path("runs/objects"), common=0.0, **OPTIONS)
    config, folder = SPACES[args.space]
    Views.folder, Views.side, Views.common = args.corpus, 128 if args.space == "latents" else 64, args.common
    vae = PatchAutoencoderKL.from_pretrained(MODELS / "emoji-ldm/vae") if args.space == "latents" else PixelSpace()
    from diffusers import UNet2DConditionModel

    first = next(MODELS / name for name in ("objects-ldm/unet", "emoji-ldm/unet") if (MODELS / name / "config.json").exists())
    train(args, f"objects-{args.space}", UNet2DConditionModel, config, MODELS / folder, vae, Views, PROMPTS, start_from=first)


if __name__ == "__main__":
    main()
