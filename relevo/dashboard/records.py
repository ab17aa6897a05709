"""What is on record: the move, and who did what."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.dashboard.house import Visit
from relevo.dashboard.places import Place
from relevo.db.pool import every
from relevo.db.statements import statement
from relevo.errors import UsageError

AUDIT, EXPORT = 50, 10_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute."""


COUNTS = {
    "seen": "looked at",
    "migrated": "moved",
    "quarantined": "set aside",
    "updated_calls": "calls given an outcome",
    "refused_outcomes": "outcomes refused",
    "metrics_businesses": "businesses measured",
}
"""What steps count, and what it is called."""


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
    return visit.page("migration.html", runs=runs, steps=steps, counts=COUNTS, **found)


async def audit(visit: Visit) -> Response:
    """Who did what, when and why."""
    word, before = visit.asked("q")[:200], visit.asked("before")
    found = await _audited(visit, word, before, AUDIT)
    return visit.page("audit.html", entries=found, word=word, full=len(found) == AUDIT, written=written)


async def export(visit: Visit) -> Response:
    """The same as a file for spreadsheets, the newest 10,000."""
    found = await _audited(visit, visit.asked("q")[:200], "", EXPORT)
    text = io.StringIO()
    writer = csv.writer(text)
    columns = ("id", "at", "actor", "action", "subject", "reason", "details")
    writer.writerow(columns)
    for row in found:
        told = {**row, "at": row["at"].isoformat(), "details": written(row["details"])}
        writer.writerow([_cell(told[name]) for name in columns])
    headers = {"content-disposition": f'attachment; filename="relevo-audit-{visit.now:%Y%m%dT%H%M%SZ}.csv"'}
    return Response(text.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


async def _audited(visit: Visit, word: str, before: str, most: int) -> list[dict[str, Any]]:
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise UsageError("this is no entry of the log", fix="go back to the first page")
    asked = {"word": word or None, "before": int(before) if before else None, "most": most}
    async with visit.house.database.transaction(read_only=True) as connection:
        return await every(connection, statement("dashboard", "audit"), asked)


def written(details: Any) -> str:
    """What is kept as JSON, on one line, its accents as they are."""
    return json.dumps(details, ensure_ascii=False, default=str)


def _cell(value: Any) -> str:
    """A text that a spreadsheet shows instead of computing."""
    written = "" if value is None else str(value)
    return f"'{written}" if written.startswith(_FORMULA) else written


PLACES = (
    Place("GET", "/migration", Role.VIEWER, migration),
    Place("GET", "/audit", Role.VIEWER, audit),
    Place("GET", "/audit.csv", Role.VIEWER, export),
)
