"""What was counted of a version, as the gate needs it. The one place that knows how statistics are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from relevo.metrics.health import Health
from relevo.metrics.latency import Histogram
from relevo.rollout.plan import Metric
from relevo.rollout.statistics import Stratum

SLOW_SHARE = 0.05
"""A 95th percentile is above T exactly when more than this share of the calls is slower than T."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts of one version, or of one tenant on it, over some time."""

    calls: int = 0
    errors: int = 0  # by our fault, fallbacks included
    finished: int = 0
    failed: int = 0
    critical: int = 0  # nobody answered, or two versions or tenants did
    latencies: Histogram = field(default_factory=Histogram)
    breaker_opens: int = 0
    complaints: int = 0

    @classmethod
    def of(cls, health: Health) -> Sample:
        """The same from what relevo.metrics reads."""
        return cls(
            health.total_calls,
            health.errors,
            health.finished_calls,
            health.failed_calls,
            health.unanswered + health.crossed,
            health.latencies,
            health.breaker_opens,
            health.complaints,
        )

    def __add__(self, other: Sample) -> Sample:
        """Both together."""
        return Sample(
            self.calls + other.calls,
            self.errors + other.errors,
            self.finished + other.finished,
            self.failed + other.failed,
            self.critical + other.critical,
            self.latencies + other.latencies,
            self.breaker_opens + other.breaker_opens,
            self.complaints + other.complaints,
        )

    def value(self, metric: Metric) -> float | None:
        """The figure as it is: a rate 0..1, milliseconds or a count; None where nothing was counted."""
        match metric:
            case "error_rate":
                return self.errors / self.calls if self.calls else None
            case "failed_call_rate":
                return self.failed / self.finished if self.finished else None
            case "p95_latency_ms":
                return self.latencies.percentile(1 - SLOW_SHARE)
            case "breaker_opens":
                return self.breaker_opens
            case "complaints":
                return self.complaints

    def counts(self, metric: Metric, limit: float) -> tuple[int, int]:
        """Bad ones and all of them: calls slower than ``limit`` for the latency. (0, 0) for what is no rate."""
        match metric:
            case "error_rate":
                return self.errors, self.calls
            case "failed_call_rate":
                return self.failed, self.finished
            case "p95_latency_ms":
                return self.latencies.slower_than(limit), self.latencies.total
            case _:
                return 0, 0


class Pair(NamedTuple):
    """Both versions over the same time."""

    v1: Sample
    v2: Sample

    def stratum(self, metric: Metric, limit: float) -> Stratum:
        """Bad ones and all of them, of both."""
        return Stratum(*self.v1.counts(metric, limit), *self.v2.counts(metric, limit))
