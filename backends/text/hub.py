"""Real masked diffusion language models behind the same MaskPredictor: LLaDA, LLaDA 2, Dream, TraDo, MDLM.

Their repositories ship code of their own for older versions of transformers. It is not run: LLaDA is a Llama and Dream a Qwen2
that look both ways, TraDo (SDAR) is a Qwen3 and LLaDA 2 a Glm4Moe that look back and at their own block, so each is read into
transformers' class of that name; LLaDA's tensors only have other names (OLMo's), LLaDA 2's see hub_llada2.py. MDLM's network is
none of transformers' (nets/mdlm.py). The tests build small checkpoints in the published layouts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from backends.download import GB, fetch, reading
from backends.lazy import torch
from backends.models import Card, device
from backends.spec import BadInput
from backends.text.predictor import MaskPredictor

if TYPE_CHECKING:
    from torch import Tensor

LLADA = {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm", "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj",
         "v_proj": "self_attn.v_proj", "attn_out": "self_attn.o_proj", "ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj"}  # fmt: skip
COMMON = dict(is_causal=False, use_cache=False, bos_token_id=None, eos_token_id=None, pad_token_id=None)
ASKED = "\ue000"  # stands for the prompt in a chat template: a character that no text has
log = logging.getLogger(__name__)


def llama_names(name: str) -> str:
    """A tensor's name in LLaDA's checkpoint -> in transformers' Llama."""
    name = name.removeprefix("model.transformer.")
    if name.startswith("blocks."):
        _, layer, part, kind = name.split(".")
        return f"model.layers.{layer}.{LLADA[part]}.{kind}"
    part, kind = name.rsplit(".", 1)
    return {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}[part] + f".{kind}"


def llama_config(given: dict) -> dict:
    """LLaDA's config.json in the words of LlamaConfig."""
    return dict(
        vocab_size=given["embedding_size"], hidden_size=given["d_model"], intermediate_size=given["mlp_hidden_size"], num_hidden_layers=given["n_layers"],
        num_attention_heads=given["n_heads"], num_key_value_heads=given.get("n_kv_heads") or given["n_heads"], rms_norm_eps=given["rms_norm_eps"],
        rope_theta=given["rope_theta"], max_position_embeddings=given["max_sequence_length"], tie_word_embeddings=given["weight_tying"],
    )  # fmt: skip


def read(card: Card, folder: Path, dtype):
    """(network, tokenizer) on the CPU, frozen. `options["kind"]`: "llada", "llada2", "dream", "sdar" or "mdlm"."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(words(card, folder), local_files_only=True, trust_remote_code=False)
    kind, config, tensors = card.options["kind"], json.loads((folder / "config.json").read_text()), _tensors(folder)
    if kind == "llada":
        net = _empty("Llama", llama_config(config), dtype)
        tensors = ((llama_names(name), tensor) for name, tensor in tensors)
    elif kind == "llada2":
        from backends.text.hub_llada2 import glm_config, glm_tensors

        net, tensors = _empty("Glm4Moe", glm_config(config), dtype), glm_tensors(tensors, config)
    elif kind == "mdlm":
        from accelerate import init_empty_weights

        from backends.nets.mdlm import Mdlm

        with init_empty_weights(include_buffers=False):
            net = Mdlm(config)
    else:
        kept = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map", "mask_token_id", "torch_dtype", *COMMON)}
        kept |= {"use_sliding_window": False, "tie_word_embeddings": config["tie_word_embeddings"]}
        net = _empty({"dream": "Qwen2", "sdar": "Qwen3"}[kind], kept, dtype)
    _fill(net, tensors, dtype)
    return net.eval().requires_grad_(False), tokenizer


def words(card: Card, folder: Path) -> Path:
    """Where the tokenizer is: in the checkpoint's folder, or in the repository that the card names where that has none (MDLM)."""
    if "tokenizer" not in card.options or (folder / "tokenizer.json").exists():
        return folder
    source, revision = card.options["tokenizer"]
    return fetch(dataclasses.replace(card, source=source, revision=revision, options={"variant": "tokenizer"}))  # no weights are called so, so none come


def _empty(family: str, config: dict, dtype):
    """transformers' network of a family without its weights."""
    import transformers
    from accelerate import init_empty_weights

    config = getattr(transformers, f"{family}Config")(**config, **COMMON)
    with init_empty_weights(include_buffers=False):
        # "eager" would keep all scores of a layer, 34 GB for 16,000 tokens; no method reads them.
        return getattr(transformers, f"{family}ForCausalLM")._from_config(config, dtype=dtype, attn_implementation="sdpa")


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all the files, mapped rather than read."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError("no safetensors")
    for file in files:
        with safe_open(file, "pt") as weights:
            yield from ((name, weights.get_tensor(name)) for name in weights.keys())  # noqa: SIM118  not a dict


def _fill(net, tensors: Iterator[tuple[str, Tensor]], dtype) -> None:
    """Put the tensors in their places: parameters as `dtype`, buffers (frequencies, routing biases) in the precision they have."""
    buffers = dict(net.named_buffers())
    found = {name: tensor.to(buffers[name].dtype if name in buffers else dtype) for name, tensor in tensors}
    missing, unknown = net.load_state_dict(found, strict=False, assign=True)
    if unknown:
        raise ValueError(f"unknown tensors {unknown[:3]}")
    if hasattr(net, "tie_weights"):
        net.tie_weights()
    if empty := [n for n, p in net.named_parameters() if p.is_meta] + [n for n in missing if n in buffers]:
        raise ValueError(f"missing tensors {empty[:3]}")


class BlockCausal(MaskPredictor):
    """SDAR, TraDo and LLaDA 2: a token sees all blocks before its own, and its own both ways.

    Blocks are counted from a row's first token, padding on the left (false in `attention_mask` (B, N)) left out, which nothing sees.
    Where we differ: decoders count an answer's blocks from its start, so a prompt that doesn't fill its last block shifts the two
    against each other; the publishers let the answer begin within that block.
    """

    @property
    def block(self) -> int:
        return self.card.options["block"]

    def _called(self, ids: Tensor, attention_mask: Tensor | None = None, **kw) -> Tensor:
        if "past_key_values" in kw:
            raise self._uncached()
        seen = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        of = (seen.cumsum(1) - 1) // self.block
        hidden = (of[:, None] > of[:, :, None]) | ~seen[:, None]  # (B, who looks, what is there)
        low = torch.finfo(self.net.dtype).min
        return super()._called(ids, attention_mask=torch.zeros_like(hidden, dtype=self.net.dtype).masked_fill(hidden, low)[:, None], **kw)

    def finished(self, hidden: Tensor) -> Tensor:
        raise self._uncached()  # readers that call the layers know nothing of blocks

    def _uncached(self) -> BadInput:
        return BadInput(f"{self.card.title} sees its tokens in blocks, which no cache here knows of; choose the cache “off”.")


def load(card: Card) -> MaskPredictor:
    """Fetch, read and place a checkpoint; raises BadInput when the hub, the disk or the memory don't allow it."""
    import psutil

    where = device()
    folder = fetch(card)
    needed, free = sum(f.stat().st_size for f in folder.glob("*.safetensors")), psutil.virtual_memory().available
    if needed * 1.1 > free:
        raise BadInput(f"{card.title} takes {needed / GB:.0f} GB of memory to load and {free / GB:.0f} GB are free here; choose a smaller model.")
    with reading(card, OSError, ValueError, KeyError):
        net, tokenizer = read(card, folder, getattr(torch, card.options.get("dtype", "bfloat16")))
        return wrap(card, net.to(where), tokenizer, where)


def wrap(card: Card, net, tokenizer, where: str) -> MaskPredictor:
    """The predictor around a network that was read: its chat template before an answer, the card's mask and end tokens.

    MDLM has no template: a prompt is text to go on from, after the end token with which each of its training rows begins.
    """
    options = card.options

    def template(prompt: str) -> list[int]:
        if options["kind"] == "mdlm":
            return [options["ends"][0], *model.tokens(prompt)]
        if not tokenizer.chat_template:
            return tokenizer(prompt, split_special_tokens=True)["input_ids"]
        # The template's own special tokens are read as such, those that a visitor types are spelt out: a mask, or the end of their turn.
        text = tokenizer.apply_chat_template([{"role": "user", "content": ASKED}], tokenize=False, add_generation_prompt=True)
        before, after = (tokenizer(half, add_special_tokens=False)["input_ids"] for half in text.split(ASKED))
        return [*before, *model.tokens(prompt.strip()), *after]

    kind = BlockCausal if options["kind"] in ("sdar", "llada2") else MaskPredictor
    model = kind(card, net, tokenizer, mask=options["mask"], ends=options["ends"], template=template, context=options["context"],
                 shift=options["kind"] == "dream", device=where)  # fmt: skip
    return model
