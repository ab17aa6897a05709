"""Stretches of time, and which sums tell of them: whole hours where there are, minutes at the edges. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MINUTES_KEPT = timedelta(hours=49)
"""How long minutes are kept; a window that began earlier begins at a whole hour."""


class Span(NamedTuple):
    """Sums of one grain from a moment up to another, which is not in it; None: with no end."""

    grain: str  # minute, hour
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
        """The window, without gap or overlap, in as few sums as may be."""
        first = _hour(self.since + HOUR - timedelta(microseconds=1))
        last = None if self.until is None else _hour(self.until)
        if last is not None and first >= last:
            parts: tuple[Span, ...] = (Span("minute", self.since, self.until),)
            if first == last:
                parts = (Span("minute", self.since, first), Span("minute", first, self.until))
        else:
            parts = (Span("minute", self.since, first), Span("hour", first, last))
            parts += (Span("minute", last, self.until),) if last is not None else ()
        return tuple(part for part in parts if part.until is None or part.since < part.until)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _has_minutes(moment: datetime, now: datetime) -> bool:
    return moment >= now - MINUTES_KEPT + HOUR


def _floor(moment: datetime, now: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) if _has_minutes(moment, now) else _hour(moment)
