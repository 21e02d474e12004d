"""What stands where a prompt stands: a face as an ImageNet network reads it, sixteen tokens at their places.

No caption of the face world's faces exists. Its latent prior is told what face to draw as unCLIP is (Ramesh et al., arXiv 2204.06125): by the
features of a picture of it, EfficientNet-Lite0's block 10 at 4×4 places. A degraded picture gives the same shape, only wrong: InterLCM's visual
encoder mends that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from backends.metrics.features import effnet

if TYPE_CHECKING:
    from torch import Tensor

TAP, FEATURES, TOKENS = 10, 112, 16
WIDTH = FEATURES + TOKENS  # of a token: its features, then at which of the sixteen places it stands


def prompt(pictures: Tensor) -> Tensor:
    """(B, 16, 128) of (B, 3, 64, 64) in [-1, 1]; differentiable. All zeros: unconditional."""
    features = effnet(str(pictures.device))(pictures.float(), (TAP,))[0]
    features = F.layer_norm(features.flatten(2).mT, (FEATURES,))
    return torch.cat([features, torch.eye(TOKENS, device=features.device).expand(len(features), -1, -1)], 2)
