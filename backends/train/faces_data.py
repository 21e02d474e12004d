"""What the face world's training scripts share: endless faces, drawn where they are needed.

    python -m backends.worlds.faces_build SITE package/models    # the generator in runs/, beforehand: see there
    python -m backends.train.faces_restorer --minutes 1
    python -m backends.train.faces_prior --minutes 5
    python -m backends.train.faces_vae --minutes 1.5
    python -m backends.train.faces_prior --space latents --minutes 3    # needs the autoencoder
    python -m backends.train.faces_lcm --minutes 2                      # needs the latent prior
    python -m backends.train.faces_lafr --stage adapter --minutes 1     # needs the autoencoder
    python -m backends.train.faces_lafr --stage prior --minutes 2       # needs the latent prior and the adapter
    python -m backends.train.faces_interlcm --minutes 3                 # needs both latent priors

The minutes are those of one data-centre GPU shared by two. Each goes on from what is committed and, where runs/ is kept, from the
optimiser's state. Held-out figures are of faces of seeds that training never draws.
"""

import torch

from backends.train.common import autocast
from backends.worlds import faces_build


class Faces:
    """The last `kept` good faces drawn; every draw replaces some, on a GPU about half of a batch, or none where they are to stay (`few`)."""

    def __init__(self, device: str, seed: int = 0, kept: int = 0, few: bool = False):
        self.net = faces_build.Generator.load(device)
        self.device, gpu = device, device != "cpu"
        self.kept, self.few, self.share = kept or (32_768 if gpu else 256), few, 1.0 if gpu else 0.25
        self.rng = torch.Generator(device).manual_seed(seed)
        self.pictures = torch.zeros(self.kept, 3, 64, 64, dtype=torch.uint8, device=device)
        self.added = 0
        while self.added < self.kept:
            self.add(2048 if gpu else 128)

    @torch.no_grad()
    def add(self, n: int) -> None:
        """Draw n candidates and keep the good ones."""
        z = faces_build.SPREAD * torch.randn(n, faces_build.WIDTHS[0], device=self.device, generator=self.rng)
        with autocast(self.device):
            x = self.net(z).float()
        good = faces_build.good(x)
        rows = (torch.arange(int(good.sum()), device=self.device) + self.added) % self.kept
        self.pictures[rows] = ((x[good] + 1) * 127.5).round().byte()
        self.added += len(rows)

    def draw(self, n: int) -> torch.Tensor:
        """(n, 3, 64, 64) in [-1, 1]."""
        if not self.few:
            self.add(max(32, int(n * self.share)))
        rows = torch.randint(self.kept, (n,), device=self.device, generator=self.rng)
        return self.pictures[rows].float() / 127.5 - 1
