"""SAGE: a guided search finds failures that a judge outside the search confirms, more often than random search."""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models, run
from backends.denoiser import from_uint8, together
from backends.image.failure_search import HELD_OUT, log_probs, normality, onto_shell, short_chain
from backends.spec import Note, Outcome, Step
from backends.worlds import emoji

STARTS, BUDGET, INNER = 8, 40, 8


@pytest.mark.identity("sage", "the short chain is DDIM and noise stays on the shell")
def test_identity_the_short_chain_is_ddim_and_noise_stays_on_the_shell(tiny):
    from backends.image.sampling import Guided, SchedulerWalk, denoise

    cond, uncond = tiny.encode("a cat", "")
    z = onto_shell(tiny.noise(0) * 2 + 0.3)
    assert float(z.norm()) == pytest.approx(z.numel() ** 0.5, rel=1e-5) and abs(float(z.mean())) < 1e-6 and normality(z) > 0.01
    with torch.no_grad():
        *_, (plain, _) = denoise(tiny, cond, uncond, z, SchedulerWalk(tiny, INNER, "ddim"), Guided(5.0))
        assert torch.allclose(short_chain(tiny, z, cond, uncond, INNER, 5.0, 2), plain, atol=1e-4)


def starts(model, seed: int, n: int, most: int = 120, rows: int = 12) -> tuple[list[tuple[str, int, int]], int]:
    """(prompt, concept, seed) where both judges see the object in the start picture; how many were tried."""
    rng, found, tried = np.random.default_rng(emoji.HELD_OUT_SEED + seed), [], 0
    while tried < most and len(found) < n:
        drawn = [(int(rng.choice(emoji.common())), str(rng.choice(list(emoji.COLOURS))), int(rng.integers(2**31))) for _ in range(rows)]
        texts = [f"{emoji.article(emoji.concepts()[c].name)} on {emoji.article(colour)} background" for c, colour, _ in drawn]
        concepts, z = [c for c, *_ in drawn], onto_shell(torch.cat([model.noise(s) for *_, s in drawn]))
        with torch.no_grad():
            x0 = short_chain(model, z, together(model.encode(*texts)), together(model.encode(*[""] * rows)), INNER, 5.0)
            sure = torch.stack([log_probs(model.to_pixels(x0), concepts, judge).exp() for judge in ("main", HELD_OUT)]).amin(0)
        found += [(t, c, s) for t, (c, _, s), p in zip(texts, drawn, sure.tolist()) if p > 0.5]
        tried += rows
    return found[:n], tried


@pytest.mark.proof
def test_it_finds_failures_that_random_search_does_not(proof):
    model = models.load("emoji-ldm")
    found, tried = starts(model, proof.seed, STARTS)
    proof.state("starts on which the model is right, of those tried", len(found), ">=", STARTS, n=tried)
    arms = {"sage": {}, "random_search": {}, "whole": {"deep": INNER}}  # whole: the true gradient of every step, three times the backward cost
    failed, norms, ps = {name: [] for name in arms}, [], []
    for prompt, concept, seed in found:
        for name, knobs in arms.items():
            arm = {"method": "sage" if name == "whole" else name, "knobs": {"budget": BUDGET, "inner_steps": INNER} | knobs}
            events = [e.event for e in run({"task": "find_failures", "job": {"prompt": prompt, "seed": seed}, "arms": [arm]})]
            end = events[-1]
            assert isinstance(end, Outcome) and not end.error
            sure = float(log_probs(from_uint8(end.value.pixels, model.device), [concept], HELD_OUT).exp())
            failed[name].append(sure < 0.5 and any(isinstance(e, Note) and e.text.startswith("Found") for e in events))
            if name == "sage":
                shell = [e for e in events if isinstance(e, Step)][-1].aside[2].series
                norms.append(abs(shell["‖z‖ / √d"][1][-1] ** 2 - 1))
                ps.append(shell["Kolmogorov–Smirnov p"][1][-1])
    rates = {name: float(np.mean(f)) if f else 0.0 for name, f in failed.items()}
    gain = np.array(failed["sage"], float) - np.array(failed["random_search"], float)
    spread = interval(gain) if len(gain) else [0.0, 0.0]
    n = len(found)
    proof.state("failures found and confirmed by the held-out judge", rates["sage"], ">=", 0.6, baseline=rates["random_search"], n=n)
    proof.state("the same by random search with the same budget", rates["random_search"], "<=", 0.1, n=n)
    proof.state("lower end of the 95 % interval of the gain", spread[0], ">", 0, n=n, interval=spread)
    gain = np.array(failed["sage"], float) - np.array(failed["whole"], float)
    proof.state("failures found above those by the true gradient of all steps, as many pictures", gain.mean() if n else 0.0, ">=", 0, baseline=rates["whole"], n=n,
                interval=interval(gain) if n else None)  # fmt: skip
    proof.state("largest |‖z‖²/d − 1|", max(norms, default=1.0), "<=", 0.05, n=n, kind="identity")
    proof.state("share of found noises with Kolmogorov–Smirnov p > 0.01", float(np.mean([p > 0.01 for p in ps])) if ps else 0.0, ">=", 0.9, n=n)
    proof.close()
