"""One wrapper for every masked diffusion language model: tokens in, logits out.

The network sees the whole canvas, prompt and answer, in which tokens not yet decided are the mask token, and says for
each position what it would put there (Sahoo et al., arXiv 2406.07524; Nie et al., arXiv 2502.09992).
"""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor


class MaskPredictor:
    """logits(ids) (B, N, V) around a transformers network; `nfe` counts batch rows through the network.

    `mask`, `ends`: token ids; any of `ends` ends an answer, and the first, `eos`, pads what is left. `shift`: the logits at a position
    speak of the next token, as in Dream, which was made from an autoregressive model. `template(prompt)`: the ids that stand before an
    answer. `context`: tokens, prompt and answer. `block`: tokens that see each other but nothing behind them; 0: all see all.
    """

    block = 0

    def __init__(self, card, net, tokenizer, *, mask: int, ends: tuple[int, ...], template, context: int, shift: bool = False, device="cpu"):
        self.card, self.net, self.tokenizer, self.template = card, net, tokenizer, template
        self.mask, self.ends, self.context, self.shift, self.device = mask, ends, context, shift, device
        self.nfe = 0
        marked = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}  # role markers need not be in all_special_ids
        self.special = ({*tokenizer.all_special_ids, mask, *ends} | marked) - set(self.kept)
        net.register_forward_pre_hook(self._count, with_kwargs=True)

    @property
    def eos(self) -> int:
        return self.ends[0]

    @property
    def kept(self) -> tuple[int, ...]:
        """Special tokens that are shown: the filler of an empty slot."""
        null = self.tokenizer.convert_tokens_to_ids("<none>")
        return () if null is None or null == self.tokenizer.unk_token_id else (null,)

    def _count(self, _module, args, kwargs):
        ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        self.nfe += len(ids)

    def logits(self, ids: Tensor, **kw) -> Tensor:
        """(B, N, V) float32 for ids (B, N); the mask token itself is never predicted."""
        return self._finished(self._called(ids, **kw))

    def answers(self, ids: Tensor, length: int, **kw) -> Tensor:
        """(B, length, V): the logits of the last `length` positions alone."""
        return self._finished(self._called(ids, logits_to_keep=length + self.shift, **kw))[:, self.shift :]

    def _called(self, ids: Tensor, **kw) -> Tensor:
        return self.net(input_ids=ids, **kw).logits

    def finished(self, hidden: Tensor) -> Tensor:
        """Logits from the last layer's normed states, for readers that call the layers themselves."""
        return self._finished(self.net.lm_head(hidden))

    def _finished(self, logits: Tensor) -> Tensor:
        out = logits.float()
        if self.shift:
            out = torch.cat([out[:, :1], out[:, :-1]], 1)
        out[..., self.mask] = -math.inf
        return out

    def encode(self, prompt: str, length: int) -> Tensor:
        """(N,) ids of the prompt as the model takes it; raises BadInput when an answer of `length` tokens has no room after it."""
        ids = self.template(prompt)
        if len(ids) + length > self.context:
            raise BadInput(
                f"The prompt takes {len(ids)} tokens and the answer {length}, together more than the {self.context} that {self.card.title} reads; "
                "shorten the prompt or the answer."
            )
        return torch.tensor(ids, device=self.device)

    def tokens(self, text: str) -> list[int]:
        """Its ids; what looks like a special token is spelt out."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def text(self, ids) -> str:
        """The answer as text: up to the first end token, without special tokens."""
        said = itertools.takewhile(lambda i: i not in self.ends, map(int, ids))
        return self.tokenizer.decode([i for i in said if i not in self.special])

    def piece(self, token: int) -> str:
        """What one token reads as."""
        return "∎" if token in self.ends else self.tokenizer.decode([token])

    def sees_all(self, method: str) -> None:
        """Raises BadInput where tokens don't see what stands behind their block."""
        if self.block:
            raise BadInput(
                f"{method} looks at the whole answer at once; {self.card.title} sees no further than its blocks of {self.block}. Choose another model."
            )


@contextmanager
def rope_base(model: MaskPredictor, base: float):
    """For its length the network's rotary embedding has another base; its frequencies are computed anew and put back after."""
    rotary = model.net.model.rotary_emb
    before, dim = rotary.inv_freq, 2 * len(rotary.inv_freq)
    try:
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=before.device) / dim
        rotary.inv_freq = 1.0 / base**exponents
        yield
    finally:
        rotary.inv_freq = before
