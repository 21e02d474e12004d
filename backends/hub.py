"""Real checkpoints from the model hub behind the same Denoiser: Stable Diffusion, SDXL, PixArt-Σ, SD 3.5, FLUX, DeepFloyd IF.

Each is loaded as the diffusers pipeline it is published as, safetensors only, no remote code; the pipeline
encodes the text, its network is called as the pipeline calls it (the tests compare the two). Where a GPU is too
small, the text encoders visit it one prompt at a time, and failing that the network's layers do.

Sources: diffusers 0.42's pipelines of the same names; revisions and sizes are in cards.py.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from backends.denoiser import Cond, Denoiser
from backends.download import GB, fetch, reading
from backends.lazy import F, diffusers, torch
from backends.models import Card, device, want, whole
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor

NO_SIZE = {"resolution": None, "aspect_ratio": None}  # PixArt's call asks for it, though only its 1024 px checkpoints look
SLACK = 2.5  # GB of GPU memory that activations and decoding take
log = logging.getLogger(__name__)


class HubDenoiser(Denoiser):
    """Around a diffusers pipeline. Subclasses say how one prompt is encoded and how the network is called."""

    def __init__(self, card: Card, pipe, device="cpu"):
        from backends.nets.pixel_space import PixelSpace

        net = pipe.components.get("unet") or pipe.components["transformer"]
        super().__init__(card, net, pipe.components.get("vae") or PixelSpace(1), pipe.scheduler, None, device, net.dtype)
        self.pipe, self.text_device = pipe, device
        self.encoders = [part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]
        self.visit = False  # the encoders come to the GPU for a prompt and leave again

    def encode(self, *texts):
        with self._encoders_ready():
            return tuple(self.encode_one(t) for t in texts)

    @contextmanager
    def _encoders_ready(self):
        try:
            for encoder in self.encoders if self.visit else ():
                encoder.to(self.text_device)
            yield
        finally:
            for encoder in self.encoders if self.visit else ():
                encoder.to("cpu")

    def cond(self, text: str, embeds: Tensor, tokens=(), **extra: Tensor) -> Cond:
        return Cond(text, embeds.to(self.device), tuple(tokens), {k: v.to(self.device) for k, v in extra.items()})

    def words(self, name: str, text: str, length: int | None = None) -> list[str]:
        """The token strings of a text, as the pipeline's tokenizer `name` pads it."""
        tokenizer = self.pipe.components[name]
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=length or tokenizer.model_max_length).input_ids
        return tokenizer.convert_ids_to_tokens(ids)


class StableDiffusion(HubDenoiser):
    """SD 1.x, 2.x and Turbo: one CLIP text encoder; ε or v."""

    def encode_one(self, text):
        embeds, _ = self.pipe.encode_prompt(text, self.text_device, 1, False)
        return self.cond(text, embeds, self.words("tokenizer", text))


class StableDiffusionXL(HubDenoiser):
    """Two CLIP encoders side by side, the second one's pooled state, and the picture's size as six numbers."""

    def encode_one(self, text):
        embeds, _, pooled, _ = self.pipe.encode_prompt(text, device=self.text_device, do_classifier_free_guidance=False)
        if not text and self.pipe.config.force_zeros_for_empty_prompt:
            embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
        ids = torch.tensor([[self.side, self.side, 0, 0, self.side, self.side]], dtype=embeds.dtype)  # original size, crop, target
        return self.cond(text, embeds, self.words("tokenizer", text), text_embeds=pooled, time_ids=ids)

    def evaluate(self, rows, t, embeds, extra):
        return self.net(rows, t, encoder_hidden_states=embeds, added_cond_kwargs=extra).sample


class PixArt(HubDenoiser):
    """A DiT with T5 states and their mask; the half of its output that is a learnt variance is dropped."""

    LENGTH = 300

    def encode_one(self, text):
        embeds, mask, _, _ = self.pipe.encode_prompt(text, do_classifier_free_guidance=False, device=self.text_device, max_sequence_length=self.LENGTH)
        return self.cond(text, embeds, self.words("tokenizer", text.lower().strip(), self.LENGTH), encoder_attention_mask=mask)

    def evaluate(self, rows, t, embeds, extra):
        out = self.net(rows, timestep=t.expand(len(rows)), encoder_hidden_states=embeds, added_cond_kwargs=NO_SIZE, **extra).sample
        return out[:, : self.channels]


class StableDiffusion3(HubDenoiser):
    """An MMDiT on CLIP, CLIP and T5 states, with pooled projections; flow."""

    LENGTH = 256

    def encode_one(self, text):
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            text, text, text, device=self.text_device, do_classifier_free_guidance=False, max_sequence_length=self.LENGTH
        )
        tokens = self.words("tokenizer", text, self.pipe.tokenizer_max_length) + self.words("tokenizer_3", text, self.LENGTH)
        return self.cond(text, embeds, tokens, pooled_projections=pooled)

    def evaluate(self, rows, t, embeds, extra):
        return self.net(hidden_states=rows, timestep=t.expand(len(rows)), encoder_hidden_states=embeds, **extra).sample

    def spacing(self, steps):
        return shift(self.scheduler.config, (self.side // self.card.factor // self.net.config.patch_size) ** 2)


class Flux(HubDenoiser):
    """A guidance-distilled MMDiT on T5 states, whose latents are packed 2×2 into tokens; flow."""

    LENGTH = 256  # schnell's

    def __init__(self, card, pipe, device="cpu"):
        super().__init__(card, pipe, device)
        self.channels = self.net.config.in_channels // 4

    def encode_one(self, text):
        embeds, pooled, _ = self.pipe.encode_prompt(text, None, device=self.text_device, max_sequence_length=self.LENGTH)
        return self.cond(text, embeds, self.words("tokenizer_2", text, self.LENGTH), pooled_projections=pooled)

    def evaluate(self, rows, t, embeds, extra):
        packed = F.pixel_unshuffle(rows, 2)  # (B, 4C, h/2, w/2)
        h, w = packed.shape[-2:]
        where = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(rows)
        out = self.net(
            hidden_states=packed.flatten(2).mT, timestep=t.expand(len(rows)).to(rows.dtype) / 1000, guidance=None, encoder_hidden_states=embeds,
            img_ids=F.pad(where, (1, 0)), txt_ids=torch.zeros(embeds.shape[1], 3).to(rows), **extra,
        ).sample  # fmt: skip
        return F.pixel_shuffle(out.mT.unflatten(2, (h, w)), 2)

    def spacing(self, steps):
        tokens = (self.side // self.card.factor // 2) ** 2
        return {"sigmas": [1 - i / steps for i in range(steps)]} | shift(self.scheduler.config, tokens)


def shift(config, tokens: int) -> dict:
    """μ, by which schedulers with dynamic shifting lean to noise in large pictures; linear in the number of tokens."""
    if not config.get("use_dynamic_shifting"):
        return {}
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    bottom, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return {"mu": bottom + (top - bottom) * (tokens - low) / (high - low)}


class DeepFloyd(HubDenoiser):
    """DeepFloyd IF's first stage: a UNet on the pixels themselves, on T5 states; of its output the learnt variance is dropped."""

    LENGTH = 77

    def encode_one(self, text):
        embeds, _ = self.pipe.encode_prompt(text, do_classifier_free_guidance=False, device=self.text_device)
        return self.cond(text, embeds, self.words("tokenizer", text.lower().strip(), self.LENGTH))

    def evaluate(self, rows, t, embeds, extra):
        return super().evaluate(rows, t, embeds, extra)[:, : self.channels]


KINDS = {
    "sd": (StableDiffusion, "StableDiffusionPipeline"),
    "sdxl": (StableDiffusionXL, "StableDiffusionXLPipeline"),
    "pixart": (PixArt, "PixArtSigmaPipeline"),
    "sd3": (StableDiffusion3, "StableDiffusion3Pipeline"),
    "flux": (Flux, "FluxPipeline"),
    "if": (DeepFloyd, "IFPipeline"),
}


def load(card: Card) -> HubDenoiser:
    """Fetch, read and place a checkpoint; raises BadInput when the hub, the disk or the memory don't allow it."""
    where = device()
    half = getattr(torch, card.options.get("dtype", "float16"))
    dtype = half if where == "cuda" or half is torch.bfloat16 else torch.float32  # float16 is not for CPUs
    folder = fetch(card)
    _check_memory(card, _elements(folder) * dtype.itemsize)
    with reading(card):
        return place(card, read(card, folder, dtype), where)


def read(card: Card, folder: Path, dtype):
    """The pipeline in `folder` on the CPU, frozen. No variant of the folder's own classes is ever imported."""
    diffusers.utils.logging.disable_progress_bar()
    pipeline = getattr(diffusers, KINDS[card.options["kind"]][1])
    options = {"safety_checker": None, "requires_safety_checker": False} if card.options["kind"] in ("sd", "if") else {}
    options |= {"watermarker": None} if card.options["kind"] == "if" else {}
    try:
        same = dict(torch_dtype=dtype, use_safetensors=True, variant=card.options.get("variant"), local_files_only=True)
        options |= {name: whole(kind, folder / name, **same) for name, kind in _encoders(folder).items()}
        pipe = pipeline.from_pretrained(folder, trust_remote_code=False, **same, **options)
        parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        if any(p.is_meta for part in parts for p in part.parameters()):
            raise ValueError("a part's file lacks some of its weights")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if want(error):
            raise
        log.exception("%s could not be read", card.name)
        raise BadInput(
            f"The files of {card.title} can't be read as a {pipeline.__name__} ({type(error).__name__}); delete its folder in the cache and load it again."
        ) from error
    for part in parts:
        part.eval().requires_grad_(False)
    if "vae" in pipe.components and pipe.vae.config.get("force_upcast"):
        pipe.vae.float()  # SDXL's autoencoder overflows in float16
    return pipe


def _encoders(folder: Path) -> dict[str, type]:
    """The text encoders that the pipeline's index names. They are read one by one, since transformers draws at random what a file lacks, and a pipeline
    does not ask what it drew."""
    import transformers

    index = json.loads((folder / "model_index.json").read_text())
    return {name: getattr(transformers, said[1]) for name, said in index.items() if name.startswith("text_encoder") and said[0] == "transformers"}


def _elements(folder: Path) -> int:
    """How many numbers the checkpoint holds, by its files' headers."""
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*/*.safetensors"):
        with safe_open(file, "pt") as weights:
            total += sum(math.prod(weights.get_slice(k).get_shape()) for k in weights.keys())  # noqa: SIM118  not a dict
    return total


def _check_memory(card: Card, needed: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if needed * 1.1 > free:
        raise BadInput(f"{card.title} takes {needed / GB:.0f} GB of memory to load and {free / GB:.0f} GB are free here; choose a smaller model.")


def place(card: Card, pipe, where: str, free: float | None = None) -> HubDenoiser:
    """Everything on the GPU if it fits into `free` GB; else the text encoders only for each prompt; else the network layer by layer."""
    kind = KINDS[card.options["kind"]][0]
    model = kind(card, pipe, where)
    if where == "cuda" and free is None:
        gc.collect(), torch.cuda.empty_cache()  # what the cache of models has let go
        free = torch.cuda.mem_get_info()[0] / GB - SLACK
    if free is None:
        return model
    size = {part: sum(p.numel() * p.element_size() for p in part.parameters()) / GB for part in (model.net, model.vae, *model.encoders)}
    text = sum(size[e] for e in model.encoders)
    model.vae.to(where)
    if sum(size.values()) <= free:
        model.net.to(where)
        for encoder in model.encoders:
            encoder.to(where)
        return model
    if fits := size[model.net] + size[model.vae] <= free:
        model.net.to(where)
        free -= size[model.net]
    else:
        import accelerate

        accelerate.cpu_offload(model.net, torch.device(where))
        # Weights that come and go have no backward pass.
        model.card = dataclasses.replace(card, capabilities=card.capabilities - {"gradients"})
    model.visit = text <= free - size[model.vae]
    model.text_device = where if model.visit else "cpu"
    log.info("%s: %s, text encoders %s", card.name, "network resident" if fits else "layers offloaded", "visiting" if model.visit else "on the CPU")
    return model
