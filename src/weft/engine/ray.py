"""Steps over a Ray cluster (Moritz et al. 2018): the one that RAY_ADDRESS names, else one on this machine.

Workers are processes that keep the last step they were given, with its model. Each is given a few items at once; what
comes back is given on in the order of the items. An item whose worker died, or whose result was lost with a machine,
goes to another worker; so does one whose worker has no CPU to start on, as others use the cluster too.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from weft import memory
from weft.errors import DataError, RunError, UsageError
from weft.progress import Spoken

AT_ONCE = 2
"""Items that a worker is given: while it works on one the next is on its way."""
TRIES = 4
"""Of an item whose workers die."""
PATIENCE = 10.0
"""Seconds for a worker to start."""
_STORE = 1 << 31


class _Worker:
    """A process of the cluster."""

    def __init__(self) -> None:
        self._kept: Any = None
        self._step: Any = None

    def here(self) -> None:
        """Answers once it has started."""

    def do(self, kept: list[Any], item: Any) -> Any:
        """``kept``: where the step is, in a list so that it is fetched only when it is another one."""
        if kept[0] != self._kept:
            import ray

            self._kept, self._step = kept[0], ray.get(kept[0])
        return self._step(item)


@dataclass
class _Asked:
    """An item that somebody works on."""

    item: Any
    result: Any = None
    worker: int = -1
    tries: int = 0


class Ray:
    """The engine ``ray``."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # else workers would be started by uv, from a copy of here
        try:
            import ray
        except ImportError:
            raise UsageError('--engine ray: needs the library ray. Install it: pip install "weft[ray]".') from None
        self._ray, self._started = ray, not ray.is_initialized()
        if self._started:
            before = signal.getsignal(signal.SIGTERM)
            _start(ray, os.environ.get("RAY_ADDRESS"))
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray takes it, and would end without tidying up
        found = ray.cluster_resources()
        torch = sys.modules.get("torch")  # a model that lies on a GPU here wants one there
        gpus = int(found.get("GPU", 0)) if torch is not None and torch.cuda.is_available() else 0
        self._most = max(1, gpus or int(found.get("CPU", 1)))
        self._worker = ray.remote(_Worker).options(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1)
        self._workers: list[Any] = []
        self._started_up: list[Any] = []  # what each worker answers
        self._late: set[int] = set()
        self._load: Counter[int] = Counter()

    def map(self, step: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """As :class:`weft.engine.Engine` says."""
        kept, asked = [self._ray.put(step)], deque[_Asked]()
        try:
            for item in items:
                one = _Asked(self._ray.put(item))
                while not self._give(kept, one, asked):
                    yield self._result(kept, asked.popleft())
                asked.append(one)
            while asked:
                yield self._result(kept, asked.popleft())
        finally:
            for left in asked:
                with suppress(Exception):
                    self._ray.cancel(left.result)
            self._load.clear()

    def _give(self, kept: list[Any], one: _Asked, asked: deque[_Asked]) -> bool:
        """Ask the worker with the least to do, or a new one; whether there was one with time."""
        waiting = {a.result: a.worker for a in asked}
        if waiting:
            _, busy = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            self._load = Counter(waiting[result] for result in busy)
        self._late -= set(self._here()) if self._late else set()
        free = [worker for worker in range(len(self._workers)) if worker not in self._late]
        least = min(free, key=self._load.__getitem__, default=None)
        if (least is None or self._load[least]) and len(self._workers) < self._most:
            least = len(self._workers)
            self._workers.append(self._worker.remote())
            self._started_up.append(self._workers[least].here.remote())
        if least is None:
            least = 0  # all are late; whoever waits for the item gives it to the first that comes
        # results that wait for an earlier one are held too
        if self._load[least] >= AT_ONCE or len(asked) >= 2 * AT_ONCE * self._most:
            return False
        self._ask(kept, one, least)
        return True

    def _ask(self, kept: list[Any], one: _Asked, worker: int) -> None:
        one.worker, one.tries = worker, one.tries + 1
        one.result = self._workers[worker].do.remote(kept, one.item)
        self._load[worker] += 1

    def _result(self, kept: list[Any], one: _Asked) -> Any:
        errors = self._ray.exceptions
        while True:
            self._await(kept, one)
            try:
                return self._ray.get(one.result)
            except errors.RayTaskError as error:
                raise error.cause from None
            except errors.RayError as error:
                if one.tries >= TRIES:
                    raise RunError(
                        f"--engine ray: a worker must live while it works on a piece of the table. Of one piece "
                        f"{TRIES} workers died ({type(error).__name__}), mostly for want of memory. Give each more "
                        f"(fewer CPUs a machine: ray start --num-cpus)."
                    ) from None
                if isinstance(error, errors.ActorUnavailableError):
                    time.sleep(one.tries)  # it starts again, or the way to it is mended
                self._ask(kept, one, (one.worker + 1) % len(self._workers))

    def _await(self, kept: list[Any], one: _Asked) -> None:
        """Until the item is done; by another worker where its own does not start."""
        said = False
        while not self._ray.wait([one.result], timeout=PATIENCE)[0]:
            here = self._here()
            if one.worker in here:
                continue
            self._late.add(one.worker)
            if here:
                self._ray.cancel(one.result)
                one.tries -= 1
                self._ask(kept, one, min(here, key=self._load.__getitem__))
            elif not said:
                said = True
                Spoken().warn(
                    f"--engine ray: no worker has started: all {self._most} CPUs of the cluster are taken by others, "
                    f"or too few on any one machine are free. This waits for one."
                )

    def _here(self) -> list[int]:
        """The workers that have started."""
        place = {answer: worker for worker, answer in enumerate(self._started_up)}
        return [place[answer] for answer in self._ray.wait(list(place), num_returns=len(place), timeout=0)[0]]

    def rest(self) -> None:
        """Stop the workers; new ones come when they are needed."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers.clear()
        self._started_up.clear()
        self._late.clear()

    def close(self) -> None:
        """Stop the workers, and the cluster where it was started here."""
        self.rest()
        if self._started:
            self._ray.shutdown()


def _start(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one that only this machine knows of."""
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if address and address != "local":
        _knock(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DataError(f"RAY_ADDRESS={address}: must be a Ray cluster. Got: {error}.") from None
        return
    os.environ.setdefault("RAY_worker_niceness", "0")  # here the workers are the work, and nothing beside them
    # an address of this machine alone, which Ray does not take for another one's way to it
    alone = {"_node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}
    store = min(_STORE, max(1 << 27, memory.bound() // 4))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=store, **alone, **quiet)


def _knock(address: str) -> None:
    """Raises DataError where nobody answers: Ray itself would wait for minutes and end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise DataError(
            f"RAY_ADDRESS={address}: must be the address of a Ray cluster that runs. Got: {error.strerror or error}. "
            f"Start one (ray start --head), correct it, or leave it out for one on this machine."
        ) from None
