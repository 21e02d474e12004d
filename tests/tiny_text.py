"""A masked language model small enough for tests: a random bidirectional Llama with a word for each letter and digit."""

import types

import torch

from backends.text.predictor import MaskPredictor

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .:?=+-*()_{}\",'"
SPECIAL = ("<eos>", "<mask>", "<none>", "<unk>")


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate((*SPECIAL, *LETTERS))}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", mask_token="<mask>", additional_special_tokens=["<none>"])
    return fast


def tiny(seed: int = 0, context: int = 128, card=None, ends: tuple[int, ...] = (0,), **kw) -> MaskPredictor:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    read = tokenizer()
    config = LlamaConfig(vocab_size=len(read), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=128, rope_theta=500.0,
                         initializer_range=0.3, is_causal=False, attn_implementation="eager")  # fmt: skip
    net = LlamaForCausalLM(config).eval().requires_grad_(False)
    card = card or types.SimpleNamespace(title="Tiny", name="tiny", capabilities=frozenset({"text", "masked", "llama"}), revision="0", embedded=False)
    return MaskPredictor(card, net, read, mask=1, ends=ends, context=context, template=lambda p: read(p, add_special_tokens=False)["input_ids"], **kw)
