"""The publishers' frequency-augmented decoder: a small random checkpoint in their layout, read into diffusers' autoencoder."""

import re

import pytest
import torch

from backends import BadInput
from backends.nets.aff import AffUNet
from backends.restore.fa_hub import refine
from tests.checkpoints import vae as small_vae

NAMES = (  # diffusers' names -> the original LDM's
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"), (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"), (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"), (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{1 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
)  # fmt: skip


def original(vae, unet) -> dict:
    """The state of both as the publishers' file names it."""
    state = {}
    for name, w in vae.state_dict().items():
        renamed = name
        for pattern, to in NAMES:
            renamed = re.sub(pattern, to, renamed)
        state[renamed] = w[:, :, None, None] if "attn_1" in renamed and w.ndim == 2 else w
    return state | {f"decoder.unet_1.{k}": v for k, v in unet.state_dict().items()}


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return [small_vae(block_out_channels=[32, 32]).eval() for _ in range(2)], AffUNet(32).eval()


def test_a_checkpoint_in_their_layout_decodes_as_their_network_does(tmp_path, parts):
    (theirs, ours), unet = parts
    torch.save({"state_dict": original(theirs, unet)}, tmp_path / "fa_vae.pth")
    refine(ours, tmp_path / "fa_vae.pth")
    z = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        h = theirs.decoder.mid_block(theirs.decoder.conv_in(theirs.post_quant_conv(z)))
        for block in theirs.decoder.up_blocks:
            h = block(h)
        h = unet(h)  # their DecoderAFF: the U-Net, then norm, swish, convolution
        wanted = theirs.decoder.conv_out(torch.nn.functional.silu(theirs.decoder.conv_norm_out(h)))
        assert torch.allclose(ours.decode(z).sample, wanted, atol=1e-5)
        x = torch.rand(1, 3, 16, 16)
        assert torch.allclose(ours.encode(x).latent_dist.mean, theirs.encode(x).latent_dist.mean, atol=1e-5)


def test_another_file_is_refused_with_a_sentence(tmp_path, parts):
    (theirs, ours), unet = parts
    state = original(theirs, unet)
    for name, saved in (
        ("none.pth", {}),
        ("half.pth", {k: v for k, v in state.items() if "mid.block_1" not in k}),
        ("wide.pth", original(theirs, AffUNet(64))),
    ):
        torch.save(saved, tmp_path / name)
        with pytest.raises(BadInput, match="fa_vae.pth"):
            refine(ours, tmp_path / name)
    (tmp_path / "text.pth").write_text("not a pickle")
    with pytest.raises(BadInput, match="fa_vae.pth"):
        refine(ours, tmp_path / "text.pth")
