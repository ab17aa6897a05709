"""Stretches of time, and which sums tell of them: the widest that fit, finer ones at the edges. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MINUTES_KEPT = timedelta(hours=49)
"""How long minutes are kept; a window that began earlier begins at a whole hour."""

_GRAINS = (("minute", MINUTE), ("ten", timedelta(minutes=10)), ("hour", HOUR), ("day", timedelta(days=1)))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """Sums of one grain from a moment up to another, which is not in it; None: with no end."""

    grain: str  # minute, ten, hour, day
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Window:
    """From a minute up to another, which is not in it. Make one with ``last`` or ``between``."""

    since: datetime
    until: datetime | None  # None: with no end, so that what is decided right now is in it

    @classmethod
    def last(cls, length: timedelta, now: datetime) -> Window:
        """The time up to now: at least ``length``, at most a minute more; an hour more where minutes are gone."""
        return cls(_floor(now - length, now), None)

    @classmethod
    def between(cls, since: datetime, until: datetime, now: datetime) -> Window:
        """Two moments, the first rounded down, the second rounded up to what is kept."""
        end = _floor(until, now)
        if end < until:
            end += MINUTE if _has_minutes(end, now) else HOUR
        return cls(_floor(since, now), end)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The window, without gap or overlap: finer sums up to where wider ones begin, and again after they end."""
        begins = [self.since + (_EPOCH - self.since) % width for _grain, width in _GRAINS]
        after: list[Span] = []
        widest, end = len(_GRAINS) - 1, None
        if self.until is not None:
            ends = [self.until - (self.until - _EPOCH) % width for _grain, width in _GRAINS]
            widest = max(level for level in range(len(_GRAINS)) if begins[level] <= ends[level])
            end = ends[widest]
            after = [Span(_GRAINS[level][0], ends[level + 1], ends[level]) for level in reversed(range(widest))]
        before = [Span(_GRAINS[level][0], begins[level], begins[level + 1]) for level in range(widest)]
        found = (*before, Span(_GRAINS[widest][0], begins[widest], end), *after)
        return tuple(span for span in found if span.until is None or span.since < span.until)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _has_minutes(moment: datetime, now: datetime) -> bool:
    return moment >= now - MINUTES_KEPT + HOUR


def _floor(moment: datetime, now: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) if _has_minutes(moment, now) else _hour(moment)
