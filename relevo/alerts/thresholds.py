"""When figures of v2 are worth waking somebody for: the specification's thresholds (section 5.2) as a table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import exp, lgamma, log, log1p
from types import MappingProxyType
from typing import Any, Literal

from relevo.metrics.health import Health

Severity = Literal["warning", "critical"]
Judgement = Literal["healthy", "unknown", "warning", "critical"]

HOUR = timedelta(hours=1)
WINDOWS = (HOUR, 6 * HOUR, 24 * HOUR)
"""A rate is judged on the shortest of these that holds enough calls: a canary sees a dozen in eight hours."""
ENOUGH_CALLS = 20
"""Of fewer, one bad call would be a catastrophe."""
ENOUGH_ALONE: Mapping[Severity, int] = MappingProxyType({"warning": 500, "critical": 100})
"""Of so many, the figure alone is evidence: what is healthy is far below what is critical, and not so far below a
warning, which it passes by chance about once in a hundred looks at 500 calls."""
CHANCE: Mapping[Severity, float] = MappingProxyType({"warning": 0.02, "critical": 0.05})
"""Of fewer, how unlikely so many bad calls must be, were v2 just as bad as the threshold; what is critical lies farther
from what is healthy, and may be believed sooner."""
SLOW_SHARE = 0.05  # of calls, above a 95th percentile


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is watched. What reaches ``at``, or lies above it where ``strictly``, is of that severity."""

    cause: str
    figure: str  # of Health
    basis: str | None  # the count that must be enough; None: any count says something
    warning: float
    critical: float
    strictly: bool
    titles: Mapping[Severity, str]
    says: str  # with value and threshold
    actions: Mapping[Severity, str]
    # Bad calls, all of them, and the share of bad ones that a threshold allows; None: no chance is in it.
    counts: Callable[[Health, float], tuple[int, int, float]] | None = None


def _titles(warning: str, critical: str) -> Mapping[Severity, str]:
    return MappingProxyType({"warning": f"Voice Agent V2: {warning}", "critical": f"Voice Agent V2: {critical}"})


_ROLLBACK: Mapping[Severity, str] = MappingProxyType({"critical": "Consider immediate rollback"})
RULES = (
    Rule(
        "v2.error_rate",
        "error_rate",
        "total_calls",
        0.02,
        0.05,
        True,
        _titles("High Error Rate", "Critical Error Rate"),
        "Error rate is {value:.2%} (threshold: {threshold:.0%})",
        _ROLLBACK,
        lambda health, threshold: (health.errors, health.total_calls, threshold),
    ),
    Rule(
        "v2.p95_latency",
        "p95_latency_ms",
        "measured_calls",
        800,
        1200,
        True,
        _titles("High Latency", "Critical Latency"),
        "p95 latency is {value:.0f}ms (threshold: {threshold:.0f}ms)",
        _ROLLBACK,
        lambda health, threshold: (health.latencies.slower_than(threshold), health.latencies.total, SLOW_SHARE),
    ),
    Rule(
        "v2.breaker_opens",
        "breaker_opens",
        None,
        1,
        3,
        False,
        _titles("Circuit Breaker Opened", "Multiple Circuit Breaker Opens"),
        "{value:.0f} circuit breakers opened in last hour",
        MappingProxyType({"critical": "Immediate investigation required"}),
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one thing came to."""

    cause: str
    judgement: Judgement
    title: str = ""
    message: str = ""
    action: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    shown: Judgement | None = None  # as far as the counts show it, and not only the figure; None: as far as judged


def grade(rule: Rule, value: float | None) -> Judgement:
    """What a value means; None is unknown, never healthy."""
    if value is None:
        return "unknown"
    for severity, threshold in (("critical", rule.critical), ("warning", rule.warning)):
        if value > threshold or (value == threshold and not rule.strictly):
            return "critical" if severity == "critical" else "warning"
    return "healthy"


def judge(rule: Rule, windows: Mapping[timedelta, Health]) -> Finding:
    """One rule on v2's figures, by the length of the window they are of."""
    chosen = _chosen(rule, windows)
    if chosen is None:
        return Finding(rule.cause, "unknown", details={"why": f"fewer than {ENOUGH_CALLS} calls in a day"})
    length, health = chosen
    value: float | None = getattr(health, rule.figure)
    judgement = grade(rule, value)
    details: dict[str, Any] = {"value": value, "window_minutes": length // timedelta(minutes=1)}
    if rule.basis:
        details["calls"] = getattr(health, rule.basis)
    if judgement in ("healthy", "unknown") or value is None:
        return Finding(rule.cause, judgement, details=details)
    shown = _shown(rule, judgement, [each for size, each in windows.items() if size >= length])
    severity: Severity = "critical" if (judgement if shown == "healthy" else shown) == "critical" else "warning"
    threshold = rule.critical if severity == "critical" else rule.warning
    message = rule.says.format(value=value, threshold=threshold)
    if rule.basis:
        message += f", {details['calls']:,} calls in {_words(length)}"
    details["threshold"] = threshold
    return Finding(rule.cause, judgement, rule.titles[severity], message, rule.actions.get(severity), details, shown)


def chance_of(bad: int, of: int, share: float) -> float:
    """How likely so many bad calls or more are, where each is one by a chance of ``share`` (0..1, neither end)."""

    def term(count: int) -> float:
        ways = lgamma(of + 1) - lgamma(count + 1) - lgamma(of - count + 1)
        return exp(ways + count * log(share) + (of - count) * log1p(-share))

    return min(1.0, sum(term(count) for count in range(bad, of + 1)))


def _shown(rule: Rule, judgement: Judgement, windows: list[Health]) -> Judgement:
    """The gravest that any of the windows shows of what was judged: what the last hour hints at, the day may know."""
    if rule.counts is None:
        return judgement
    severities: tuple[Severity, ...] = ("critical", "warning") if judgement == "critical" else ("warning",)
    for severity in severities:
        threshold = rule.critical if severity == "critical" else rule.warning
        for health in windows:
            bad, of, share = rule.counts(health, threshold)
            if bad > share * of and (of >= ENOUGH_ALONE[severity] or chance_of(bad, of, share) <= CHANCE[severity]):
                return severity
    return "healthy"


def _chosen(rule: Rule, windows: Mapping[timedelta, Health]) -> tuple[timedelta, Health] | None:
    for length in sorted(windows):
        if rule.basis is None or getattr(windows[length], rule.basis) >= ENOUGH_CALLS:
            return length, windows[length]
    return None


def _words(length: timedelta) -> str:
    hours = length // HOUR
    return "the last hour" if hours == 1 else f"the last {hours} hours"
