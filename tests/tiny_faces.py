"""The face world's networks with the real classes at a few thousand parameters."""

from backends import models


def tiny():
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from backends.nets.face_encoders import FaceEncoders
    from backends.nets.face_unet import FaceUNet
    from backends.nets.latent_adapter import CodebookAdapter, LatentEncoder
    from backends.nets.patch_vae import PatchAutoencoderKL
    from backends.restore.consistency import SCALE_WIDTH
    from backends.restore.face_models import FaceModel
    from backends.train.faces_prior import LATENTS, SCHEDULES
    from backends.train.faces_vae import CONFIG

    torch.manual_seed(0)
    small = dict(block_out_channels=(32, 32), layers_per_block=1)
    vae = PatchAutoencoderKL(**CONFIG | dict(block_out_channels=(32,), layers_per_block=1))
    ldm = UNet2DConditionModel(**LATENTS | small | dict(attention_head_dim=1))
    nets = {
        "restorer": FaceUNet(**small, attention=0), "pixels": FaceUNet(**small, attention=0), "vae": vae,
        "lcm": UNet2DConditionModel(**LATENTS | small | dict(attention_head_dim=1, time_cond_proj_dim=SCALE_WIDTH)),
        "encoders": FaceEncoders.of(ldm, (32, 32, 32)), "adapter": CodebookAdapter(width=32, size=64), "encoder": LatentEncoder.of(vae), "finisher": ldm,
    }  # fmt: skip
    for net in nets.values():
        net.eval().requires_grad_(False)
    return FaceModel(models.get("faces"), nets, {name: DDIMScheduler(**kind).alphas_cumprod for name, kind in SCHEDULES.items()})
