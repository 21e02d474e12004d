"""dLLM-Cache: between refreshes only the tokens whose values moved most are computed anew, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.lazy import F, torch
from backends.text.canvas import Canvas
from backends.text.decoding import Reader

if TYPE_CHECKING:
    from torch import Tensor


class FeatureCache(Reader):
    """Liu et al., arXiv 2506.06295, for networks built as transformers' Llama.

    Each layer keeps its keys, values, attention output and MLP output of every token. The prompt's are computed anew every
    `prompt_every` steps, the answer's every `answer_every`; in between, of the answer only the `share` of tokens whose new
    value vector has the lowest cosine with the kept one. The first layer is always computed in full.
    """

    def __init__(self, model, guidance: float = 0.0, prompt_every: int = 32, answer_every: int = 8, share: float = 0.25):
        super().__init__(model, guidance)
        self.prompt_every, self.answer_every, self.share = prompt_every, answer_every, share
        self.kept: list[dict[str, Tensor]] = []
        self.step = 0

    def __call__(self, canvas: Canvas) -> Tensor:
        rows = self.rows(canvas)
        self.asked += rows.numel()
        self.model.nfe += len(rows)  # the layers are called one by one, past the counter
        logits = self.model.finished(self._hidden(rows, canvas.start))
        self.step += 1
        return self.guided(logits)

    def _hidden(self, rows: Tensor, start: int) -> Tensor:
        net, n = self.model.net.model, rows.shape[1]
        x = net.embed_tokens(rows)
        turn = net.rotary_emb(x, position_ids=torch.arange(n, device=rows.device)[None])
        first, whole = not self.kept, torch.arange(n, device=rows.device)
        prompt, answer = whole[:start] if self.step % self.prompt_every == 0 else whole[:0], whole[start:]
        everything = first or self.step % self.answer_every == 0
        sent = 0
        for i, layer in enumerate(net.layers):
            if first:
                self.kept.append({})
            kept, seen = self.kept[i], layer.input_layernorm(x)
            values = layer.self_attn.v_proj(seen)
            if first or i == 0:
                some = whole
            elif everything:
                some = torch.cat([prompt, answer])
            else:
                moved = F.cosine_similarity(values[:, start:], kept["values"][:, start:], dim=-1).mean(0)  # guided rows move together
                some = torch.cat([prompt, start + moved.topk(max(1, int(self.share * len(moved))), largest=False).indices])
            self._layer(layer, kept, x, seen, values, some, turn)
            x = x + kept["attention"] + kept["mlp"]
            sent += len(some)
        self.computed += len(rows) * sent / len(net.layers)
        return net.norm(x)

    def _layer(self, layer, kept: dict, x: Tensor, seen: Tensor, values: Tensor, some: Tensor, turn) -> None:
        """Compute the tokens `some` (M,) of one layer from x (B, N, D) and write them into `kept`."""
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

        attention, (cos, sin) = layer.self_attn, turn
        part, rotated = seen[:, some], (cos[:, some], sin[:, some])

        def heads(m):
            return m.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

        query, key = apply_rotary_pos_emb(heads(attention.q_proj(part)), heads(attention.k_proj(part)), *rotated)
        _write(kept, "values", some, values[:, some], x.shape[1])
        _write(kept, "keys", some, key.transpose(1, 2).flatten(2), x.shape[1])
        groups = attention.num_key_value_groups
        keys, vals = (repeat_kv(heads(kept[name]), groups) for name in ("keys", "values"))
        probs = (query @ keys.transpose(2, 3) * attention.scaling).softmax(-1)
        out = attention.o_proj((probs @ vals).transpose(1, 2).flatten(2))
        _write(kept, "attention", some, out, x.shape[1])
        _write(kept, "mlp", some, layer.mlp(layer.post_attention_layernorm(x[:, some] + out)), x.shape[1])


def _write(kept: dict, name: str, some: Tensor, new: Tensor, n: int) -> None:
    if name not in kept:
        kept[name] = new.new_zeros(len(new), n, new.shape[-1])
    kept[name][:, some] = new
