"""What steering is compared with: no steering, and a critic that looks at the noisy state."""

from typing import Annotated

from backends.image.conditions import Given
from backends.image.steered import descend, through
from backends.image.steering import Agree, AgreeStart, AgreeStop, Corrected, Eta, Look, WalkSteps, Words, log, pulls, walk
from backends.image.tasks import EDIT_IMAGE, EditImage
from backends.registry import method
from backends.spec import Events, Guidance, Slider

Strength = Annotated[float, Slider(0, 10, 0.1, help="length of the critic's step")]


@method("unsteered", task=EDIT_IMAGE, needs={"image", "vae"}, paper=False)
def unsteered(job: EditImage, model, steps: WalkSteps = 40, scale: Guidance = 3.0, eta: Eta = 1.0) -> Events:
    """No steering.

    The same seed, prompt and walk with the picture left out: what the network makes of the words alone.

    DDIM with η, Song et al., arXiv 2010.02502.
    """
    given = Given(job, model)

    def correct(predict, x, t, share):
        x0 = predict(x, t)
        return Corrected(x0, x0, {"condition": log(given.loss(model.to_pixels(x0)))} if given.linear else {})

    return walk(job, model, given, correct, steps=steps, scale=scale, eta=eta)


@method("noisy_critic", task=EDIT_IMAGE, needs={"image", "vae", "gradients"}, paper=False)
def noisy_critic(
    job: EditImage, model, steps: WalkSteps = 40, scale: Guidance = 3.0, strength: Strength = 1.0, agree: Agree = 0.0, words: Words = 0.0,
    look: Look = 0.0, agree_start: AgreeStart = 0.15, agree_stop: AgreeStop = 0.85, eta: Eta = 1.0,
) -> Events:  # fmt: skip
    """Critic on the noisy state.

    The same conditions by the gradient of an error that is measured on the noisy state, as plug-and-play guidance
    by a clean-image critic does; the critic has never seen noise, and the network's knowledge is not used.

    The baseline of Nair et al., arXiv 2310.00224, in our own reading: x0 ← x0 − κ_t·∇L(x_t): for networks with steered's
    step lengths, for linear conditions one step a level that aims at half the autoencoder's own error, times σ_t.
    """
    given = Given(job, model)
    towards = pulls(model, given, agree, words, look)

    def correct(predict, x, t, share):
        before, sigma, losses = predict(x, t), model.alpha_sigma(t)[1], {}
        after = before
        if towards and agree_start <= share < agree_stop:
            _, pull, values = through(lambda x, t: x, x, t, towards, model.to_pixels)
            after, losses = after - sigma * pull, losses | values
        if given.linear:
            after = after + strength * sigma * (descend(model, given, x, 1.0) - x)
            losses["condition"] = log(given.loss(model.to_pixels(after)))
        return Corrected(before, after, losses)

    return walk(job, model, given, correct, steps=steps, scale=scale, eta=eta)
