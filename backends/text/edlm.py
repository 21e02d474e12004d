"""EDLM: candidates for the whole answer, weighed by a sequence's energy before some of their tokens are kept."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

from backends import embedded
from backends.lazy import torch
from backends.registry import method
from backends.spec import BadInput, Choice, Events, Metric, Result, Slider, Step, Table
from backends.text import smollm
from backends.text.canvas import Canvas, predict, until_end
from backends.text.tasks import WRITE_TEXT, WriteText

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 60  # characters of a candidate in the table


def pick(energies: Tensor, tau: float) -> int:
    """One of k candidates, drawn with probability softmax(−E/τ); uniformly where no energy is finite."""
    weights = (-energies / max(tau, 1e-6)).double()
    weights = torch.where(torch.isfinite(weights), weights, -torch.inf)
    if not torch.isfinite(weights).any():
        weights = torch.zeros_like(weights)
    return int(torch.multinomial(weights.softmax(0), 1))


def twin_energy(canvas: Canvas, candidates: Tensor) -> Tensor:
    """(k,) −log p_AR of the candidates (k, N)'s answers, up to the first end token, under the embedded model's autoregressive twin."""
    net, _ = embedded.load_twin()
    answer = candidates[:, canvas.start :]
    logits = net(input_ids=candidates, logits_to_keep=answer.shape[1] + 1).logits[:, :-1].float()
    lost = torch.nn.functional.cross_entropy(logits.mT, answer, reduction="none")
    canvas.model.nfe += len(candidates)
    return (lost * until_end(answer, canvas.model.ends)).sum(1)


def smollm_energy(job: WriteText, model, candidates: Tensor, start: int) -> Tensor:
    """(k,) −log p_AR of the candidates (k, N)'s answers under SmolLM2, after the prompt."""
    net, tokenizer = smollm.load()
    tokenizer.padding_side = "right"
    before = tokenizer(job.prompt + "\n")["input_ids"]
    texts = [tokenizer(model.text(row[start:]))["input_ids"] + [tokenizer.eos_token_id] for row in candidates]
    longest = max(map(len, texts))
    rows = torch.tensor([before + t + [tokenizer.pad_token_id] * (longest - len(t)) for t in texts])
    lost = []
    for some in rows.split(4):  # a row of logits is 49,152 wide
        logits = net(input_ids=some, logits_to_keep=longest + 1).logits[:, :-1].float()
        lost.append(torch.nn.functional.cross_entropy(logits.transpose(1, 2), some[:, len(before) :], reduction="none"))
    model.nfe += len(rows)
    lost = torch.cat(lost)
    return (lost * torch.tensor([[1.0] * len(t) + [0.0] * (longest - len(t)) for t in texts])).sum(1).to(candidates.device)


@functools.cache
def energy_network():
    from backends.models import ASSETS
    from backends.nets.energy import EnergyNetwork

    return EnergyNetwork.from_pretrained(ASSETS / "text-energy").eval().requires_grad_(False)


def learnt_energy(canvas: Canvas, candidates: Tensor) -> Tensor:
    """(k,) E_φ(x0, x_t) of candidates (k, N) by the network trained by noise-contrastive estimation; it knows the embedded model alone."""
    net, embed = energy_network().to(canvas.ids.device), canvas.model.net.model.embed_tokens
    answer = torch.arange(len(canvas.ids), device=canvas.ids.device) >= canvas.start
    noisy = embed(canvas.ids[None]).expand(len(candidates), -1, -1)
    canvas.model.nfe += len(candidates)
    return net(noisy, embed(candidates), answer.expand(len(candidates), -1))


def denoise(canvas: Canvas, steps: int, k: int, window: tuple[float, float], tau: float, energy) -> Events:
    """The ancestral sampler, with importance sampling among k candidates while window[0] ≤ t ≤ window[1]; yields (step, table).

    `energy(ids, under)` gives (k,) energies of candidates (k, N) whose new tokens have log p_θ(x0 | x_t) `under` (k,).

    The last step draws like the others, and all that is masked is shown. So does the official code: its steps end at t = 1e-5, and the
    argmax that follows them fills what the last one left masked, one token in 100,000 / steps.
    """
    answer = torch.arange(len(canvas.ids), device=canvas.ids.device) >= canvas.start
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        masked = canvas.masked & answer
        logits = canvas.model.answers(canvas.ids[None], len(canvas.ids) - canvas.start)[0][masked[canvas.start :]]  # (masked tokens, V)
        many = k if window[0] <= t <= window[1] else 1
        ids, confidence = canvas.ids.repeat(many, 1), canvas.confidence.repeat(many, 1)
        for j in range(many):  # one by one: the noise of a draw is as large as the logits, in float64
            ids[j, masked], confidence[j, masked] = predict(logits, temperature=1.0)
        chosen, rows = 0, ()
        if many > 1 and masked.any():
            # log p_θ(x0 | x_t) of what is not yet there; up to the first end token, for what follows it is not in p_AR either.
            counted = masked[canvas.start :] & until_end(ids[:, canvas.start :], canvas.model.ends)
            under = (confidence[:, canvas.start :].clamp_min(1e-30).log() * counted).sum(1)
            energies = energy(ids, under)
            chosen = pick(energies, tau)
            texts = [canvas.model.text(row[canvas.start :])[:SHOWN] for row in ids]
            rows = tuple(("→" if j == chosen else "", texts[j], round(float(energies[j] - energies.min()), 2)) for j in energies.argsort().tolist())
        shown = masked & (torch.rand(len(masked), device=masked.device) < (t - s) / t if s > 0 else masked)
        canvas.put(shown, ids[chosen], confidence[chosen])
        yield i + 1, Table(("", "candidate", "energy above the lowest"), rows[:8]) if rows else None


def weighers(model, energy: str, **_) -> None:
    """Read the networks that an arm weighs candidates with."""
    if energy == "trained":
        energy_network()
    else:
        (embedded.load_twin if "twin" in model.card.capabilities else smollm.load)()


@method("edlm", task=WRITE_TEXT, needs={"text", "masked"}, prepare=weighers)
def edlm(
    job: WriteText, model,
    energy: Annotated[str, Choice(("autoregressive", "trained"), help="an autoregressive model against the draw, or a network trained to tell draws from data")] = "autoregressive",
    steps: Annotated[int, Slider(1, 256, 1, help="steps of the ancestral sampler")] = 16,
    candidates: Annotated[int, Slider(1, 32, 1, help="drawn at each step within the window; 1 is the plain sampler")] = 8,
    tau: Annotated[float, Slider(0.1, 10, 0.1, help="temperature of the choice among them")] = 1.0,
    start: Annotated[float, Slider(0, 1, 0.05, help="noise level from which on it chooses; 1: all is masked")] = 1.0,
    end: Annotated[float, Slider(0, 1, 0.05, help="noise level down to which it chooses")] = 0.0,
) -> Events:  # fmt: skip
    """EDLM: energy-based diffusion language model.

    A masked diffusion model draws tokens independently of one another, so few steps give words that don't fit together. EDLM
    draws several whole answers at once and takes one by its energy: likelier under an autoregressive model than under the
    draw itself.

    Xu et al., arXiv 2410.21357, eq. 8 and algorithm 1: E = −log p_AR(x0) + log p_θ(x0 | x_t), or a network of its own trained by
    noise-contrastive estimation (train/text_energy.py); one candidate by softmax(−E/τ);
    the released sampler's sign is the other way round, we follow the equation. The embedded model's autoregressive twin
    (train/text_twin.py) scores the whole answer, tokens already there included, as eq. 8 has it (the official code leaves those
    out of log p_AR); for other models SmolLM2, which has another tokenizer, scores the candidates' text. The official window,
    0.4 to 0.6, is for 1,024 tokens in 128 steps or more.
    """
    if end > start:
        raise BadInput("Choosing begins at a lower noise level than it ends; make start at least as large as end.")
    model.sees_all("EDLM")
    canvas = Canvas.after(model, model.encode(job.prompt, job.length), job.length)
    before = model.nfe
    if energy == "trained":
        if model.card.name != "text-mdm":
            raise BadInput("The trained energy knows the embedded model's draws alone; choose the autoregressive one.")
        weigh = lambda ids, under: learnt_energy(canvas, ids)  # noqa: E731
    else:
        language = (lambda ids: twin_energy(canvas, ids)) if "twin" in model.card.capabilities else lambda ids: smollm_energy(job, model, ids, canvas.start)
        weigh = lambda ids, under: language(ids) + under  # noqa: E731
    for i, table in denoise(canvas, steps, candidates, (end, start), tau, weigh):
        yield Step(i, steps, canvas.show(), (table,) if table else ())
    yield Metric("tokens per NFE", canvas.written() / (model.nfe - before), "higher")
    yield Result(canvas.final())
