"""A task of sounds with two methods that need no model, so that tests of sounds need none of the studio's own."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from backends import sound
from backends.registry import METHODS, TASKS, method
from backends.spec import Audio, Job, Result, Slider, Sound, Spectrogram, Step, Task


@dataclass(frozen=True)
class ListenJob(Job):
    sound: Annotated[Audio | None, Sound(longest=3.0, help="anything")] = None


ListenJob.__module__ = "backends.audio.listen"  # the page puts it into the audio room


LISTEN = Task("listen", "Listen", ListenJob, "as_it_came", "emoji-ldm", help="Gives back what it hears.", pictures=False,
              examples=({"title": "nothing yet", "job": {}, "arms": [{"method": "as_it_came"}, {"method": "quieter"}]},))  # fmt: skip


def _heard(job, gain: float, steps: int):
    value = Audio((gain * job.sound.samples).astype("float32"), job.sound.rate, "heard", {"middle": job.sound.seconds / 2})
    for i in range(1, steps + 1):
        yield Step(i, steps, lambda: sound.log_mel(value), keep=value)
    yield Result(value, aside=(Spectrogram(sound.log_mel(value).values, value.seconds, value.rate / 2, "beside it", mel=False),))


def as_it_came(job, model, steps: Annotated[int, Slider(1, 50, 1, help="steps")] = 3):
    """As it came.

    The sound that was given, step by step and unchanged.
    """
    yield from _heard(job, 1.0, steps)


def quieter(job, model, steps: Annotated[int, Slider(1, 50, 1, help="steps")] = 3):
    """Quieter.

    The sound that was given at a quarter of its amplitude.
    """
    yield from _heard(job, 0.25, steps)


@contextmanager
def listening():
    """The task, registered meanwhile."""
    for function in (as_it_came, quieter):
        method(function.__name__, task=LISTEN, paper=False)(function)
    try:
        yield LISTEN
    finally:
        for function in (as_it_came, quieter):
            del METHODS[function.__name__]
        del TASKS["listen"]
