"""What a search for failures can vary: one noise, one noise for several prompts, the words that follow, one token.

SAGE and random search walk the same spaces from the same start, so that each comparison is of the walk alone. A space
draws the pictures of a point, gives another point at random, and confirms the worst that was found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.denoiser import Cond, together
from backends.image.attention_maps import words_of
from backends.image.concept_words import emoji_concepts
from backends.image.failure_search import HELD_OUT, Search, labelled, normality, onto_shell
from backends.lazy import torch
from backends.spec import BadInput, Choice, Events, Metric, Slider, TextKnob
from backends.worlds import emoji

if TYPE_CHECKING:
    from torch import Tensor

Mode = Annotated[str, Choice(("noise", "noise for any prompt", "words", "token"), help="what is searched: the start noise, the words that follow, or one token learnt for any prompt")]  # fmt: skip
Budget = Annotated[int, Slider(4, 300, 1, unit="pictures", help="pictures that may be drawn in the search")]
Inner = Annotated[int, Slider(2, 25, 1, help="denoising steps of each picture in the search")]
Low = Annotated[float, Slider(0.01, 0.5, 0.01, help="an object that every judge gives less than this is not seen")]
Confirm = Annotated[str, Choice((HELD_OUT, "main"), help="the judge that takes no part in the search and confirms it; the others lead")]
Target = Annotated[str, TextKnob(60, help="for “token”: the object that the token shall bring into any prompt; empty makes the prompted one vanish")]

OTHERS = ("a burger", "a rocket", "a cactus", "a dog", "an owl", "a pizza", "a car", "a strawberry", "a penguin", "an umbrella")
COMPANY = 2  # of OTHERS are searched with the job's prompt where a failure shall hold for any
UNSEEN = 3  # more of them took no part and confirm it
SEEDS = 2  # words and tokens must fail for several seeds
FRESH = 4  # seeds that confirm words and tokens
ROWS = {"noise": 1, "noise for any prompt": 1 + COMPANY, "words": SEEDS, "token": SEEDS}
PLACE = re.compile(r" (?:on|in front of) (?:an? [\w ]*(?:background|gradient|wall|floor|table)|green grass|a sandy beach|snow|a starry night).*$")


def enter(mode: str, job, model, budget, steps, scale, low, target: str, confirm: str, deep: int = 0):
    """The space of a mode with its search at its start; `deep`: as in short_chain, for noise."""
    search = Search(job, model, budget, steps, scale, low, ROWS[mode], _target(target) if mode == "token" else None, confirm)
    if mode == "words":
        return Words(search)
    return Token(search) if mode == "token" else Noise(search, deep, mode == "noise for any prompt")


class Noise:
    """Points: (1, C, h, w) on the shell; with `any_prompt` one noise stands under several prompts, each judged for its own object."""

    def __init__(self, search: Search, deep: int, any_prompt: bool):
        self.search, self.deep = search, min(deep, search.steps)
        self.prompts = [search.job.prompt, *(others(search) if any_prompt else ())]
        self.cond, self.concepts = together(search.model.encode(*self.prompts)), _asked(search, self.prompts)
        search.prompts = self.prompts if any_prompt else []
        self.first = self.random()

    def random(self) -> Tensor:
        return onto_shell(self.search.model.noise(self.search.job.seed + self.search.spent))

    def draw(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.search.log("‖z‖ / √d", float(z.detach().norm()) / z.numel() ** 0.5)
        self.search.log("Kolmogorov–Smirnov p", normality(z.detach()))
        return self.search.draw(z.expand(len(self.prompts), -1, -1, -1), self.cond, self.concepts, self.deep)

    def project(self, z: Tensor) -> Tensor:
        return onto_shell(z)

    def close(self) -> Events:
        search = self.search
        if not search.prompts:
            yield from search.close()
            return
        prompts = [*self.prompts, *others(search, COMPANY + UNSEEN)[COMPANY:]]
        concepts, cond = _asked(search, prompts), together(search.model.encode(*prompts))
        found, start = (search.drawn(z.expand(len(prompts), -1, -1, -1), cond) for z in (search.at, self.first))
        (sure, failed), (before, without) = (search.confirm(pixels, concepts) for pixels in (found, start))
        new, bare = failed[len(self.prompts) :], sum(not search.instead(found[i : i + 1], concepts[i]) for i in failed.nonzero()[:, 0].tolist())
        metrics = [
            Metric("prompts that fail", float(failed.float().mean()), "higher"),
            Metric("prompts that fail with the start noise", float(without.float().mean())),
            Metric("prompts that took no part and fail", float(new.float().mean()), "higher"),
        ]
        told = f"misses the object under {int(failed.sum())} of {len(prompts)} prompts ({int(without.sum())} with the start noise), "
        told += f"under {int(new.sum())} of the {len(new)} that took no part"
        told += f"; distorted pictures among the failures: {bare}, natural ones: {int(failed.sum()) - bare}" if failed.any() else ""
        captions = [f"{p}: {float(s):.0%} ({float(b):.0%} with the start noise)" for p, s, b in zip(prompts, sure, before, strict=True)]
        yield from search.end(float(sure.mean()), told, metrics, (labelled(found, captions),))


class Words:
    """Points: prompts that go on from the job's in the world's own English; each must fail for several seeds."""

    def __init__(self, search: Search):
        self.search, self.first, self.rng = search, search.job.prompt, np.random.default_rng(search.job.seed)
        self.z = onto_shell(search.model.noise(search.job.seed, SEEDS))
        self.random()  # refuses a prompt that leaves no room

    def random(self) -> str:
        found = continuations(self.search.job.prompt, self.rng)
        if not found:
            raise BadInput("The prompt already names four objects, a side and a background; shorten it, so that words can follow.")
        return str(self.rng.choice(found))

    def draw(self, prompt: str | Cond) -> tuple[Tensor, Tensor]:
        return self.search.draw(self.z, prompt if isinstance(prompt, Cond) else self.search.model.encode(prompt)[0])

    def close(self) -> Events:
        yield from self.search.close(_fresh(self.search, self.search.model.encode(self.search.at)[0]), [self.search.at] * FRESH)


class Token:
    """Points: one text state (E,) put behind the prompts' ends, its norm kept within those of the prompt's words."""

    def __init__(self, search: Search):
        more = others(search) if search.target is not None else [search.job.prompt] * 2
        self.search, self.texts = search, [search.job.prompt, more[1]]  # those that confirm: the second took no part
        self.conds, (self.last,) = search.model.encode(search.job.prompt, more[0]), search.model.encode(more[1])
        self.z = onto_shell(search.model.noise(search.job.seed, SEEDS))
        words = self.conds[0].embeds[0, words_of(self.conds[0])]
        self.norms, self.generator = words.norm(dim=1), torch.Generator().manual_seed(search.job.seed + 2)
        self.first = words.mean(0) * (self.norms.median() / words.mean(0).norm())

    def random(self) -> Tensor:
        """A state spread as words are."""
        words = torch.cat([c.embeds[0, words_of(c)] for c in self.search.model.encode(*OTHERS)])
        return self.project(words.mean(0) + words.std(0) * torch.randn(words.shape[1:], generator=self.generator).to(words))

    def draw(self, state: Tensor) -> tuple[Tensor, Tensor]:
        self.search.log("token’s norm / words’ mean norm", float(state.detach().norm() / self.norms.mean()))
        return self.search.draw(self.z, together([_with_state(c, state) for c in self.conds]))

    def project(self, state: Tensor) -> Tensor:
        return state * (state.norm().clamp(self.norms.min(), self.norms.max()) / state.norm())

    def close(self) -> Events:
        n = FRESH // 2
        conds = [_with_state(c, self.search.at) for c in (self.conds[0], self.last)]
        fresh = torch.cat([_fresh(self.search, c, n, at * FRESH) for at, c in enumerate(conds)])
        yield from self.search.close(fresh, [f"{text} + token" for text in self.texts for _ in range(n)])


def others(search: Search, n: int = COMPANY) -> list[str]:
    """The first n of OTHERS that name neither an object of the job's prompt nor what is searched for."""
    named = {search.concept, *emoji_concepts(search.job.prompt).values()}
    return [p for p in OTHERS if not named & set(emoji_concepts(p).values())][:n]


def _asked(search: Search, prompts: list[str]) -> list[int]:
    """The concept that is asked for by each prompt, the first being the job's."""
    return [search.concept, *(next(iter(emoji_concepts(p).values())) for p in prompts[1:])]


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
    return search.drawn(search.model.noise(search.job.seed + 1000 + skip, n), cond)


def continuations(prompt: str, rng: np.random.Generator, objects: int = 40) -> list[str]:
    """Longer prompts in the world's own English: a further object, a side, a background where there is none yet."""
    match = PLACE.search(prompt)
    head, tail = (prompt[: match.start()], match[0]) if match else (prompt, "")
    named = set(emoji_concepts(head).values())
    joint = "next to" if len(named) == 1 else "and"
    longer = []
    if len(named) < 4:
        more = [c for c in rng.choice(emoji.common(), objects, replace=False).tolist() if c not in named]
        longer += [f"{head} {joint} {emoji.article(emoji.concepts()[c].name)}{tail}" for c in more]
    if not re.search(r"(left|right|top|bottom|corner)$", head):
        longer += [f"{head} {side}{tail}" for side in ("on the left", "on the right", "at the top", "at the bottom")]
    if not tail:
        grounds = [emoji.Background("plain", (c,)) for c in emoji.COLOURS] + [emoji.Background(p) for p in emoji.PLACES[:4]]
        longer += [f"{head} on {ground.phrase}" for ground in grounds]
    return longer
