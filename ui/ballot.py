"""A comparison without names: how far it is, then the results in an order of chance, to be voted on by a number key (voting.py).

While a ballot is open nothing that tells the arms apart but their results is sent to its visitor, also no previews: which arm runs, how long and in how
many steps would name it. Files come without their recipes.
"""

import dataclasses
from html import escape

from backends import grids, jobs, recipe, votes
from backends.jobs import Run
from backends.spec import ArmEvent, Audio, Cube, Heat, Image, Media, Outcome, Plot, Table, Text, Tokens, Turntable
from backends.votes import Ballot
from ui import boards, results, sound, turntable, views
from ui.boards import Board

TIE, NONE = 0, -1  # what is pressed instead of an arm's number: no preference, no vote

# In the component of the ballot: a press on a choice, by hand or by key (SCRIPT), is told once.
CHOOSE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-vote]'), ballot = event.target.closest('.ballot');
  if (!button || ballot.hasAttribute('data-sent')) return;
  ballot.setAttribute('data-sent', '');
  if (window.innerWidth <= 900) element.closest('.stage').scrollIntoView();
  trigger('click', { run: ballot.dataset.run, vote: Number(button.dataset.vote) });
});
"""
SCRIPT = """
<script>
// Number keys vote while a ballot is seen and nothing is being written.
document.addEventListener('keydown', (event) => {
  if (!/^[0-9]$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.('textarea, select, [contenteditable=true], input:not([type=range], [type=checkbox], [type=radio])')) return;
  const button = [...document.querySelectorAll(`.ballot [data-vote="${event.key}"]`)].find((b) => b.offsetParent);
  if (!button) return;
  event.preventDefault();
  button.click();
});
</script>
"""


# --- the ballot ------------------------------------------------------------------------------------------


def board(run: Run, ids: list[str], mine: bool) -> Board:
    """What a tab shows of a run; `ids`: of its arms, `mine`: whether the run is the visitor's own. Others, who have it by a link, have no ballot."""
    found = jobs.studio().store.ballot(run.id) if mine else None
    if found and found.state == votes.OPEN:
        return BlindBoard(run, ids, found)
    made = boards.board(run, ids)
    made.verdict = verdict(found) if found else ""
    return made


class BlindBoard(Board):
    """How far all is, then the ballot. With fewer than two whole results there is nothing to choose: the names are shown."""

    def __init__(self, run: Run, ids: list[str], ballot: Ballot):
        super().__init__(run.given, run.pictures, ids)
        self.run, self.ballot, self.told = run, ballot, -1

    def begin(self) -> list:
        return self._blank(self._waiting(0), boards.RUNNING)

    def _blank(self, ballot: str, message: str) -> list:
        row = self._begun(["", "", ""], [None] * len(self.ids), [""] * len(self.ids), ballot)
        return [message, *row[1:]]

    def start(self) -> list | None:
        return None

    def see(self, events: list[ArmEvent]) -> list | None:
        for event in events:
            self._take(event)
        share = sum(1 if live.state in ("done", "failed", "stopped") else live.share for live in self.lives) / len(self.lives)
        told, self.told = self.told, round(50 * share)
        return None if told == self.told else self._row(ballot=self._waiting(share))

    def _waiting(self, share: float) -> str:
        return (
            f'<div class="ballot waiting" role="status"><p class="ask"><b>Blind: {len(self.lives)} results are on their way.</b> They are shown together at the '
            f'end, since their order and time would name them.</p><div class="way"><i style="width:{100 * share:.0f}%"></i></div></div>'
        )

    def end(self) -> list:
        whole = rivals(self.outcomes)
        if len(whole) < 2:
            jobs.studio().store.vote(self.run.id, self.run.owner, None, [])
            self.verdict = '<p class="verdict" role="status">No vote: fewer than two arms gave a whole result. The names are shown.</p>'
            for outcome in self.outcomes:
                self.finals[outcome.arm] = self.last[outcome.arm] = results.final(outcome, self.pictures)
            return super().end()
        values = {o.arm: o.value for o in self.outcomes}
        return self._blank(html(self.run, self.ballot, [values.get(arm) if arm in whole else None for arm in self.ballot.places]), "")


def rivals(outcomes: list[Outcome]) -> list[int]:
    """The arms between which can be chosen: those with a whole result."""
    return [o.arm for o in outcomes if o.value is not None and not (o.error or o.stopped)]


def html(run: Run, ballot: Ballot, values: list[Media | None]) -> str:
    """The results in their places, a button each. No word comes from an arm's recipe."""
    arms, heard = "", []
    for place, value in enumerate(values, 1):
        drawn = '<p class="note">No whole result.</p>'
        if value is not None:
            value = bare(value)
            files = [sound.file(value)] if isinstance(value, Audio) else []
            heard += [sound.track(str(place), place - 1, value, *files)] if files else []
            drawn = media(value, *files) + f'<button type="button" class="vote" data-vote="{place}"><kbd>{place}</kbd> is best</button>'
        arms += f'<section class="arm arm-{place}"><span class="badge">{place}</span><div class="main">{drawn}</div></section>'
    last = max(place for place, value in enumerate(values, 1) if value is not None)
    return (
        f'<div class="ballot" data-run="{escape(run.id)}"><p class="ask" role="status"><b>Which is best?</b> Press its number, 1 to {last}, or 0 for a tie. '
        f'Names and figures are shown then.</p><div class="blind-arms">{arms}</div>{sound.switch(heard)}<div class="choices">'
        f'<button type="button" class="vote" data-vote="{TIE}"><kbd>0</kbd> a tie, or no preference</button>'
        f'<button type="button" class="none" data-vote="{NONE}">Show the names without a vote</button></div></div>'
    )


def bare(value: Media) -> Media:
    """A result without what its method wrote beside it."""
    if isinstance(value, Cube):
        return dataclasses.replace(value, picture=None)
    if isinstance(value, Tokens):  # the order in which tokens were revealed tells the method
        return Text(value.text or "".join(value.pieces))
    if isinstance(value, Turntable):
        return Turntable(value.frames)
    if isinstance(value, Audio):
        return Audio(value.samples, value.rate)
    if isinstance(value, Image):
        return Image(value.pixels)
    if isinstance(value, Plot):
        return dataclasses.replace(value, series={str(i): points for i, points in enumerate(value.series.values(), 1)}, marks={})
    return value


def media(value: Media, *files: str) -> str:
    """As it is drawn in a place: pictures whole, a sound without its facts and a file to take, the rest as elsewhere."""
    if isinstance(value, Image):
        path = sound.saved(recipe.png(value.pixels), "result.png")
        return f'<div class="seen zooms" tabindex="0" role="group" aria-label="picture; plus and minus enlarge it, arrows move it, Home resets"><img alt="" src="{escape(sound.url(path))}"></div>'
    if isinstance(value, Audio):
        return sound.audio(value, *files, facts=False)
    if isinstance(value, Turntable):
        return turntable.html(value, facts=False)
    if isinstance(value, Text):
        return f'<p class="text">{escape(value.text)}</p>'
    if isinstance(value, Heat | Table | Plot | Cube):
        return views.media(value)
    return views.thumbnail(value, 512)


def verdict(ballot: Ballot) -> str:
    """What was voted, and which arm stood in which place."""
    names = [f"<b>{escape(said(arm, ballot.players.count(player) > 1))}</b>" for arm, player in zip(ballot.arms, ballot.players)]
    what = {votes.SHOWN: "No vote was given."}.get(ballot.state, "Your vote: a tie." if ballot.best is None else f"Your vote: {names[ballot.best]}.")
    places = "".join(f'<li><span class="badge">{i}</span> {names[arm]}, arm {arm + 1} below</li>' for i, arm in enumerate(ballot.places, 1))
    return f'<div class="verdict" role="status"><p>{what} In the order of the blind comparison:</p><ol>{places}</ol></div>'


def said(arm: dict, knobs: bool) -> str:
    """“DDIM with classifier-free guidance (steps 10)”: an arm of a ballot, with the knobs that differ where another has its method; three at most."""
    return votes.title("+".join([arm["method"], *arm["stack"]])) + grids.bracketed(list(arm["knobs"].items())[:3] if knobs else ())
