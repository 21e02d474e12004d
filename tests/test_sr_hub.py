"""ResShift's, its students' and MoE-SR's published checkpoints, stood for by small random ones in their layout.

Once, and outside these tests, SwinUNet, MoeUNet, the encoder and the refining decoder were held against the official code on random weights: names and
shapes of all tensors are the same at full size, outputs agreed within 3e-6 of the largest.
"""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import VQModel

from backends.cards import HUB, hosted
from backends.nets import published_sr
from backends.nets.aff import AffUNet
from backends.restore import sr_hub
from backends.restore.moe_sr import moe_sr
from backends.restore.tadsr import tadsr
from backends.restore.upscale_baselines import diffused, resshift, walked
from backends.restore.upscale_task import Upscale
from backends.restore.upscaler import Canvas
from backends.spec import BadInput, Result
from tests.test_fa_hub import NAMES

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 12, 3)).astype(np.uint8)
JOB = Upscale(image=PICTURE, factor=4.0, seed=2)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(published_sr, "RESSHIFT", dict(width=32, multiples=(1, 2), blocks=(1, 1), swin=32, heads=2, depth=2, window=8, side=16))
    monkeypatch.setattr(published_sr, "MOE", dict(width=32, multiples=(1, 1), blocks=(1, 1), per_head=16))
    monkeypatch.setattr(sr_hub, "VQ", dict(channels=(32, 32, 32), layers=1, codes=16))
    monkeypatch.setattr(sr_hub.Published, "multiple", 16)


def card(name: str, folder):
    return dataclasses.replace(next(c for c in HUB if c.name == name), source=str(folder))


def random(net, std=0.1):
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=std)
    return net.eval()


def autoencoder() -> tuple[VQModel, dict]:
    """(diffusers' network, its tensors in LDM's names)."""
    import re

    net = random(VQModel(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(32,) * 3, latent_channels=3,
                         layers_per_block=1, num_vq_embeddings=16, scaling_factor=1.0))  # fmt: skip
    state = {}
    for name, w in net.state_dict().items():
        for pattern, to in NAMES:
            if callable(to) and "up_blocks" in pattern:
                end = "upsample" if "upsamplers" in pattern else "block."
                name = re.sub(pattern, lambda m, end=end: f"up.{2 - int(m[1])}.{end}{m[2] if end == 'block.' else ''}", name)
            else:
                name = re.sub(pattern, to, name)
        state[name] = w[:, :, None, None] if "attn_1" in name and w.ndim == 2 else w
    return net, state


def result(events):
    with torch.no_grad():
        return next(e.value for e in events if isinstance(e, Result))


def resshift_files(folder, steps=15, student=False):
    net, (vae, state) = random(published_sr.SwinUNet(**published_sr.RESSHIFT)), autoencoder()
    buffers = {"middle_block.1.blocks.1.attn_mask": torch.zeros(4, 64, 64), "middle_block.1.blocks.0.attn.relative_position_index": torch.zeros(64, 64)}
    torch.save({f"module.{k}": v for k, v in (net.state_dict() | buffers).items()}, folder / f"resshift_realsrx4_s{steps}_v1.pth")
    torch.save({"state_dict": state}, folder / "autoencoder_vq_f4.pth")
    if student:
        torch.save(net.state_dict(), folder / "SinSR_v1.pth")
    return net, vae


@pytest.mark.parametrize(("steps", "start"), [(15, 0.04), (4, 0.2)])
def test_resshift_walks_as_the_official_sampler(small, tmp_path, steps, start):
    """The chain written out anew after the official sampler's equations, on the checkpoint's own networks."""
    net, vae = resshift_files(tmp_path, steps)
    model = sr_hub.load(card("resshift-realsr-x4", tmp_path))
    picture = PICTURE[:, :12].repeat(2, 0)[:16]
    canvas = Canvas(model, picture, (64, 48))
    with torch.no_grad():
        *_, last = walked(canvas, False, 3)
        y = torch.nn.functional.pad(torch.tensor(picture).permute(2, 0, 1)[None].float() / 127.5 - 1, (0, 4, 0, 0), mode="reflect")
        z = vae.encode(torch.nn.functional.interpolate(y, scale_factor=4, mode="bicubic")).latents
        eta = (start / 2 * (0.99 / (start / 2)) ** (np.linspace(0, 1, steps) ** 0.3)) ** 2
        rng = torch.Generator().manual_seed(3)
        x = z + 2 * eta[-1] ** 0.5 * torch.randn(z.shape, generator=rng)
        for t in reversed(range(steps)):
            x0 = net(x / (4 * eta[t] + 1) ** 0.5, torch.tensor([t]), y)
            noise, before = torch.randn(z.shape, generator=rng), eta[t - 1] if t else 0.0
            x = before / eta[t] * x + (eta[t] - before) / eta[t] * x0 + 2 * (before / eta[t] * (eta[t] - before)) ** 0.5 * noise
        assert torch.allclose(last, x, atol=1e-4 * float(x.abs().max()))
        wanted = ((vae.decode(x).sample[0, :, :, :48].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(canvas.decoded(last) - wanted).max() <= 1.01
    model.nfe = 0
    assert result(resshift(JOB, model)).pixels.shape == (64, 48, 3) and model.nfe == steps


def test_windows_are_shifted_where_there_are_several(small):
    mask = published_sr.apart(16, 16, 8, "cpu")[:, 0]
    assert not mask[:2].any(), "the official mask parts windows of the last row alone"
    assert torch.equal(mask[2], mask[3]) and mask[2, 0, 63] == mask[2, 0, 7] == -100 and mask[2, 0, 56] == 0, (
        "and in them columns: place 7 is the first row's last"
    )
    net, x = random(published_sr.SwinUNet(**published_sr.RESSHIFT)), torch.randn(1, 3, 16, 16)
    assert [b.shift for b in net.input_blocks[1][1].blocks] == [0, 4] and [b.shift for b in net.middle_block[1].blocks] == [0, 0]
    with torch.no_grad():
        one = net(x, torch.tensor([3]), x)
        assert one.shape == x.shape and not torch.allclose(one, net(x, torch.tensor([14]), x)) and not torch.allclose(one, net(x, torch.tensor([3]), 0 * x))


def test_a_student_of_the_same_layout_is_read_and_asked_once(small, tmp_path):
    resshift_files(tmp_path, 15, student=True)
    model = sr_hub.load(card("tadsr-x4", tmp_path))
    value = result(tadsr(JOB, model, teacher=False))
    assert value.pixels.shape == (64, 48, 3) and model.nfe == 1
    with pytest.raises(BadInput, match="all three"):
        result(tadsr(JOB, model, losses="regression alone"))


def moe_files(folder):
    (folder / "Unet").mkdir(), (folder / "vq-f4").mkdir()
    plain = random(published_sr.MoeUNet(**published_sr.MOE))
    for i in range(4):
        state = {}
        for k, v in plain.state_dict().items():
            before, found, after = k.partition(".moe_blocks.0.")
            for e in range(16) if found else (0,):  # experts that lie about their mean
                name = f"{before}.moe_blocks.{e}.{after}" if found else k
                state[f"model.diffusion_model.{name}"] = torch.zeros_like(v)
                state["model_ema." + f"diffusion_model.{name}".replace(".", "")] = v + 0.01 * i + (0.1 * (e - 7.5) if found else 0)
        torch.save(state, folder / "Unet" / f"moe_stage{i}.ckpt")
    vae, state = autoencoder()
    refine, fuse = random(AffUNet(32), 0.05), random(published_sr.Fusion(32), 0.05)
    state |= {f"decoder.unet_1.{k}": v for k, v in refine.state_dict().items()} | {f"decoder.fusion_layer_1.{k}": v for k, v in fuse.state_dict().items()}
    torch.save(state, folder / "vq-f4" / "fa_vae.pth")
    return plain, vae, refine, fuse


def test_moe_sr_is_read_and_runs_as_the_official_sampler(small, tmp_path):
    plain, vae, refine, fuse = moe_files(tmp_path)
    model = sr_hub.load(card("moe-sr-x8", tmp_path))
    for i in range(4):
        for k, v in model.net[f"stage{i}"].state_dict().items():
            assert torch.allclose(v, plain.state_dict()[k] + 0.01 * i, atol=1e-5), k
    canvas = Canvas(model, PICTURE[:8, :8], (64, 64))
    asked = []

    def net_at(t):
        asked.append(t)
        return model.net[f"stage{t // 250}"]

    with torch.no_grad():
        *_, (_, last) = diffused(canvas, net_at, 4, 1.0, 5)
        bar = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0155**0.5, 1000) ** 2)
        times, rng = [1, 251, 501, 751], torch.Generator().manual_seed(5)
        assert asked == times[::-1]
        x = torch.randn(1, 3, 16, 16, generator=rng)
        for t in times[::-1]:
            a, before = bar[t], bar[max(0, t - 250)]
            eps = model.net[f"stage{t // 250}"](x, torch.tensor([t]), canvas.seen)
            x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
            sigma = ((1 - before) / (1 - a) * (1 - a / before)) ** 0.5
            x = before**0.5 * x0 + (1 - before - sigma**2) ** 0.5 * eps + sigma * torch.randn(x.shape, generator=rng)
        assert torch.allclose(last, x0, atol=1e-4 * float(x0.abs().max()))

        # The decoder written out: fused at half the size, refined before the head.
        seen = vae.encoder.down_blocks[0](vae.encoder.conv_in(canvas.low))
        for block in vae.encoder.down_blocks[1].resnets:
            seen = block(seen, None)
        d = vae.decoder
        h = d.up_blocks[0](d.mid_block(d.conv_in(vae.post_quant_conv(vae.quantize(last)[0]))))
        for block in d.up_blocks[1].resnets:
            h = block(h, None)
        h = d.up_blocks[2](d.up_blocks[1].upsamplers[0](fuse(seen, h)))
        wanted = d.conv_out(torch.nn.functional.silu(d.conv_norm_out(refine(h))))
        assert torch.allclose(model.net["fa"](model.net["vae"], last, canvas.low), wanted, atol=1e-4)
        made = model.coloured(wanted, canvas.low)
        assert torch.allclose(made.mean((2, 3)), canvas.low.mean((2, 3)), atol=1e-3) and torch.allclose(made.std((2, 3)), canvas.low.std((2, 3)), atol=1e-2)
    model.nfe = 0
    assert result(moe_sr(JOB, model, steps=4)).pixels.shape == (64, 48, 3) and model.nfe == 4
    with pytest.raises(BadInput, match="four, by time"):
        result(moe_sr(JOB, model, steps=4, experts="one for all"))


def test_full_size_layouts_have_the_published_number_of_parameters():
    with torch.device("meta"):
        count = lambda net: sum(p.numel() for p in net.parameters()) / 1e6  # noqa: E731
        assert round(count(published_sr.SwinUNet(**published_sr.RESSHIFT)), 1) == 118.6
        assert count(published_sr.MoeUNet(**published_sr.MOE)) > 50


@pytest.mark.parametrize("name", ["resshift-realsr-x4", "tadsr-x4", "moe-sr-x8"])
def test_a_folder_without_the_files_is_a_sentence(small, tmp_path, name):
    with pytest.raises(BadInput, match="the host names"):
        sr_hub.load(card(name, tmp_path))
    resshift_files(tmp_path)
    if name == "resshift-realsr-x4":
        (tmp_path / "resshift_realsrx4_s15_v1.pth").rename(tmp_path / "resshift_mine.pth")
        with pytest.raises(BadInput, match="_s15 or _s4"):
            sr_hub.load(card(name, tmp_path))
        (tmp_path / "resshift_mine.pth").rename(tmp_path / "resshift_x4_s15.pth")
        (tmp_path / "autoencoder_vq_f4.pth").write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(BadInput, match="can't be read"):
            sr_hub.load(card(name, tmp_path))


def test_they_are_offered_where_a_folder_is_named():
    assert not {"resshift-realsr-x4", "tadsr-x4", "moe-sr-x8"} & {c.name for c in hosted(None)}
    assert [c.source for c in hosted("resshift-realsr-x4=/models/resshift, moe-sr-x8=/models/moe")] == ["/models/resshift", "/models/moe"]
