"""A small random sound model with the real classes: 16 kHz, 50 frames a second, 4 channels."""

from backends import models


def tiny(card=None, seed=0):
    import torch
    from diffusers import AutoencoderOobleck, DDIMScheduler

    from backends.audio.latent_audio import LatentAudio
    from backends.denoiser import Cond
    from backends.nets.ez_dit import EzDiT
    from backends.train.sounds_dit import SCHEDULE

    torch.manual_seed(seed)
    net = EzDiT(channels=4, dim=32, depth=2, heads=2, mlp_ratio=2.0, context_dim=16, rank=2, latent_scale=2.0)
    for part in net.parameters():  # what starts at nought would hide mistakes
        part.data += 0.05 * torch.randn_like(part)
    with torch.no_grad():
        vae = AutoencoderOobleck(encoder_hidden_size=8, downsampling_ratios=[4, 2, 4, 10], channel_multiples=[1, 1, 1, 1], decoder_channels=8, decoder_input_channels=4, audio_channels=1, sampling_rate=16_000)  # fmt: skip
    for part in (net, vae):
        part.eval().requires_grad_(False)

    def encode(text: str) -> Cond:
        states = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(sum(map(ord, text))))
        there = torch.arange(6)[None] < (6 if text else 2)
        return Cond(text, states, ("a",) * 6, {"encoder_attention_mask": there})

    return LatentAudio(card or models.get("sounds-dit"), net, vae, DDIMScheduler(**SCHEDULE), encode)
