"""What is on record: the move, the calls, who did what, and the settings in force."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.dashboard.house import Visit
from relevo.dashboard.places import Place
from relevo.db.pool import every, first
from relevo.db.statements import statement
from relevo.errors import UnknownName, UsageError

CALLS, AUDIT, EXPORT = 50, 50, 10_000
_CALLS_OF = timedelta(days=7)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute."""


async def migration(visit: Visit) -> Response:
    """Runs and how far they are, what was set aside, what to review, and the backups."""
    async with visit.house.database.transaction(read_only=True, snapshot=True) as connection:
        runs = await every(connection, statement("dashboard", "runs"))
        steps = await every(connection, statement("dashboard", "run_steps"), {"run_id": runs[0]["id"]}) if runs else []
        tenants = visit.house.mapping.tenants.rows()
        found: dict[str, Any] = {
            "quarantine": await every(connection, statement("dashboard", "quarantine")),
            "review": await every(connection, statement("dashboard", "review", tenants=tenants)),
            "backups": await every(connection, statement("dashboard", "backups")),
        }
    return visit.page("migration.html", runs=runs, steps=steps, **found)


async def calls(visit: Visit) -> Response:
    """The newest calls, by version and outcome."""
    version, outcome, tenant = visit.asked("version"), visit.asked("outcome"), visit.asked("tenant")
    before = _moment(visit.asked("before"))
    asked: dict[str, Any] = {
        "before": before,
        "since": (before or visit.now) - _CALLS_OF,
        "tenant_id": tenant or None,
        "version": version or None,
        "outcome": outcome or None,
        "most": CALLS,
    }
    async with visit.house.database.transaction(read_only=True) as connection:
        found = await every(connection, statement("dashboard", "calls"), asked)
        outcomes = [row["outcome"] for row in await every(connection, statement("metrics", "outcome_words"))]
    shown = {"version": version, "outcome": outcome, "tenant": tenant}
    return visit.page("calls.html", calls=found, outcomes=outcomes, shown=shown, full=len(found) == CALLS)


async def call(visit: Visit) -> Response:
    """All that is known of one call."""
    call_id = visit.request.path_params["call_id"]
    async with visit.house.database.transaction(read_only=True) as connection:
        found = await first(connection, statement("dashboard", "call"), {"call_id": call_id})
        tools = await every(connection, statement("dashboard", "tool_calls"), {"call_id": call_id})
    if found is None:
        raise UnknownName("there is no such call", fix="see the list of calls")
    times = ("decided_at", "first_message_at", "started_at", "answered_at", "hung_up_at", "ended_at", "last_message_at")
    course: list[tuple[datetime, str, Any]] = [(found[name], name, None) for name in times if found[name] is not None]
    course += [(tool["at"], tool["name"], tool) for tool in tools]
    course.sort(key=lambda each: each[0])
    return visit.page("call.html", call=found, course=course, written=_written)


async def audit(visit: Visit) -> Response:
    """Who did what, when and why."""
    word, before = visit.asked("q")[:200], visit.asked("before")
    found = await _audited(visit, word, before, AUDIT)
    return visit.page("audit.html", entries=found, word=word, full=len(found) == AUDIT, written=_written)


async def export(visit: Visit) -> Response:
    """The same as a file for spreadsheets, the newest 10,000."""
    found = await _audited(visit, visit.asked("q")[:200], "", EXPORT)
    text = io.StringIO()
    writer = csv.writer(text)
    columns = ("id", "at", "actor", "action", "subject", "reason", "details")
    writer.writerow(columns)
    for row in found:
        told = {**row, "at": row["at"].isoformat(), "details": _written(row["details"])}
        writer.writerow([_cell(told[name]) for name in columns])
    headers = {"content-disposition": f'attachment; filename="relevo-audit-{visit.now:%Y%m%dT%H%M%SZ}.csv"'}
    return Response(text.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


async def _audited(visit: Visit, word: str, before: str, most: int) -> list[dict[str, Any]]:
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise UsageError("this is no entry of the log", fix="go back to the first page")
    asked = {"word": word or None, "before": int(before) if before else None, "most": most}
    async with visit.house.database.transaction(read_only=True) as connection:
        return await every(connection, statement("dashboard", "audit"), asked)


def _written(details: Any) -> str:
    return json.dumps(details, ensure_ascii=False, default=str)


def _cell(value: Any) -> str:
    """A text that a spreadsheet shows instead of computing."""
    written = "" if value is None else str(value)
    return f"'{written}" if written.startswith(_FORMULA) else written


def _moment(written: str) -> datetime | None:
    if not written:
        return None
    try:
        return datetime.fromisoformat(written).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError("this is no moment", fix="write it as 2026-11-22T12:00:00+00:00") from error


PLACES = (
    Place("GET", "/migration", Role.VIEWER, migration),
    Place("GET", "/calls", Role.VIEWER, calls),
    Place("GET", "/calls/{call_id:path}", Role.VIEWER, call),
    Place("GET", "/audit", Role.VIEWER, audit),
    Place("GET", "/audit.csv", Role.VIEWER, export),
)
