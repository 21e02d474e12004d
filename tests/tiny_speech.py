"""The speech networks with the real classes at a few thousand parameters."""

from backends import models


def tiny():
    import torch

    from backends.audio.speech_models import SpeechModel
    from backends.nets.spectrogram_unet import SpectrogramUNet
    from backends.train.speech import PARTS

    torch.manual_seed(0)
    nets = {part: SpectrogramUNet(**kind, block_out_channels=(16, 16, 16, 64)).eval().requires_grad_(False) for part, kind in PARTS.items()}
    return SpeechModel(models.get("speech"), nets)
