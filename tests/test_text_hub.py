"""Real text checkpoints: small random ones in the published layouts are read by name and answer as their publishers' code would."""

import json
import types

import pytest
import torch
from safetensors.torch import save_file

from backends import models
from backends.spec import BadInput
from backends.text import hub
from tests.tiny_text import tokenizer

LLADA = {"model_type": "llada", "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 64, "embedding_size": 64, "vocab_size": 64,
         "max_sequence_length": 64, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "mask_token_id": 1, "weight_tying": False, "auto_map": {"AutoModel": "x.y"}}  # fmt: skip
QWEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 64, "mask_token_id": 1,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False, "head_dim": 8, "auto_map": {"AutoModel": "x.y"}}  # fmt: skip


def card(kind, **options):
    return types.SimpleNamespace(
        title="Small", name="small", options={"kind": kind, "mask": 1, "eos": 0, "context": 64} | options, capabilities=hub and frozenset()
    )


def llada_tensors():
    torch.manual_seed(0)
    d, h, v = 32, 64, 64
    found = {
        "model.transformer.wte.weight": torch.randn(v, d),
        "model.transformer.ln_f.weight": torch.rand(d),
        "model.transformer.ff_out.weight": torch.randn(v, d),
    }
    for i in range(2):
        block = f"model.transformer.blocks.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            found[f"{block}{name}.weight"] = torch.randn(d, d) / d**0.5
        found |= {f"{block}{n}.weight": torch.randn(h, d) / d**0.5 for n in ("ff_proj", "up_proj")}
        found[f"{block}ff_out.weight"] = torch.randn(d, h) / h**0.5
        found |= {f"{block}{n}.weight": torch.rand(d) for n in ("attn_norm", "ff_norm")}
    return found


def llada_logits(w, ids, heads=4, theta=500000.0):
    """LLaDA's computation written out: RMS norms, rotary halves, attention both ways, SwiGLU with ff_proj as the gate."""

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * w[name]

    x, n = w["model.transformer.wte.weight"][ids], len(ids)
    size = x.shape[-1] // heads
    angle = torch.outer(torch.arange(n).float(), theta ** (-torch.arange(0, size, 2).float() / size)).repeat(1, 2)
    turn = lambda m: m * angle.cos() + torch.cat([-m[..., size // 2 :], m[..., : size // 2]], -1) * angle.sin()  # noqa: E731
    for i in range(2):
        b = f"model.transformer.blocks.{i}."
        h = norm(x, f"{b}attn_norm.weight")
        q, k, v = ((h @ w[f"{b}{p}.weight"].T).unflatten(-1, (heads, size)).transpose(0, 1) for p in ("q_proj", "k_proj", "v_proj"))
        mixed = (turn(q) @ turn(k).mT / size**0.5).softmax(-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ w[f"{b}attn_out.weight"].T
        h = norm(x, f"{b}ff_norm.weight")
        x = x + (torch.nn.functional.silu(h @ w[f"{b}ff_proj.weight"].T) * (h @ w[f"{b}up_proj.weight"].T)) @ w[f"{b}ff_out.weight"].T
    return norm(x, "model.transformer.ln_f.weight") @ w["model.transformer.ff_out.weight"].T


def written(folder, config, tensors):
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    tokenizer().save_pretrained(folder)
    return folder


def qwen(family, config):
    import transformers

    torch.manual_seed(1)
    kept = {k: v for k, v in config.items() if k not in ("auto_map", "mask_token_id")}
    return getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**kept | {"initializer_range": 0.3}, attn_implementation="eager")
    ).eval()


def test_llada_is_read_by_its_own_names(tmp_path):
    tensors = llada_tensors()
    net, words = hub.read(card("llada"), written(tmp_path, LLADA, tensors), torch.float32)
    model = hub.wrap(card("llada"), net, words, "cpu")
    ids = torch.tensor([5, 9, 1, 1, 20, 7])
    wanted = llada_logits(tensors, ids)
    wanted[:, 1] = -torch.inf
    assert torch.allclose(model.logits(ids[None])[0], wanted, atol=1e-4)
    assert (model.net.config.head_dim, model.net.config.max_position_embeddings) == (8, 64)


def test_dream_speaks_of_the_next_token_and_looks_both_ways(tmp_path):
    source = qwen("Qwen2", QWEN)
    net, words = hub.read(card("dream"), written(tmp_path, QWEN | {"model_type": "Dream"}, source.state_dict()), torch.float32)
    model, ids = hub.wrap(card("dream"), net, words, "cpu"), torch.tensor([[5, 9, 1, 1, 20, 7]])
    n = ids.shape[1]
    with torch.no_grad():
        raw = source(input_ids=ids, attention_mask=torch.zeros(1, 1, n, n)).logits
    out = model.logits(ids)
    keep = [i for i in range(64) if i != 1]
    assert torch.allclose(out[:, 1:, keep], raw[:, :-1, keep], atol=1e-5) and torch.allclose(out[:, 0, keep], raw[:, 0, keep], atol=1e-5)


def test_trado_sees_its_block_and_those_before(tmp_path):
    source = qwen("Qwen3", QWEN)
    net, words = hub.read(card("sdar"), written(tmp_path, QWEN | {"model_type": "sdar"}, source.state_dict()), torch.float32)
    model, ids = hub.wrap(card("sdar"), net, words, "cpu"), torch.arange(5, 17)[None]
    before = model.logits(ids)
    for place, first in ((11, 8), (5, 4), (0, 0)):  # a change is seen from its own block on, and not before
        changed = ids.clone()
        changed[0, place] = 40
        moved = (model.logits(changed) - before).abs().nan_to_num().amax((0, 2)) > 1e-6
        assert not moved[:first].any() and moved[first:].all()


def test_a_file_with_other_tensors_is_refused_with_a_sentence(tmp_path, monkeypatch):
    tensors = llada_tensors()
    tensors.pop("model.transformer.blocks.1.up_proj.weight")
    folder = written(tmp_path, LLADA, tensors)
    monkeypatch.setattr(hub, "fetch", lambda card: folder)
    with pytest.raises(BadInput, match="can't be read"):
        hub.load(card("llada"))


def test_real_text_cards_name_their_mask():
    for name in ("llada-8b", "dream-7b"):
        options = models.get(name).options
        assert options["mask"] > 126000 and options["context"] >= 2048
