"""The publishers' checkpoints of DifFace (zsyOAOA) and InterLCM (sen-mao) behind the same FaceModel, at 512 px.

Both lie in releases of their repositories and on no hub: the host names a folder in UNNOISE_MODELS. DifFace's holds `iddpm_*.pth` and
`swinir_*.pth` (General_Face_ffhq512.pth is taken for the latter too); InterLCM's `visual_encoder*.pth`, `spatial_encoder*.pth`, and beside them the
hub's LCM_Dreamshaper_v7 as the folder `lcm` (unet, vae) and openai/clip-vit-base-patch16 as the folder `clip`. Pickles are read with `weights_only`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from backends.download import reading
from backends.lazy import F, diffusers, torch
from backends.models import Card, device, whole
from backends.restore.face_models import FaceModel
from backends.spec import BadInput

BUFFERS = ("relative_position_index", "attn_mask")  # that SwinIR computes anew
LINEAR = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")  # iDDPM's
SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")  # Stable Diffusion's


def file_in(folder: Path, title: str, *patterns: str) -> Path:
    """The one file that fits; raises BadInput."""
    found = sorted({f for p in patterns for f in folder.glob(p)}) if folder.is_dir() else []
    if len(found) != 1:
        raise BadInput(f"{title} is read from a folder that the host names in UNNOISE_MODELS, with one file {' or '.join(patterns)}; {len(found)} were found.")
    return found[0]


def tensors(path: Path) -> dict:
    """A checkpoint's tensors: the averages where there are some, without the prefix that training on several devices leaves."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("params_ema", "state_dict"):
        found = found.get(key, found)
    return {k.removeprefix("module.").removeprefix("_orig_mod."): v for k, v in found.items() if not k.endswith(BUFFERS)}


def restorer_of(net):
    """SwinIR, which works in [0, 1], called as the embedded restorer is."""

    class Restorer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

        def restore(self, degraded):
            return self((degraded + 1) / 2).clamp(0, 1) * 2 - 1

    return Restorer()


def prior_of(net):
    """iDDPM's UNet without its learned variance, called as diffusers' is."""

    class Prior(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, t):
            return SimpleNamespace(sample=self.net(x, t)[:, :3])

    return Prior()


def difface(card: Card, folder: Path) -> FaceModel:
    from backends.nets import iddpm, swinir

    prior, restorer = file_in(folder, card.title, "iddpm_*.pth"), file_in(folder, card.title, "swinir_*.pth", "General_Face_*.pth")
    prior_net, restorer_net = iddpm.IDDPM(**iddpm.FFHQ512), swinir.SwinIR(**swinir.FACES)
    prior_net.load_state_dict(tensors(prior)), restorer_net.load_state_dict(tensors(restorer))
    bar = diffusers.DDIMScheduler(**LINEAR).alphas_cumprod
    return FaceModel(card, {"restorer": restorer_of(restorer_net), "pixels": prior_of(prior_net)}, {"pixels": bar}, device())


def encoders_of(visual, spatial):
    """InterLCM's two, called as the embedded ones are."""

    class Encoders(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual, self.spatial = visual, spatial

        def context(self, tokens):
            return self.visual(tokens)

        def residuals(self, z, t, context, picture):
            return self.spatial(z, t, encoder_hidden_states=context, controlnet_cond=picture, return_dict=False)

    return Encoders()


class InterLCMModel(FaceModel):
    """Its prompt is CLIP's: every token of the picture after the last normalisation, 197×768."""

    guidance = 8.0

    def prompt(self, pictures):
        clip = self.net["clip"]
        x = F.interpolate(pictures, size=clip.config.image_size, mode="bicubic", antialias=True) / 2 + 0.5
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
        return clip.post_layernorm(clip((x - mean) / std).last_hidden_state)


def interlcm(card: Card, folder: Path) -> FaceModel:
    import transformers

    from backends.nets.interlcm_visual import ClipVisualEncoder

    options = dict(torch_dtype=torch.float32, local_files_only=True, use_safetensors=True)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "lcm" / "unet", **options)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "lcm" / "vae", **options)
    clip = whole(transformers.CLIPVisionModel, folder / "clip", dtype=torch.float32, local_files_only=True)
    visual, spatial = (tensors(file_in(folder, card.title, f"{name}*.pth")) for name in ("visual_encoder", "spatial_encoder"))
    config = {k: v for k, v in unet.config.items() if not k.startswith("_")} | {
        "time_cond_proj_dim": None
    }  # the ControlNet is Stable Diffusion's: it knows no scale
    with torch.device("meta"):
        control = diffusers.ControlNetModel.from_unet(diffusers.UNet2DConditionModel(**config), load_weights_from_unet=False)
    control.to_empty(device="cpu")
    control.load_state_dict(spatial)
    out = [v for k, v in visual.items() if k.endswith("weight")][-1]
    reader = ClipVisualEncoder(visual["blocks.0.weight"].shape[1], out.shape[1] // 2, out=out.shape[0], sizes=card.options.get("sizes", (256, 512, 768)))
    reader.load_state_dict(visual)
    nets = {"vae": vae, "lcm": unet, "encoders": encoders_of(reader, control), "clip": clip}
    return InterLCMModel(card, nets, {"latents": diffusers.DDIMScheduler(**SCALED).alphas_cumprod}, device())


def load(card: Card) -> FaceModel:
    """Find, read and place a checkpoint; raises BadInput when there is none or it can't be read."""
    # torch.load and from_pretrained tell of a broken or refused file in many ways.
    with reading(card, Exception, mend="they must be as the publishers released them", other="the embedded model"):
        model = {"difface": difface, "interlcm": interlcm}[card.options["kind"]](card, Path(card.source))
        model.net.eval().requires_grad_(False).to(model.device)
    return model
