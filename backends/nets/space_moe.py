"""Space mixture of experts (arXiv 2310.12004, section 3.2): many feed-forward networks in training, one of the same cost afterwards.

    y = x + FFN_e(LN(x)),   W_e ← (1 − β) W_e + β · mean of the others' W

In training the tokens of a picture are permuted at random and cut into as many equal groups as there are experts, group e through
expert e. After each step of the optimiser the experts draw near each other (`ewa`); in the end they are averaged (`averaged`).
Permuted at random, no expert comes to belong to a place, so what they share is what counts.
"""

import torch
from torch import nn
from torch.nn import functional as F


class SpaceMoe(nn.Module):
    """(B, C, H, W) to the same: `experts` feed-forward networks C → 4C → C with GELU behind a LayerNorm. H·W must divide by `experts`.

    The experts' weights are kept as one tensor each, so that all of them are one batched product.
    """

    def __init__(self, channels: int, experts: int = 1, widen: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.w1, self.b1 = nn.Parameter(torch.empty(experts, channels, widen * channels)), nn.Parameter(torch.zeros(experts, 1, widen * channels))
        self.w2, self.b2 = nn.Parameter(torch.zeros(experts, widen * channels, channels)), nn.Parameter(torch.zeros(experts, 1, channels))
        nn.init.trunc_normal_(self.w1, std=channels**-0.5)

    @property
    def experts(self) -> int:
        return len(self.w1)

    def forward(self, x: torch.Tensor, permutation: torch.Tensor | None = None) -> torch.Tensor:
        """`permutation`: (H·W,), the order in which tokens are dealt to the experts; a random one where None."""
        b, c, h, w = x.shape
        tokens, n = self.norm(x.flatten(2).transpose(1, 2)), self.experts  # (B, H·W, C)
        if n > 1:
            permutation = torch.randperm(h * w, device=x.device) if permutation is None else permutation
            tokens = tokens[:, permutation]
        groups = tokens.unflatten(1, (n, -1)).transpose(0, 1).flatten(1, 2)  # (E, B·H·W/E, C)
        groups = torch.baddbmm(
            self.b2.to(groups.dtype), F.gelu(torch.baddbmm(self.b1.to(groups.dtype), groups, self.w1.to(groups.dtype))), self.w2.to(groups.dtype)
        )
        out = groups.unflatten(1, (b, -1)).transpose(0, 1).flatten(1, 2)
        if n > 1:
            out = out[:, permutation.argsort()]
        return x + out.transpose(1, 2).unflatten(2, (h, w))

    @torch.no_grad()
    def ewa(self, beta: float) -> None:
        """Each expert moves a share β towards the mean of the others: the mean stays, a deviation shrinks by 1 − β − β/(E − 1)."""
        if (n := self.experts) > 1:
            for w in (self.w1, self.b1, self.w2, self.b2):
                others = (w.sum(0, keepdim=True) - w) / (n - 1)
                w.lerp_(others, beta)

    @torch.no_grad()
    def averaged(self) -> "SpaceMoe":
        """One expert, the mean of all."""
        one = SpaceMoe(self.w1.shape[1], 1, self.w1.shape[2] // self.w1.shape[1])
        one.load_state_dict({k: v.mean(0, keepdim=True) if v.ndim == 3 else v for k, v in self.state_dict().items()})
        return one


class Followed(nn.Module):
    """An attention block with a mixture behind it, called as the block is."""

    def __init__(self, block: nn.Module, channels: int, experts: int):
        super().__init__()
        self.block, self.moe = block, SpaceMoe(channels, experts)

    def forward(self, x, *args, **more):
        return self.moe(self.block(x, *args, **more))
