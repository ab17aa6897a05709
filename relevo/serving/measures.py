"""What /metrics tells. Labels are route templates and status codes: nothing that grows with tenants or callers."""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

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
        self._requests = Counter(
            "relevo_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._durations = Histogram(
            "relevo_http_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._counting: dict[tuple[str, str, int], Callable[[float], None]] = {}
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
        key = (method, route, status)
        counted = self._counting.get(key)
        if counted is None:  # looking labels up by their words costs more than all the rest
            requests = self._requests.labels(method if method in _METHODS else "other", route, str(status))
            duration = self._durations.labels(route)

            def counted(taken_s: float) -> None:
                requests.inc()
                duration.observe(taken_s)

            if method in _METHODS:  # strangers make up others
                self._counting[key] = counted
        counted(seconds)

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
