"""diffusers' UNet2DConditionModel taken apart, for methods that keep a part of it from one step to the next.

`encode` then `decode` do what the model's own forward does, operation by operation, so that their composition
has the same bits. SDXL's added conditions pass through; adapters and ControlNet residuals do not.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def embed(net, x: Tensor, t, states: Tensor, added: dict | None = None) -> tuple[Tensor, Tensor]:
    """(time embedding (B, E) with added conditions, text states as the blocks take them)."""
    emb = net.time_embedding(net.get_time_embed(sample=x, timestep=t), None)
    added = added or {}
    extra = net.get_aug_embed(emb=emb, encoder_hidden_states=states, added_cond_kwargs=added)
    emb = emb if extra is None else emb + extra
    if net.time_embed_act is not None:
        emb = net.time_embed_act(emb)
    return emb, net.process_encoder_hidden_states(encoder_hidden_states=states, added_cond_kwargs=added)


def encode(net, x: Tensor, t, states: Tensor, added: dict | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
    """(skips, outermost first; the middle block's output) at state x (B, C, h, w)."""
    emb, states = embed(net, x, t, states, added)
    hidden = net.conv_in(2 * x - 1 if net.config.center_input_sample else x)
    skips = (hidden,)
    for block in net.down_blocks:
        hidden, more = block(hidden_states=hidden, temb=emb, **_text(block, states))
        skips += more
    if net.mid_block is not None:
        hidden = net.mid_block(hidden, emb, **_text(net.mid_block, states))
    return skips, hidden


def decode(net, skips: tuple[Tensor, ...], mid: Tensor, t, states: Tensor, added: dict | None = None) -> Tensor:
    """The up blocks' output (B, C, h, w) at time t, which may be (B,); `finish` makes it the prediction."""
    emb, states = embed(net, mid, t, states, added)
    hidden, odd = mid, any(side % 2**net.num_upsamplers for side in skips[0].shape[-2:])
    for block in net.up_blocks:
        taken, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        size = skips[-1].shape[2:] if odd and skips else None
        hidden = block(hidden_states=hidden, temb=emb, res_hidden_states_tuple=taken, upsample_size=size, **_text(block, states))
    return hidden


def finish(net, hidden: Tensor) -> Tensor:
    """The network's prediction from the up blocks' output."""
    if net.conv_norm_out:
        hidden = net.conv_act(net.conv_norm_out(hidden))
    return net.conv_out(hidden)


def shallow(net, x: Tensor, t, states: Tensor, deep: Tensor, depth: int, added: dict | None = None) -> Tensor:
    """The up blocks' output when all but the outermost level's first `depth` layers is given as `deep`.

    `deep` is what enters layer `last − depth` of the last up block (see `deep_input`).
    """
    emb, states = embed(net, x, t, states, added)
    hidden = net.conv_in(2 * x - 1 if net.config.center_input_sample else x)
    skips = [hidden]
    for layer in range(depth):
        hidden = _layer(net.down_blocks[0], layer, hidden, emb, states)
        skips.append(hidden)
    block, hidden = net.up_blocks[-1], deep
    for layer in range(len(block.resnets) - depth - 1, len(block.resnets)):
        hidden = _layer(block, layer, torch.cat([hidden, skips.pop()], 1), emb, states)
    return hidden


def deep_input(net, depth: int):
    """(module, its input's leading channels) at which `shallow`'s `deep` can be caught by a forward pre-hook."""
    resnet = net.up_blocks[-1].resnets[-1 - depth]
    return resnet, resnet.in_channels - net.config.block_out_channels[0]


def _layer(block, i: int, hidden: Tensor, emb: Tensor, states: Tensor) -> Tensor:
    hidden = block.resnets[i](hidden, emb)
    if getattr(block, "has_cross_attention", False):
        hidden = block.attentions[i](hidden, encoder_hidden_states=states, return_dict=False)[0]
    return hidden


def _text(block, states: Tensor) -> dict:
    return {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}


class Rows:
    """Recognises the rows of a batch from step to step, whatever order or number they come in.

    A row's key is (which text states it carries, which evaluation under them it is in this step), so that
    guidance may stop, rows may swap and a walk may evaluate several states a step.
    """

    def __init__(self, kept: int = 64):
        self.known, self.kept, self.first, self.seen = [], kept, 0, Counter()

    def begin_step(self) -> None:
        self.seen.clear()

    def keys(self, states: Tensor) -> list[tuple[int, int]]:
        keys = []
        for row in states:
            at = next((i for i, known in enumerate(self.known) if known.shape == row.shape and torch.equal(known, row)), None)
            if at is None:
                self.known.append(row.clone())
                if len(self.known) > self.kept:  # text states that change each step are never met again
                    self.known.pop(0)
                    self.first += 1
                at = len(self.known) - 1
            number = at + self.first
            keys.append((number, self.seen[number]))
            self.seen[number] += 1
        return keys
