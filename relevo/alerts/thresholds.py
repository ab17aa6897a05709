"""When figures of v2 are worth waking somebody for: the specification's thresholds (section 5.2) as a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
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
    severity: Severity = "critical" if judgement == "critical" else "warning"
    threshold = rule.critical if severity == "critical" else rule.warning
    message = rule.says.format(value=value, threshold=threshold)
    if rule.basis:
        message += f", {details['calls']:,} calls in {_words(length)}"
    details["threshold"] = threshold
    return Finding(rule.cause, severity, rule.titles[severity], message, rule.actions.get(severity), details)


def _chosen(rule: Rule, windows: Mapping[timedelta, Health]) -> tuple[timedelta, Health] | None:
    for length in sorted(windows):
        if rule.basis is None or getattr(windows[length], rule.basis) >= ENOUGH_CALLS:
            return length, windows[length]
    return None


def _words(length: timedelta) -> str:
    hours = length // HOUR
    return "the last hour" if hours == 1 else f"the last {hours} hours"
