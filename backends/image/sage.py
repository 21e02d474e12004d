"""SAGE (arXiv 2306.00974): search noise and words for inputs that look normal but on which the model fails."""

from typing import Annotated

import numpy as np

from backends.denoiser import Cond
from backends.image.failure_spaces import Budget, Confirm, Inner, Low, Mode, Noise, Target, Token, Words, continuations, enter
from backends.image.sampling import cut_notes
from backends.image.tasks import FIND_FAILURES, FindFailures
from backends.lazy import torch
from backends.registry import method
from backends.spec import Events, Guidance, Slider

Rate = Annotated[float, Slider(0.01, 0.5, 0.01, help="length of a move as a share of the norm of what is moved")]
Deep = Annotated[int, Slider(1, 25, 1, help="last steps that are differentiated truly; before them the residual path")]
BEAM, TRIED = 2, 3  # prompts kept, and continuations drawn of each


@method("sage", task=FIND_FAILURES, needs={"cfg", "unet", "gradients", "emoji"})
def sage(job: FindFailures, model, mode: Mode = "noise", budget: Budget = 40, inner_steps: Inner = 8, scale: Guidance = 5.0, rate: Rate = 0.1,
         deep: Deep = 3, low: Low = 0.1, target: Target = "a burger", confirm: Confirm = "second") -> Events:  # fmt: skip
    """SAGE: adversarial search for failures.

    Judges that recognise the object lead a search by gradient through the sampler, over noise that stays Gaussian or over
    words that stay fluent, until none of them sees the object. A judge that took no part confirms it, on fresh seeds or under further prompts.

    Liu et al., arXiv 2306.00974; no code is public, the details are our reading. Noise: z ← z − η·√d·∇/‖∇‖, then mean 0 and
    norm √d, with ∇ by the residual path of failure_search.py; for any prompt ∇ is the mean's over three prompts, and the found noise
    is shown and confirmed under these and three more, beside the noise that the search began with. Words: each fluent continuation is ranked by its first-order
    change −⟨∇_E L, E_w − E⟩ of all token states (the text encoder is contextual), the best are drawn, a beam goes on; the
    world's caption grammar proposes where the paper has a language model. Token: one state behind the prompt is moved
    until a target object appears in this prompt and in another, its norm kept within those of the prompt's words; fresh
    seeds and a third prompt confirm it.
    """
    space = enter(mode, job, model, budget, inner_steps, scale, low, target, confirm, deep)
    yield from cut_notes(space.search.cond)
    yield from _beam(space) if mode == "words" else _descent(space, rate)
    yield from space.close()


def _descent(space: Noise | Token, rate: float) -> Events:
    """Move against the gradient of the judges' score, each time back to where the point is plausible."""
    search, point = space.search, space.first
    while search.open:
        with torch.enable_grad():
            leaf = point.clone().requires_grad_()
            pixels, judged = space.draw(leaf)
            gradient = torch.autograd.grad(search.loss(judged), leaf)[0]
        yield search.step(search.keep(pixels, judged, f"iteration {search.spent // search.rows}", point))
        point = space.project(point - rate * point.norm() * gradient / gradient.norm().clamp_min(1e-12))


def _beam(space: Words) -> Events:
    """Beam search over fluent continuations, proposed by the gradient of the judges' score in the token states."""
    search, model, seen = space.search, space.search.model, {space.first}

    def drawn(prompt):
        """(score, prompt, cond, gradient in its token states) of one prompt over the seeds."""
        (cond,) = model.encode(prompt)
        with torch.enable_grad():
            embeds = cond.embeds.clone().requires_grad_()
            pixels, judged = space.draw(Cond(prompt, embeds, cond.tokens, cond.extra))
            gradient = torch.autograd.grad(search.loss(judged), embeds)[0]
        return search.keep(pixels, judged, prompt, prompt), (float(search.loss(judged.detach())), prompt, cond, gradient)

    picture, entry = drawn(space.first)
    beam = [entry]
    yield search.step(picture)
    while search.open and beam:
        reached = []
        for _, prompt, cond, gradient in beam:
            proposals = [p for p in continuations(prompt, space.rng) if p not in seen]
            gains = [-float((gradient * (c.embeds - cond.embeds)).sum()) for c in model.encode(*proposals)]
            for i in np.argsort(gains)[::-1][:TRIED]:
                if not search.open:
                    break
                seen.add(proposals[i])
                picture, entry = drawn(proposals[i])
                reached.append(entry)
                yield search.step(picture)
        beam = sorted(reached, key=lambda e: e[0])[:BEAM]
