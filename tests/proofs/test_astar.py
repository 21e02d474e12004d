"""A-STAR: the losses do what they say, and more two-object prompts show both objects."""

import numpy as np
import pytest
import torch

from backends import models
from backends.denoiser import Denoiser
from backends.image.astar import AStar, retention, segregation
from backends.image.concept_words import chosen
from backends.image.sampling import Guided, SchedulerWalk, denoise
from backends.registry import METHODS
from backends.worlds import emoji

STEPS, SCALE, SEEDS = 12, 5.0, 4
ALPHA = next(k.default for k in METHODS["astar"].knobs if k.name == "alpha")


def draw(model: Denoiser, prompt: str, noise, alpha: float, **losses):
    """(latents (B, C, h, w), the AStar that moved them) for one prompt over a batch of seeds."""
    cond, uncond = model.encode(prompt, "")
    patch = AStar(alpha, *chosen("", cond), cond, **losses)
    with torch.no_grad():
        *_, (x, _) = denoise(model, cond, uncond, noise, SchedulerWalk(model, STEPS, "ddim"), Guided(SCALE), (patch,))
    return x, patch


def test_identity_without_a_move_it_is_ddim_and_a_move_goes_down(tiny):
    prompt, noise = "a cat next to a cactus", tiny.noise(0, 2)
    cond, uncond = tiny.encode(prompt, "")
    with torch.no_grad():
        *_, (plain, _) = denoise(tiny, cond, uncond, noise, SchedulerWalk(tiny, STEPS, "ddim"), Guided(SCALE))
    assert torch.equal(draw(tiny, prompt, noise, 0.0)[0], plain)
    apart = torch.zeros(1, 2, 4, 4)
    apart[:, 0, :2], apart[:, 1, 2:] = 1, 1
    assert float(segregation(apart)) == 0 and float(segregation(apart[:, :1].repeat(1, 2, 1, 1))) == 0.5
    assert float(retention(apart, apart)) == 1 and float(retention(apart, apart.flip(1))) == 2


def prompts(seed: int, n: int) -> list[str]:
    """Two common objects that no training scene shows together."""
    rng, found = np.random.default_rng(emoji.HELD_OUT_SEED + seed), []
    while len(found) < n:
        a, b = rng.choice(emoji.common(), 2, replace=False).tolist()
        if emoji.held_out_pair(a, b):
            one, two = (emoji.article(emoji.concepts()[c].name) for c in (a, b))
            found.append(f"{one} next to {two} on a {rng.choice(list(emoji.COLOURS))} background")
    return found


def interval(values, seed: int) -> list[float]:
    """95 % bootstrap interval of the mean, drawn by prompt (a row of `values` is a prompt)."""
    values, rng = np.asarray(values, float), np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(2000)]
    return [round(float(v), 4) for v in np.percentile(means, [2.5, 97.5])]


@pytest.mark.proof
def test_more_prompts_show_both_objects(proof):
    from backends.metrics import detector
    from backends.metrics.image import present, wanted

    model, texts = models.load("emoji-ldm"), prompts(proof.seed, 16)
    arms = {
        "plain": (0.0, {}),
        "both": (ALPHA, {}),
        "segregation": (ALPHA, {"retain": False}),
        "retention": (ALPHA, {"segregate": False}),
        "flipped": (-ALPHA, {"retain": False}),
    }
    shown, weaker, seg, ret, spread = ({name: [] for name in arms} for _ in range(5))
    for row, text in enumerate(texts):
        noise = torch.cat([model.noise(emoji.HELD_OUT_SEED + proof.seed + row * SEEDS + i) for i in range(SEEDS)])
        for name, (alpha, losses) in arms.items():
            if name in ("segregation", "retention", "flipped") and row >= len(texts) // 2:
                continue
            x, patch = draw(model, text, noise, alpha, **losses)
            pixels, asked = model.to_pixels(x), wanted(text)
            shown[name].append([present(f, asked) == 1 for f in detector.detect(pixels)])
            spread[name].append(float(x.std()))
            weaker[name].append(detector.log_probs(pixels, list(asked)).amin(1).tolist())
            seg[name].append(torch.stack(patch.per_row)[STEPS // 2 :].mean(0).tolist())
            ret[name].append(float(np.mean(patch.curves["L_ret"][STEPS // 2 :])))
    shown, weaker, seg = ({k: np.array(v, float) for k, v in d.items()} for d in (shown, weaker, seg))
    n, half = shown["plain"].size, len(texts) // 2

    def drop(name, rows):
        return (seg["plain"][:rows] - seg[name]) / seg["plain"][:rows].mean()

    proof.state("L_seg over the last half of the steps falls by this share", drop("both", 2 * half).mean(), ">=", 0.3,
                baseline=float(seg["plain"].mean()), n=n, interval=interval(drop("both", 2 * half), proof.seed))  # fmt: skip
    gain = shown["both"] - shown["plain"]
    proof.state("rise in the share of pictures that show both objects, same seeds", gain.mean(), ">=", 0.1,
                baseline=float(shown["plain"].mean()), n=n, interval=interval(gain, proof.seed))  # fmt: skip
    proof.state("lower end of that rise's 95 % interval", interval(gain, proof.seed)[0], ">", 0, n=n)
    closer = weaker["both"] - weaker["plain"]
    proof.state("rise in the log-probability of the object seen less, in nats", closer.mean(), ">", 0,
                baseline=float(weaker["plain"].mean()), n=n, interval=interval(closer, proof.seed))  # fmt: skip
    opposite = weaker["segregation"] - weaker["flipped"]
    proof.state("the same, segregation against its opposite sign", opposite.mean(), ">", 0, n=opposite.size, interval=interval(opposite, proof.seed))
    wider = np.mean(spread["both"]) / np.mean(spread["plain"]) - 1
    proof.state("the latents' standard deviation grows by no more than", wider, "<=", 0.05, baseline=float(np.mean(spread["plain"])), n=n)
    for name in ("segregation", "retention"):
        alone = shown[name] - shown["plain"][:half]
        proof.state(
            f"rise with the {name} loss alone",
            alone.mean(),
            ">",
            0,
            baseline=float(shown["plain"][:half].mean()),
            n=alone.size,
            interval=interval(alone, proof.seed),
        )
    proof.state(
        "L_seg falls by segregation alone", drop("segregation", half).mean(), ">", 0, n=n // 2, interval=interval(drop("segregation", half), proof.seed)
    )
    proof.state(
        "L_ret falls by retention alone",
        np.mean(ret["plain"][:half]) - np.mean(ret["retention"]),
        ">",
        0,
        baseline=float(np.mean(ret["plain"][:half])),
        n=n // 2,
    )
    proof.state("the opposite sign lets L_seg rise", -drop("flipped", half).mean(), ">", 0, n=n // 2, interval=interval(-drop("flipped", half), proof.seed))
    proof.close()
