"""Build the photo world's crops from Debian packages, and the example photographs.

    apt-get download plasma-workspace-wallpapers mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 lxqt-themes tuxpaint-stamps-default
    for p in *.deb; do dpkg-deb -x $p FOLDER; done
    python -m backends.worlds.photos_build FOLDER          # about two minutes; writes runs/photos/patches.npz

Licences: CC BY 4.0, CC BY-SA 3.0/4.0, CC0, GPL-2+, LGPL; each package's copyright file. The examples are of CC BY 4.0 and CC0 photographs.
Originals are shrunk by 1.5 or more before they are cut, so that neither their JPEG nor their interpolation is learned.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from backends.worlds import emoji, objects, photos
from backends.worlds.objects_views import views

PHOTOS = {
    "share/backgrounds": "aitzgorri_by_Aitzol_Berasategi.jpg Bridge_by_Sander_Klootwijk.jpg Dragonfly_by_Bolly.jpg Kleiber_by_Lukas_Baubkus.jpg "
    "Picture_0B_by_freespace.jpg Wine_by_Jakkub_Mede.jpg free_by_Peter_Nerlich.jpg greentock_by_Peter_Nerlich.jpg life_by_Aitzol_Berasategi.jpg "
    "picosdeeuropa_by_Aitzol_Berasategi.jpg sunset_by_Aitzol_Berasategi.jpg",
    "share/lxqt/wallpapers": "Butterfly-Kenneth-Wimer.jpg Valendas.png after-the-rain.jpg appleflower.png beam.png butterfly.png cloud.png drop.png flowers.png "
    "fog.jpg this-is-not-windows.jpg",
    "share/backgrounds/mate/nature": "Aqua.jpg Blinds.jpg Dune.jpg FreshFlower.jpg Garden.jpg GreenMeadow.jpg LadyBird.jpg RainDrops.jpg Storm.jpg TwoWings.jpg "
    "Wood.jpg YellowFlower.jpg",
    "share/backgrounds/mate/abstract": "Elephants_3840x2160.jpg",
    "share/wallpapers": "Altai Autumn BytheWater Canopee ColdRipple ColorfulCups EveningGlow FallenLeaf FlyingKonqui Grey Kay Kite OneStandsOut Patak Path "
    "SafeLanding Shell summer_1am",
}  # fmt: skip
KEPT = {"friends_by_Aitzol_Berasategi.jpg": photos.EXAMPLES[0], "Picture_1A_by_freespace.jpg": photos.EXAMPLES[1],
        "seeding_by_Clements_Engelhardt.jpg": photos.EXAMPLES[2]}  # fmt: skip
STAMPS = ("animals", "clothes", "food", "hobbies", "household", "naturalforces", "plants", "seasonal", "space", "sports", "town", "vehicles")


def opened(path: Path) -> Image.Image:
    if path.is_dir():  # a Plasma wallpaper: the largest of its sizes
        path = max((p for p in (path / "contents" / "images").iterdir() if p.is_file() and not p.is_symlink()), key=lambda p: p.stat().st_size)
    return Image.open(path).convert("RGB")


def detail(crop: np.ndarray) -> float:
    """Mean size of the differences between neighbours, 0 to 255."""
    grey = crop.astype(np.float32).mean(2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def crops(picture: Image.Image, n: int, rng: np.random.Generator, least: float = 1.5) -> list[np.ndarray]:
    """n crops at several sizes; of three candidates the one with most detail, or now and then any."""
    most, found = max(least, min(picture.size) / (1.5 * photos.SIDE)), []
    scales = np.exp(rng.uniform(np.log(least), np.log(min(most, 8)), 4))
    for scale in scales:
        small = picture.resize([round(d / scale) for d in picture.size], Image.LANCZOS)
        pixels = np.asarray(small)
        h, w = (d - photos.SIDE for d in pixels.shape[:2])
        if min(h, w) < 0:
            continue
        for _ in range(-(-n // len(scales))):
            spots = [(int(rng.integers(h + 1)), int(rng.integers(w + 1))) for _ in range(3 if rng.random() < 0.8 else 1)]
            found.append(max((pixels[y : y + photos.SIDE, x : x + photos.SIDE] for y, x in spots), key=detail))
    return found


def backdrop(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(40, 256, 3))


def stamps(folder: Path, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut-out photographs on plain colours, at their own size or smaller."""
    files = [f for kind in STAMPS for f in sorted((folder / "usr/share/tuxpaint/stamps" / kind).rglob("*.png")) if "cartoon" not in f.parts]
    found = []
    while len(found) < n:
        picture = Image.open(files[rng.integers(len(files))]).convert("RGBA")
        picture = picture.resize([max(1, round(d / rng.uniform(1.0, 1.6))) for d in picture.size], Image.LANCZOS)
        if min(picture.size) < 90:
            continue
        ground = Image.new("RGBA", (max(photos.SIDE, picture.width), max(photos.SIDE, picture.height)), (*backdrop(rng), 255))
        ground.alpha_composite(picture, ((ground.width - picture.width) // 2, (ground.height - picture.height) // 2))
        pixels = np.asarray(ground.convert("RGB"))
        y, x = (int(rng.integers(d - photos.SIDE + 1)) for d in pixels.shape[:2])
        found.append(pixels[y : y + photos.SIDE, x : x + photos.SIDE])
    return found


def rendered(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Views of the object world on plain colours."""
    found = []
    while len(found) < n:
        for picture in views(objects.sample(rng, False), 4, rng, photos.SIDE)[0]:
            ground = Image.new("RGBA", (photos.SIDE,) * 2, (*backdrop(rng), 255))
            ground.alpha_composite(Image.fromarray(picture))
            found.append(np.asarray(ground.convert("RGB")))
    return found[:n]


def example(picture: Image.Image) -> Image.Image:
    """The middle square at 256 px."""
    side = min(picture.size)
    left, top = ((d - side) // 2 for d in picture.size)
    return picture.crop((left, top, left + side, top + side)).resize((256, 256), Image.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=96, help="crops of a photograph")
    parser.add_argument("--out", type=Path, default=photos.FILE)
    args = parser.parse_args()
    rng, parts = np.random.default_rng(0), []
    for place, names in PHOTOS.items():
        for name in names.split():
            parts += [(crop, 0, False) for crop in crops(opened(args.folder / "usr" / place / name), args.each, rng)]
    for name, to in KEPT.items():
        picture = opened(args.folder / "usr/share/backgrounds" / name)
        parts += [(crop, 0, True) for crop in crops(picture, 24, rng)]
        example(picture).save(photos.ROOT / "assets" / "examples" / to)
    share = sum(not kept for _, _, kept in parts) // 50
    for kind, made in (
        (1, stamps(args.folder, 7 * share, rng)),
        (2, [emoji.render(emoji.sample(rng), photos.SIDE) for _ in range(7 * share)]),
        (3, rendered(4 * share, rng)),
    ):
        parts += [(picture, kind, False) for picture in made]
    pixels, kinds, kept = zip(*parts)
    photos.write(args.out, photos.Patches(np.stack(pixels), np.array(kinds, np.uint8), np.array(kept)))
    print(
        f"{len(parts)} crops ({', '.join(f'{kinds.count(i)} {k}' for i, k in enumerate(photos.KINDS))}; {sum(kept)} kept), {args.out.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
