"""The sounds world on the device: clips and their captions' token states, without a tokenizer or MiniLM's package (see sounds_build.py)."""

import json
import re
from pathlib import Path

import numpy as np
import torch

from backends.worlds import sounds

TOKENS = 24  # of a caption, start and end included; the world's longest has 23


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, as BERT's tokenizer splits before it looks for word pieces."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class Text:
    """Token states as `backends.embedded.token_states(texts, LAYER)` gives them, of captions made of the world's words."""

    def __init__(self, path: Path, device: str):
        from transformers import BertConfig, BertModel

        with np.load(path) as stored:
            meta = json.loads(bytes(stored["meta"]).decode())
            state = {k: torch.from_numpy(stored[k].astype(np.float32) * (stored[k + ".scale"].astype(np.float32) if k + ".scale" in stored else 1))
                     for k in stored if k != "meta" and not k.endswith(".scale")}  # fmt: skip
        self.words, self.around, self.device = meta["words"], meta["around"], device
        self.pad = meta["config"]["pad_token_id"]
        self.model = BertModel(BertConfig(**meta["config"]), add_pooling_layer=False).eval().requires_grad_(False)
        missing = self.model.load_state_dict(state, strict=False)
        if left := [k for k in (*missing.missing_keys, *missing.unexpected_keys) if "position_ids" not in k and "token_type_ids" not in k]:
            raise ValueError(f"not MiniLM: {left}")
        self.model.to(device)

    def ids(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, TOKENS) ids and which of them are the text's."""
        ids, there = torch.full((len(texts), TOKENS), self.pad), torch.zeros(len(texts), TOKENS, dtype=torch.bool)
        for row, text in enumerate(texts):
            pieces = [i for word in words_of(text) for i in self.words[word]][: TOKENS - 2]
            line = [self.around[0], *pieces, self.around[1]]
            ids[row, : len(line)], there[row, : len(line)] = torch.tensor(line), True
        return ids, there

    @torch.no_grad()
    def states(self, ids: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """(B, TOKENS, 384) bf16, zero beyond a text's end."""
        ids, there = ids.to(self.device), there.to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu"):
            states = self.model(input_ids=ids, attention_mask=there.long()).last_hidden_state
        return (states * there[..., None] * 2).bfloat16()


class World:
    """Draws plans of some sides and makes clips of them: `make` on any process, the rest where the bank is."""

    def __init__(self, corpus: Path, device: str, text: bool = True):
        self.bank, self.device = sounds.Bank(corpus / "bank.npz", device), device
        self.text = Text(corpus / "minilm.npz", device) if text else None

    def make(self, rng: np.random.Generator, n: int, sides: tuple[str, ...]) -> tuple:
        """(layouts (n, SLOTS, 7), ids (n, TOKENS), there (n, TOKENS), keys (n,)); ids and there are empty without a text encoder."""
        plans = [sounds.sample(rng, sides) for _ in range(n)]
        layouts = torch.from_numpy(np.stack([sounds.events(plan, self.bank, rng) for plan in plans]))
        keys = torch.tensor([hash_of(plan) for plan in plans])
        if not self.text:
            return layouts, torch.zeros(n, 0), torch.zeros(n, 0), keys
        return layouts, *self.text.ids([sounds.caption(plan, rng) for plan in plans]), keys

    def render(self, layouts: torch.Tensor) -> torch.Tensor:
        """(B, 1, SAMPLES), 128 clips at a time."""
        return torch.cat([sounds.render(self.bank, part) for part in layouts.split(128)])[:, None]


def hash_of(plan: sounds.Plan) -> int:
    import zlib

    return zlib.crc32(repr(plan.parts).encode() + plan.relation.encode())
