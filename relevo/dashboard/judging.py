"""Good, warning or bad: the specification's limits (sections 3.2 and 5.1) as a table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from relevo.dashboard import wording
from relevo.metrics.health import Health
from relevo.rollout import plan, statistics
from relevo.rollout.plan import Metric

USUAL = timedelta(hours=24)
"""The window that is judged where nobody chose one."""

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
    counted: bool = False  # a count: good up to ``go`` itself

    def grade(self, value: float | None) -> Grade:
        """What a value is; none where nothing was measured, or there is no limit."""
        if value is None or self.go is None:
            return "none"
        if value <= self.go if self.counted else value < self.go:
            return "good"
        if self.beyond_go != "by no-go":
            return self.beyond_go
        return "bad" if self.no_go is not None and value > self.no_go else "warning"

    @property
    def rule(self) -> str:
        """The limits, as they are shown beside the value."""
        if self.go is None:
            return ""
        go = f"Go: {'≤ ' if self.go else ''}{self._shown(self.go)}" if self.counted else f"Go: < {self._shown(self.go)}"
        told = [go] if self.no_go is None else [go, f"No-Go: > {self._shown(self.no_go)}"]
        return " · ".join(each.replace(" ", wording.UNBROKEN) for each in told)

    def _shown(self, value: float) -> str:
        if self.written is not wording.percent:
            return self.written(value)
        return f"{round(100 * value, 2):g}{wording.UNBROKEN}%"


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


def in_force(limits: Mapping[Metric, plan.Limit] | None) -> tuple[Limit, ...]:
    """The limits with Go and No-Go as a rollout's plan has them; None: the specification's."""
    given: Mapping[str, plan.Limit] = {} if limits is None else {str(name): limit for name, limit in limits.items()}
    return tuple(
        replace(each, go=given[each.name].go, no_go=given[each.name].no_go) if each.name in given else each
        for each in LIMITS
    )


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure as it is shown."""

    label: str
    value: str
    grade: Grade
    rule: str
    counts: str  # what a rate was counted from; empty for what is a count itself
    interval: str  # in which the rate lies with 95 %, by what was counted; empty for what is none


def figures(health: Health, limits: Sequence[Limit] = LIMITS) -> list[Figure]:
    """All figures of a version, in the order of the table."""
    counted = {
        "error_rate": (health.errors, health.total_calls),
        "failed_call_rate": (health.failed_calls, health.finished_calls),
    }
    measured = dict.fromkeys(("avg_latency_ms", "p50_latency_ms", "p95_latency_ms"), health.measured_calls)
    told = []
    for limit in limits:
        value = getattr(health, limit.name)
        counts = interval = ""
        if limit.name in counted:
            bad, of = counted[limit.name]
            counts = f"{bad:,} / {of:,}"
            interval = _interval(bad, of)
        elif limit.name in measured:
            counts = f"n = {measured[limit.name]:,}"
        told.append(Figure(limit.label, limit.written(value), limit.grade(value), limit.rule, counts, interval))
    return told


def _interval(bad: int, of: int) -> str:
    if not of:
        return ""
    low, high = (f"{100 * bound:.2f}" for bound in statistics.interval(bad, of))
    return f"{low}–{high}{wording.UNBROKEN}%"


def verdict(v2: Health, limits: Sequence[Limit] = LIMITS) -> Verdict:
    """The specification's badge: v2's error rate and its p95 below Go, 2 % and 800 ms where no plan says otherwise.
    Without a measured call nothing is healthy, and nothing wrong either."""
    go = {limit.name: limit.go or 0.0 for limit in limits}
    if v2.error_rate is None or v2.p95_latency_ms is None:
        return "issues" if v2.errors else "no_data"
    good = v2.error_rate < go["error_rate"] and v2.p95_latency_ms < go["p95_latency_ms"]
    return "healthy" if good else "issues"
