"""The denoiser of the super-resolution world: diffusers' UNet2DModel on latents beside the low-resolution picture."""

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import pixel_unshuffle

from backends.nets.space_moe import Followed, SpaceMoe
from backends.nets.sr_vae import CHANNELS, FACTOR


class SrUNet(ModelMixin, ConfigMixin):
    """(x: (B, 8, h, w), t, low: (B, 3, 4h, 4w) in [-1, 1]) to (B, 8, h, w).

    `low` is the small picture brought to the large one's size; its pixels are folded 4×4 into channels, so nothing of it is lost, and
    concatenated. `steps`: how many timesteps there are; they are spread over 0 to 1000 for the embedding. h, w: multiples of 2^(levels − 1).
    `experts`: feed-forward networks behind each attention block (space_moe.py); 0: none.
    """

    @register_to_config
    def __init__(self, block_out_channels: tuple[int, ...] = (64, 96, 128), layers_per_block: int = 1, attention: int = 1, steps: int = 1000, experts: int = 0):
        super().__init__()
        levels = len(block_out_channels)
        down = ["DownBlock2D"] * (levels - attention) + ["AttnDownBlock2D"] * attention
        self.unet = UNet2DModel(
            sample_size=32, in_channels=CHANNELS + 3 * FACTOR**2, out_channels=CHANNELS, block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block, norm_num_groups=8, down_block_types=tuple(down), attention_head_dim=32, add_attention=attention > 0,
            up_block_types=tuple(d.replace("Down", "Up") for d in reversed(down)))  # fmt: skip
        self.unet.conv_out.weight.data.mul_(0.05)  # begins at about nothing
        if experts:
            for block in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
                for i, attention in enumerate(getattr(block, "attentions", ())):
                    block.attentions[i] = Followed(attention, attention.to_q.in_features, experts)

    def moes(self) -> list[SpaceMoe]:
        return [m for m in self.modules() if isinstance(m, SpaceMoe)]

    def forward(self, x: torch.Tensor, t: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(t, device=x.device).expand(len(x)) * (1000 / self.config.steps)
        return self.unet(torch.cat([x, pixel_unshuffle(low, FACTOR)], 1), t).sample

    def encoder_features(self, x: torch.Tensor, t: torch.Tensor, low: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(the last features of each level and of the middle, the time's embedding) of what `forward` takes."""
        unet = self.unet
        t = torch.as_tensor(t, device=x.device).expand(len(x)) * (1000 / self.config.steps)
        time = unet.time_embedding(unet.time_proj(t).to(x.dtype))
        h, found = unet.conv_in(torch.cat([x, pixel_unshuffle(low, FACTOR)], 1)), []
        for block in unet.down_blocks:
            h, states = block(hidden_states=h, temb=time)
            found.append(states[-1 if block.downsamplers is None else -2])
        return [*found, unet.mid_block(h, time)], time
