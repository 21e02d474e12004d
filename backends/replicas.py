"""Runs on further processes or machines: each slot of the queue is a Ray actor with models of its own.

    STUDIO_EXECUTOR=ray make studio                          # one replica a GPU, or one in all, on this machine
    STUDIO_EXECUTOR=ray STUDIO_REPLICAS=4 RAY_ADDRESS=auto make studio   # on a cluster whose nodes hold the same checkout at the same path

Actors, not Ray Serve's deployments: nothing here speaks HTTP, the queue is the studio's own, and it must know which replica holds which run, so that
Stop and Pause reach it and a lost one is noticed. Arms of a run stay on one replica, which makes their seconds comparable; with "apart" in the recipe
they take what replicas are idle. A voicebank that a visitor brought is known to the studio's own process alone: a run with it is refused by the replica.
"""

import dataclasses
import logging
import math
import os
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

from backends import grids
from backends.registry import TASKS
from backends.runner import joined
from backends.spec import ArmEvent, BadInput, Media, Metric, Outcome

SWITCH_SECONDS = 0.05  # between two looks at Stop and Pause
BACK_SECONDS = 60.0  # for a lost replica to be there again
BEGIN_SECONDS = 180.0  # for all to be there at first
log = logging.getLogger(__name__)


class Replica:
    """What lives on the other side."""

    def __init__(self):
        self.on: set[tuple[str, str]] = set()  # (a run's name, "stop" or "hold"), since a press may come before its run begins here

    def run(self, name: str, given: dict, pictures: dict) -> Iterator[ArmEvent]:
        from backends import jobs

        yield from jobs.local(given, pictures, lambda: (name, "stop") in self.on, lambda: (name, "hold") in self.on)
        self.on -= {(name, "stop"), (name, "hold")}

    def judged(self, given: dict, pictures: dict, value: Media, reference: Media) -> list[Metric]:
        from backends import models, recipe

        task, job, _ = recipe.parse(given, pictures)
        return models.resolve(task.metrics)(job, value, reference)

    def turn(self, name: str, switch: str, on: bool) -> None:
        (self.on.add if on else self.on.discard)((name, switch))

    def process(self) -> int:
        return os.getpid()


class Replicas:
    """A source of the executor (jobs.py) that has `count` replicas; call it from as many threads.

    A run whose replica is lost begins anew on it once it is back, one time; of what had ended nothing is told twice.
    """

    def __init__(self, count: int = 0):
        import ray

        self.ray = ray
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would run them behind everything else on the machine
        address = os.environ.get("RAY_ADDRESS")  # none: a cluster on this machine, with this process for its head
        own = {} if address else {"_node_ip_address": "127.0.0.1"}  # its ports take orders from whoever reaches them
        ray.init(address=address, ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING, **own)
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        self.count = count or gpus or 1
        share = {"num_gpus": 1 / math.ceil(self.count / gpus)} if gpus else {"num_cpus": has["CPU"] / self.count if has["CPU"] < self.count else 1}
        # One run at a time; switches have a thread of their own. max_restarts: a replica that died is made again, by Ray.
        actor = ray.remote(concurrency_groups={"switches": 1}, max_restarts=-1, **share)(Replica)
        self.all = [actor.remote() for _ in range(self.count)]
        try:
            ray.get([replica.process.remote() for replica in self.all], timeout=BEGIN_SECONDS)
        except ray.exceptions.GetTimeoutError:
            raise SystemExit(f"The cluster has no room for {self.count} replicas; choose fewer by STUDIO_REPLICAS, or join more machines.") from None
        self._idle, self._lock, self._wanted = queue.SimpleQueue(), threading.Lock(), 0  # how many runs wait for a replica
        for replica in self.all:
            self._idle.put(replica)

    def __call__(self, given: dict, pictures: dict, stop: Callable[[], bool], hold: Callable[[], bool]) -> Iterator[ArmEvent]:
        replica, switches = self._taken(), {"stop": stop, "hold": hold}
        if given.get("apart") and len(cells := grids.cells(given)) > 1:
            yield from self._apart(replica, cells, pictures, switches)
            return
        try:
            yield from self._safe(replica, given, pictures, switches)
        finally:
            self._idle.put(replica)

    def _taken(self):
        """An idle replica, waited for; a run whose arms are apart gives up its others meanwhile."""
        with self._lock:
            self._wanted += 1
        try:
            return self._idle.get()
        finally:
            with self._lock:
                self._wanted -= 1

    def _safe(self, replica, given: dict, pictures: dict, switches: dict[str, Callable[[], bool]]) -> Iterator[ArmEvent]:
        ended = set()
        for again in (False, True):
            try:
                with closing(self._told(replica, given, pictures, switches)) as events:
                    for event in events:
                        if event.arm not in ended:
                            yield event
                        if isinstance(event.event, Outcome):
                            ended.add(event.arm)
                return
            except self.ray.exceptions.RayActorError:
                log.exception("a replica was lost")
                if again or switches["stop"]():
                    raise BadInput("The process that ran this was lost; run it again, with a smaller model or fewer steps if it happens each time.") from None
                self._back(replica)

    def _apart(self, replica, cells: list[dict], pictures: dict, switches: dict[str, Callable[[], bool]]) -> Iterator[ArmEvent]:
        """Each arm by itself, on `replica` and on those that are idle as long as nobody waits for one; figures that compare are taken once the first has ended."""
        left, told, ending, workers = deque(enumerate(cells)), queue.SimpleQueue(), threading.Event(), []
        switches = switches | {"stop": lambda stop=switches["stop"]: ending.is_set() or stop()}

        def work(replica, own: bool) -> None:
            try:
                while not switches["stop"]():
                    try:
                        number, cell = left.popleft()
                    except IndexError:
                        return
                    for event in self._safe(replica, cell, pictures, switches):
                        told.put(self._numbered(event, number))
                    if not own and self._wanted:
                        return
            except BaseException as failure:
                told.put(failure)
            finally:
                self._idle.put(replica)
                told.put(None)

        def begin(replica, own: bool) -> None:
            workers.append(threading.Thread(target=work, args=(replica, own), daemon=True))
            workers[-1].start()

        begin(replica, True)
        running, first, held = 1, None, []
        try:
            while running:
                if left and not self._wanted and not self._idle.empty() and not switches["stop"]():
                    with suppress(queue.Empty):
                        begin(self._idle.get_nowait(), False)
                        running += 1
                with suppress(queue.Empty):
                    event = told.get(timeout=SWITCH_SECONDS)
                    if event is None:
                        running -= 1
                    elif isinstance(event, BaseException):
                        raise event
                    elif not isinstance(event.event, Outcome):
                        yield event
                    else:
                        first, held = (event, held) if not event.arm else (first, [*held, event])
                        yield from [event] if not event.arm else ()
                while first and held and not (running and self._idle.empty()):
                    yield self._compared(held.pop(0), first.event.value, cells, pictures)
            yield from held  # the first has no end
        finally:
            ending.set()
            for worker in workers:
                worker.join()

    @staticmethod
    def _numbered(event: ArmEvent, number: int) -> ArmEvent:
        what = dataclasses.replace(event.event, arm=number) if isinstance(event.event, Outcome) else event.event
        return dataclasses.replace(event, arm=number, event=what)

    def _compared(self, event: ArmEvent, reference: Media | None, cells: list[dict], pictures: dict) -> ArmEvent:
        """The arm's end with the figures that compare it with the first arm's result, as it has them when it runs behind that."""
        end, task = event.event, TASKS[cells[event.arm]["task"]]
        if end.value is None or reference is None or not task.metrics:
            return event
        replica = self._taken()
        try:
            found = self.ray.get(replica.judged.remote(cells[event.arm], pictures, end.value, reference))
        except self.ray.exceptions.RayError:
            log.exception("figures could not be taken")
            return event
        finally:
            self._idle.put(replica)
        metrics = tuple(joined(found, end.metrics))
        made = end.recipe | {"outcome": end.recipe["outcome"] | {"metrics": {m.name: m.value for m in metrics}}}
        return dataclasses.replace(event, event=dataclasses.replace(end, metrics=metrics, recipe=made))

    def _told(self, replica, given: dict, pictures: dict, switches: dict[str, Callable[[], bool]]) -> Iterator[ArmEvent]:
        """What the replica tells of a run; whoever closes this makes it stop. Raises what the run raises."""
        name, sent = secrets.token_hex(8), dict.fromkeys(switches, False)
        stream = replica.run.options(num_returns="streaming").remote(name, given, pictures)
        try:
            while True:
                for switch, pressed in switches.items():
                    if (on := pressed()) != sent[switch]:
                        self._turn(replica, name, switch, on)
                        sent[switch] = on
                if not self.ray.wait([stream], timeout=SWITCH_SECONDS)[0]:
                    continue
                try:
                    yield self.ray.get(next(stream))
                except StopIteration:
                    stream = None
                    return
                except self.ray.exceptions.RayTaskError as failed:
                    stream = None
                    raise failed.cause from None
        finally:
            if stream is not None:
                self._turn(replica, name, "stop", True)

    def _turn(self, replica, name: str, switch: str, on: bool) -> None:
        replica.turn.options(concurrency_group="switches").remote(name, switch, on)

    def _back(self, replica) -> None:
        """Return when Ray has made it again, or after BACK_SECONDS."""
        until = time.monotonic() + BACK_SECONDS
        while time.monotonic() < until:
            try:
                self.ray.get(replica.process.remote())
                return
            except self.ray.exceptions.RayActorError:
                time.sleep(0.2)

    def close(self) -> None:
        self.ray.shutdown()
