"""How one version does over a window: counts, and the rates and percentiles that follow from them. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from relevo.metrics.latency import Histogram


@dataclass(frozen=True, slots=True)
class Health:
    """Figures of one version, or of one tenant on it. Rates are 0..1, and None where nothing was counted."""

    version: str
    tenant_id: str | None = None  # None: all of them
    total_calls: int = 0  # decided for the version; synthetic ones and those of no known tenant are left out
    finished_calls: int = 0
    failed_calls: int = 0  # finished with status failed
    errors: int = 0  # by our fault, fallbacks included
    unanswered: int = 0  # nobody answered when Vapi asked
    fallbacks: int = 0  # another than the decided version answered, or an apology
    crossed: int = 0  # calls that were answered as two versions or tenants
    measured_calls: int = 0  # with a latency
    latency_us: int = 0  # their sum
    latencies: Histogram = field(default_factory=Histogram)
    breaker_opens: int = 0
    complaints: int = 0

    @property
    def error_rate(self) -> float | None:
        """Calls with our fault, by calls decided for the version."""
        return self.errors / self.total_calls if self.total_calls else None

    @property
    def failed_call_rate(self) -> float | None:
        """Failed calls, by finished ones."""
        return self.failed_calls / self.finished_calls if self.finished_calls else None

    @property
    def avg_latency_ms(self) -> float | None:
        """The average over calls of each call's own average turn."""
        return self.latency_us / self.measured_calls / 1000 if self.measured_calls else None

    @property
    def p50_latency_ms(self) -> float | None:
        """The latency that half of the measured calls do not exceed, within 1 %."""
        return self.latencies.percentile(0.5)

    @property
    def p95_latency_ms(self) -> float | None:
        """The latency that 95 % of the measured calls do not exceed, within 1 %."""
        return self.latencies.percentile(0.95)

    def figures(self) -> dict[str, Any]:
        """What is shown and compared, by name."""
        names = (
            "total_calls finished_calls failed_calls errors unanswered fallbacks crossed measured_calls error_rate"
            " failed_call_rate avg_latency_ms p50_latency_ms p95_latency_ms breaker_opens complaints"
        )
        return {name: getattr(self, name) for name in names.split()}
