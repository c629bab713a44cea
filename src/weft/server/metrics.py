"""What the server tells Prometheus: requests, tokens, times to the first token, and what waits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from weft.server.loop import Loop

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Of one server. No label ever holds what a request said."""

    def __init__(self) -> None:
        self.registry = here = CollectorRegistry()
        self._requests = Counter("weft_requests", "Requests answered", ["route", "status"], registry=here)
        self._seconds = Histogram(
            "weft_request_seconds", "Time of a request", ["route"], buckets=_SECONDS, registry=here
        )
        self._first = Histogram("weft_first_token_seconds", "Time to the first token", buckets=_SECONDS, registry=here)
        self._tokens = Counter(
            "weft_tokens", "Tokens read, read before by others, and written", ["kind"], registry=here
        )
        self._waiting = Gauge("weft_waiting", "Texts and calls that wait", ["model"], registry=here)
        self._running = Gauge("weft_running", "Texts that are being written", ["model"], registry=here)

    def watch(self, loops: Sequence[Loop]) -> None:
        for loop in loops:
            self._waiting.labels(loop.served).set_function(partial(getattr, loop, "waiting"))
            self._running.labels(loop.served).set_function(partial(getattr, loop, "running"))

    def asked(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def wrote(self, read: int, shared: int, written: int, first: float | None) -> None:
        for kind, count in (("read", read - shared), ("shared", shared), ("written", written)):
            self._tokens.labels(kind).inc(count)
        if first is not None:
            self._first.observe(first)

    def text(self) -> bytes:
        return generate_latest(self.registry)
