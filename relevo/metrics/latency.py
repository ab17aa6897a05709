"""A histogram of latencies that can be added up: DDSketch, with every percentile within 1 % of the exact one.

Bucket ``k`` holds the values in (γ^(k-1), γ^k]; ``relevo.latency_bucket`` in the database says the same.
Pure values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, log
from types import MappingProxyType

ACCURACY = 0.01
_GAMMA = 1.01 / 0.99
_WIDTH = log(_GAMMA)


def bucket_of(latency_ms: float) -> int | None:
    """The bucket of a latency; None for one that is no measurement: zero or less."""
    return ceil(log(latency_ms) / _WIDTH) if latency_ms > 0 else None


def middle_of(bucket: int) -> float:
    """The value, in milliseconds, that stands for a bucket: at most 1 % from any in it."""
    return float(2 * _GAMMA**bucket / (_GAMMA + 1))


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many calls fall into each bucket."""

    counts: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, latencies_ms: Iterable[float]) -> Histogram:
        """The histogram of these latencies; those that are no measurement are left out."""
        buckets = (bucket_of(each) for each in latencies_ms)
        return cls(MappingProxyType(Counter(bucket for bucket in buckets if bucket is not None)))

    @property
    def total(self) -> int:
        """How many calls were measured."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> float | None:
        """The latency in milliseconds that ``share`` (0..1) of the calls do not exceed, by nearest rank; None where
        nothing was measured."""
        # As people write the share: in floats 0.07 × 100 is more than 7.
        rank = max(1, ceil(Fraction(str(share)) * self.total))
        for bucket in sorted(self.counts):
            rank -= self.counts[bucket]
            if rank <= 0:
                return middle_of(bucket)
        return None

    def slower_than(self, limit_ms: float) -> int:
        """How many calls took longer, as far as buckets tell: one of the limit's own bucket is taken at its middle."""
        return sum(count for bucket, count in self.counts.items() if middle_of(bucket) > limit_ms)

    def __add__(self, other: Histogram) -> Histogram:
        """Both together."""
        return Histogram(MappingProxyType(Counter(self.counts) + Counter(other.counts)))
