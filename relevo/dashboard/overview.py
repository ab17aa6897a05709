"""The first page: where the rollout stands, how both versions do, and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.alerts.incidents import incidents
from relevo.dashboard import acting, judging
from relevo.dashboard.house import Visit
from relevo.dashboard.places import Place
from relevo.dashboard.remembering import Known
from relevo.dashboard.steering import STEPS
from relevo.dashboard.strip import Strip, strip
from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement
from relevo.errors import UnknownName, nearest
from relevo.flags.evaluate import VOICE_AGENT_V2
from relevo.metrics.latency import middle_of
from relevo.metrics.reading import VERSIONS, health
from relevo.metrics.window import Window


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that figures are asked for."""

    length: timedelta
    label: str
    grain: str  # of the charts
    closed: timedelta  # so much of them, from the present one back, may still change much


SPANS = {
    "1h": Span(timedelta(hours=1), "the last hour", "minute", timedelta(minutes=5)),
    "24h": Span(timedelta(hours=24), "the last 24 hours", "hour", timedelta(hours=1)),
    "7d": Span(timedelta(days=7), "the last 7 days", "hour", timedelta(hours=1)),
}
USUAL = "24h"
_ALERTS_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Point:
    """Both versions at one time of a chart."""

    at: datetime
    calls: tuple[int, int]  # v1, v2
    error_rate: tuple[float | None, float | None]
    p95_latency_ms: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Button:
    """A quick action, and why it cannot be pressed; None: it can."""

    points: int
    refused: str | None


@dataclass(frozen=True, slots=True)
class Band:
    """A phase behind the charts."""

    name: str
    since: datetime
    until: datetime


async def show(visit: Visit) -> Response:
    """The overview."""
    named = visit.asked("window", USUAL)
    if named not in SPANS:
        raise UnknownName(
            f"there is no window {named[:40]!r}.{nearest(named, SPANS)}", fix=f"one of {', '.join(SPANS)}"
        )
    span = SPANS[named]
    window = Window.last(span.length, visit.now)
    placed = await _placed(visit)
    async with visit.house.database.transaction(read_only=True, snapshot=True) as connection:
        await connection.execute(statement("rollout", "by_index"))
        found = await health(connection, window)
        wrong = await incidents(connection)
        alerts = await every(connection, statement("dashboard", "alerts"), {"since": visit.now - _ALERTS_FOR})
        points = await _points(visit, connection, named, window)
        rollout = await strip(connection, visit.now)
    standing = placed.what
    limits = judging.in_force(rollout.rollout.plan.limits if rollout and rollout.runs else None)
    verdict = judging.verdict(found["v2"], limits)
    share = 100 * standing["on_v2"] / standing["total"] if standing["total"] else 0.0
    return visit.page(
        "overview.html",
        spans=SPANS,
        named=named,
        span=span,
        since=window.since,
        standing=standing,
        placed_at=placed.at,
        share=share,
        verdict=verdict,
        cards=[(version, judging.figures(found[version], limits)) for version in VERSIONS],
        calls=sum(each.total_calls for each in found.values()),
        incidents=wrong,
        alerts=alerts,
        strip=rollout,
        bands=_bands(rollout, window.since, visit.now),
        done=visit.asked("done") if visit.asked("done") in acting.DONE else "",
        entry=visit.asked("entry") if visit.asked("entry").isdecimal() else "",
        points=points,
        buttons=_buttons(share, verdict),
        limits={limit.name: limit for limit in limits},
    )


def _buttons(share: float, verdict: judging.Verdict) -> list[Button]:
    """The specification's rules: +10 % below 100 %, +25 % below 75 %, and neither while there are issues. Where
    nothing was measured a person decides, and is told so."""
    told = []
    for points in STEPS:
        refused = None
        if verdict == "issues":
            refused = "v2 has issues"
        elif share >= 100:
            refused = "every tenant is on v2"
        elif points == 25 and share >= 75:
            refused = "fewer than 25 points are left"
        told.append(Button(points, refused))
    return told


def _bands(found: Strip | None, since: datetime, now: datetime) -> list[Band]:
    """The phases of the newest rollout that touch the window."""
    if found is None:
        return []
    ended = found.rollout.finished_at or now
    bands = [
        Band(each.phase.name, max(each.asked_at, since), each.ended_at or ended)
        for each in found.stretches
        if each.asked_at is not None
    ]
    return [band for band in bands if band.until > band.since]


async def _placed(visit: Visit) -> Known[dict[str, Any]]:
    """How many tenants the flag's row, as it is now, puts on v2."""
    house = visit.house
    async with house.database.transaction(read_only=True) as connection:
        row = await first(connection, statement("dashboard", "flag_version"), {"name": VOICE_AGENT_V2})
    if row is None:
        raise UnknownName("the flag's row is gone", fix="run: relevo db up")

    async def count() -> tuple[dict[str, Any], int]:
        async with house.database.transaction(read_only=True) as connection:
            found = dict(await one(connection, statement("dashboard", "standing"), {"name": VOICE_AGENT_V2}))
        return found, found["total"]

    return await house.remembered.get("standing", row["version"], count)


async def _points(visit: Visit, connection: Connection, named: str, window: Window) -> list[Point]:
    """Both versions over the window, oldest first. What is over for long enough is remembered."""
    span = SPANS[named]
    edge = (visit.now - span.closed).replace(second=0, microsecond=0)
    edge = edge.replace(minute=0 if span.grain == "hour" else edge.minute // 5 * 5)

    async def count() -> tuple[list[Point], int]:
        async with visit.house.database.transaction(read_only=True) as another:
            old = await _series(another, span, window.since, edge)
        return old, sum(sum(point.calls) for point in old)

    known = await visit.house.remembered.get(f"points {named}", edge, count)
    recent = await _series(connection, span, max(edge, window.since), None)
    return [*(point for point in known.what if point.at >= window.since), *recent]


async def _series(connection: Connection, span: Span, since: datetime, until: datetime | None) -> list[Point]:
    """Both versions in a stretch of time, oldest first; times without a call are left out."""
    asked = {"grain": span.grain, "since": since, "until": until}
    counts: dict[tuple[datetime, str], dict[str, Any]] = {
        (row["starts_at"], row["version"]): row
        for row in await every(connection, statement("dashboard", "series"), asked)
    }
    p95 = {
        (row["starts_at"], row["version"]): middle_of(row["bucket"])
        for row in await every(connection, statement("dashboard", "series_p95"), asked)
    }
    points = []
    for at in sorted({at for at, _version in counts}):
        both = [counts.get((at, version), {"calls": 0, "errors": 0}) for version in VERSIONS]
        calls = (both[0]["calls"], both[1]["calls"])
        rates = [row["errors"] / row["calls"] if row["calls"] else None for row in both]
        latencies = [p95.get((at, version)) for version in VERSIONS]
        points.append(Point(at, calls, (rates[0], rates[1]), (latencies[0], latencies[1])))
    return points


PLACES = (Place("GET", "/", Role.VIEWER, show),)
