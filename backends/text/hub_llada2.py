"""LLaDA 2.0's checkpoints (inclusionAI/LLaDA2.0-mini) as transformers' Glm4Moe, which has the same arithmetic under other names.

Facts from inclusionAI's own code (dFactory, models/llada2_moe; dInfer, model/modeling_llada2_moe.py): queries, keys and values in
one matrix, in this order; RMS norms of each head's queries and keys before rotary positions on the first half of its features;
experts by sigmoid scores plus a bias, from the best groups, whose weights are the scores alone, normed to 1 and scaled; shared
experts added; the first layers dense. Where we differ: the routing bias stays float32 (their loader's precision is the network's),
and outputs of experts are added up in the network's precision, theirs in float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NAMES = {"model.word_embeddings.": "model.embed_tokens.", ".attention.dense.": ".self_attn.o_proj.", ".attention.query_layernorm.": ".self_attn.q_norm.",
         ".attention.key_layernorm.": ".self_attn.k_norm.", ".gate.expert_bias": ".gate.e_score_correction_bias"}  # fmt: skip
EXPERT = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


def glm_config(given: dict) -> dict:
    """LLaDA 2's config.json in the words of Glm4MoeConfig; ValueError where Glm4Moe would compute something else."""
    if given.get("rope_scaling") or given.get("score_function", "sigmoid") != "sigmoid" or given.get("use_bias") or not given.get("use_qk_norm", True):
        raise ValueError("a LLaDA 2 of another make")
    rope = {"rope_type": "default", "rope_theta": given["rope_theta"], "partial_rotary_factor": given["partial_rotary_factor"]}
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps",
            "max_position_embeddings", "moe_intermediate_size", "num_experts_per_tok", "routed_scaling_factor", "n_group", "topk_group",
            "first_k_dense_replace", "tie_word_embeddings")  # fmt: skip
    return {name: given[name] for name in same} | dict(
        rope_parameters=rope, n_routed_experts=given["num_experts"], n_shared_experts=given["num_shared_experts"], use_qk_norm=True, num_mtp_layers=0,
        attention_bias=given.get("use_qkv_bias", False), norm_topk_prob=given["num_experts_per_tok"] > 1,  # their code asks nothing else
    )  # fmt: skip


def glm_tensors(found: Iterable[tuple[str, Tensor]], given: dict) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a checkpoint's files -> of Glm4Moe: the fused matrix in three, a layer's experts in two stacks.

    Experts may be spread over files, so stacks come last: gate above up (E, 2I, D), and down (E, D, I).
    """
    heads, shared, inner = given["num_attention_heads"], given["num_key_value_heads"], given["moe_intermediate_size"]
    widths, stacks, missing = [given["head_dim"] * n for n in (heads, shared, shared)], {}, {}
    for name, tensor in found:
        if ".attention.query_key_value." in name:
            yield from ((name.replace("attention.query_key_value", f"self_attn.{p}_proj"), part) for p, part in zip("qkv", tensor.split(widths)))
        elif match := EXPERT.fullmatch(name):
            of, number, kind = match[1], int(match[2]), match[3]
            target = f"{of}.down_proj" if kind == "down" else f"{of}.gate_up_proj"
            if target not in stacks:
                rows = tensor.shape[0] if kind == "down" else 2 * inner
                stacks[target] = tensor.new_empty(given["num_experts"], rows, tensor.shape[1])
                missing[target] = given["num_experts"] * (1 if kind == "down" else 2)
            stacks[target][number, inner if kind == "up" else 0 :][: len(tensor)] = tensor
            missing[target] -= 1
        else:
            for theirs, ours in NAMES.items():
                name = name.replace(theirs, ours)
            yield name, tensor
    if lost := [name for name, n in missing.items() if n]:
        raise ValueError(f"missing experts of {lost[:3]}")
    yield from stacks.items()
