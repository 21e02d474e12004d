"""TraceRL: reinforcement learning on the states that decoding went through, with a diffusion value model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated

from backends.lazy import torch
from backends.registry import method
from backends.spec import Choice, Events, Slider, Toggle
from backends.text.adapter import low_rank
from backends.text.learning import RANK, learn, spread
from backends.text.reinforce import Rollout, clipped, k3, replayed, standardised
from backends.text.tasks import TRAIN_TEXT, TrainText

if TYPE_CHECKING:
    from torch import Tensor

RATE = 1e-3
Rate = Annotated[float, Choice((1e-4, 3e-4, RATE, 3e-3), help="learning rate of AdamW, of a change of low rank")]
Temperature = Annotated[float, Slider(0.1, 1.5, 0.05, help="at which answers are drawn, and replayed")]
Sure = Annotated[float, Slider(0.5, 1.01, 0.01, help="tokens at least this sure appear at once; above 1 one a step")]


def slices(made: Rollout, shrink: int) -> list[tuple[Tensor, Tensor]]:
    """(canvas step, tokens) of each slice: `shrink` consecutive steps merged; every token of an answer is in one slice."""
    parts = made.step // shrink
    return [(int(u) * shrink, parts == u) for u in parts.unique().tolist() if u >= 0]


def advantages(step: Tensor, reward: Tensor, values: Tensor, gamma: float = 1.0, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """(advantages, returns), each (R, L), of tokens that appeared at `step` (R, L), with the reward on the last step.

    Over the steps t of a trace with means r*_t and V*_t over their tokens: δ_t = r*_t − V*_t + γV*_{t+1},
    A*_t = δ_t + γλA*_{t+1}; for a token A_j = r_j − V_j + γV*_{t+1} + γλA*_{t+1} and R_j = r_j + γR*_{t+1}.
    """
    gains, returns = torch.zeros_like(values), torch.zeros_like(values)
    for row in range(len(step)):
        later_v = later_a = later_r = 0.0
        order = sorted(set(step[row].tolist()) - {-1}, reverse=True)
        for t in order:
            mine = step[row] == t
            r = reward[row] if t == order[0] else 0.0
            v = values[row][mine]
            gains[row][mine] = r - v + gamma * later_v + gamma * lam * later_a
            returns[row][mine] = r + gamma * later_r
            later_a = r - v.mean() + gamma * later_v + gamma * lam * later_a
            later_v, later_r = v.mean(), r + gamma * later_r
    return gains, returns


class Value:
    """The value model: the same backbone, of which a change of low rank is trained as of the policy, and a linear head; V of each token given
    the canvas its slice was decoded from."""

    def __init__(self, model, rate: float):
        self.model, self.net = model, copy.deepcopy(model.net.model)
        low_rank(self.net, RANK)
        self.head = torch.nn.Linear(model.net.config.hidden_size, 1, device=model.device)
        torch.nn.init.zeros_(self.head.weight), torch.nn.init.zeros_(self.head.bias)
        own = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW([*own, *self.head.parameters()], lr=rate)

    def of(self, made: Rollout, shrink: int) -> Tensor:
        """(R, L), with gradients where they are on."""
        out = torch.zeros(made.step.shape, device=made.ids.device)
        for since, tokens in slices(made, shrink):
            self.model.nfe += len(made.ids)
            states = self.net(input_ids=made.at(since, self.model.mask), attention_mask=made.seen).last_hidden_state[:, made.start :]
            out = torch.where(tokens, self.head(states)[..., 0], out)
        return out

    def fit(self, made: Rollout, shrink: int, returns: Tensor, old: Tensor, counts: Tensor, clip: float = 0.2) -> None:
        """One step on ½·max((V − R)², (V_clipped − R)²)."""
        values = self.of(made, shrink)
        near = old + (values - old).clamp(-clip, clip)
        loss = 0.5 * torch.maximum((values - returns).square(), (near - returns).square())
        (loss * counts).sum().div(counts.sum().clamp_min(1)).backward()
        self.optimiser.step(), self.optimiser.zero_grad()


def trace_loss(shrink: int = 1, critic: Value | None = None):
    """The loss of one update, as learning.py takes it."""

    def lose(policy, made: Rollout, reward: Tensor, prompts) -> None:
        keep = spread(made, reward)
        if not keep.any():
            return
        gain, made = standardised(reward, made.group)[keep], made.rows(keep)
        counts = made.counts(policy.ends) & (made.step >= 0)
        if critic:
            with torch.no_grad():
                old_values = critic.of(made, shrink)
            advantage, returns = advantages((made.step // shrink).masked_fill(~counts, -1), gain, old_values)  # padding is no step
            critic.fit(made, shrink, returns, old_values, counts)
        else:
            advantage = gain[:, None].expand_as(made.logp)
        for since, tokens in slices(made, shrink):
            tokens = tokens & counts
            rows = tokens.any(1)
            if not rows.any():  # a slice of nothing but padding
                continue
            part = made.rows(rows)
            logp = replayed(policy, part, part.at(since, policy.mask))
            gained = clipped(logp, part.logp, advantage[rows]) - 0.01 * k3(logp, part.logp)
            (-(gained * tokens[rows]).sum(1) / counts[rows].sum(1)).sum().div(len(made.ids)).backward()

    return lose


@method("tracerl", task=TRAIN_TEXT, needs={"text", "masked", "trainable"})
def tracerl(
    job: TrainText, model, rate: Rate = RATE, shrink: Annotated[int, Slider(1, 8, 1, help="decoding steps merged into one training state")] = 1,
    value: Annotated[bool, Toggle(help="a value model beside the policy, for steadier advantages")] = False,
    temperature: Temperature = 1.0, threshold: Sure = 0.9,
) -> Events:  # fmt: skip
    """TraceRL: training on the trace.

    Random masks train a diffusion language model on states it never meets when it decodes. TraceRL remembers at which step each
    token of an answer appeared, goes back to those states, and makes right answers likelier, wrong ones less so, where the
    decision was taken.

    Wang et al., arXiv 2509.06949: PPO with clip 0.2 over the slices of a trace, summed over the tokens and divided by their
    number, plus 0.01 of the k3 estimate of the KL to the policy that drew them; rewards standardised for each prompt, prompts
    with less than 20 or more than 80 % right left out; the value model and its advantages are eqs. 7 to 11. Full attention, so one
    pass a slice. Each rollout is trained on once, as PPO's ratio is then 1 its clip and the KL term only act where a host trains longer on one. The paper's learning rate, 1e-6, is for billions of parameters.
    """
    yield from learn(job, model, rate, temperature, threshold, trace_loss(shrink, Value(model, rate) if value else None))
