"""Runs on further processes or machines: each slot of the queue is a Ray actor with models of its own.

    STUDIO_EXECUTOR=ray make studio                          # one replica a GPU, or one in all, on this machine
    STUDIO_EXECUTOR=ray STUDIO_REPLICAS=4 RAY_ADDRESS=auto make studio   # on a cluster whose nodes hold the same checkout at the same path

Actors, not Ray Serve's deployments: nothing here speaks HTTP, the queue is the studio's own, and it must know which replica holds which run, so that
Stop and Pause reach it and a lost one is noticed. Arms of a run stay on one replica, which makes their seconds comparable and lets each be compared
with the first. A voicebank that a visitor brought is known to the studio's own process alone: a run with it is refused by the replica.
"""

import logging
import math
import os
import queue
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from backends.spec import ArmEvent, BadInput, Outcome

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
        self._idle = queue.SimpleQueue()
        for replica in self.all:
            self._idle.put(replica)

    def __call__(self, given: dict, pictures: dict, stop: Callable[[], bool], hold: Callable[[], bool]) -> Iterator[ArmEvent]:
        replica, ended = self._idle.get(), set()
        try:
            for again in (False, True):
                try:
                    with closing(self._told(replica, given, pictures, {"stop": stop, "hold": hold})) as events:
                        for event in events:
                            if event.arm not in ended:
                                yield event
                            if isinstance(event.event, Outcome):
                                ended.add(event.arm)
                    return
                except self.ray.exceptions.RayActorError:
                    log.exception("a replica was lost")
                    if again or stop():
                        raise BadInput(
                            "The process that ran this was lost; run it again, with a smaller model or fewer steps if it happens each time."
                        ) from None
                    self._back(replica)
        finally:
            self._idle.put(replica)

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
