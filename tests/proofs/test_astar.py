"""A-STAR: the losses do what they say, and more two-object prompts show both objects than without or by Attend-and-Excite.

Its identities (no move is DDIM, the losses' ranges, a move goes down) stand in tests/test_attention_methods.py.
"""

import numpy as np
import pytest
import torch
from measure import interval, two_objects

from backends import models
from backends.image.astar import AStar
from backends.image.attend_excite import AttendExcite
from backends.image.concept_words import chosen
from backends.image.sampling import Guided, SchedulerWalk, denoise
from backends.registry import METHODS
from backends.worlds import emoji

STEPS, SCALE, PROMPTS, SEEDS = 25, 5.0, 16, 4
ALPHA, EXCITE = (next(k.default for k in METHODS[m].knobs if k.name == "alpha") for m in ("astar", "attend_excite"))
ARMS = {  # name -> (class, alpha, losses)
    "plain": (AStar, 0.0, {}),
    "both losses": (AStar, ALPHA, {}),
    "Attend-and-Excite": (AttendExcite, EXCITE, {}),
    "segregation alone": (AStar, ALPHA, {"retain": False}),
    "retention alone": (AStar, ALPHA, {"segregate": False}),
    "segregation’s sign turned": (AStar, -ALPHA, {"retain": False}),
}


def drawn(model, prompt: str, noise, kind, alpha: float, losses: dict):
    """(latents (B, C, h, w), the patch that moved them) for one prompt over a batch of seeds."""
    cond, uncond = model.encode(prompt, "")
    patch = kind(alpha, *chosen("", cond), cond, **losses)
    with torch.no_grad():
        *_, (x, _) = denoise(model, cond, uncond, noise, SchedulerWalk(model, STEPS, "ddim"), Guided(SCALE), (patch,))
    return x, patch


@pytest.mark.proof
def test_more_prompts_show_both_objects(proof):
    from backends.metrics import detector
    from backends.metrics.image import present, wanted

    model, texts = models.load("emoji-ldm"), two_objects(proof.seed, PROMPTS)
    shown, weaker, seg, ret, spread = ({name: [] for name in ARMS} for _ in range(5))
    for row, text in enumerate(texts):
        noise = torch.cat([model.noise(emoji.HELD_OUT_SEED + proof.seed + row * SEEDS + i) for i in range(SEEDS)])
        for name, arm in ARMS.items():
            x, patch = drawn(model, text, noise, *arm)
            pixels, asked = model.to_pixels(x), wanted(text)
            shown[name].append([present(f, asked) == 1 for f in detector.detect(pixels)])
            weaker[name].append(detector.log_probs(pixels, list(asked)).amin(1).tolist())
            spread[name].append(float(x.std()))
            if isinstance(patch, AStar):
                seg[name].append(torch.stack(patch.per_row)[STEPS // 2 :].mean(0).tolist())
                ret[name].append(float(np.mean(patch.curves["L_ret"][STEPS // 2 :])))
    shown, weaker, seg, ret = ({k: np.array(v, float) for k, v in d.items()} for d in (shown, weaker, seg, ret))

    def rise(what, values, name, other="plain", least=0.0, op=">", low=False):
        gain = values[name] - values[other]
        proof.state(what + (" (low end of the 95 % interval)" if low else ""), interval(gain)[0] if low else gain.mean(), op, least,
                    baseline=float(values[other].mean()), n=gain.size, interval=interval(gain))  # fmt: skip

    falls = {name: -v / seg["plain"].mean() for name, v in seg.items()}
    rise("L_seg over the last half of the steps falls by this share", falls, "both losses", least=0.3, op=">=")
    rise("rise in the share of pictures that show both objects, same seeds", shown, "both losses", least=0.1, op=">=")
    rise("the same rise", shown, "both losses", low=True)
    rise("rise in the log-probability of the object seen less, in nats", weaker, "both losses", low=True)
    for name in ("segregation alone", "retention alone"):
        rise(f"rise in that log-probability by {name}", weaker, name)
    rise("that log-probability, both losses over Attend-and-Excite", weaker, "both losses", "Attend-and-Excite")
    rise("share that shows both objects, both losses over Attend-and-Excite", shown, "both losses", "Attend-and-Excite", op=">=")
    rise("that log-probability, segregation over its opposite sign", weaker, "segregation alone", "segregation’s sign turned", low=True)
    rise("L_seg falls by segregation alone, share", falls, "segregation alone", low=True)
    rise("L_seg rises with the sign turned, share", {k: -v for k, v in falls.items()}, "segregation’s sign turned", low=True)
    rise("L_ret falls by retention alone", {k: -v for k, v in ret.items()}, "retention alone")
    wider = np.mean(spread["both losses"]) / np.mean(spread["plain"]) - 1
    proof.state("the latents' standard deviation grows by no more than", wider, "<=", 0.05, baseline=float(np.mean(spread["plain"])), n=shown["plain"].size)
    proof.close()
