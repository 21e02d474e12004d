"""Blind votes and the strengths that follow from them.

A visitor who compares arms without their names chooses the best of them, or none. A choice of the best of k counts as k−1 wins, one over each other arm;
a tie counts as half a win and half a loss for each pair. Bradley–Terry: P(i beats j) = 1 / (1 + exp(s_j − s_i)).

k−1 wins of one choice are not k−1 votes: each pair of a choice weighs 2/k and each of a tie 4/k², so that any vote weighs as much as it tells (as much
as Luce's choice of one from k does among equals), and the intervals are neither too narrow for many arms nor the scores moved by it.
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from backends.registry import METHODS

PRIOR = 2.0  # standard deviation of strengths before any vote, in units of log-odds: who always wins keeps a finite score
NORMAL = 1.959964  # 95 % of a normal distribution lie within so many standard deviations
OPEN, VOTED, SHOWN = "open", "voted", "shown"  # a ballot before the vote, after it, and of one who saw the names without a vote


@dataclass(frozen=True)
class Ballot:
    """A blind comparison of a run's arms, and what was chosen.

    `arms`: {"method", "stack": [method], "knobs": those that are not alike in all arms} each; `places`: the arm that is shown in each place;
    `prompt`: 16 digits of the SHA-256 of the job without its seed; `rivals`: the arms between which was chosen; `best`: one of them, None for a tie.
    """

    run: str
    owner: str
    task: str
    model: str
    seed: int
    prompt: str
    arms: list[dict]
    places: list[int]
    state: str = OPEN
    best: int | None = None
    rivals: list[int] = field(default_factory=list)
    at: float = 0.0  # seconds since 1970

    @property
    def players(self) -> list[str]:
        """What each arm counts for: its method, and those stacked under it."""
        return ["+".join([arm["method"], *arm["stack"]]) for arm in self.arms]


def ballot(run: str, owner: str, given: dict, places: list[int]) -> Ballot:
    """Of a recipe as recipe.build makes it."""
    arms, job = given["arms"], {name: value for name, value in given["job"].items() if name != "seed"}
    said = [{knob: value for part in (arm, *arm.get("stack", ())) for knob, value in _named(arm, part)} for arm in arms]
    alike = [name for name, value in said[0].items() if all(name in other and other[name] == value for other in said)]
    kept = [{"method": arm["method"], "stack": [s["method"] for s in arm.get("stack", ())], "knobs": {n: v for n, v in own.items() if n not in alike}}
            for arm, own in zip(arms, said)]  # fmt: skip
    digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
    return Ballot(run, owner, given["task"], given["model"], given["job"].get("seed", 0), digest, kept, places, at=time.time())


def _named(arm: dict, part: dict) -> Iterable[tuple[str, object]]:
    """Knobs by their names; those of a method stacked under the arm's by its name too."""
    return ((name if part is arm else f"{part['method']}.{name}", value) for name, value in part["knobs"].items())


def title(player: str) -> str:
    """“Adaptive Guidance + Faster Diffusion”; a method that is not here any more goes by its slug."""
    return " + ".join(METHODS[slug].title if slug in METHODS else slug for slug in player.split("+"))


# --- Bradley–Terry ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A method's strength: log-odds against the average of those that were voted on, with its 95 % interval; `votes`: those that it was in."""

    player: str
    score: float
    low: float
    high: float
    wins: int  # of pairs, as are the next two
    ties: int
    losses: int
    votes: int


def pairs(vote: Ballot) -> list[tuple[int, int, float, float]]:
    """(arm, other arm, the first one's share of the win: 1 or ½, weight) of each pair that a vote decides."""
    k = len(vote.rivals)
    if vote.best is not None:
        return [(vote.best, other, 1.0, 2 / k) for other in vote.rivals if other != vote.best]
    return [(a, b, 0.5, 4 / k**2) for i, a in enumerate(vote.rivals) for b in vote.rivals[i + 1 :]]


def scores(votes: Iterable[Ballot]) -> list[Score]:
    """The strongest first. Arms of one method and other knobs do not count against each other here; their votes are kept as all are."""
    decided = []  # (vote, player, other player, share, weight)
    for number, vote in enumerate(votes):
        names = vote.players
        decided += [(number, names[a], names[b], share, weight) for a, b, share, weight in pairs(vote) if names[a] != names[b]]
    players = sorted({name for _, a, b, _, _ in decided for name in (a, b)})
    if not players:
        return []
    at = {name: i for i, name in enumerate(players)}
    strength, covariance = fit([at[a] for _, a, *_ in decided], [at[b] for _, _, b, *_ in decided], *zip(*(d[3:] for d in decided)), len(players))
    made = []
    for name, s, spread in zip(players, strength, NORMAL * np.sqrt(np.diag(covariance))):
        won = [share if a == name else 1 - share for _, a, b, share, _ in decided if name in (a, b)]
        seen = len({number for number, a, b, *_ in decided if name in (a, b)})
        made.append(Score(name, float(s), float(s - spread), float(s + spread), won.count(1.0), won.count(0.5), won.count(0.0), seen))
    return sorted(made, key=lambda row: -row.score)


def fit(first, second, share, weight, count: int, prior: float = PRIOR) -> tuple[np.ndarray, np.ndarray]:
    """(strengths (count,), their covariance (count, count)), relative to their mean. `first`, `second`: (n,) who met, `share`: of the win that the first has,
    `weight`: of the pair. The most probable strengths under a normal prior; the covariance is the inverse of the Fisher information with that prior."""
    from scipy.optimize import minimize
    from scipy.special import expit

    share, weight = np.asarray(share, float), np.asarray(weight, float)
    design = np.zeros((len(share), count))
    design[np.arange(len(share)), first] += 1
    design[np.arange(len(share)), second] -= 1

    def loss(s):
        gap = design @ s
        return weight @ (np.logaddexp(0, gap) - share * gap) + s @ s / (2 * prior**2), design.T @ (weight * (expit(gap) - share)) + s / prior**2

    strength = minimize(loss, np.zeros(count), jac=True, method="BFGS", options={"gtol": 1e-6}).x
    chance = expit(design @ strength)
    information = design.T @ (design * (weight * chance * (1 - chance))[:, None]) + np.eye(count) / prior**2
    centre = np.eye(count) - 1 / count
    return centre @ strength, centre @ np.linalg.inv(information) @ centre


# --- to take away ----------------------------------------------------------------------------------------


def told(task: str, votes: list[Ballot]) -> dict:
    """The scores and all votes as plain JSON, without the owner."""
    rows = [{name: value for name, value in asdict(vote).items() if name not in ("owner", "state", "task")} for vote in votes]
    return {"task": task, "scores": [asdict(row) | {"title": title(row.player)} for row in scores(votes)], "votes": rows}


def table(votes: Iterable[Ballot]) -> str:
    """CSV: a row for each pair that a vote decided."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["date", "run", "task", "model", "seed", "prompt", "arms", "result", "method", "knobs", "other", "other_knobs", "weight"])
    for vote in votes:
        date, names = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(vote.at)), vote.players
        for a, b, share, weight in pairs(vote):
            knobs = (json.dumps(vote.arms[i]["knobs"]) for i in (a, b))
            rows.writerow([date, vote.run, vote.task, vote.model, vote.seed, vote.prompt, len(vote.rivals), "won" if share == 1 else "tie",
                           names[a], next(knobs), names[b], next(knobs), round(weight, 4)])  # fmt: skip
    return out.getvalue()
