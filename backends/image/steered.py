"""Steered Diffusion (arXiv 2310.00224): conditions that the network was not trained for, imposed on its x0."""

from typing import Annotated

from backends.image.conditions import Given
from backends.image.steering import Agree, AgreeStart, AgreeStop, Corrected, Eta, Look, Loops, WalkSteps, Words, log, pulls, walk
from backends.image.tasks import EDIT_IMAGE, EditImage
from backends.lazy import torch
from backends.registry import method
from backends.spec import Events, Guidance, Slider, Toggle

Replace = Annotated[bool, Toggle(help="put what is given into the decoded x0 and encode it again")]
Refine = Annotated[int, Slider(0, 10, 1, help="gradient steps per step that bring x0's decoding nearer to what is given")]
Step = Annotated[float, Slider(0, 1.5, 0.05, help="length of those steps; 1 aims at half the autoencoder's own error")]


@method("steered", task=EDIT_IMAGE, needs={"image", "vae", "gradients"})
def steered(
    job: EditImage, model, steps: WalkSteps = 40, scale: Guidance = 3.0, replace: Replace = True, refine: Refine = 1, step: Step = 0.5,
    agree: Agree = 0.0, words: Words = 0.0, look: Look = 0.0, agree_start: AgreeStart = 0.15, agree_stop: AgreeStop = 0.85, eta: Eta = 1.0, loops: Loops = 1,
) -> Events:  # fmt: skip
    """Steered Diffusion.

    At each step the estimate of the clean picture is made to agree with what is given, so that a network trained for
    something else fills holes, adds colour or enlarges; the gradients of networks can pull it as well: a judge towards the
    prompt's objects, text and image towers towards the whole prompt, an image network towards the picture's look.

    Nair et al., arXiv 2310.00224. Linear conditions: x0 ← x0 + A⁺(y − A·x0). Networks: x0 ← x0 − κ_t·Σ λ·∇_{x_t} L(x0), the
    gradients taken through the denoiser, κ_t = σ_t. Then ε from x_t and the new x0, and a DDIM step with η = 1.
    Where we differ: the state is latent, so the replacement acts on the decoded x0 and is encoded again,
    x0 ← E(p + A⁺(y − A·p)) with p = D(x0). That reaches the autoencoder's own error (adding only the change,
    E(p′) − E(p), left 5 to 25 % more and a grain in the picture); `refine` then descends the error through the decoder,
    10 to 20 % below. Our A averages over cells instead of taking bicubic samples, so that A·A⁺ = 1 holds exactly. Each
    network's gradient is scaled to unit size, so that λ means the same for any picture. The result is never pasted over with the input.
    """
    given = Given(job, model)
    towards = pulls(model, given, agree, words, look)

    def correct(predict, x, t, share):
        losses = {}
        if towards and agree_start <= share < agree_stop:
            before, pull, values = through(predict, x, t, towards, model.to_pixels)
            after = before - model.alpha_sigma(t)[1] * pull
            losses |= values
        else:
            after = before = predict(x, t)
        if given.linear:
            pixels = model.to_pixels(after)
            losses["condition, before"] = log(given.loss(pixels))
            if replace:
                after = model.to_latents(given.replaced(pixels))
            for _ in range(refine):
                after = descend(model, given, after, step)
            losses["condition, after"] = log(given.loss(model.to_pixels(after)))
        return Corrected(before, after, losses)

    return walk(job, model, given, correct, steps=steps, scale=scale, eta=eta, loops=loops)


def through(predict, x, t, towards, to_pixels):
    """(x0, Σ λ·the gradient of a loss of x0's pixels with respect to x_t at unit mean square, log10 of each loss)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = predict(x, t)
        pixels, pull, values = to_pixels(x0), 0, {}
        for name, (weight, loss) in towards.items():
            value = loss(pixels)
            (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
            pull = pull + weight * gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
            values[name] = log(value.detach())
    return x0.detach(), pull, values


def descend(model, given: Given, x0, step: float):
    """One gradient step on the condition's error, so long that it would reach half the autoencoder's own were it linear.

    Polyak's step length; aiming at zero overshoots, as no latent decodes without error.
    """
    with torch.enable_grad():
        x0 = x0.detach().requires_grad_()
        error = given.loss(model.to_pixels(x0))
        (gradient,) = torch.autograd.grad(error.sum(), x0)
    length = (error.detach() - given.aim(model) / 2).clamp(min=0) / gradient.square().sum((1, 2, 3)).clamp_min(1e-12)
    return x0.detach() - step * length.view(-1, 1, 1, 1) * gradient
