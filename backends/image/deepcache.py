"""DeepCache (arXiv 2312.00858): keep the UNet's deep features for a few steps, recompute its shallow branch at each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Annotated

from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.image.unet_split import Rows, deep_input, finish, shallow
from backends.lazy import F, torch
from backends.registry import method
from backends.spec import Events, Guidance, Metric, Plot, Slider, Steps

Interval = Annotated[int, Slider(1, 10, 1, help="the whole network runs at every k-th step; 1 is no caching")]
Depth = Annotated[int, Slider(0, 3, 1, help="layers of the outermost level recomputed at each step (as many as there are)")]


class DeepCache:
    """A patch: at every `interval`-th step the whole network, between them only its outermost layers."""

    def __init__(self, interval: Interval = 3, depth: Depth = 1):
        self.interval, self.wanted = interval, depth

    @contextmanager
    def applied(self, model, timesteps):
        self.net, self.timesteps, self.i = model.net, timesteps, 0
        self.depth = min(self.wanted, len(model.net.down_blocks[0].resnets), len(model.net.up_blocks[-1].resnets) - 1)
        self.rows, self.deep, self.calls, self.full, self.drift = Rows(), {}, 0, [], ([], [])
        resnet, self.channels = deep_input(model.net, self.depth)
        whole = model.net.forward
        hook = resnet.register_forward_pre_hook(self._catch)
        try:
            with model.patched(lambda *args, **kwargs: self.forward(whole, *args, **kwargs)):
                yield
        finally:
            hook.remove()
            self.deep, self.caught = {}, None

    def _catch(self, _module, args):
        self.caught = args[0][:, : self.channels]

    def before_step(self, x, i, noise):
        self.i = i
        self.rows.begin_step()
        return x

    def forward(self, whole, sample, timestep, encoder_hidden_states, added_cond_kwargs=None, return_dict=True, **extra):
        plain = float(timestep) == float(self.timesteps[self.i]) and all(v is None for v in extra.values())
        keys = self.rows.keys(encoder_hidden_states) if plain else ()
        if plain and self.i % self.interval and all(key in self.deep for key in keys):
            deep = torch.cat([self.deep[key] for key in keys])
            out = finish(self.net, shallow(self.net, sample, timestep, encoder_hidden_states, deep, self.depth, added_cond_kwargs))
        else:
            out = whole(sample, timestep, encoder_hidden_states, added_cond_kwargs=added_cond_kwargs, return_dict=False, **extra)[0]
            self.calls += 1
            if keys:
                self._keep(keys)
        if not return_dict:
            return (out,)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        return UNet2DConditionOutput(sample=out)

    def _keep(self, keys):
        before = self.deep.get(keys[-1])
        if before is not None:
            self.drift[0].append(self.i + 1)
            self.drift[1].append(float(F.cosine_similarity(before.flatten(1), self.caught[-1:].flatten(1))))
        if self.i + 1 not in self.full:
            self.full.append(self.i + 1)
        self.deep |= {key: self.caught[row : row + 1].clone() for row, key in enumerate(keys)}

    def aside(self):
        whole = [float(i in self.full) for i in range(1, self.i + 2)]
        curves = {
            "whole network ran": ([float(i) for i in range(1, self.i + 2)], whole),
            "deep features, cosine with the last": (list(self.drift[0]), list(self.drift[1])),
        }
        return (Plot(curves),)

    def report(self):
        return [Metric("whole evaluations", self.calls, "lower")]


@method("deepcache", task=TEXT_TO_IMAGE, needs={"cfg", "unet"}, slot="patch", piece=DeepCache, holds={"wrap", "walk"}, paper=False)
def deepcache(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, interval: Interval = 3, depth: Depth = 1) -> Events:
    """DeepCache.

    A UNet's deep features change slowly from step to step, so they are kept for a few steps. Between, only the
    outermost layers run, on the state as it is now.

    Ma et al., arXiv 2312.00858, with uniform intervals (checked with horseee/DeepCache; depth 0 is its cache
    branch 0). Where we differ: features are kept by row, known by its text states and its turn in the step, so
    guidance may stop on the way and a walk such as W2SD may evaluate several states a step.
    """
    return sample(job, model, steps=steps, guide=Guided(scale), patches=(DeepCache(interval, depth),), stack=stack)
