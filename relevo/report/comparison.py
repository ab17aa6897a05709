"""Before and after: figures with their intervals, what the difference may be, and whether a target is met. Pure values.

Intervals are of 95 %: Wilson's for rates, by ranks for percentiles, and the square root of the count for calls a day.
They take each call for independent of the others, which the calls of one tenant are not: read them as the least doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import sqrt
from typing import Literal, NamedTuple

from relevo.metrics.health import Health
from relevo.metrics.latency import Histogram

Z = 1.96
Conclusion = Literal["better", "worse", "no difference shown", "not comparable"]
Met = Literal["yes", "no", "not shown", "not measured"]


class Interval(NamedTuple):
    """Where the truth lies, 19 times of 20."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one version over one window."""

    value: float | None  # None: nothing was counted
    interval: Interval | None = None
    of: int = 0  # calls, or answers, that it is of


@dataclass(frozen=True, slots=True)
class Period:
    """What was counted of one version in one window."""

    version: str
    since: datetime
    until: datetime
    health: Health
    outcomes: Mapping[str, int] = field(default_factory=dict)  # calls by outcome
    outcomes_known: bool = True  # False: the platform's calls have no outcome yet

    @property
    def days(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds() / 86_400


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the specification's table of success (8.2)."""

    name: str
    title: str
    unit: Literal["ms", "rate", "per_day", "points"]
    more_is_better: bool = False
    target: float | None = None  # to stay below
    outcome: str | None = None  # whose calls are counted


METRICS = (
    Metric("p50_latency_ms", "Latency p50", "ms", target=500),
    Metric("p95_latency_ms", "Latency p95", "ms", target=800),
    Metric("error_rate", "Error rate", "rate", target=0.02),
    Metric("reservations_per_day", "Reservations a day", "per_day", True, outcome="reservation_created"),
    Metric("appointments_per_day", "Appointments a day", "per_day", True, outcome="appointment_created"),
    Metric("orders_per_day", "Orders a day", "per_day", True, outcome="order_created"),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric, before and after."""

    metric: Metric
    before: Figure
    after: Figure
    improvement: float | None  # share of the value before, or points; positive is better; None: neither
    conclusion: Conclusion
    met: Met | None  # None: it has no target


def compare(before: Period, after: Period) -> tuple[Compared, ...]:
    """Every metric of the table, in its order."""
    return tuple(_compared(metric, figure(metric, before), figure(metric, after)) for metric in METRICS)


def figure(metric: Metric, period: Period) -> Figure:
    """One metric of one period."""
    health = period.health
    if metric.unit == "ms":
        return _percentile(health.latencies, 0.5 if metric.name.startswith("p50") else 0.95)
    if metric.unit == "rate":
        return rate(health.errors, health.total_calls)
    if not period.outcomes_known or period.days <= 0:
        return Figure(None)
    calls = period.outcomes.get(metric.outcome or "", 0)
    spread = Z * sqrt(max(calls, 1))
    interval = Interval(max(calls - spread, 0) / period.days, (calls + spread) / period.days)
    return Figure(calls / period.days, interval, calls)


def rate(bad: int, calls: int) -> Figure:
    """A share of calls, with Wilson's interval, which is right for few calls and for none that are bad."""
    if calls == 0:
        return Figure(None)
    share, spread = bad / calls, Z * Z / calls
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * sqrt(share * (1 - share) / calls + spread / calls / 4)
    return Figure(share, Interval(max(middle - half, 0.0), min(middle + half, 1.0)), calls)


def _percentile(latencies: Histogram, share: float) -> Figure:
    """A percentile, between those of the ranks that it may as well have had."""
    calls = latencies.total
    if calls == 0:
        return Figure(None)
    half = Z * sqrt(share * (1 - share) / calls)
    ends = (latencies.percentile(round(min(max(each, 0.0), 1.0), 6)) for each in (share - half, share + half))
    low, high = (each or 0.0 for each in ends)
    return Figure(latencies.percentile(share), Interval(low, high), calls)


def _compared(metric: Metric, before: Figure, after: Figure) -> Compared:
    improvement = None
    if before.value and after.value is not None:
        gain = (after.value - before.value) / before.value
        improvement = gain if metric.more_is_better else -gain
    return Compared(metric, before, after, improvement, concluded(metric, before, after), _met(metric, after))


def concluded(metric: Metric, before: Figure, after: Figure) -> Conclusion:
    """Intervals that touch show nothing, whatever the figures in their middle."""
    if before.interval is None or after.interval is None:
        return "not comparable"
    if after.interval.high < before.interval.low:
        return "worse" if metric.more_is_better else "better"
    if after.interval.low > before.interval.high:
        return "better" if metric.more_is_better else "worse"
    return "no difference shown"


def _met(metric: Metric, after: Figure) -> Met | None:
    if metric.target is None:
        return None
    if after.value is None or after.interval is None:
        return "not measured"
    if after.interval.high < metric.target:
        return "yes"
    return "no" if after.value >= metric.target else "not shown"
