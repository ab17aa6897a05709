"""What simulated traffic sent, and what came back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Any

UNKNOWN = "unknown"
"""Where an answer does not say which version gave it."""


def percentile(values: list[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    return sorted(values)[max(ceil(share * len(values)) - 1, 0)] if values else None


@dataclass(slots=True)
class Answered:
    """The calls that one version answered."""

    calls: int = 0
    fallbacks: int = 0  # of them, those that another version was decided for
    errors: int = 0  # that ended by our fault, as they were told to
    failed: int = 0  # that the carrier dropped, as they were told to
    tool_calls: int = 0
    latencies_ms: list[float] = field(default_factory=list)  # that were reported


@dataclass(slots=True)
class Tally:
    """Counts of one run; grows while it lasts."""

    calls: int = 0
    over: int = 0  # of them, those that have ended
    unanswered: int = 0  # no answer in time, or none that Vapi could use
    apologies: int = 0  # answered by no assistant: a spoken excuse, or a transfer
    unserved: Counter[str] = field(default_factory=Counter)  # whose calls these two were, as far as it is known
    versions: dict[str, Answered] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)  # messages, by type
    refused: Counter[str] = field(default_factory=Counter)  # what was not taken, by status or fault
    resent: int = 0
    lost: int = 0  # messages that were not taken, however often they were sent
    tool_faults: int = 0  # tool calls without a result of theirs
    answer_ms: list[float] = field(default_factory=list)  # of assistant-request
    message_ms: list[float] = field(default_factory=list)  # of all else
    seconds: float = 0.0

    @property
    def all_answered(self) -> bool:
        """Whether an assistant answered every call, and every message was taken."""
        return not (self.unanswered or self.apologies or self.lost)

    def of(self, version: str | None) -> Answered:
        """The counts of a version."""
        return self.versions.setdefault(version or UNKNOWN, Answered())

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        versions = {
            name: {
                "calls": each.calls,
                "fallbacks": each.fallbacks,
                "errors": each.errors,
                "failed": each.failed,
                "tool_calls": each.tool_calls,
                "reported_p50_ms": percentile(each.latencies_ms, 0.5),
                "reported_p95_ms": percentile(each.latencies_ms, 0.95),
            }
            for name, each in sorted(self.versions.items())
        }
        return {
            "success": self.all_answered,
            "calls": self.calls,
            "answered": sum(each.calls for each in self.versions.values()),
            "unanswered": self.unanswered,
            "apologies": self.apologies,
            "unserved": dict(self.unserved),
            "versions": versions,
            "messages": dict(self.sent),
            "refused": dict(self.refused),
            "resent": self.resent,
            "lost": self.lost,
            "tool_faults": self.tool_faults,
            "answer_p50_ms": percentile(self.answer_ms, 0.5),
            "answer_p95_ms": percentile(self.answer_ms, 0.95),
            "message_p50_ms": percentile(self.message_ms, 0.5),
            "message_p95_ms": percentile(self.message_ms, 0.95),
            "duration_seconds": round(self.seconds, 3),
        }
