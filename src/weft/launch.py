"""A command as several processes on this machine, by torch.distributed.run: one that dies is started again."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

from torch.distributed.elastic.agent.server.api import WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from weft.errors import TrainingError
from weft.training.parallel import LOST

RESTARTS = 3
"""How often all processes are started again because one died, at most."""


class _Agent(LocalElasticAgent):
    """Starts nothing again that failed for a reason it gave: that would hold the next time too."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> Any:
        found = super()._monitor_workers(worker_group)
        if any(failure.exitcode >= 0 and failure.exitcode != LOST for failure in found.failures.values()):
            self._remaining_restarts = 0
        return found


def launch(arguments: list[str], count: int) -> None:
    """Run ``weft`` with these arguments in ``count`` processes, each with its share of the cores.

    Raises:
        SystemExit: a process gave up; it has said why.
        TrainingError: processes died again and again.
    """
    logging.disable(logging.CRITICAL)  # what matters is said here
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT")
    # the store of a start that failed holds the addresses of processes that are gone
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    where = RendezvousParameters(
        backend="c10d", endpoint="localhost:0", run_id=str(os.getpid()), min_nodes=1, max_nodes=1,
        local_addr="localhost",
    )  # fmt: skip
    spec = WorkerSpec(
        role="weft", local_world_size=count, entrypoint=sys.executable, args=("-m", "weft", *arguments),
        rdzv_handler=get_rendezvous_handler(where), max_restarts=RESTARTS, monitor_interval=0.1,
        local_addr="localhost",
    )  # fmt: skip
    try:
        done = _Agent(spec, logs_specs=DefaultLogsSpecs()).run()
    except SignalException as stop:
        sys.exit(128 + int(stop.sigval))  # the first process has said what is saved
    finally:
        spec.rdzv_handler.shutdown()
    for failure in done.failures.values():
        if failure.exitcode > 0 and failure.exitcode != LOST:
            raise SystemExit(failure.exitcode)
    if done.is_failed():
        number, failure = next(iter(done.failures.items()))
        how = signal.Signals(-failure.exitcode).name if failure.exitcode < 0 else "a lost connection"
        raise TrainingError(
            f"process {number} of {count}: must go on to the end. Got {how}, after {RESTARTS} new starts. Where the "
            f"memory was full, take fewer processes or training.parallel.shard; go on with --resume."
        )
