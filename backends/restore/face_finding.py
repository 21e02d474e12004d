"""Where in a picture a face is, framed as the face world's are, by MTCNN's last stage alone (metrics/faces.py).

That stage refines a face that stands in its window roughly right. So a window is slid over the picture, coarsely; the best few are then moved to
where the eyes, nose and mouth found in them say, twice. A window's score is the stage's logit less how far these lie from where they lie in the mean
of the world's faces. Faces that look aside or lie aslant are missed, and those smaller than a sixth of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MEAN = ((0.352, 0.464), (0.657, 0.458), (0.508, 0.663), (0.37, 0.825), (0.639, 0.821))  # eyes, nose, corners of the mouth
FAR = 30.0  # what a distance of a whole side costs, in units of the logit
SURE = 2.0  # least score of a face
SCALES = (1.0, 0.71, 0.5, 0.36, 0.25, 0.18)  # sides of the windows, of the picture's shorter side
WINDOW, STRIDE = 64, 18  # px
TRIED, MOVES = 4, 2  # windows that are moved, and how often


def find(image: np.ndarray) -> tuple[slice, slice] | None:
    """(rows, columns) of the square around the surest face in (H, W, 3) uint8, or None."""
    h, w = image.shape[:2]
    best = [_slid(image, min(h, w) * scale) for scale in SCALES if min(h, w) * scale >= 24 or scale == 1]
    boxes, scores, at = (torch.cat(parts) for parts in zip(*best))
    if h == w and scores[0] > SURE:
        return slice(0, h), slice(0, w)  # a picture that is a face
    top = scores.topk(min(TRIED, len(scores))).indices
    boxes, at = boxes[top], at[top]
    for _ in range(MOVES):
        boxes = _moved(boxes, at, h, w)
        scores, at = _scored(_cut(image, boxes))
    if scores.max() < SURE:
        return None
    left, up, n = (round(float(v)) for v in boxes[int(scores.argmax())])
    n = min(n, h, w)
    up, left = min(max(0, up), h - n), min(max(0, left), w - n)
    return slice(up, up + n), slice(left, left + n)


def _scored(windows: Tensor) -> tuple[Tensor, Tensor]:
    """((n,) scores, (n, 5, 2) points) of (n, 3, 64, 64) in [-1, 1]."""
    from backends.metrics import faces as judges

    found = [judges.points(part) for part in windows.split(128)]
    sure, at = (torch.cat(parts) for parts in zip(*found))
    return torch.logit(sure, 1e-6) - FAR * (at - torch.tensor(MEAN)).norm(dim=-1).mean(1), at


def _slid(image: np.ndarray, n: float) -> tuple[Tensor, Tensor, Tensor]:
    """((k, 3) left, top and side, scores, points) of windows of n px; the picture is brought to where n px are WINDOW."""
    size = [max(WINDOW, round(side * WINDOW / n)) for side in image.shape[1::-1]]
    x = _tensor(np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.BILINEAR)))
    windows = x.unfold(1, WINDOW, STRIDE).unfold(2, WINDOW, STRIDE).permute(1, 2, 0, 3, 4)
    places = torch.cartesian_prod(torch.arange(windows.shape[0]), torch.arange(windows.shape[1])).flip(1) * STRIDE * n / WINDOW
    return torch.cat([places, torch.full((len(places), 1), float(n))], 1), *_scored(windows.flatten(0, 1))


def _moved(boxes: Tensor, at: Tensor, h: int, w: int) -> Tensor:
    """The boxes in which the points found would lie, and be spread, as MEAN's; inside the picture, no smaller than a third and no larger than twice."""
    mean = torch.tensor(MEAN)
    points = boxes[:, None, :2] + at * boxes[:, 2:, None]
    spread = (points - points.mean(1, keepdim=True)).norm(dim=-1).mean(1) / (mean - mean.mean(0)).norm(dim=-1).mean()
    side = torch.minimum(spread.clamp(boxes[:, 2] / 3, boxes[:, 2] * 2), torch.tensor(float(min(h, w))))
    corner = (points.mean(1) - mean.mean(0) * side[:, None]).clamp_min(0)
    return torch.cat([torch.minimum(corner, torch.tensor([float(w), float(h)]) - side[:, None]), side[:, None]], 1)


def _cut(image: np.ndarray, boxes: Tensor) -> Tensor:
    """(n, 3, 64, 64) in [-1, 1]."""
    picture = PIL.Image.fromarray(image)
    rows = [picture.resize((WINDOW, WINDOW), PIL.Image.BILINEAR, (left, up, left + n, up + n)) for left, up, n in boxes.tolist()]
    return torch.stack([_tensor(np.asarray(row)) for row in rows])


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
