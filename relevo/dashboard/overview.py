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
from relevo.dashboard.steering import STEPS
from relevo.dashboard.strip import Strip, strip
from relevo.db.pool import Connection, every, first
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


SPANS = {
    "1h": Span(timedelta(hours=1), "the last hour", "minute"),
    "24h": Span(timedelta(hours=24), "the last 24 hours", "hour"),
    "7d": Span(timedelta(days=7), "the last 7 days", "hour"),
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
    async with visit.house.database.transaction(read_only=True, snapshot=True) as connection:
        standing = await first(connection, statement("dashboard", "standing"), {"name": VOICE_AGENT_V2})
        if standing is None:
            raise UnknownName("the flag's row is gone", fix="run: relevo db up")
        found = await health(connection, window)
        wrong = await incidents(connection)
        alerts = await every(connection, statement("dashboard", "alerts"), {"since": visit.now - _ALERTS_FOR})
        points = await _series(connection, span, window)
        rollout = await strip(connection, visit.now)
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


async def _series(connection: Connection, span: Span, window: Window) -> list[Point]:
    """Both versions over the window, oldest first; times without a call are left out."""
    asked = {"grain": span.grain, "since": window.since}
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
