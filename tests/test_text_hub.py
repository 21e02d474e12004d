"""Real text checkpoints: small random ones in the published layouts are read by name and answer as their publishers' code would."""

import json
import types
from fnmatch import fnmatch

import pytest
import torch
from safetensors.torch import save_file

from backends import models
from backends.download import patterns
from backends.spec import BadInput, Result, Step
from backends.text import hub, reinforce
from backends.text.canvas import Canvas
from backends.text.decoding import BlockCache, Reader, Rule, decode
from backends.text.dlm_survey import low_confidence
from backends.text.edlm import edlm
from backends.text.longllada import ANSWER, longllada, rope_of
from backends.text.rcr import rcr
from backends.text.s3 import free_form, s3
from backends.text.tasks import FillForm, FindNeedle, WriteText
from tests.tiny_text import tokenizer

LLADA = {"model_type": "llada", "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 64, "embedding_size": 64, "vocab_size": 64,
         "max_sequence_length": 64, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "mask_token_id": 1, "weight_tying": False, "auto_map": {"AutoModel": "x.y"}}  # fmt: skip
QWEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 64, "mask_token_id": 1,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False, "auto_map": {"AutoModel": "x.y"}}  # fmt: skip
QWEN3 = QWEN | {"head_dim": 8}


def card(kind, **options):
    return types.SimpleNamespace(
        embedded=False,
        title="Small",
        name="small",
        options={"kind": kind, "mask": 1, "ends": (0,), "context": 64, "block": 4} | options,
        capabilities=hub and frozenset(),
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


def llada(folder, **options):
    chosen = card("llada", **options)
    return hub.wrap(chosen, *hub.read(chosen, written(folder, LLADA, llada_tensors()), torch.float32), "cpu")


def dream(folder, **options):
    chosen = card("dream", **options)
    return hub.wrap(chosen, *hub.read(chosen, written(folder, QWEN | {"model_type": "Dream"}, qwen("Qwen2", QWEN).state_dict()), torch.float32), "cpu")


def trado(folder, **options):
    chosen = card("sdar", **options)
    return hub.wrap(chosen, *hub.read(chosen, written(folder, QWEN3 | {"model_type": "sdar"}, qwen("Qwen3", QWEN3).state_dict()), torch.float32), "cpu")


def test_dream_speaks_of_the_next_token_and_looks_both_ways(tmp_path):
    source, model, ids = qwen("Qwen2", QWEN), dream(tmp_path), torch.tensor([[5, 9, 1, 1, 20, 7]])
    n = ids.shape[1]
    with torch.no_grad():
        raw = source(input_ids=ids, attention_mask=torch.zeros(1, 1, n, n)).logits
    out = model.logits(ids)
    keep = [i for i in range(64) if i != 1]
    assert torch.allclose(out[:, 1:, keep], raw[:, :-1, keep], atol=1e-5) and torch.allclose(out[:, 0, keep], raw[:, 0, keep], atol=1e-5)


def test_trado_sees_its_block_and_those_before(tmp_path):
    model, ids = trado(tmp_path), torch.arange(5, 17)[None]
    before = model.logits(ids)
    for place, first in ((11, 8), (5, 4), (0, 0)):  # a change is seen from its own block on, and not before
        changed = ids.clone()
        changed[0, place] = 40
        moved = (model.logits(changed) - before).abs().nan_to_num().amax((0, 2)) > 1e-6
        assert not moved[:first].any() and moved[first:].all()


LLADA2 = {"model_type": "llada2_moe", "auto_map": {"AutoModel": "x.y"}, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "partial_rotary_factor": 0.5, "rotary_dim": 8, "rope_theta": 600000, "rope_scaling": None,
          "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "first_k_dense_replace": 1, "num_experts": 8, "num_experts_per_tok": 3, "num_shared_experts": 1, "n_group": 4,
          "topk_group": 2, "moe_intermediate_size": 16, "routed_scaling_factor": 2.5, "norm_topk_prob": True, "score_function": "sigmoid", "use_bias": False,
          "use_qkv_bias": False, "tie_word_embeddings": False, "pad_token_id": 0}  # fmt: skip


def llada2_tensors(c=LLADA2):
    torch.manual_seed(2)
    d, inner, size = c["hidden_size"], c["moe_intermediate_size"], c["head_dim"]

    def matrix(out, given):
        return torch.randn(out, given) / given**0.5

    found = {"model.word_embeddings.weight": torch.randn(64, d), "model.norm.weight": torch.rand(d), "lm_head.weight": torch.randn(64, d)}
    for i in range(c["num_hidden_layers"]):
        at, made = f"model.layers.{i}.", {}
        made["attention.query_key_value"], made["attention.dense"] = matrix((4 + 2 + 2) * size, d), matrix(d, 4 * size)
        made |= {f"attention.{n}_layernorm": torch.rand(size) + 0.5 for n in ("query", "key")}
        made |= {n: torch.rand(d) + 0.5 for n in ("input_layernorm", "post_attention_layernorm")}
        parts = {"mlp": 64} if i < c["first_k_dense_replace"] else {f"mlp.experts.{e}": inner for e in range(8)} | {"mlp.shared_experts": inner, "mlp.gate": 0}
        for part, width in parts.items():
            if width:
                made |= {f"{part}.gate_proj": matrix(width, d), f"{part}.up_proj": matrix(width, d), f"{part}.down_proj": matrix(d, width)}
            else:
                made[part], found[f"{at}mlp.gate.expert_bias"] = matrix(8, d), torch.randn(8) / 4
        found |= {f"{at}{name}.weight": tensor for name, tensor in made.items()}
    return found


def llada2_logits(w, ids, block, c=LLADA2):
    """LLaDA 2's computation written out, one token at a time through the experts."""

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + c["rms_norm_eps"]) * w[f"{name}.weight"]

    def swiglu(x, name):
        return (torch.nn.functional.silu(x @ w[f"{name}.gate_proj.weight"].T) * (x @ w[f"{name}.up_proj.weight"].T)) @ w[f"{name}.down_proj.weight"].T

    def turn(m, turned=8):  # half of each head's 16 features turn, in pairs four apart
        angle = torch.outer(torch.arange(m.shape[1]).float(), c["rope_theta"] ** (-torch.arange(0, turned, 2).float() / turned))
        pairs = torch.polar(torch.ones_like(angle), angle) * torch.complex(m[..., : turned // 2], m[..., turned // 2 : turned])
        return torch.cat([pairs.real, pairs.imag, m[..., turned:]], -1)

    def experts(x, name):
        score = (x @ w[f"{name}.gate.weight"].T).sigmoid()
        liked = (score + w[f"{name}.gate.expert_bias"]).tolist()
        groups = sorted(range(4), key=lambda g: -sum(liked[2 * g : 2 * g + 2]))[:2]
        chosen = sorted((e for g in groups for e in (2 * g, 2 * g + 1)), key=lambda e: -liked[e])[:3]
        return sum(2.5 * score[e] / score[chosen].sum() * swiglu(x, f"{name}.experts.{e}") for e in chosen) + swiglu(x, f"{name}.shared_experts")

    x, n = w["model.word_embeddings.weight"][ids], len(ids)
    of = torch.arange(n) // block
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        heads = (norm(x, f"{at}.input_layernorm") @ w[f"{at}.attention.query_key_value.weight"].T).unflatten(-1, (8, 16)).transpose(0, 1)
        q, k, v = heads[:4], heads[4:6].repeat_interleave(2, 0), heads[6:].repeat_interleave(2, 0)
        q, k = turn(norm(q, f"{at}.attention.query_layernorm")), turn(norm(k, f"{at}.attention.key_layernorm"))
        looks = (q @ k.mT / 4).masked_fill(of[None] > of[:, None], -torch.inf).softmax(-1)
        x = x + (looks @ v).transpose(0, 1).flatten(1) @ w[f"{at}.attention.dense.weight"].T
        h = norm(x, f"{at}.post_attention_layernorm")
        x = x + (swiglu(h, f"{at}.mlp") if i == 0 else torch.stack([experts(token, f"{at}.mlp") for token in h]))
    return norm(x, "model.norm") @ w["lm_head.weight"].T


def sharded(folder, config, tensors):
    """The checkpoint in two files that share every layer's experts between them."""
    written(folder, config, dict(list(tensors.items())[::2]))
    save_file(dict(list(tensors.items())[1::2]), folder / "model-2.safetensors")
    return folder


def llada2(folder, dtype=torch.float32, **options):
    chosen = card("llada2", **options)
    net, read = hub.read(chosen, sharded(folder, LLADA2, llada2_tensors()), dtype)
    return hub.wrap(chosen, net, read, "cpu")


def test_llada2_is_read_with_its_experts_and_blocks(tmp_path):
    model, ids = llada2(tmp_path), torch.randint(4, 56, (2, 11), generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([llada2_logits(llada2_tensors(), row, 4) for row in ids])
    wanted[..., 1] = -torch.inf
    assert torch.allclose(model.logits(ids), wanted, atol=1e-4)
    model.net.model.layers[1].mlp.gate.e_score_correction_bias.zero_()  # the choice of experts hangs on the bias that was read
    assert not torch.allclose(model.logits(ids), wanted, atol=1e-2)


def test_llada2_keeps_its_routing_bias_whole_in_bfloat16(tmp_path):
    model = llada2(tmp_path, torch.bfloat16)
    layer = model.net.model.layers[1].mlp
    assert torch.equal(layer.gate.e_score_correction_bias, llada2_tensors()["model.layers.1.mlp.gate.expert_bias"])
    assert layer.experts.gate_up_proj.dtype == torch.bfloat16 and model.logits(torch.arange(4, 16)[None])[..., 2:].isfinite().all()


def test_padding_on_the_left_changes_nothing(tmp_path):
    """Blocks start with the row's first token, so a padded row reads as it would alone."""
    for folder, model in (("two", llada2), ("mdlm", mdlm)):
        (tmp_path / folder).mkdir()
        model, ids = model(tmp_path / folder), torch.arange(5, 16)[None]
        seen = torch.tensor([[False] * 3 + [True] * 11])
        padded = model.logits(torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1), attention_mask=seen)
        assert torch.allclose(padded[:, 3:], model.logits(ids), atol=1e-4)


def test_llada2_decodes_as_diffusers_pipeline(tmp_path):
    """Same network, prompt of whole blocks, temperature 0: the same tokens after as many evaluations of a block with masks in it."""
    from diffusers import BlockRefinementScheduler, LLaDA2Pipeline

    model, asked = llada2(tmp_path, block=8), []

    class Network(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, ids, attention_mask, position_ids):
            asked.append(bool((ids[:, -8:] == 1).any()))
            return types.SimpleNamespace(logits=model.logits(ids, attention_mask=attention_mask, position_ids=position_ids))

    pipe = LLaDA2Pipeline(Network(), BlockRefinementScheduler(block_length=8))
    pipe.set_progress_bar_config(disable=True)
    prompt = torch.randint(4, 56, (16,), generator=torch.Generator().manual_seed(1))
    counts = set()
    for threshold in (0.3, 0.5, 0.7):
        asked.clear()
        theirs = pipe(input_ids=prompt, gen_length=24, block_length=8, num_inference_steps=8, threshold=threshold, editing_threshold=None, eos_early_stop=False,
                      mask_token_id=1, output_type="seq").sequences[0]  # fmt: skip
        canvas = Canvas.after(model, prompt, 24)
        steps = len(list(decode(canvas, Reader(model), Rule(commit="threshold", threshold=threshold), 24, 8)))
        assert torch.equal(canvas.ids[16:], theirs) and steps == sum(asked)
        counts.add(steps)
    assert len(counts) > 1 and min(counts) < 24  # the threshold told, and let several tokens come at once


def test_blocks_and_caches_dont_go_together(tmp_path):
    model, canvas = llada2(tmp_path), torch.arange(4, 16)
    read = BlockCache(model)
    read.begin(canvas := Canvas.after(model, canvas, 8), 12, 20)
    with pytest.raises(BadInput, match="cache"):
        read(canvas)
    with pytest.raises(BadInput, match="cache"):  # as a reader does that calls the layers itself
        model.finished(torch.zeros(1, 20, 32))


MDLM = {"model_type": "mdlm", "auto_map": {"AutoModelForMaskedLM": "x.y"}, "vocab_size": 64, "model_length": 64, "hidden_dim": 32, "cond_dim": 12, "n_blocks": 2,
        "n_heads": 4, "dropout": 0.1, "time_conditioning": False}  # fmt: skip


def mdlm_tensors():
    torch.manual_seed(3)
    d, c, v = 32, 12, 64

    def linear(name, out, given):
        return {f"{name}.weight": torch.randn(out, given) / given**0.5, f"{name}.bias": torch.randn(out) / 2}

    found = {"vocab_embed.embedding": torch.randn(v, d), "rotary_emb.inv_freq": 1 / 10_000 ** (torch.arange(0, 8, 2) / 8)}
    found |= linear("sigma_map.mlp.0", c, 256) | linear("sigma_map.mlp.2", c, c)
    for i in range(2):
        at = f"blocks.{i}."
        found |= {f"{at}norm1.weight": torch.rand(d), f"{at}norm2.weight": torch.rand(d), f"{at}attn_out.weight": torch.randn(d, d) / d**0.5}
        found[f"{at}attn_qkv.weight"] = torch.randn(3 * d, d) / d**0.5
        found |= linear(f"{at}mlp.0", 4 * d, d) | linear(f"{at}mlp.2", d, 4 * d) | linear(f"{at}adaLN_modulation", 6 * d, c)
    found |= {"output_layer.norm_final.weight": torch.rand(d)} | linear("output_layer.linear", v, d) | linear("output_layer.adaLN_modulation", 2 * d, c)
    return {f"backbone.{name}": tensor for name, tensor in found.items()}


def mdlm_logits(w, ids):
    """MDLM's computation written out, at σ = 0."""
    w, n = {name.removeprefix("backbone."): tensor for name, tensor in w.items()}, len(ids)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def norm(x, name):
        return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5) * w[f"{name}.weight"]

    silu, gelu = torch.nn.functional.silu, lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    sigma = torch.cat([torch.ones(128), torch.zeros(128)])  # cos 0 and sin 0
    c = silu(linear(silu(linear(sigma, "sigma_map.mlp.0")), "sigma_map.mlp.2"))
    angle = torch.outer(torch.arange(n).float(), w["rotary_emb.inv_freq"])
    turn = lambda m: torch.polar(torch.ones_like(angle), angle) * torch.complex(m[..., :4], m[..., 4:])  # noqa: E731
    x = w["vocab_embed.embedding"][ids]
    for i in range(2):
        at = f"blocks.{i}."
        a, b, g, a2, b2, g2 = linear(c, f"{at}adaLN_modulation").split(32)
        q, k, v = (m.unflatten(-1, (4, 8)).transpose(0, 1) for m in linear(norm(x, f"{at}norm1") * (1 + b) + a, f"{at}attn_qkv").split(32, -1))
        looks = ((turn(q) @ turn(k).mH).real / 8**0.5).softmax(-1)
        x = x + g * linear((looks @ v).transpose(0, 1).flatten(1), f"{at}attn_out")
        x = x + g2 * linear(gelu(linear(norm(x, f"{at}norm2") * (1 + b2) + a2, f"{at}mlp.0")), f"{at}mlp.2")
    a, b = linear(c, "output_layer.adaLN_modulation").split(32)
    return linear(norm(x, "output_layer.norm_final") * (1 + b) + a, "output_layer.linear")


def mdlm(folder, **options):
    chosen = card("mdlm", **options)
    return hub.wrap(chosen, *hub.read(chosen, written(folder, MDLM, mdlm_tensors()), torch.float32), "cpu")


def test_mdlm_is_read_by_its_own_names(tmp_path):
    model, ids = mdlm(tmp_path), torch.tensor([5, 9, 1, 1, 20, 7])
    wanted = mdlm_logits(mdlm_tensors(), ids)
    wanted[:, 1] = -torch.inf
    assert torch.allclose(model.logits(ids[None])[0], wanted, atol=1e-4)
    assert model.nfe == 1


def test_mdlm_goes_on_from_plain_text_after_an_end_token(tmp_path):
    model = mdlm(tmp_path)
    ids = model.encode("a cat", 8)
    assert ids.tolist() == [model.eos, *model.tokens("a cat")]
    rolled = reinforce.roll_out(model, ["a cat", "dog"], 2, 4, 0.0)  # prompts of two lengths, padded
    assert (rolled.ids != model.mask).all() and rolled.ids.shape == (4, 10)
    with reinforce.trained_copy(model) as policy, torch.enable_grad():
        reinforce.replayed(policy, rolled, rolled.at(0, model.mask)).sum().backward()
        assert policy.net.backbone.blocks[0].attn_qkv.weight.grad.any()


def test_mdlm_takes_its_tokenizer_from_where_the_card_says(tmp_path, monkeypatch):
    """The repository has none; only the tokenizer's files of the other one are asked for."""
    folder, other = tmp_path / "mdlm", tmp_path / "gpt2"
    folder.mkdir(), other.mkdir(), written(folder, MDLM, mdlm_tensors()), tokenizer().save_pretrained(other)
    for file in folder.glob("*token*.json"):
        file.unlink()
    asked, real = [], models.Card(
        name="mdlm", title="MDLM", loader="", capabilities=frozenset(), licence="", source=str(folder),
        options={"kind": "mdlm", "mask": 1, "ends": (0,), "context": 64, "tokenizer": ("some/gpt2", "abc")},
    )  # fmt: skip

    def fetch(wanted):
        asked.append(wanted)
        return other

    monkeypatch.setattr(hub, "fetch", fetch)
    _, read = hub.read(real, folder, torch.float32)
    assert read.convert_tokens_to_ids("<mask>") == 1 and [(c.source, c.revision) for c in asked] == [("some/gpt2", "abc")]
    taken = [f for f in ("model.safetensors", "tokenizer.json", "merges.txt", "vocab.json") if any(fnmatch(f, p) for p in patterns(asked[0]))]
    assert taken == ["tokenizer.json", "merges.txt", "vocab.json"]


@pytest.mark.parametrize("kind, config, tensors, gone", [
    ("llada2", LLADA2, llada2_tensors, "model.layers.2.mlp.experts.5.up_proj.weight"),
    ("llada2", LLADA2, llada2_tensors, "model.layers.1.mlp.gate.expert_bias"),
    ("llada2", LLADA2 | {"use_bias": True}, llada2_tensors, None),
    ("mdlm", MDLM, mdlm_tensors, "backbone.blocks.1.norm2.weight"),
    ("mdlm", MDLM | {"time_conditioning": True}, mdlm_tensors, None),
])  # fmt: skip
def test_what_would_be_read_wrongly_is_refused(kind, config, tensors, gone, tmp_path):
    found = tensors()
    found.pop(gone, None)
    with pytest.raises(ValueError):
        hub.read(card(kind), written(tmp_path, config, found), torch.float32)


def test_a_file_with_other_tensors_is_refused_with_a_sentence(tmp_path, monkeypatch):
    tensors = llada_tensors()
    tensors.pop("model.transformer.blocks.1.up_proj.weight")
    folder = written(tmp_path, LLADA, tensors)
    monkeypatch.setattr(hub, "fetch", lambda card: folder)
    with pytest.raises(BadInput, match="can't be read"):
        hub.load(card("llada"))


def test_real_text_cards_name_their_mask():
    for name in ("llada-8b", "dream-7b", "llada2-mini"):
        options = models.get(name).options
        assert options["mask"] > 126000 and options["context"] >= 2048
    assert models.get("llada-8b").options["ends"] == (126081, 126348)  # <|endoftext|>, <|eot_id|>
    options = models.get("mdlm").options
    assert options["mask"] == options["ends"][0] + 1 == 50257 and options["context"] == 1024  # appended to GPT-2's words


ALL = {"llada": llada, "dream": dream, "sdar": trado, "llada2": llada2, "mdlm": mdlm}


@pytest.mark.parametrize("kind", [k for k in ALL if k != "mdlm"])
def test_attention_without_kept_scores_is_the_same_attention(kind, tmp_path):
    """Where there is no padding no mask is made, which must not be taken for a causal one."""
    model, ids = ALL[kind](tmp_path), torch.randint(4, 56, (2, 24), generator=torch.Generator().manual_seed(0))
    seen = torch.ones_like(ids, dtype=torch.bool)
    seen[1, :5] = False
    with torch.no_grad():
        lean = [model.logits(ids), model.logits(ids, attention_mask=seen)]
        assert model.net.config._attn_implementation == "sdpa" and not model.net.config.use_cache
        model.net.set_attn_implementation("eager")
        for a, b, real in zip(lean, (model.logits(ids), model.logits(ids, attention_mask=seen)), (torch.ones_like(seen), seen)):
            assert (a - b)[real].nan_to_num().abs().max() < 1e-5  # −∞ of the mask token


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_kept_keys_and_values_give_the_plain_pass(kind, tmp_path):
    model, ids = ALL[kind](tmp_path), torch.arange(5, 17)
    canvas = Canvas.after(model, ids, 8)
    for dual in (False, True):
        read = BlockCache(model, dual=dual)
        read.begin(canvas, 12, 16)
        first, again = read(canvas)[12:16], read(canvas)[12:16]
        assert (
            read.computed < read.asked
            and (Reader(model)(canvas)[12:16] - again).nan_to_num().abs().max() < 1e-5
            and torch.equal(first.argmax(-1), again.argmax(-1))
        )


@pytest.mark.parametrize("kind", list(ALL))
def test_an_answers_logits_are_the_last_of_all(kind, tmp_path):
    model, ids = ALL[kind](tmp_path), torch.randint(4, 56, (2, 14), generator=torch.Generator().manual_seed(0))
    seen = torch.ones_like(ids, dtype=torch.bool)
    seen[1, :3] = False
    assert torch.allclose(model.answers(ids, 6, attention_mask=seen), model.logits(ids, attention_mask=seen)[:, -6:], atol=1e-5)


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_long_notes_are_read_with_the_answers_logits_alone(kind, tmp_path):
    """Head size and trained length as they are: Qwen2's config names no head size, and Dream's positions are those of the model it was made from."""
    model, rows = ALL[kind](tmp_path, context=32), []
    assert rope_of(model) == (8, 1e6 if kind == "dream" else 5e5, 32)
    model.net.lm_head.register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[1]))
    last = next(e for e in longllada(FindNeedle(reach=2.0, needles=1), model) if isinstance(e, Result))
    assert last.value.columns[-1] == "64" and rows and max(rows) == ANSWER + model.shift


def test_block_models_decode_in_their_blocks(tmp_path):
    model, job = trado(tmp_path), WriteText(prompt="abcd", length=12)
    for method in (low_confidence, rcr):
        shows = [e.show.marks for e in method(job, model, steps=6) if isinstance(e, Step)]
        assert [i for i, marks in enumerate(shows) if "m" not in marks[:4] and marks[4:] == "m" * 8] == [1], shows
    form = FillForm(text="ab", form="name")
    model.context = 512
    shows = [e.show.marks for e in free_form(form, model, steps=8, length=16) if isinstance(e, Step)]
    assert "m" not in shows[1][:4] and shows[1][4:] == "m" * 12
    for method, asked in ((edlm, job), (s3, form)):
        with pytest.raises(BadInput, match="Small sees no further than its blocks of 4"):
            list(method(asked, model))


def test_special_tokens_that_a_visitor_types_are_spelt_out(tmp_path):
    model = dream(tmp_path)
    words = model.tokenizer
    words.chat_template = "{% for m in messages %}<none>{{ m.role }} {{ m.content | trim }}<eos>{% endfor %}<none>bot "
    whole = words("<none>user a mask<eos><none>bot ", add_special_tokens=False)["input_ids"]
    assert model.template(" a mask ") == whole  # as the publishers' code would encode it
    ids = model.template("<mask> user <eos><none>bot")
    assert model.mask not in ids and (ids.count(0), ids.count(2)) == (1, 2)
    words.chat_template = None
    assert model.mask not in model.template("<mask>") and model.mask not in mdlm(tmp_path).template("<mask>")
