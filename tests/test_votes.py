"""Blind comparisons without a browser: strengths from votes, what is kept of them and for whom, and that nothing names an arm before its vote."""

import csv
import io
import json
import re
import sqlite3
import typing
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from test_history import ME, YOU, columns, rows_of
from test_jobs import ended
from test_store import MEDIA

from backends import jobs, spec, votes
from backends.registry import METHODS, TASKS
from backends.spec import ArmEvent, Image, Metric, Note, Outcome, Result, Step
from backends.store import Store
from backends.votes import VOTED, Ballot
from ui import ballot, history, running, visitor, voting

TASK = TASKS["text_to_image"]
TELLING = ("ddim", "adaptive", "classifier", "curve of it", "77 nfe", "unnoise-", "threshold", "0.9876")  # in lower case, of the two arms below


def vote(best, rivals, names="abcdef", at=0.0) -> Ballot:
    arms = [{"method": name, "stack": [], "knobs": {}} for name in names]
    return Ballot("run", "me", "task", "model", 1, "prompt", arms, [], VOTED, best, list(rivals), at)


# --- strengths ---


def drawn(rng, strengths, k) -> Ballot:
    """One vote between k of the methods, by Luce's rule."""
    rivals = rng.choice(len(strengths), k, replace=False)
    chances = np.exp(strengths[rivals])
    return vote(int(rivals[rng.choice(k, p=chances / chances.sum())]), map(int, rivals))


@pytest.mark.parametrize("k", [2, 4])
def test_known_strengths_are_recovered_and_intervals_cover_them_as_often_as_they_say(k):
    true, rng, inside, errors = np.array([1.2, 0.4, -0.5, -1.1]), np.random.default_rng(k), [], []
    for _ in range(60):
        for row in votes.scores(drawn(rng, true, k) for _ in range(70)):
            strength = true["abcdef".index(row.player)]
            inside.append(row.low <= strength <= row.high)
            errors.append(row.score - strength)
    assert 0.92 <= np.mean(inside) <= 0.985, "of 240; unweighted ones cover 82 % when four are compared"
    assert abs(np.mean(errors)) < 0.05 and np.std(errors) < 0.4


def test_who_always_wins_has_a_finite_score_that_more_votes_make_surer():
    few, many = (votes.scores([vote(0, (0, 1))] * n) for n in (3, 30))
    assert [row.player for row in few] == ["a", "b"] and few[0].score == pytest.approx(-few[1].score)
    assert 0 < few[0].score < many[0].score < 10 and few[0].low < 0 < many[0].low
    assert (few[0].wins, few[0].ties, few[0].losses, few[1].losses) == (3, 0, 0, 3)


def test_a_choice_of_the_best_of_k_is_k_minus_one_wins_and_a_tie_is_half_of_each():
    assert [pair[:3] for pair in votes.pairs(vote(2, (0, 2, 3)))] == [(2, 0, 1.0), (2, 3, 1.0)]
    assert [pair[:3] for pair in votes.pairs(vote(None, (0, 1, 2)))] == [(0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.5)]
    for rivals in ((0, 1), (0, 1, 2), (0, 1, 2, 3, 4, 5)):
        weights = [sum(w for *_, w in votes.pairs(vote(best, rivals))) for best in (0, None)]
        assert weights[0] == pytest.approx(weights[1]), "a tie tells as much as a choice"
    tied = votes.scores([vote(None, (0, 1))] * 9)
    assert abs(tied[0].score) < 1e-6 and tied[0].ties == 9
    alike = votes.scores([vote(0, (0, 1)), vote(1, (0, 1)), vote(None, (0, 1))])
    assert abs(alike[0].score) < 1e-6


def test_a_method_does_not_meet_itself_and_no_votes_are_no_scores():
    assert votes.scores([]) == [] and votes.scores([vote(0, (0, 1), "aa")]) == []
    (first, second) = votes.scores([vote(0, (0, 1, 2), "aab")])
    assert (first.player, first.wins, second.losses) == ("a", 1, 1)


def test_a_ballot_names_the_knobs_that_differ_and_the_input_without_its_seed():
    arms = [{"method": "ddim", "knobs": {"steps": n, "scale": 5}} for n in (10, 20)]
    arms[1]["stack"] = [{"method": "deepcache", "knobs": {"every": 3}}]
    given = {"task": "text_to_image", "model": "m", "job": {"prompt": "a cat", "seed": 4}, "arms": arms}
    made = votes.ballot("run", "me", given, [1, 0])
    assert [arm["knobs"] for arm in made.arms] == [{"steps": 10}, {"steps": 20, "deepcache.every": 3}] and made.players == ["ddim", "ddim+deepcache"]
    assert (
        ballot.said(made.arms[0], True) == "DDIM with classifier-free guidance (steps 10)"
        and ballot.said(made.arms[0], False) == "DDIM with classifier-free guidance"
    )
    assert ballot.said({"method": "ddim", "stack": [], "knobs": {"null": False}}, True).endswith(" (null off)"), "as in the names of arms"
    other, another = (votes.ballot("run", "me", given | {"job": {"prompt": p, "seed": 5}}, [0, 1]) for p in ("a cat", "a dog"))
    assert made.prompt == other.prompt != another.prompt and len(made.prompt) == 16 and (made.seed, other.seed) == (4, 5)


def test_votes_are_taken_away_as_csv_and_json():
    cast = [vote(0, (0, 1, 2)), vote(None, (1, 2), at=86400.0)]
    rows = list(csv.DictReader(io.StringIO(votes.table(cast))))
    assert [(r["method"], r["other"], r["result"]) for r in rows] == [("a", "b", "won"), ("a", "c", "won"), ("b", "c", "tie")]
    assert rows[2]["date"] == "1970-01-02T00:00:00Z" and rows[0]["seed"] == "1" and rows[0]["prompt"] == "prompt"
    told = json.loads(json.dumps(votes.told("task", cast)))
    assert [s["player"] for s in told["scores"]][0] == "a" and len(told["votes"]) == 2 and "owner" not in told["votes"][0]


# --- what is kept ---


def test_a_vote_is_its_visitors_alone_given_once_and_deleted_with_its_run(tmp_path):
    store = Store(tmp_path, limit=10**9)
    given = {"task": "t", "model": "m", "job": {"seed": 1}, "arms": [{"method": "a", "knobs": {}}, {"method": "b", "knobs": {}}]}
    for name in ("one", "two", "three"):
        store.begin(name, "me", given, {}, "", 1.0)
        store.change(name, state="done")
        store.ask(votes.ballot(name, "me", given, [1, 0]))
    with pytest.raises(sqlite3.IntegrityError):
        store.ask(votes.ballot("one", "you", given, [0, 1]))
    assert store.votes("me", "t") == [] and store.ballot("one").state == votes.OPEN
    assert not store.vote("one", "you", 0, [0, 1]) and store.vote("one", "me", 1, [0, 1]) and not store.vote("one", "me", 0, [0, 1])
    assert store.vote("two", "me", None, [0, 1])
    assert [v.best for v in store.votes("me", "t")] == [1, None] and store.votes("you", "t") == store.votes("me", "other") == []
    store.close()
    store = Store(tmp_path, limit=0)
    store.clean()  # all but the newest run go: what is voted stays, what is open could never be voted on
    assert len(store.votes("me", "t")) == 2
    assert store.ballot("three") is None or store.get("three", "me")
    store.close()


def test_deleting_a_run_deletes_its_vote_and_all_of_a_task_can_go(tmp_path):
    store = Store(tmp_path)
    given = {"task": "t", "model": "m", "job": {}, "arms": [{"method": "a", "knobs": {}}, {"method": "b", "knobs": {}}]}
    for name in ("one", "two"):
        store.begin(name, "me", given, {}, "", 1.0)
        store.change(name, state="done")
        store.ask(votes.ballot(name, "me", given, [1, 0]))
        store.vote(name, "me", 0, [0, 1])
    assert not store.delete("one", "you") and len(store.votes("me", "t")) == 2
    assert store.delete("one", "me") and [v.run for v in store.votes("me", "t")] == ["two"]
    store.forget("you", "t")
    assert store.votes("me", "t")
    store.forget("me", "t")
    assert store.votes("me", "t") == [] and store.ballot("two").state == votes.SHOWN
    store.close()


# --- nothing names an arm before its vote ---


def telling(given, pictures, stop, hold):
    """Two arms that say in every way which they are."""
    for arm, asked in enumerate(given["arms"]):
        slug = asked["method"]
        pixels = np.full((8, 8, 3), 40 * arm + 20, np.uint8)
        yield ArmEvent(arm, Note(f"{METHODS[slug].title} begins"))
        yield ArmEvent(arm, Step(1, 2, Image(pixels, slug), (spec.Plot({"curve of it": ([1], [2])}),)), 1.0, 77)
        yield ArmEvent(arm, Result(Image(pixels, slug)), 2.0, 77)
        failed = given["job"]["prompt"] == "one fails" and arm
        value, error = (None, f"{METHODS[slug].title} failed") if failed else (Image(pixels, slug, pixels), "")
        yield ArmEvent(arm, Outcome(arm, 2.0, 77, 1.0, (Metric("curve of it", 0.9876),), value, given | {"arms": [asked], "outcome": {}}, error=error), 2.0, 77)


@pytest.fixture
def studio(tmp_path, monkeypatch):
    made = jobs.Executor(Store(tmp_path), telling)
    monkeypatch.setattr(jobs, "_studio", [made])
    yield made
    made.close()
    running._tickets.clear()


def blind(studio, prompt="a cat", request=ME):
    arms = [{"method": "ddim", "knobs": {"steps": 9}}, {"method": "adaptive_guidance", "knobs": {"steps": 9}}]
    given = {"task": "text_to_image", "job": {"prompt": prompt}, "arms": arms}
    return ended(studio.submit(given, {}, visitor.owner(request), blind=True))


def sent(rows) -> str:
    """All that a page is given, and the files that it names."""
    text = "".join(str(value) for row in rows for value in row)
    files = [unquote(name) for name in re.findall(r"gradio_api/file=([^\"&)]+)", text)]
    data = "".join(Path(name).read_bytes().decode("latin-1") for name in files)
    return (text + "".join(files) + data).lower()


def test_before_the_vote_nothing_that_is_sent_names_an_arm_and_after_it_all_does(studio):
    run = blind(studio)
    before = rows_of(running.watcher(TASK, run.id, columns(run)), ME)
    text = sent(before)
    assert 'data-vote="2"' in text and text.count("result.png") >= 2
    assert not [word for word in TELLING if word in text]
    assert before[-1][1] is None, "no recipe, table or zip waits in the tab's state"
    lists = (history.past(visitor.owner(ME), "", 40)[0] + history.now(visitor.owner(ME))).lower()
    assert "2 arms, blind" in lists and not [word for word in TELLING if word in lists] and "<img" not in lists
    places = studio.store.ballot(run.id).places
    press = SimpleNamespace(run=run.id, vote=2)
    go = voting.voter(TASK, columns(run))
    after = rows_of(lambda request: go(press, request), ME)
    (cast,) = studio.store.votes(visitor.owner(ME), TASK.slug)
    assert cast.best == places[1] and cast.rivals == [0, 1]
    *row, table = after[-1]
    assert row[1].recipe and "0.9876" in row[1].table and "Adaptive Guidance" in str(row) and "Your vote" in str(row)
    assert "1 vote of yours" in table and "Adaptive Guidance" in table and "CSV" in table
    assert "thumbs" in history.past(visitor.owner(ME), "", 40)[0] and "blind" not in history.past(visitor.owner(ME), "", 40)[0]
    assert "No votes yet" in voting.panel(visitor.owner(YOU), TASK.slug) and "No votes yet" in voting.panel(visitor.owner(ME), "sing")


def test_the_order_is_one_of_chance(studio):
    orders = {tuple(studio.store.ballot(blind(studio).id).places) for _ in range(16)}
    assert orders == {(0, 1), (1, 0)}, "one order alone has a chance of 1 in 32,768"


def test_only_the_owner_votes_once_and_for_what_is_there(studio):
    run = blind(studio)
    go = voting.voter(TASK, columns(run))

    def press(number, request=ME):
        return rows_of(lambda request: go(SimpleNamespace(run=run.id, vote=number), request), request)

    assert running.GONE in press(1, YOU)[-1][0] and "adaptive" not in sent([row[:-1] for row in press(3)]), "no third place: the ballot stays"
    assert studio.store.ballot(run.id).state == votes.OPEN
    press(0)
    press(1)
    (cast,) = studio.store.votes(visitor.owner(ME), TASK.slug)
    assert cast.best is None
    other = blind(studio)
    assert voting.chosen(ballot.NONE, studio.store.ballot(other.id), other) == (None, [])


def test_with_one_whole_result_there_is_nothing_to_vote_on(studio):
    run = blind(studio, "one fails")
    rows = rows_of(running.watcher(TASK, run.id, columns(run)), ME)
    assert "No vote: fewer than two" in str(rows[-1]) and "Adaptive Guidance failed" in str(rows[-1]) and rows[-1][1].recipe
    assert studio.store.votes(visitor.owner(ME), TASK.slug) == [] and studio.store.ballot(run.id).state == votes.SHOWN


@pytest.mark.parametrize("kind", typing.get_args(spec.Media), ids=lambda k: k.__name__)
def test_no_medium_tells_more_than_its_content(kind):
    value = ballot.bare(MEDIA[kind])
    html = ballot.media(value, *(["/x/sound.flac"] if kind is spec.Audio else []))
    assert len(html) > 20 and not re.search(r"caption<|>sound ·|turning ·|here<|triangles|kHz</fig|<a href|curve", html)
