"""run(): one arm after another, each with the same seed and input, measured alike.

The clock runs only while the method computes: not while a preview is decoded, a metric taken or a reader slow.
"""

import dataclasses
import datetime
import logging
import platform
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from backends import models, recipe
from backends.lazy import torch
from backends.registry import METHODS
from backends.spec import Arm, ArmEvent, BadInput, Held, Image, Job, Metric, Note, Outcome, Result, Step, Task

PREVIEW_SECONDS = 0.05  # at most one preview in this time; the newest wins
HOLD_SECONDS = 300.0  # that a run may be paused in all; then it goes on, since others wait for its place
_ACCELERATOR = threading.Lock()  # one run at a time: the random state and the clock are the process's
log = logging.getLogger(__name__)


def run(task: Task, job: Job, arms: tuple[Arm, ...], stop: Callable[[], bool] = lambda: False, pause: Callable[[], bool] = lambda: False) -> Iterator[ArmEvent]:
    """Yield the events of each arm in turn, each arm closing with its Outcome. What an arm has of the job for itself takes the place of the job's.

    `stop` is asked after each step: the arm under way ends with what it has, and later arms do not start.
    `pause` is asked there too: while it says so, and for HOLD_SECONDS of the whole run at most, the arm waits as it is, its clock standing.
    Closing the generator ends it without a last word. An arm that fails does not stop the next.
    """
    hold = _Hold(pause, stop)
    name = model = reference = None
    for number, arm in enumerate(arms):
        own, arm = dataclasses.replace(job, **arm.job), dataclasses.replace(arm, job={})
        if name != (name := own.model or task.model):
            model = yield from loading(name, stop, number)
        if stop():
            return
        for event in _arm(task, own, arm, number, model, stop, hold, reference):
            yield event
        if number == 0 and isinstance(event.event, Outcome):
            reference = event.event.value


class _Hold:
    """The pauses of a run: `left` seconds of them remain to all its arms. What waits keeps the accelerator, and so its random state."""

    def __init__(self, pause: Callable[[], bool], stop: Callable[[], bool]):
        self.pause, self.stop, self.left = pause, stop, HOLD_SECONDS

    @property
    def wished(self) -> bool:
        return self.left > 0 and self.pause() and not self.stop()

    def wait(self) -> None:
        """Return when the visitor goes on or stops, or when nothing is left."""
        while self.wished:
            begin = time.monotonic()
            time.sleep(0.05)
            self.left = max(0.0, self.left - (time.monotonic() - begin))


def loading(name: str, stop, number: int = 0) -> Iterator[ArmEvent]:
    """Return the model (`yield from`). A hub card loads in a thread meanwhile notes say how far it is; Stop leaves it to the thread."""
    if models.get(name).embedded:
        return models.load(name)
    box, said = [], ""

    def work():
        try:
            box.append(models.load(name))
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
        if (now := models.progress.get(name, "")) and now != said:
            said = now
            yield ArmEvent(number, Note(now))
        if stop():
            return None
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


def _further(arm: Arm, model) -> list[str]:
    """The cards that an arm takes besides its model; raises BadInput when it can't run on that."""
    models.require(model, METHODS[arm.method], [METHODS[s.method] for s in arm.stack])
    return [name for part in (arm, *arm.stack) if (loads := METHODS[part.method].loads) for name in loads(model, **part.knobs)]


def _arm(task, job, arm, number, model, stop, hold, reference) -> Iterator[ArmEvent]:
    method = METHODS[arm.method]
    metrics: list[Metric] = []
    value = partial = None
    seconds, error, stopped, last_preview = 0.0, "", False, -1.0
    try:
        for name in _further(arm, model):
            yield from loading(name, stop, number)
        if prepare := method.prepare:
            prepare(model, **arm.knobs)
    except BadInput as bad:
        error = str(bad)
    except Exception as failure:
        error = _sentence(failure, method)
    if stop():
        return
    with _ACCELERATOR, _peak_memory() as peak:
        events = None
        try:
            if error:
                raise BadInput(error)
            stack = {METHODS[s.method].slot: METHODS[s.method].piece(**s.knobs) for s in arm.stack}
            _restart_random(job.seed)
            model.nfe = 0
            events = method.function(job, model, **arm.knobs, **({"stack": stack} if method.holds else {}))
            while True:
                start = _now()
                with torch.no_grad():
                    event = next(events, None)
                model.elapsed = seconds = seconds + _now() - start
                if event is None:
                    break
                if isinstance(event, Metric):
                    metrics.append(event)
                elif isinstance(event, Result):
                    value = event.value
                elif isinstance(event, Step):
                    now, held = time.monotonic(), hold.wished
                    partial = event
                    if now - last_preview >= PREVIEW_SECONDS or event.i == event.n or held:
                        partial = event = _shown(event, model)
                        last_preview = now
                        yield ArmEvent(number, event, seconds, model.nfe)
                    if held:
                        yield ArmEvent(number, Held(hold.left), seconds, model.nfe)
                        hold.wait()
                        if not hold.left:
                            yield ArmEvent(number, Held(0), seconds, model.nfe)
                    if value is None and stop():
                        stopped = True
                        break
                    continue
                yield ArmEvent(number, event, seconds, model.nfe)
        except BadInput as bad:
            error = str(bad)
        except Exception as failure:
            error = _sentence(failure, method)
        finally:
            if events is not None:
                events.close()
        nfe, peak_mb = model.nfe, peak()
    if stopped and partial is not None:
        try:
            value = _picture(partial.show if partial.keep is None else partial.keep, model)
        except Exception as failure:
            error = _sentence(failure, method)
    if value is not None and task.metrics:
        try:
            with torch.no_grad():
                metrics = joined(models.resolve(task.metrics)(job, value, reference), metrics)
        except Exception:
            log.exception("a metric failed")
            yield ArmEvent(number, Note("The task's metrics could not be taken; the log holds the details."), seconds, nfe)
    outcome = dict(
        seconds=round(seconds, 3), nfe=nfe, peak_mb=round(peak_mb, 1), metrics={m.name: m.value for m in metrics},
        stopped=stopped, date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **_versions(model),
    )  # fmt: skip
    made = recipe.with_outcome(recipe.build(task, job, (arm,)), **outcome)
    yield ArmEvent(number, Outcome(number, seconds, nfe, outcome["peak_mb"], tuple(metrics), value, made, stopped, error), seconds, nfe)


def joined(found: Iterable[Metric], before: Iterable[Metric]) -> list[Metric]:
    """Figures `found` of a result, which all arms of its task have, then those before them under other names."""
    found = list(found)
    names = {m.name for m in found}
    return [*found, *(m for m in before if m.name not in names)]


def _shown(step: Step, model) -> Step:
    """The step with its latents turned into a picture, and what it left to a function drawn."""
    with torch.no_grad():
        aside = step.aside() if callable(step.aside) else step.aside
    return dataclasses.replace(step, show=_picture(step.show, model), aside=aside)


def _picture(show, model):
    """Latents as a picture, what a function gives, or a Media as it is."""
    with torch.no_grad():
        if torch.is_tensor(show):
            return Image(model.preview(show))
        return show() if callable(show) else show


def _now() -> float:
    """Seconds, once the GPU has done what it was given: its work is queued, not done, when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _restart_random(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _sentence(failure: Exception, method) -> str:
    log.exception("%s failed", method.slug)
    if lack := models.want(failure):
        return f"{method.title} could not go on: {lack}"
    return f"{method.title} failed ({type(failure).__name__}); the log holds the details."


def _versions(model) -> dict:
    import diffusers

    return {"device": f"{model.device} ({platform.machine()})", "model_revision": model.card.revision,
            "torch": str(torch.__version__), "diffusers": diffusers.__version__}  # fmt: skip


@contextmanager
def _peak_memory():
    """Gives a function: the peak in MB above where it began (GPU memory where there is one, else RSS)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        begin = torch.cuda.memory_allocated()
        yield lambda: (torch.cuda.max_memory_allocated() - begin) / 2**20
        return
    import psutil

    process, done = psutil.Process(), threading.Event()
    begin = process.memory_info().rss
    top = [begin]

    def watch():
        while not done.wait(0.02):
            top[0] = max(top[0], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: (top[0] - begin) / 2**20
    finally:
        done.set()
        thread.join()
