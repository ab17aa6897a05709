"""What /metrics tells. Labels are route templates and status codes: nothing that grows with tenants or callers."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relevo.clock import Clock
from relevo.flags.store import Flags

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measures:
    """The counters of one process."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of creation per label would double the lines
        self.registry = CollectorRegistry()
        self._requests = _Requests()
        self.registry.register(self._requests)
        build = Gauge("relevo_build_info", "Which Relevo this is.", ("version", "python"), registry=self.registry)
        build.labels(version, platform.python_version()).set(1)

    def watch_flag(self, flags: Flags, clock: Clock) -> None:
        """Show the version of the flag in force, and for how long it has been stale (0: it is fresh)."""
        version = Gauge("relevo_flag_version", "Version of the flag's row in force.", registry=self.registry)
        version.set_function(lambda: flags.flag.version)
        stale = Gauge(
            "relevo_flag_stale_seconds", "How long the row has been the last known one.", registry=self.registry
        )
        stale.set_function(
            lambda: (clock() - since).total_seconds() if (since := flags.state.stale_since) is not None else 0.0
        )

    def watch_unplaced(self, count: Callable[[], int]) -> None:
        """Show how many messages came of which nobody could tell whom they were for."""
        unplaced = Gauge("relevo_unplaced_messages", "Messages of calls nobody could place.", registry=self.registry)
        unplaced.set_function(count)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request more."""
        self._requests.count(
            method if method in _METHODS else "other", route, status, seconds
        )  # strangers make up others

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Requests(Collector):
    """How many requests, and how long they took: plain numbers, added up when somebody asks. The library's own counters
    lock for each."""

    def __init__(self) -> None:
        self._answered: dict[tuple[str, str, int], int] = {}
        self._took: dict[str, tuple[list[int], list[float]]] = {}  # by route: how many per bucket, and their sum

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One more."""
        key = (method, route, status)
        self._answered[key] = self._answered.get(key, 0) + 1
        if route not in self._took:
            self._took[route] = [0] * (len(_BUCKETS_S) + 1), [0.0]
        buckets, total = self._took[route]
        buckets[bisect_left(_BUCKETS_S, seconds)] += 1
        total[0] += seconds

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        answered = CounterMetricFamily(
            "relevo_http_requests", "Requests answered.", labels=("method", "route", "status")
        )
        for (method, route, status), many in self._answered.items():
            answered.add_metric((method, route, str(status)), many)
        yield answered
        took = HistogramMetricFamily(
            "relevo_http_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            labels=("route",),
        )
        limits = [*map(str, _BUCKETS_S), "+Inf"]
        for route, (buckets, total) in self._took.items():
            took.add_metric((route,), list(zip(limits, accumulate(buckets), strict=True)), total[0])
        yield took
