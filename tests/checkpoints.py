"""Small random checkpoints with the real classes, configs and key names, written as their publishers write them."""

import string

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

WORDS = ("cat", "red", "hat")


def clip_tokenizer():
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase + ",.!")]
    merges, merged = [], []
    for word in WORDS:
        merges += [(word[0], word[1]), (word[:2], word[2] + "</w>")]
        merged += [word[:2], word + "</w>"]
    names = [*letters, *merged, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=merges, model_max_length=77)


def t5_tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in string.ascii_lowercase), *(("▁" + w, -1.0) for w in WORDS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def clip(width=32, projected=False, seed=0):
    torch.manual_seed(seed)
    n = len(clip_tokenizer())
    config = CLIPTextConfig(vocab_size=n, hidden_size=width, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4, projection_dim=width,
                            bos_token_id=n - 2, eos_token_id=2, pad_token_id=n - 1, hidden_act="quick_gelu")  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5(width=32):
    return T5EncoderModel(T5Config(vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"))


def vae(channels=4, **config):
    blocks = dict(down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=[16, 16], norm_num_groups=8)
    return diffusers.AutoencoderKL(latent_channels=channels, sample_size=16, **blocks | config)


def unet(**config):
    shape = dict(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip
    return diffusers.UNet2DConditionModel(**shape | config)


BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)


def sd():
    return diffusers.StableDiffusionPipeline(
        vae(scaling_factor=0.18215), clip(), clip_tokenizer(), unet(), diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False),
        None, None, requires_safety_checker=False,
    )  # fmt: skip


def turbo():
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    return diffusers.StableDiffusionPipeline(
        vae(scaling_factor=0.18215), clip(), clip_tokenizer(), unet(use_linear_projection=True), scheduler, None, None, requires_safety_checker=False
    )


def sdxl():
    net = unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32, cross_attention_dim=64,
        transformer_layers_per_block=(1, 2), use_linear_projection=True, attention_head_dim=(2, 4),
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae(scaling_factor=0.13025, force_upcast=True), clip(), clip(projected=True, seed=1), clip_tokenizer(), clip_tokenizer(), net,
        diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
    )  # fmt: skip


def pixart():
    net = diffusers.PixArtTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32, in_channels=4,
        cross_attention_dim=24, out_channels=8, use_additional_conditions=False,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    return diffusers.PixArtSigmaPipeline(t5_tokenizer(), t5(), vae(scaling_factor=0.13025), net, scheduler)


def sd3():
    net = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32,
        joint_attention_dim=64, pooled_projection_dim=64, out_channels=16, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        net, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        clip(projected=True), clip_tokenizer(), clip(projected=True, seed=1), clip_tokenizer(), t5(64), t5_tokenizer(),
    )  # fmt: skip


def flux(dynamic=False):
    net = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
        pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=False,
    )  # fmt: skip
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=dynamic),
        vae(4, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        clip(), clip_tokenizer(), t5(), t5_tokenizer(), net,
    )  # fmt: skip


def deepfloyd():
    net = unet(
        in_channels=3, out_channels=6, down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), encoder_hid_dim=32, attention_head_dim=8, addition_embed_type="text",
        addition_embed_type_num_heads=2, cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift", act_fn="gelu",
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1.5, variance_type="learned_range"
    )
    return diffusers.IFPipeline(t5_tokenizer(), t5(), net, scheduler, None, None, None, requires_safety_checker=False)


MAKERS = {"sd-1.5": sd, "sd-turbo": turbo, "sdxl": sdxl, "pixart-sigma": pixart, "sd-3.5-medium": sd3, "flux-schnell": flux, "deepfloyd-if": deepfloyd}


def write(name: str, folder) -> None:
    """Save the checkpoint that stands in for the card `name`, with the published file names."""
    torch.manual_seed(0)
    pipe = MAKERS[name]()
    pipe.save_pretrained(folder, safe_serialization=True, variant="fp16" if name in ("sd-1.5", "sd-turbo", "sdxl", "deepfloyd-if") else None)
