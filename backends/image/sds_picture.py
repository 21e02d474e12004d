"""SDS in two dimensions (arXiv 2209.14988): one picture, pulled step by step to what the model wants to see instead of being sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.denoiser import as_uint8
from backends.image.sampling import cut_notes
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.lazy import torch
from backends.registry import method
from backends.scene.distill import High, Iterations, Low, Prior, Scale, distil, shown, strength
from backends.scene.volume import Rendered
from backends.spec import Choice, Events, Image, Images, Plot, Result, Slider, Step

if TYPE_CHECKING:
    from torch import Tensor


class Canvas:
    """A picture in the place of a field: `values` (1, C, H, W) are latents, or the logits of pixels, and look alike from everywhere."""

    def __init__(self, values: Tensor, latent: bool):
        self.values, self.latent = values.requires_grad_(), latent

    def seen(self, *_) -> Rendered:
        return Rendered(self.values if self.latent else self.values.sigmoid(), torch.ones_like(self.values[:, :1]), torch.zeros_like(self.values[:, :1]))


class Latents(Prior):
    """A prior that is shown latents."""

    def see(self, pictures: Tensor) -> Tensor:
        return pictures.clone()  # what a step was shown stays what it was when the optimiser goes on


@method("sds_picture", task=TEXT_TO_IMAGE, needs={"image", "cfg", "gradients"}, paper=False)
def sds_picture(
    job: TextToImage, model, iterations: Iterations = 200, scale: Scale = 7.5, low: Low = 0.02, high: High = 0.98,
    rate: Annotated[float, Slider(0.001, 0.5, 0.001, help="learning rate of Adam")] = 0.05,
    of: Annotated[str, Choice(("latents", "pixels"), help="what is optimised; pixels are pulled through the encoder")] = "latents",
) -> Events:  # fmt: skip
    """SDS on one picture.

    The loss that makes 3D objects, on a flat picture: noise it, ask the model how the noise should have been, move the picture by the difference. It seeks
    one likely picture where a sampler draws from them all, so that pictures of other seeds grow alike, smooth and, guided strongly, gaudy.

    Poole et al., arXiv 2209.14988, which compares score distillation with ancestral sampling in the space of pictures before it turns to 3D; w(t) = σ².
    Latents begin as the seed's standard noise at a tenth of its size, pixels as a mid grey with a little of it: rates and beginnings are ours.
    """
    generator = torch.Generator().manual_seed(job.seed)
    latent = of == "latents"
    prior = (Latents if latent else Prior)(model, job.prompt, generator, scale, by_view=False)
    prior.uncond = model.encode(job.negative)[0]
    yield from cut_notes(prior.conds["front"], prior.uncond)
    first = model.noise(job.seed) if latent else torch.randn((1, 3, model.side, model.side), generator=generator).to(model.device)
    canvas, levels, sizes = Canvas(0.1 * first, latent), [], []
    rates = [{"params": [canvas.values], "lr": rate}]
    for pulled in distil(canvas, prior, generator, iterations, rates, model.side, 1, lambda i: prior.level(low, high), lambda seen, look: 0.0):
        levels.append(pulled.scored.t), sizes.append(float(pulled.scored.gradient.square().mean().sqrt()))

        def aside(pulled=pulled):
            wanted = Image(shown(prior, pulled.scored.target), f"one-step estimate x̂, t = {pulled.scored.t:.2f}")
            at, n = list(range(1, pulled.i + 1)), pulled.i
            curves = Plot({"pull": (at, sizes[:n]), "noise level t": (at, levels[:n])})
            return Images((wanted, Image(strength(pulled.scored.gradient, model.side), "pull"))), curves

        yield Step(pulled.i, iterations, pulled.z, aside)
    made = model.picture(canvas.values.detach()) if latent else as_uint8(canvas.seen().picture * 2 - 1)
    yield Result(Image(made, job.prompt), aside())
