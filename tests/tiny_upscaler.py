"""The networks that enlarge pictures, with the real classes at some thousand parameters."""

from backends import models


def tiny():
    import torch

    from backends.nets.sr_decoders import FaDecoder, LiifDecoder
    from backends.nets.sr_unet import SrUNet
    from backends.nets.sr_vae import CONFIG, SrAutoencoder
    from backends.restore.resshift import T
    from backends.restore.upscaler import STAGES, Upscaler

    torch.manual_seed(0)
    unet = lambda **kind: SrUNet(block_out_channels=(32, 32), layers_per_block=1, **kind)  # noqa: E731
    nets = {name: unet(attention=0, steps=T) for name in ("shift", "student", "regression")}
    nets |= {name: unet(attention=1, experts=1) for name in ("single", "aligned", *(f"stage{i}" for i in range(STAGES)))}
    nets |= {"vae": SrAutoencoder(**CONFIG | {"block_out_channels": (48, 48)}), "fa": FaDecoder(), "liif": LiifDecoder(48, 32, 32, 1)}
    for net in nets.values():
        for p in net.parameters():
            if not p.any():  # what begins as nothing
                torch.nn.init.normal_(p, std=0.02)
        net.eval().requires_grad_(False)
    return Upscaler(models.get("photos-sr"), nets)
