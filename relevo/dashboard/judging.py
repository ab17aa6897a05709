"""Good, warning or bad: the specification's limits (sections 3.2 and 5.1) as a table. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from relevo.dashboard import wording
from relevo.metrics.health import Health

Grade = Literal["good", "warning", "bad", "none"]
Verdict = Literal["healthy", "issues", "no_data"]


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a figure stops being good. ``bad_from``: whether what is no longer good is bad at once (section 5.1),
    only a warning for ever (None), or bad above the No-Go."""

    name: str
    label: str
    written: Callable[[float | None], str]
    go: float | None = None  # good below this; a count is good at 0
    no_go: float | None = None  # No-Go above this
    beyond_go: Literal["bad", "warning", "by no-go"] = "by no-go"
    counted: bool = False  # a count: good only at 0

    def grade(self, value: float | None) -> Grade:
        """What a value is; none where nothing was measured, or there is no limit."""
        if value is None or self.go is None:
            return "none"
        if value <= 0 if self.counted else value < self.go:
            return "good"
        if self.beyond_go != "by no-go":
            return self.beyond_go
        return "bad" if self.no_go is not None and value > self.no_go else "warning"

    @property
    def rule(self) -> str:
        """The limits, as they are shown beside the value."""
        if self.go is None:
            return ""
        go = "Go: 0" if self.counted else f"Go: < {self._shown(self.go)}"
        told = [go] if self.no_go is None else [go, f"No-Go: > {self._shown(self.no_go)}"]
        return " · ".join(each.replace(" ", wording.UNBROKEN) for each in told)

    def _shown(self, value: float) -> str:
        return wording.percent(value, 0) if self.written is wording.percent else self.written(value)


LIMITS = (
    Limit("total_calls", "Total calls", wording.whole),
    Limit("error_rate", "Error rate", wording.percent, 0.02, 0.05, "bad"),
    Limit("avg_latency_ms", "Average latency", wording.milliseconds, 500, None, "warning"),
    Limit("p50_latency_ms", "p50 latency", wording.milliseconds),
    Limit("p95_latency_ms", "p95 latency", wording.milliseconds, 800, 1200, "bad"),
    Limit("failed_call_rate", "Failed calls", wording.percent, 0.03, 0.10),
    Limit("breaker_opens", "Circuit breaker openings", wording.whole, 0, 2, counted=True),
    Limit("complaints", "Complaints", wording.whole, 0, 3, counted=True),
)
BY_NAME = {limit.name: limit for limit in LIMITS}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure as it is shown."""

    label: str
    value: str
    grade: Grade
    rule: str
    counts: str  # what a rate was counted from; empty for what is a count itself


def figures(health: Health) -> list[Figure]:
    """All figures of a version, in the order of the table."""
    counted = {
        "error_rate": (health.errors, health.total_calls),
        "failed_call_rate": (health.failed_calls, health.finished_calls),
    }
    measured = dict.fromkeys(("avg_latency_ms", "p50_latency_ms", "p95_latency_ms"), health.measured_calls)
    told = []
    for limit in LIMITS:
        value = getattr(health, limit.name)
        counts = ""
        if limit.name in counted:
            counts = "{:,} / {:,}".format(*counted[limit.name])
        elif limit.name in measured:
            counts = f"n = {measured[limit.name]:,}"
        told.append(Figure(limit.label, limit.written(value), limit.grade(value), limit.rule, counts))
    return told


def verdict(v2: Health) -> Verdict:
    """The specification's badge: v2's error rate below 2 % and its p95 below 800 ms. Without a measured call nothing
    is healthy, and nothing wrong either."""
    if v2.error_rate is None or v2.p95_latency_ms is None:
        return "issues" if v2.errors else "no_data"
    good = v2.error_rate < _go("error_rate") and v2.p95_latency_ms < _go("p95_latency_ms")
    return "healthy" if good else "issues"


def _go(name: str) -> float:
    return BY_NAME[name].go or 0.0
