"""Sixty days of v1 calls, in the order in which they began. Pure: tenants, chance and ``now`` come in."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from math import log
from random import Random
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from relevo.simulator.chance import identity, scatter
from relevo.simulator.rows import Call

DAYS = 60
LONGEST_CALL_S = 3_599  # no call begins in the hour before now, so that each one is over by now


class Rhythm(NamedTuple):
    """How likely a call is at a local time: a factor by day, from Monday, times one by hour."""

    days: tuple[float, ...]
    hours: tuple[float, ...]

    def at(self, local: datetime) -> float:
        """The factor at a local time; 1 is an average hour."""
        return self.days[local.weekday()] * self.hours[local.hour]


_MEALS = Rhythm(
    (0.7, 0.75, 0.8, 1.0, 1.5, 1.7, 1.3),
    (0.1, 0, 0, 0, 0, 0, 0.05, 0.2, 0.5, 0.7, 0.7, 1, 2, 4, 5, 4, 2, 1.5, 2, 4, 5, 4, 1.5, 0.5),
)
_OFFICE = Rhythm(
    (1.3, 1.1, 1.0, 1.0, 1.0, 0.35, 0.01),
    (0, 0, 0, 0, 0, 0, 0.05, 0.3, 1.5, 4, 5, 4.5, 4, 2.5, 1.5, 2.5, 4, 4, 3, 1, 0.3, 0.1, 0.02, 0),
)
_SHOP = Rhythm(
    (0.3, 0.9, 1.0, 1.1, 1.5, 1.8, 0.5),
    (0, 0, 0, 0, 0, 0, 0, 0.1, 0.5, 2, 4, 4, 3.5, 3, 2.5, 3, 4, 4, 3, 2, 0.7, 0.2, 0, 0),
)

RHYTHMS = {"restaurant": _MEALS, "dental": _OFFICE, "veterinary": _SHOP, "salon": _SHOP, "spa": _SHOP}


class Ending(NamedTuple):
    """A status, its share of all calls, and whether anybody spoke."""

    status: str
    share: float
    spoken: bool


ENDINGS = (
    Ending("completed", 0.90, True),
    Ending("failed", 0.03, False),
    Ending("no_answer", 0.04, False),
    Ending("canceled", 0.02, False),
    Ending("busy", 0.01, False),
)
_ENDING_EDGES = tuple(accumulate(ending.share for ending in ENDINGS))

# Log-normal, as mean and deviation of the logarithm.
_DURATION_S = (log(90), 0.7)
_LATENCY_MS = (log(700), log(1_200 / 700) / 1.645)  # median 700, 95th percentile 1,200
_FIRST_TURN_S = 12  # who hangs up sooner heard the greeting only: no turn, no latency


class Caller(NamedTuple):
    """A business as the calls see it."""

    business_id: UUID
    trade: str  # a key of RHYTHMS
    time_zone: str
    volume: float  # its share of calls, in any unit; above 0


@dataclass(slots=True)
class _Group:
    """Businesses that are called at the same hours."""

    rhythm: Rhythm
    zone: ZoneInfo
    ids: list[UUID] = field(default_factory=list)
    edges: list[float] = field(default_factory=list)  # cumulated volumes

    def join(self, caller: Caller) -> None:
        self.edges.append((self.edges[-1] if self.edges else 0.0) + caller.volume)
        self.ids.append(caller.business_id)

    def weight(self, slot: datetime) -> float:
        return self.edges[-1] * self.rhythm.at(slot.astimezone(self.zone))

    def moments(self, rng: Random, count: int) -> Iterator[tuple[int, UUID]]:
        """Second within the hour, and who is called."""
        for business_id in rng.choices(self.ids, cum_weights=self.edges, k=count):
            yield int(rng.random() * 3_600), business_id


def _grouped(callers: Iterable[Caller]) -> list[_Group]:
    groups: dict[tuple[str, str], _Group] = {}
    for caller in callers:
        key = (caller.trade, caller.time_zone)
        if key not in groups:
            groups[key] = _Group(RHYTHMS[caller.trade], ZoneInfo(caller.time_zone))
        groups[key].join(caller)
    return list(groups.values())


def _hours(now: datetime) -> list[datetime]:
    first = now - timedelta(days=DAYS)
    return [first + timedelta(hours=hour) for hour in range(DAYS * 24 - 1)]


def _measures(rng: Random, spoken: bool) -> tuple[int | None, int | None]:
    """Duration in seconds and mean turn latency in milliseconds."""
    if not spoken:
        return (0 if rng.random() < 0.5 else None), None
    duration = min(LONGEST_CALL_S, 1 + int(rng.lognormvariate(*_DURATION_S)))
    return duration, round(rng.lognormvariate(*_LATENCY_MS)) if duration >= _FIRST_TURN_S else None


def _call(rng: Random, business_id: UUID, started: datetime) -> Call:
    ending = ENDINGS[bisect(_ENDING_EDGES, rng.random(), 0, len(ENDINGS) - 1)]
    duration, latency = _measures(rng, ending.spoken)
    ended = None if duration is None else started + timedelta(seconds=duration)
    return Call(
        id=identity(rng),
        business_id=business_id,
        vapi_call_id=str(identity(rng)),
        status=ending.status,
        started_at=started,
        ended_at=ended,
        duration_seconds=duration,
        avg_latency_ms=latency,
        created_at=ended or started,
    )


def calls(rng: Random, callers: Iterable[Caller], count: int, now: datetime) -> Iterator[Call]:
    """``count`` calls to ``callers``, of whom there is at least one; ``now`` is in UTC.

    First the calls are scattered over hours and groups, then hour after hour is drawn: memory holds the
    callers (about 150 bytes each) and one hour of calls.
    """
    groups, hours = _grouped(callers), _hours(now)
    counts = scatter(rng, (group.weight(hour) for hour in hours for group in groups), count)
    for number, hour in enumerate(hours):
        moments = [
            moment
            for place, group in enumerate(groups, number * len(groups))
            for moment in group.moments(rng, counts[place])
        ]
        for second, business_id in sorted(moments):
            yield _call(rng, business_id, hour + timedelta(seconds=second))
