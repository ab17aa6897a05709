"""When something is wrong with v2: the specification's thresholds (section 5.2). Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from relevo.metrics.health import Health

Severity = Literal["warning", "critical"]

CALLS_FROM = 20
"""Calls of the last hour before a rate or a percentile says anything: one failed call of three is no 33 %."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong right now."""

    cause: str  # one incident each
    severity: Severity
    title: str
    message: str
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """One metric and from where on it is wrong."""

    cause: str
    value: Callable[[Health], float | None]
    warning: float
    critical: float
    inclusive: bool  # at the threshold already; else strictly above
    titles: tuple[str, str]  # of a warning, and of what is critical
    words: str


THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        "error_rate",
        lambda health: health.error_rate if health.total_calls >= CALLS_FROM else None,
        0.02,
        0.05,
        False,
        ("Voice Agent V2: High Error Rate", "Voice Agent V2: Critical Error Rate"),
        "Error rate is {value:.2%} (threshold: {limit:.0%})",
    ),
    Threshold(
        "p95_latency",
        lambda health: health.p95_latency_ms if health.measured_calls >= CALLS_FROM else None,
        800,
        1200,
        False,
        ("Voice Agent V2: High Latency", "Voice Agent V2: Critical Latency"),
        "p95 latency is {value:.0f}ms (threshold: {limit:.0f}ms)",
    ),
    Threshold(
        "breaker_opens",
        lambda health: health.breaker_opens,
        1,
        3,
        True,
        ("Voice Agent V2: Circuit Breaker Opened", "Voice Agent V2: Multiple Circuit Breaker Opens"),
        "{value:.0f} circuit breakers opened in last hour (threshold: {limit:.0f})",
    ),
)
_ACTION = "Consider immediate rollback"


def severity(threshold: Threshold, value: float | None) -> Severity | None:
    """How bad a value is; None: it is not, or nothing was counted."""
    if value is None:
        return None
    for name, limit in (("critical", threshold.critical), ("warning", threshold.warning)):
        if value > limit or (threshold.inclusive and value == limit):
            return "critical" if name == "critical" else "warning"
    return None


def conditions(last_hour: Health) -> list[Condition]:
    """Everything that is wrong with v2 by its last hour."""
    found = []
    for threshold in THRESHOLDS:
        value = threshold.value(last_hour)
        bad = severity(threshold, value)
        if bad is None:
            continue
        limit = getattr(threshold, bad)
        found.append(
            Condition(
                threshold.cause,
                bad,
                threshold.titles[bad == "critical"],
                threshold.words.format(value=value, limit=limit),
                _ACTION if bad == "critical" else None,
            )
        )
    return found
