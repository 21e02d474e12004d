"""Faster Diffusion (arXiv 2312.09608): run the UNet's encoder at key steps only, decode the others from its features."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Annotated

import numpy as np

from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.image.unet_split import Rows, decode, encode, finish
from backends.lazy import F, torch
from backends.registry import method
from backends.spec import BadInput, Choice, Events, Guidance, Image, Images, Metric, Plot, Slider, Steps, TextKnob, Toggle

PAPER = (0, 1, 2, 3, 5, 10, 15, 25, 35)  # of 50 steps
ENCODED, REUSED, AHEAD = (246, 158, 80), (130, 160, 200), (225, 225, 225)

Keys = Annotated[str, Choice(("paper", "uniform", "list", "all"), help="at which steps the encoder runs: the paper's nine of 50, every k-th, your list, all")]
Every = Annotated[int, Slider(1, 20, 1, help="k of “uniform”")]
List = Annotated[str, TextKnob(200, help="steps of “list”, counted from 0, separated by commas")]
Batch = Annotated[bool, Toggle(help="decode the steps up to the next key step in one batch (more memory)")]
Noise = Annotated[float, Slider(0, 0.02, 0.001, help="share of the initial noise put back at each step of the second half")]


def key_steps(keys: str, every: int, chosen: str, n: int) -> list[int]:
    """The steps, of n, at which the encoder runs; the first always does. Raises BadInput on a list it can't read."""
    if keys == "paper":
        found = {int(k * n / 50 + 0.5) for k in PAPER}
    elif keys == "list":
        try:
            found = {int(part) for part in chosen.split(",") if part.strip()}
        except ValueError:
            raise BadInput("The list of key steps must be whole numbers separated by commas, such as 0, 1, 2, 5, 10.") from None
        if any(not 0 <= k < n for k in found):
            raise BadInput(f"The key steps must lie between 0 and {n - 1}, the last of {n} steps.")
    else:
        found = range(0, n, every if keys == "uniform" else 1)
    return sorted({0, *(k for k in found if k < n)})


class KeySteps:
    """A patch: the encoder runs at key steps; from there to the next one the decoder works from its features."""

    def __init__(self, keys: Keys = "paper", every: Every = 4, chosen: List = "0, 1, 2, 5, 10, 15", batch: Batch = False, noise: Noise = 0.003):
        self.keys, self.every, self.chosen, self.batch, self.noise = keys, every, chosen, batch, noise

    @contextmanager
    def applied(self, model, timesteps):
        self.net, self.timesteps, self.trained = model.net, timesteps, model.scheduler.config.num_train_timesteps
        self.plan = key_steps(self.keys, self.every, self.chosen, len(timesteps))
        self.i, self.calls, self.ran = 0, 0, []  # ran: did the encoder run, for each step so far
        self.rows, self.features, self.ready = Rows(), {}, {}
        self.last, self.alike = {}, {"encoder": ([], []), "decoder": ([], [])}
        whole = model.net.forward
        try:
            with model.patched(lambda *args, **kwargs: self.forward(whole, *args, **kwargs)):
                yield
        finally:
            self.features, self.ready, self.last = {}, {}, {}

    def before_step(self, x, i, noise):
        self.i = i
        self.rows.begin_step()
        self.ran.append(False)
        if i in self.plan:
            self.features, self.ready = {}, {}
        return x + self.noise * noise if self.timesteps[i] < 0.5 * self.trained else x

    def forward(self, whole, sample, timestep, encoder_hidden_states, added_cond_kwargs=None, return_dict=True, **extra):
        if float(timestep) != float(self.timesteps[self.i]) or any(v is not None for v in extra.values()):
            return whole(sample, timestep, encoder_hidden_states, added_cond_kwargs=added_cond_kwargs, return_dict=return_dict, **extra)
        keys = self.rows.keys(encoder_hidden_states)
        if any(key not in self.features for key in keys):
            skips, mid = encode(self.net, sample, timestep, encoder_hidden_states, added_cond_kwargs)
            self.calls, self.ran[-1] = self.calls + 1, True
            self.features |= {key: (skips, mid, row) for row, key in enumerate(keys)}
            self._compare("encoder", mid)
            if self.batch:
                self._decode_ahead(keys, skips, mid, encoder_hidden_states, added_cond_kwargs)
        if all((key, self.i) in self.ready for key in keys):
            hidden = torch.cat([self.ready[key, self.i] for key in keys])
        else:
            skips, mid = self._gather(keys)
            hidden = decode(self.net, skips, mid, timestep, encoder_hidden_states, added_cond_kwargs)
        self._compare("decoder", hidden)
        out = finish(self.net, hidden)
        if not return_dict:
            return (out,)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        return UNet2DConditionOutput(sample=out)

    def _gather(self, keys):
        """The cached features of these rows as one batch."""
        found = [self.features[key] for key in keys]
        skips, mid, _ = found[0]
        if all(f[1] is mid for f in found) and [f[2] for f in found] == list(range(len(mid))):
            return skips, mid
        mid = torch.cat([m[r : r + 1] for _, m, r in found])
        return tuple(torch.cat([s[level][r : r + 1] for s, _, r in found]) for level in range(len(skips))), mid

    def _decode_ahead(self, keys, skips, mid, states, added):
        """Decode these rows at all steps up to the next key step, time by time in one batch."""
        until = min([k for k in self.plan if k > self.i], default=len(self.timesteps))
        steps, rows = range(self.i, until), len(keys)

        def repeat(v):
            return v.repeat(len(steps), *[1] * (v.ndim - 1))

        t = torch.tensor([self.timesteps[j] for j in steps], device=mid.device).repeat_interleave(rows)
        added = {k: repeat(v) for k, v in added.items()} if added else None
        hidden = decode(self.net, tuple(repeat(s) for s in skips), repeat(mid), t, repeat(states), added)
        for at, j in enumerate(steps):
            self.ready |= {(key, j): hidden[at * rows + row : at * rows + row + 1] for row, key in enumerate(keys)}

    def _compare(self, name, hidden):
        """Cosine of the last row's features with those of the step before (that row is the prompt's)."""
        row, before = hidden[-1].flatten().float(), self.last.get(name)
        if before is not None and before[0] < self.i and before[1].shape == row.shape:
            xs, ys = self.alike[name]
            xs.append(self.i + 1)
            ys.append(float(F.cosine_similarity(row, before[1], 0)))
        self.last[name] = (self.i, row)

    def aside(self):
        cells = [ENCODED if ran else REUSED for ran in self.ran]
        cells += [AHEAD] * (len(self.timesteps) - len(cells))
        side = max(4, 400 // len(cells))
        strip = np.full((24, side * len(cells), 3), 255, np.uint8)
        for i, colour in enumerate(cells):
            strip[:, i * side : (i + 1) * side - 1] = colour
        label = f"steps: encoder ran {sum(self.ran)} times (orange), its features were reused {len(self.ran) - sum(self.ran)} times (blue)"
        curves = {f"{name} features": (list(xs), list(ys)) for name, (xs, ys) in self.alike.items()}
        return Images((Image(strip, label),)), Plot(curves, y="cosine with the last computed ones")

    def report(self):
        return [Metric("encoder calls", self.calls, "lower")]


@method("faster_diffusion", task=TEXT_TO_IMAGE, needs={"cfg", "unet"}, slot="patch", piece=KeySteps, holds={"wrap", "walk"})
def faster_diffusion(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, keys: Keys = "paper", every: Every = 4, chosen: List = "0, 1, 2, 5, 10, 15", batch: Batch = False, noise: Noise = 0.003) -> Events:  # fmt: skip
    """Faster Diffusion.

    The features of a UNet's encoder hardly change between neighbouring steps, so it runs at a few key steps
    only. The steps between are decoded from what it found there, one by one or all in one batch.

    Li et al., arXiv 2312.09608; details from the official code (hutaiHang/Faster-Diffusion): the middle block
    counts as encoder, key steps 0, 1, 2, 3, 5, 10, 15, 25, 35 of 50 (here scaled to the run's steps), and in
    the second half z ← z + 0.003·z_T before each step to bring texture back. Where we differ: rows are known
    by their text states, so guidance may stop on the way, and a row the last key step has not seen is encoded
    when it comes. The decoder never sees the state of a skipped step; so pieces that move that state and ask
    again, such as W2SD, are refused.
    """
    key_steps(keys, every, chosen, steps)
    return sample(job, model, steps=steps, guide=Guided(scale), patches=(KeySteps(keys, every, chosen, batch, noise),), stack=stack)
