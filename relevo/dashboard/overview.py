"""The first page: where the rollout stands, how both versions do, and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.alerts.incidents import Incident
from relevo.dashboard import acting, charts, judging
from relevo.dashboard.charts import SPANS, Point
from relevo.dashboard.house import Visit
from relevo.dashboard.places import Place
from relevo.dashboard.remembering import Known
from relevo.dashboard.steering import STEPS
from relevo.dashboard.strip import ASKING, Strip, strip
from relevo.db.pool import one
from relevo.db.statements import statement
from relevo.errors import UnknownName, nearest
from relevo.flags.evaluate import VOICE_AGENT_V2
from relevo.metrics.reading import VERSIONS, asking_health, health_of
from relevo.metrics.window import Window

USUAL = "24h"
_ALERTS_FOR = timedelta(hours=24)
_MOST_ALERTS = 100


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
    edge = max(span.edge(visit.now), window.since)
    flag, _, figures, wrong, alerts, recent, *rollouts = await visit.house.database.together(
        (statement("dashboard", "flag_version"), {"name": VOICE_AGENT_V2}),
        (statement("rollout", "by_index"), {}),
        asking_health(window),
        (statement("alerts", "incidents"), {"every": False, "most": _MOST_ALERTS}),
        (statement("dashboard", "alerts"), {"since": visit.now - _ALERTS_FOR}),
        charts.asking(span, edge, None),
        *ASKING,
    )
    if not flag:
        raise UnknownName("the flag's row is gone", fix="run: relevo db up")
    placed = await _placed(visit, flag[0]["version"])
    older = await _older(visit, named, window.since, edge)
    found, rollout = health_of(figures), strip(rollouts, visit.now)
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
        incidents=[Incident(**row) for row in wrong],
        alerts=alerts,
        strip=rollout,
        bands=_bands(rollout, window.since, visit.now),
        done=visit.asked("done") if visit.asked("done") in acting.DONE else "",
        entry=visit.asked("entry") if visit.asked("entry").isdecimal() else "",
        rows=charts.table([*older, *charts.points(recent)]),
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


async def _placed(visit: Visit, version: int) -> Known[dict[str, Any]]:
    """How many tenants the flag's row puts on v2, as it is at this version."""
    house = visit.house

    async def count() -> tuple[dict[str, Any], int]:
        async with house.database.transaction(read_only=True) as connection:
            found = dict(await one(connection, statement("dashboard", "standing"), {"name": VOICE_AGENT_V2}))
        return found, found["total"]

    return await house.remembered.get("standing", version, count)


async def _older(visit: Visit, named: str, since: datetime, edge: datetime) -> list[Point]:
    """The points of a window up to where they are over for long enough to be remembered."""

    async def count() -> tuple[list[Point], int]:
        _, rows = await visit.house.database.together(
            (statement("rollout", "by_index"), {}), charts.asking(SPANS[named], since, edge)
        )
        old = charts.points(rows)
        return old, sum(sum(point.calls) for point in old)

    known = await visit.house.remembered.get(f"points {named}", edge, count)
    return [point for point in known.what if point.at >= since]


PLACES = (Place("GET", "/", Role.VIEWER, show),)
