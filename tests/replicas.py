"""Two replicas on this machine: `make replicas`. Not part of `make test`: Ray starts six processes and loads the models in two of them.

Checks that a run there gives the same bits as here, refuses in the same words, is stopped and goes on after its replica was killed; then prints what
two replicas do in the time of the studio alone.
"""

import os
import signal
import time

import numpy as np

from backends import jobs
from backends.jobs import Executor
from backends.replicas import Replicas
from backends.spec import Outcome, Step
from backends.store import Store


def asked(seed=1, steps=25, arms=("ddim",)):
    return {
        "task": "text_to_image",
        "job": {"prompt": "a cat next to a cactus", "seed": seed},
        "arms": [{"method": m, "knobs": {"steps": steps}} for m in arms],
    }


def outcomes(studio, run):
    with studio.watch(run) as feed:
        return [e.event for e in feed if isinstance(e.event, Outcome)]


def first_step(studio, run):
    with studio.watch(run) as feed:
        next(e for e in feed if isinstance(e.event, Step))


def took(studio, count=8):
    begin = time.monotonic()
    runs = [studio.submit(asked(seed), {}, f"visitor-{seed % 4}") for seed in range(count)]
    made = [outcomes(studio, run) for run in runs]
    assert all(len(m) == 1 and m[0].value is not None and m[0].recipe["job"]["seed"] == seed for seed, m in enumerate(made)), "each got its own"
    return time.monotonic() - begin


def main(folder) -> None:
    alone, replicas = Executor(Store(folder / "alone")), Replicas(2)
    both = Executor(Store(folder / "both"), replicas, replicas.count)

    here, there = (outcomes(studio, studio.submit(asked(arms=("ddim", "deepcache")), {}, "me")) for studio in (alone, both))
    assert len(here) == len(there) == 2
    assert all(np.array_equal(a.value.pixels, b.value.pixels) and not a.error and not b.error for a, b in zip(here, there)), "the same bits"
    print("same bits: yes")

    run = both.submit(asked() | {"model": "emoji-ldm", "arms": [{"method": "ddim", "stack": [{"method": "faster_diffusion"}]}]}, {}, "me")
    assert outcomes(both, run)[0].value is not None

    run = both.submit(asked(steps=100), {}, "me")
    first_step(both, run)
    begin = time.monotonic()
    both.stop(run)
    end = outcomes(both, run)
    freed = time.monotonic() - begin
    assert end[0].stopped and end[0].value is not None and run.state == "stopped", "what it had is kept"
    assert freed < 1, freed
    print(f"Stop leaves the picture it had and frees the replica after {freed:.2f} s")

    run = both.submit(asked(steps=60, arms=("ddim", "deepcache")), {}, "me")
    first_step(both, run)
    for replica in replicas.all:
        os.kill(replicas.ray.get(replica.process.options(concurrency_group="switches").remote()), signal.SIGKILL)
    begin, end = time.monotonic(), outcomes(both, run)
    assert run.state == "done" and len(end) == 2 and all(o.value is not None for o in end), run.error
    print(f"both replicas killed in the middle: the run is there after {time.monotonic() - begin:.1f} s, whole")

    whole = asked(arms=("ddim", "deepcache", "faster_diffusion", "adaptive_guidance"))
    begin, here = time.monotonic(), outcomes(both, both.submit(whole, {}, "me"))
    together, begin = time.monotonic() - begin, time.monotonic()
    there = sorted(outcomes(both, both.submit(whole | {"apart": True}, {}, "me")), key=lambda o: o.arm)
    apart = time.monotonic() - begin
    assert all(
        np.array_equal(a.value.pixels, b.value.pixels) and a.recipe["outcome"]["metrics"].keys() == b.recipe["outcome"]["metrics"].keys()
        for a, b in zip(here, there, strict=True)
    )
    assert all(m.value == n.value for a, b in zip(here, there) for m, n in zip(a.metrics, b.metrics) if m.name == n.name and np.isfinite(m.value)), (
        "compared with the first alike"
    )
    print(f"four arms: {together:.1f} s one after another, {apart:.1f} s apart; same bits, same figures")

    run = both.submit(asked(steps=100, arms=("ddim", "deepcache", "ddim")) | {"apart": True}, {}, "me")
    first_step(both, run)
    begin = time.monotonic()
    both.stop(run)
    outcomes(both, run)
    freed = time.monotonic() - begin
    print(f"arms apart, stopped: {freed:.2f} s, {run.state}")
    assert run.state == "stopped" and freed < 1, freed

    for studio in (alone, both):
        took(studio, 4)  # models are there
    single, double = took(alone), took(both)
    print(f"8 pictures of 25 steps by 4 visitors: {single:.1f} s alone, {double:.1f} s on two replicas, {single / double:.2f} times as many in the same time")
    both.close()
    alone.close()
    replicas.close()


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    jobs.log.setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
