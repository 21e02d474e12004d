"""InterLCM's two encoders (arXiv 2502.02215), which tell a frozen latent consistency model what face to draw and where its parts are."""

from diffusers import ConfigMixin, ControlNetModel, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from backends.nets.face_prompt import TOKENS, WIDTH


class Residual(nn.Module):
    """Two convolutions along a token's numbers, the tokens being channels."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(*(part for _ in range(2) for part in (nn.GroupNorm(8, width), nn.SiLU(), nn.Conv1d(width, width, 3, padding=1))))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Attention(nn.Module):
    """Among the numbers of a token, each a vector over the channels."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.attend = nn.GroupNorm(8, width), nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).mT
        return x + self.attend(h, h, h, need_weights=False)[0].mT


class VisualEncoder(nn.Module):
    """A degraded face's tokens to what stands in the place of a prompt, both (B, 16, 128); adds nothing at first.

    The paper's network over CLIP's tokens, small: tokens are channels, convolutions and attention run along their numbers. Before it one linear
    layer mixes these, since a feature has no neighbours.
    """

    def __init__(self, width: int = 128):
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(
            nn.Conv1d(TOKENS, width, 3, padding=1), Residual(width), Attention(width), Residual(width), nn.GroupNorm(8, width), nn.SiLU()
        )
        self.out = nn.Conv1d(width, TOKENS, 3, padding=1)
        nn.init.zeros_(self.out.weight), nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.out(self.layers(self.mix(tokens)))


class FaceEncoders(ModelMixin, ConfigMixin):
    """Both, in one file. `control`: the configuration of the ControlNet, which was copied from the prior's network; it changes nothing at first."""

    @register_to_config
    def __init__(self, control: dict, width: int = 128):
        super().__init__()
        self.visual, self.spatial = VisualEncoder(width), ControlNetModel(**control)

    @classmethod
    def of(cls, unet, strides: tuple[int, ...] = (32, 64, 96)) -> "FaceEncoders":
        """Around a UNet2DConditionModel's encoder; `strides`: channels of the picture's way down, a halving between two."""
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=strides)
        unused = {"encoder_hid_dim": None, "encoder_hid_dim_type": None}  # ControlNet's forward takes a context that is projected already
        own = cls({k: v for k, v in net.config.items() if not k.startswith("_")} | unused)
        own.spatial.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("encoder_hid_proj")})
        return own

    def context(self, tokens: Tensor) -> Tensor:
        return self.visual(tokens)

    def residuals(self, z: Tensor, t: Tensor, context: Tensor, picture: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """What is added to the UNet's skips and middle: from z (B, 4, h, w), t (B,), a projected context and the degraded picture in [-1, 1], as the official code gives it."""
        return self.spatial(z, t, encoder_hidden_states=context, controlnet_cond=picture, return_dict=False)
