"""The restorers of photographs behind one face, and a picture of any size cut into what they take at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.lazy import F, torch
from backends.models import ASSETS, Card, device
from backends.restore.clean_task import KINDS

if TYPE_CHECKING:
    from torch import Tensor

TASKS, ARMS = tuple(KINDS.values()), ("source", "full", "unshuffled")
TILE, HALO = 256, 32  # px: what is restored at once, and what is seen around it


class Restorers:
    """`net`: a restorer G for each task and arm, called “denoise-full”. `nfe`: tiles and training patches through G and F."""

    def __init__(self, card: Card, nets: dict, noisers: dict, where: str = "cpu"):
        self.card, self.net, self.noisers, self.device, self.nfe = card, torch.nn.ModuleDict(nets), torch.nn.ModuleDict(noisers), where, 0

    def restored(self, net, x: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """(tiles done, tiles in all, the picture so far) of (1, 3, H, W) in [0, 1], tile by tile: the same as all at once.

        G has no normalisation and sees some 30 px around; a halo of more than that leaves no seams.
        """
        h, w = x.shape[-2:]
        wide = F.pad(x.to(self.device), (HALO, HALO + -w % 8, HALO, HALO + -h % 8), mode="reflect" if min(h, w) > HALO + 8 else "replicate")
        places = [(top, left) for top in range(0, h, TILE) for left in range(0, w, TILE)]
        made = x.clone()
        for i, (top, left) in enumerate(places, 1):
            self.nfe += 1
            part = net.restore(wide[..., top : top + TILE + 2 * HALO, left : left + TILE + 2 * HALO])[..., HALO:-HALO, HALO:-HALO].cpu()
            place = made[..., top : top + TILE, left : left + TILE]
            place.copy_(part[..., : place.shape[-2], : place.shape[-1]])
            yield i, len(places), made


def load_embedded(card: Card) -> Restorers:
    from backends.nets.restorers import NoiseUNet, RestorationUNet

    where, folder = device(), ASSETS / card.source
    nets = {f"{task}-{arm}": RestorationUNet.from_pretrained(folder / f"{task}-{arm}", torch_dtype=torch.float32) for task in TASKS for arm in ARMS}
    noisers = {task: NoiseUNet.from_pretrained(folder / f"{task}-full-noise", torch_dtype=torch.float32) for task in TASKS}
    for net in (*nets.values(), *noisers.values()):
        net.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    model = Restorers(card, nets, noisers, where)
    nets["denoise-source"](torch.zeros(1, 3, 64, 64, device=where))  # kernels are chosen now, not in the first arm's time
    return model
