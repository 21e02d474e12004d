"""SAGE (arXiv 2306.00974): search noise and words for inputs that look normal but on which the model fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.denoiser import Cond, Denoiser, together
from backends.image.attention_maps import words_of
from backends.image.concept_words import emoji_concepts
from backends.image.failure_search import Search, normality, onto_shell, short_chain
from backends.image.sampling import cut_notes
from backends.image.tasks import FIND_FAILURES, FindFailures
from backends.lazy import torch
from backends.registry import method
from backends.spec import BadInput, Choice, Events, Guidance, Slider, TextKnob
from backends.worlds import emoji

if TYPE_CHECKING:
    from torch import Tensor

Mode = Annotated[str, Choice(("noise", "noise for any prompt", "words", "token"), help="what is searched: the start noise, the words that follow, or one token learnt for any prompt")]  # fmt: skip
Budget = Annotated[int, Slider(4, 300, 1, unit="pictures", help="pictures that may be drawn in the search")]
Inner = Annotated[int, Slider(2, 25, 1, help="denoising steps of each picture in the search")]
Rate = Annotated[float, Slider(0.01, 0.5, 0.01, help="length of a move as a share of the norm of what is moved")]
Deep = Annotated[int, Slider(1, 25, 1, help="last steps that are differentiated truly; before them the residual path")]
Low = Annotated[float, Slider(0.01, 0.5, 0.01, help="an object that every judge gives less than this is not seen")]

Target = Annotated[str, TextKnob(60, help="for “token”: the object that the token shall bring into any prompt; empty makes the prompted one vanish")]

OTHERS = ("a burger", "a rocket", "a cactus", "a dog")  # “any prompt” is the job's and the first of these that name something else
COMPANY = 2  # of them
SEEDS = 2  # words and tokens must fail for several seeds
BEAM, TRIED = 2, 3  # prompts kept, and continuations drawn of each
FRESH = 4  # seeds that confirm words and tokens
PLACE = re.compile(r" (?:on|in front of) (?:an? [\w ]*(?:background|gradient|wall|floor|table)|green grass|a sandy beach|snow|a starry night).*$")


@method("sage", task=FIND_FAILURES, needs={"cfg", "unet", "gradients", "emoji"})
def sage(job: FindFailures, model, mode: Mode = "noise", budget: Budget = 40, inner_steps: Inner = 8, scale: Guidance = 5.0, rate: Rate = 0.1,
         deep: Deep = 3, low: Low = 0.1, target: Target = "a burger") -> Events:  # fmt: skip
    """SAGE: adversarial search for failures.

    Judges that recognise the object lead a search by gradient through the sampler, over noise that stays Gaussian or over
    words that stay fluent, until none of them sees the object. A judge that took no part confirms it.

    Liu et al., arXiv 2306.00974; no code is public, the details are our reading. Noise: z ← z − η·√d·∇/‖∇‖, then mean 0 and
    norm √d, with ∇ by the residual path of failure_search.py. Words: each fluent continuation is ranked by its first-order
    change −⟨∇_E L, E_w − E⟩ of all token states (the text encoder is contextual), the best are drawn, a beam goes on; the
    world's caption grammar proposes where the paper has a language model. Token: one state behind the prompt is moved
    until a target object appears in this prompt and in another, its norm kept within those of the prompt's words; fresh
    seeds and a third prompt confirm it.
    """
    rows = {"noise": 1, "noise for any prompt": 1 + COMPANY}.get(mode, SEEDS)
    search = Search(job, model, budget, inner_steps, scale, low, rows, _target(target) if mode == "token" else None)
    yield from cut_notes(search.cond)
    if mode == "words":
        yield from _words(search)
    elif mode == "token":
        yield from _token(search, rate)
    else:
        yield from _noise(search, rate, deep, _others(search) if mode == "noise for any prompt" else ())


@method("random_search", task=FIND_FAILURES, needs={"cfg", "unet", "emoji"}, paper=False)
def random_search(job: FindFailures, model, mode: Annotated[str, Choice(("noise", "words"), help="what is drawn at random")] = "noise",
                  budget: Budget = 40, inner_steps: Inner = 8, scale: Guidance = 5.0, low: Low = 0.1) -> Events:  # fmt: skip
    """Random search for failures.

    Draws fresh noise, or fresh words, as often as the budget allows and keeps the picture in which the judges see least
    of the object. Its cost is the same as that of a guided search: pictures drawn.
    """
    rows = SEEDS if mode == "words" else 1
    search = Search(job, model, budget, inner_steps, scale, low, rows)
    yield from cut_notes(search.cond)
    rng, prompt = np.random.default_rng(job.seed), job.prompt
    longer = _longer(job.prompt, rng) if mode == "words" else []
    while search.open:
        z = onto_shell(model.noise(job.seed if mode == "words" or not search.spent else job.seed + search.spent, rows))
        if mode == "words" and search.spent:
            prompt = str(rng.choice(longer))
            longer = _longer(job.prompt, rng)
        pixels, judged = search.draw(z, model.encode(prompt)[0])
        yield search.step(search.keep(pixels, judged, prompt if mode == "words" else f"draw {search.spent}"))
    yield from search.close(_fresh(search, model.encode(search.worst.caption)[0]) if mode == "words" else None)


def _noise(search: Search, rate: float, deep: int, others: tuple[str, ...]) -> Events:
    """Descend on the noise; with `others` on one noise for several prompts, each judged for its own object."""
    model, z = search.model, onto_shell(search.model.noise(search.job.seed))
    prompts = [search.job.prompt, *others]
    cond = together(model.encode(*prompts))
    concepts = [search.concept, *(next(iter(emoji_concepts(p).values())) for p in others)]
    while search.open:
        search.log("‖z‖ / √d", float(z.norm()) / z.numel() ** 0.5)
        search.log("Kolmogorov–Smirnov p", normality(z))
        with torch.enable_grad():
            leaf = z.clone().requires_grad_()
            pixels, judged = search.draw(leaf.expand(len(prompts), -1, -1, -1), cond, concepts, min(deep, search.steps))
            gradient = torch.autograd.grad(search.loss(judged), leaf)[0]
        yield search.step(search.keep(pixels, judged, f"iteration {len(search.history['‖z‖ / √d'])}"))
        z = onto_shell(z - rate * z.norm() * gradient / gradient.norm().clamp_min(1e-12))
    yield from search.close()


def _words(search: Search) -> Events:
    """Beam search over fluent continuations, proposed by the gradient of the judges' score in the token states."""
    model, rng = search.model, np.random.default_rng(search.job.seed)
    z = onto_shell(model.noise(search.job.seed, SEEDS))
    seen = {search.job.prompt}
    _longer(search.job.prompt, rng)

    def drawn(prompt):
        """(score, prompt, cond, gradient in its token states) of one prompt over the seeds."""
        (cond,) = model.encode(prompt)
        with torch.enable_grad():
            embeds = cond.embeds.clone().requires_grad_()
            pixels, judged = search.draw(z, Cond(prompt, embeds, cond.tokens, cond.extra))
            gradient = torch.autograd.grad(search.loss(judged), embeds)[0]
        return search.keep(pixels, judged, prompt), (float(search.loss(judged.detach())), prompt, cond, gradient)

    picture, entry = drawn(search.job.prompt)
    beam = [entry]
    yield search.step(picture)
    while search.open and beam:
        reached = []
        for _, prompt, cond, gradient in beam:
            proposals = [p for p in continuations(prompt, rng) if p not in seen]
            gains = [-float((gradient * (c.embeds - cond.embeds)).sum()) for c in model.encode(*proposals)]
            for i in np.argsort(gains)[::-1][:TRIED]:
                if not search.open:
                    break
                seen.add(proposals[i])
                picture, entry = drawn(proposals[i])
                reached.append(entry)
                yield search.step(picture)
        beam = sorted(reached, key=lambda e: e[0])[:BEAM]
    yield from search.close(_fresh(search, model.encode(search.worst.caption)[0]))


def _token(search: Search, rate: float) -> Events:
    """Move one state behind the prompts' ends until the target appears, or the prompted object is gone, for all seeds."""
    model = search.model
    others = _others(search) if search.target is not None else [search.job.prompt] * 2
    conds, (last,) = model.encode(search.job.prompt, others[0]), model.encode(others[1])
    z = onto_shell(model.noise(search.job.seed, SEEDS))
    words = conds[0].embeds[0, words_of(conds[0])]
    norms, state = words.norm(dim=1), words.mean(0)
    state = worst = state * (norms.median() / state.norm())
    while search.open:
        search.log("token’s norm / words’ mean norm", float(state.norm() / norms.mean()))
        with torch.enable_grad():
            leaf = state.clone().requires_grad_()
            pixels, judged = search.draw(z, together([_with_state(c, leaf) for c in conds]))
            gradient = torch.autograd.grad(search.loss(judged), leaf)[0]
        before = search.best
        yield search.step(search.keep(pixels, judged, f"iteration {search.spent // SEEDS}"))
        worst = state if search.best < before else worst
        state = state - rate * state.norm() * gradient / gradient.norm().clamp_min(1e-12)
        state = state * (state.norm().clamp(norms.min(), norms.max()) / state.norm())
    confirmed = [_with_state(c, worst) for c in (conds[0], last)]
    yield from search.close(torch.cat([_fresh(search, c, FRESH // 2, at * FRESH) for at, c in enumerate(confirmed)]))


def _others(search: Search) -> list[str]:
    """COMPANY prompts of OTHERS that name neither an object of the job's prompt nor what is searched for."""
    named = {search.concept, *emoji_concepts(search.job.prompt).values()}
    return [p for p in OTHERS if not named & set(emoji_concepts(p).values())][:COMPANY]


def _target(named: str) -> int | None:
    """The concept's number; None for an empty text."""
    if not named.strip():
        return None
    found = emoji_concepts(named)
    if not found:
        raise BadInput(f"The judges know no object called “{named.strip()}”; as the target name one of the emoji world, such as “a burger”.")
    return next(iter(found.values()))


def _with_state(cond: Cond, state: Tensor) -> Cond:
    """`cond` with `state` (E,) as the token after its last."""
    place = min(words_of(cond).stop + 1, len(cond.tokens) - 1)
    embeds = torch.cat([cond.embeds[:, :place], state[None, None], cond.embeds[:, place + 1 :]], 1)
    return Cond(cond.text, embeds, cond.tokens, cond.extra)


def _fresh(search: Search, cond: Cond, n: int = FRESH, skip: int = 0) -> Tensor:
    """Pictures of n independent seeds under `cond`."""
    model: Denoiser = search.model
    return model.to_pixels(short_chain(model, model.noise(search.job.seed + 1000 + skip, n), cond, search.uncond, search.steps, search.scale))


def _longer(prompt: str, rng: np.random.Generator) -> list[str]:
    """The prompt's continuations; raises BadInput when it leaves room for none."""
    found = continuations(prompt, rng)
    if not found:
        raise BadInput("The prompt already names four objects, a side and a background; shorten it, so that words can follow.")
    return found


def continuations(prompt: str, rng: np.random.Generator, objects: int = 40) -> list[str]:
    """Longer prompts in the world's own English: a further object, a side, a background where there is none yet."""
    match = PLACE.search(prompt)
    head, tail = (prompt[: match.start()], match[0]) if match else (prompt, "")
    named = set(emoji_concepts(head).values())
    joint = "next to" if len(named) == 1 else "and"
    longer = []
    if len(named) < 4:
        drawn = [c for c in rng.choice(emoji.common(), objects, replace=False).tolist() if c not in named]
        longer += [f"{head} {joint} {emoji.article(emoji.concepts()[c].name)}{tail}" for c in drawn]
    if not re.search(r"(left|right|top|bottom|corner)$", head):
        longer += [f"{head} {side}{tail}" for side in ("on the left", "on the right", "at the top", "at the bottom")]
    if not tail:
        grounds = [emoji.Background("plain", (c,)) for c in emoji.COLOURS] + [emoji.Background(p) for p in emoji.PLACES[:4]]
        longer += [f"{head} on {ground.phrase}" for ground in grounds]
    return longer
