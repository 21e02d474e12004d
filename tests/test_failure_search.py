"""SAGE's searches on the tiny model, with small random judges in the place of the trained ones."""

import dataclasses

import numpy as np
import pytest
import torch

from backends import METHODS, run
from backends.image import failure_search as S
from backends.image import failure_spaces as spaces
from backends.image.failure_spaces import continuations
from backends.spec import BadInput, Image, Images, Metric, Note, Plot, Result, Step

QUICK = {"budget": 6, "inner_steps": 3}


@pytest.fixture
def judged(tiny, monkeypatch):
    """Judges that look at the mean of a fixed patch: quick, differentiable, and different from one another."""

    def log_probs(pixels, concepts, name):
        red = pixels[:, 0 if name == "main" else 1, 32:96, 32:96].mean((1, 2))
        return torch.nn.functional.logsigmoid(40 * red + 2)

    monkeypatch.setattr(S, "log_probs", log_probs)
    monkeypatch.setattr(S, "detect", lambda pixels, name: [[]] * len(pixels))
    monkeypatch.setattr(S, "judges_stand", lambda: True)
    monkeypatch.setattr("backends.metrics.scorer.available", lambda: False)
    return tiny


def outcome(method, prompt="a cat", **knobs):
    recipe = {"task": "find_failures", "job": {"prompt": prompt, "seed": 2}, "arms": [{"method": method, "knobs": QUICK | knobs}]}
    events = [e.event for e in run(recipe)]
    return events, events[-1]


def test_the_short_chain_is_diffusers_ddim(tiny):
    from backends.image.sampling import Guided, SchedulerWalk, denoise

    cond, uncond = tiny.encode("a cat", "")
    z = tiny.noise(0, 2)
    with torch.no_grad():
        *_, (plain, _) = denoise(tiny, cond, uncond, z, SchedulerWalk(tiny, 5, "ddim"), Guided(5.0))
        for deep in (0, 2, 5):
            assert torch.allclose(S.short_chain(tiny, z, cond, uncond, 5, 5.0, deep), plain, atol=1e-4)


@pytest.mark.identity("sage", "the residual path is a known constant, the deep one the true gradient")
def test_the_residual_path_is_a_known_constant_and_the_deep_one_is_the_true_gradient(tiny):
    cond, uncond = tiny.encode("a cat", "")
    weight = tiny.noise(1)

    def gradient(deep, z):
        leaf = z.clone().requires_grad_()
        (S.short_chain(tiny, leaf, cond, uncond, 4, 5.0, deep) * weight).sum().backward()
        return leaf.grad

    z = tiny.noise(0)
    # All residual: the product of the cosines of the steps' angles.
    levels = [999, 749, 499, 249, -1]
    angles = [torch.atan2(*reversed(tiny.alpha_sigma(t))) for t in levels]
    constant = torch.stack([(a - b).cos() for a, b in zip(angles, angles[1:])]).prod()
    assert torch.allclose(gradient(0, z), constant * weight, atol=1e-4)
    # All true: finite differences agree.
    true, step = gradient(4, z), 1e-2 * tiny.noise(3)
    with torch.no_grad():
        up, down = (float((S.short_chain(tiny, z + s * step, cond, uncond, 4, 5.0) * weight).sum()) for s in (1, -1))
    assert float((true * step).sum()) == pytest.approx((up - down) / 2, rel=0.05)
    assert not torch.allclose(gradient(2, z), true, atol=1e-3)


def test_projection_keeps_the_norm_and_the_mean():
    z = S.onto_shell(torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    assert torch.allclose(z.flatten(1).norm(dim=1), torch.full((3,), 2048**0.5)) and torch.allclose(z.mean((1, 2, 3)), torch.zeros(3), atol=1e-5)
    assert S.normality(z[:1]) > 0.01 and S.normality(torch.ones_like(z).sign()) < 1e-6


@pytest.mark.parametrize("method", ["sage", "random_search"])
@pytest.mark.parametrize("mode", list(spaces.ROWS))
def test_each_mode_streams_its_search_and_ends_with_the_worst(judged, mode, method):
    events, closing = outcome(method, mode=mode, low=0.01)
    assert not closing.error and isinstance(closing.value, Image)
    steps = [e for e in events if isinstance(e, Step)]
    assert steps and all(isinstance(s.show, Image) and s.show.pixels.shape == (128, 128, 3) for s in steps)
    pair, score, *more = steps[-1].aside
    assert isinstance(pair, Images) and len(pair.items) == 2 and isinstance(score, Plot)
    assert bool(more) == (mode != "words")
    names = {e.name for e in events if isinstance(e, Metric)}
    assert {"pictures drawn", "search judges’ probability", "held-out judge’s probability"} <= names
    assert any(isinstance(e, Note) for e in events) and sum(isinstance(e, Result) for e in events) == 1


def test_the_descent_lowers_what_the_judges_see_and_stays_on_the_shell(judged):
    events, closing = outcome("sage", budget=12, low=0.01, deep=2)
    last = [e for e in events if isinstance(e, Step)][-1]
    sure = last.aside[1].series[S.SURE][1]
    assert min(sure[-4:]) < sure[0]
    shell = last.aside[2].series
    assert np.allclose(shell["‖z‖ / √d"][1], 1, atol=1e-4) and len(shell["Kolmogorov–Smirnov p"][1]) == len(sure)


@pytest.mark.identity("sage", "one fooled judge is no failure")
def test_one_fooled_judge_is_not_a_failure(judged):
    search = S.Search(_job(), judged, 8, 3, 5.0, low=0.1)
    fooled, lowered = torch.tensor([[-30.0], [-0.1]]), torch.tensor([[-3.0], [-2.0]])
    assert search.loss(fooled) > search.loss(lowered)
    assert not search.reached(fooled.exp()) and search.reached(torch.tensor([[0.05], [0.02]]))
    assert not search.reached(torch.tensor([[0.05, 0.3], [0.02, 0.02]])), "every picture must fail"


def test_what_reaches_the_goal_is_kept_even_at_a_worse_score(judged):
    search, picture = S.Search(_job(), judged, 8, 3, 5.0, low=0.1), torch.zeros(1, 3, 128, 128)
    search.keep(picture, torch.tensor([[-4.0], [-2.2]]), "one judge fooled far, the other not quite")
    assert not search.found
    search.keep(picture, torch.tensor([[-2.4], [-2.4]]), "both just below")
    assert search.found and search.worst.caption == "both just below"


@pytest.mark.parametrize("method", ["sage", "random_search"])
def test_a_search_says_what_of_a_long_prompt_was_left_out(judged, method):
    events, _ = outcome(method, " ".join(["a cat"] * 20) + " and a zebra")
    assert any(isinstance(e, Note) and "zebra" in e.text for e in events)


def test_a_stopped_search_leaves_its_worst(judged):
    events = list(run({"task": "find_failures", "job": {"prompt": "a cat"}, "arms": [{"method": "random_search", "knobs": {"low": 0.01}}]},
                               stop=iter([False, False, False, *[True] * 99]).__next__))  # fmt: skip
    *_, last = events
    steps = [e.event for e in events if isinstance(e.event, Step)]
    assert last.event.stopped and (last.event.value.pixels == steps[-1].keep.pixels).all()


def test_the_confirming_prompt_of_a_token_took_no_part(judged):
    for target, prompt in (("a burger", "a cat"), ("a rocket", "a dog"), ("a cactus", "a burger")):
        search = S.Search(dataclasses.replace(_job(), prompt=prompt), judged, 8, 3, 5.0, 0.1, 2, spaces._target(target))
        others = spaces.others(search)
        assert len(set(others)) == 2 and not {prompt, target} & set(others)


def _job():
    from backends.image.tasks import FindFailures

    return FindFailures(prompt="a cat")


@pytest.mark.parametrize("method", ["sage", "random_search"])
@pytest.mark.parametrize("mode, rows", spaces.ROWS.items())
def test_no_search_spends_more_than_its_budget(judged, mode, rows, method):
    events, _ = outcome(method, mode=mode, low=0.01, budget=5, target="")
    drawn = next(e.value for e in events if isinstance(e, Metric) and e.name == "pictures drawn")
    assert drawn <= 5 and drawn > 5 - rows


def test_the_baseline_has_the_methods_modes():
    by_knob = [{k.name: k for k in METHODS[m].knobs} for m in ("sage", "random_search")]
    for name in ("mode", "budget", "inner_steps", "scale", "low", "target", "confirm"):
        assert by_knob[0][name] == by_knob[1][name]


@pytest.mark.parametrize("mode", list(spaces.ROWS))
def test_both_searches_begin_alike_and_then_part(judged, mode, monkeypatch):
    monkeypatch.setattr(S.Search, "reached", lambda self, sure: False)  # so that both spend their budget
    guided, random = ([e for e in outcome(m, mode=mode, low=0.01, target="")[0] if isinstance(e, Step)] for m in ("sage", "random_search"))
    assert (guided[0].show.pixels == random[0].show.pixels).all()
    assert (guided[1].show.pixels != random[1].show.pixels).any() and (random[1].show.pixels != random[0].show.pixels).any()
    assert guided[-1].i == random[-1].i == guided[-1].n  # previews may be dropped between, as they come quickly


def test_a_random_token_is_of_the_size_of_a_word(judged):
    space = spaces.enter("token", _job(), judged, 8, 3, 5.0, 0.1, "a rocket", "second")
    drawn = torch.stack([space.random() for _ in range(8)])
    norms = drawn.norm(dim=1)
    assert (norms >= space.norms.min() * 0.999).all() and (norms <= space.norms.max() * 1.001).all()
    assert torch.pdist(drawn).min() > 0.1 * space.norms.min()


@pytest.mark.parametrize("method", ["sage", "random_search"])
def test_a_noise_for_any_prompt_is_shown_and_confirmed_under_each_and_under_unseen_ones(judged, method):
    events, closing = outcome(method, mode="noise for any prompt", low=0.01)
    result = next(e for e in events if isinstance(e, Result))
    searched, confirmed = (m for m in result.aside[1:] if isinstance(m, Images))
    assert [i.caption for i in searched.items] == ["a cat", "a burger", "a rocket"]
    assert len(confirmed.items) == 3 + spaces.UNSEEN and len({i.caption.split(":")[0] for i in confirmed.items}) == 6
    assert all("%" in i.caption and "with the start noise" in i.caption for i in confirmed.items)
    assert (confirmed.items[0].pixels == closing.value.pixels).all() and (confirmed.items[0].pixels == searched.items[0].pixels).all()
    metrics = {e.name: e.value for e in events if isinstance(e, Metric)}
    assert {"prompts that fail", "prompts that fail with the start noise", "prompts that took no part and fail"} <= set(metrics)
    sure = [float(i.caption.split(": ")[1].split("%")[0]) < 50 for i in confirmed.items]
    assert metrics["prompts that fail"] == pytest.approx(np.mean(sure)) and metrics["prompts that took no part and fail"] == pytest.approx(np.mean(sure[3:]))
    assert any(isinstance(e, Note) and "of the 3 that took no part" in e.text for e in events)


@pytest.mark.parametrize("mode", ["words", "token"])
def test_fresh_seeds_that_confirm_are_shown(judged, mode):
    events, _ = outcome("sage", mode=mode, low=0.01)
    shown = next(e for e in events if isinstance(e, Result)).aside[-1]
    assert isinstance(shown, Images) and len(shown.items) == spaces.FRESH and all(i.caption.endswith("%") for i in shown.items)


def test_the_judge_that_confirms_leads_no_search(judged, monkeypatch):
    plain, asked = S.log_probs, []
    monkeypatch.setattr(S, "log_probs", lambda pixels, concepts, name: asked.append((name, len(pixels))) or plain(pixels, concepts, name))
    for chosen, leads in (("second", "main"), ("main", "second")):
        asked.clear()
        _, closing = outcome("sage", low=0.01, confirm=chosen)
        own = asked[: asked.index((chosen, 1)) + 1]  # what follows are the task's metrics
        assert not closing.error and own[-1] == (chosen, 1) and {name for name, _ in own[:-1]} == {leads}
    with pytest.raises(BadInput, match="confirm"):  # it reads what main sees, so that it could not confirm main's search
        outcome("sage", confirm="scorer")
    monkeypatch.setattr(S, "scorer_stands", lambda: True)
    assert [S.Search(_job(), judged, 8, 3, 5.0, low=0.1, confirms=c).leaders for c in ("second", "main")] == [["main", "scorer"], ["second"]]


def test_a_token_is_moved_towards_its_target_and_refused_when_unknown(judged):
    events, closing = outcome("sage", mode="token", target="a rocket", budget=12)
    curve = [e for e in events if isinstance(e, Step)][-1].aside[1]
    assert not closing.error and curve.y == "probability of rocket" and curve.series["goal"][1] == [0.5, 0.5]
    search = S.Search(_job(), judged, 8, 3, 5.0, low=0.1, target=3)
    assert search.loss(torch.tensor([[-0.5]])) < search.loss(torch.tensor([[-3.0]])) and search.reached(torch.tensor([[0.6], [0.9]]))
    assert "no object called" in outcome("sage", mode="token", target="melancholy")[1].error
    assert not outcome("sage", mode="token", target="")[1].error


def test_a_prompt_that_leaves_no_room_for_words_is_refused(judged):
    full = "a cat and a dog and a bee and a rocket on the left on a red background"
    for method in ("sage", "random_search"):
        assert "shorten it" in outcome(method, full, mode="words")[1].error


def test_both_searches_cost_the_same_and_stop_when_found(judged):
    guided, drawn = (outcome(m, low=0.01)[1] for m in ("sage", "random_search"))
    assert guided.nfe == drawn.nfe == QUICK["budget"] * QUICK["inner_steps"] * 2
    events, _ = outcome("sage", low=0.5, budget=200)  # a goal that the patch judge reaches at once or soon
    assert [e for e in events if isinstance(e, Step)][-1].i < 200


def test_same_seed_same_search(judged):
    a, b = (outcome("sage", mode="words")[1].value for _ in range(2))
    assert a.caption == b.caption and (a.pixels == b.pixels).all()


def test_a_prompt_without_an_object_of_the_world_is_refused(judged):
    for method in ("sage", "random_search"):
        assert "emoji world" in outcome(method, prompt="quiet melancholy")[1].error


def test_continuations_stay_fluent():
    rng = np.random.default_rng(0)
    plain = continuations("a cat", rng)
    assert "a cat on a red background" in plain and "a cat on the left" in plain and any(" next to " in p for p in plain)
    placed = continuations("a cat and a bee on a starry night sky", rng)
    assert all(p.endswith(" on a starry night sky") for p in placed) and all(p.startswith("a cat and a bee ") for p in placed)
    assert len(set(plain)) == len(plain)
