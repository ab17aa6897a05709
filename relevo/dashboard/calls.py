"""The calls: the newest by version, outcome, fault and tenant, and the course of one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.dashboard.house import Visit
from relevo.dashboard.places import Place
from relevo.dashboard.records import written
from relevo.db.pool import Asked, every, first
from relevo.db.statements import statement
from relevo.errors import UnknownName, UsageError, nearest
from relevo.metrics.reading import VERSIONS

PAGE = 50
BACK_TO = timedelta(days=7)
"""So far back the list goes from where a page of it begins."""
LOOKED_THROUGH = 10_000
"""So many calls are looked at for a few of a rare kind, before whoever asks is told how far that went."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIMES = (
    "decided_at", "first_message_at", "started_at", "answered_at", "hung_up_at", "ended_at", "last_message_at",
)  # fmt: skip


async def show(visit: Visit) -> Response:
    """The newest calls of some kind."""
    version, outcome, tenant = visit.asked("version"), visit.asked("outcome"), visit.asked("tenant")
    fault = visit.asked("fault") == "ours"
    if version and version not in VERSIONS:
        raise UnknownName(f"there is no version {version[:40]!r}.{nearest(version, VERSIONS)}", fix="v1 or v2")
    before = _moment(visit.asked("before"))
    kinds: dict[str, Any] = {
        "versions": [version] if version else list(VERSIONS),
        "outcome": outcome or None,
        "fault": True if fault else None,
    }
    since = (before or visit.now) - BACK_TO
    further = None
    if not tenant and (outcome or fault):
        further = await _reach(visit, {**kinds, "since": since, "before": before or visit.now})
    asked = asking(tenant or None, further or since, before, visit.asked("id"), PAGE, **kinds)
    found, outcomes = await visit.house.database.together(asked, (statement("metrics", "outcome_words"), {}))
    shown = {"version": version, "outcome": outcome, "tenant": tenant, "fault": "ours" if fault else ""}
    return visit.page(
        "calls.html",
        calls=found,
        names=await _names(visit, {row["tenant_id"] for row in found}),
        outcomes=[row["outcome"] for row in outcomes],
        shown=shown,
        full=len(found) == PAGE,
        further=None if len(found) == PAGE else further,
        begins=before,
    )


def asking(
    tenant: str | None,
    since: datetime,
    before: datetime | None,
    before_id: str,
    most: int,
    *,
    versions: list[str],
    outcome: str | None,
    fault: bool | None,
) -> Asked:
    """What asks for the newest calls; ``before`` None: from now on back."""
    asked: dict[str, Any] = {
        "tenant_id": tenant,
        "since": since,
        "before": before or datetime.max.replace(tzinfo=UTC),
        "before_id": before_id or "",
        "most": most,
        "versions": versions,
        "outcome": outcome,
        "fault": fault,
    }
    return statement("dashboard", "calls" if tenant is None else "calls_of_tenant"), asked


async def _reach(visit: Visit, asked: dict[str, Any]) -> datetime | None:
    """How far back a rare kind is looked for; None: as far as the list goes."""
    rows = await visit.house.database.alone(
        statement("dashboard", "reach"), {**asked, "looked_through": LOOKED_THROUGH}
    )
    since: datetime | None = rows[0]["since"]
    return since


async def _names(visit: Visit, tenants: set[str | None]) -> dict[str, str]:
    """What tenants are called, by id; without those that have no name, or are no tenant's id at all."""
    ids = [each for each in tenants if each is not None and _UUID.fullmatch(each)]
    query = statement("dashboard", "names_of", tenants=visit.house.mapping.fill()["tenants"])
    return {row["id"]: row["name"] for row in await visit.house.database.alone(query, {"ids": ids})}


async def one(visit: Visit) -> Response:
    """All that is known of one call."""
    call_id = visit.request.path_params["call_id"]
    async with visit.house.database.transaction(read_only=True) as connection:
        found = await first(connection, statement("dashboard", "call"), {"call_id": call_id})
        tools = await every(connection, statement("dashboard", "tool_calls"), {"call_id": call_id})
    if found is None:
        raise UnknownName("there is no such call", fix="see the list of calls")
    course: list[tuple[datetime, str, Any]] = [(found[name], name, None) for name in _TIMES if found[name] is not None]
    course += [(tool["at"], tool["name"], tool) for tool in tools]
    course.sort(key=lambda each: each[0])
    return visit.page("call.html", call=found, course=course, written=written)


def _moment(told: str) -> datetime | None:
    if not told:
        return None
    try:
        return datetime.fromisoformat(told).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError("this is no moment", fix="write it as 2026-11-22T12:00:00+00:00") from error


PLACES = (
    Place("GET", "/calls", Role.VIEWER, show),
    Place("GET", "/calls/{call_id:path}", Role.VIEWER, one),
)
