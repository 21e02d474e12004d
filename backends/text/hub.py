"""Real masked diffusion language models behind the same MaskPredictor: LLaDA, Dream, TraDo.

Their repositories ship code of their own for older versions of transformers. It is not run: LLaDA is a Llama and Dream a Qwen2
that look both ways, TraDo (SDAR) is a Qwen3 that looks back and at its own block, so each is read into transformers' class of
that name; LLaDA's tensors only have other names (OLMo's). The tests build small checkpoints in the published layouts.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from backends.download import GB, fetch
from backends.lazy import torch
from backends.models import Card, device, progress
from backends.spec import BadInput
from backends.text.predictor import MaskPredictor

if TYPE_CHECKING:
    from torch import Tensor

LLADA = {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm", "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj",
         "v_proj": "self_attn.v_proj", "attn_out": "self_attn.o_proj", "ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj"}  # fmt: skip
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
    """(network, tokenizer) on the CPU, frozen. `options["kind"]`: "llada", "dream" or "sdar"."""
    import transformers

    kind, config = card.options["kind"], json.loads((folder / "config.json").read_text())
    common = dict(is_causal=False, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    if kind == "llada":
        config = transformers.LlamaConfig(**llama_config(config), **common)
        net = _filled(transformers.LlamaForCausalLM, config, folder, dtype, llama_names)
    else:
        family = {"dream": "Qwen2", "sdar": "Qwen3"}[kind]
        kept = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map", "mask_token_id", "torch_dtype", *common)}
        config = getattr(transformers, f"{family}Config")(
            **kept | {"use_sliding_window": False, "tie_word_embeddings": config["tie_word_embeddings"]}, **common
        )
        net = _filled(getattr(transformers, f"{family}ForCausalLM"), config, folder, dtype, str)
    return net.eval().requires_grad_(False), transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _filled(kind, config, folder: Path, dtype, rename):
    from accelerate import init_empty_weights
    from safetensors import safe_open

    with init_empty_weights(include_buffers=False):
        net = kind._from_config(config, dtype=dtype, attn_implementation="eager")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError("no safetensors")
    for file in files:
        with safe_open(file, "pt") as weights:
            part = {rename(name): weights.get_tensor(name).to(dtype) for name in weights.keys()}  # noqa: SIM118  not a dict
        if unknown := net.load_state_dict(part, strict=False, assign=True).unexpected_keys:
            raise ValueError(f"unknown tensors {unknown[:3]}")
    net.tie_weights()
    if empty := [n for n, p in net.named_parameters() if p.is_meta]:
        raise ValueError(f"missing tensors {empty[:3]}")
    return net


class BlockCausal(MaskPredictor):
    """SDAR and TraDo: a token sees all blocks before its own, and its own both ways; blocks are counted from the canvas's start."""

    block = 4

    def logits(self, ids: Tensor, **kw) -> Tensor:
        n = ids.shape[1]
        of = torch.arange(n, device=ids.device) // self.block
        hidden = torch.zeros(n, n, dtype=self.net.dtype, device=ids.device).masked_fill(of[None] > of[:, None], torch.finfo(self.net.dtype).min)
        return super().logits(ids, attention_mask=hidden[None, None].expand(len(ids), 1, n, n), **kw)


def load(card: Card) -> MaskPredictor:
    """Fetch, read and place a checkpoint; raises BadInput when the hub, the disk or the memory don't allow it."""
    import psutil

    where = device()
    folder = fetch(card)
    needed, free = sum(f.stat().st_size for f in folder.glob("*.safetensors")), psutil.virtual_memory().available
    if needed * 1.1 > free:
        raise BadInput(f"{card.title} takes {needed / GB:.0f} GB of memory to load and {free / GB:.0f} GB are free here; choose a smaller model.")
    progress[card.name] = f"Reading {card.title}"
    try:
        net, tokenizer = read(card, folder, torch.bfloat16)
        return wrap(card, net.to(where), tokenizer, where)
    except (MemoryError, torch.OutOfMemoryError):
        raise BadInput(f"There is not enough memory for {card.title}; choose a smaller model.") from None
    except (OSError, ValueError, KeyError) as error:
        log.exception("%s could not be read", card.name)
        raise BadInput(f"The files of {card.title} can't be read ({type(error).__name__}); delete its folder in the cache and load it again.") from error
    finally:
        progress.pop(card.name, None)


def wrap(card: Card, net, tokenizer, where: str) -> MaskPredictor:
    """The predictor around a network that was read: its chat template before an answer, the card's mask and end tokens."""
    options = card.options

    def template(prompt: str) -> list[int]:
        if not tokenizer.chat_template:
            return tokenizer(prompt)["input_ids"]
        text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    kind = BlockCausal if options["kind"] == "sdar" else MaskPredictor
    return kind(card, net, tokenizer, mask=options["mask"], eos=options["eos"], template=template, context=options["context"],
                shift=options["kind"] == "dream", device=where)  # fmt: skip
