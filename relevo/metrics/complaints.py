"""What users say went wrong. A complaint counts once for the version it speaks of, unless it is dismissed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement
from relevo.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Complaint:
    """One complaint."""

    id: int
    tenant_id: str
    version: str
    text: str
    at: datetime
    actor: str  # who wrote it down
    dismissed_at: datetime | None  # None: it counts
    dismissed_by: str | None


async def add(
    connection: Connection,
    tenant_id: str,
    text: str,
    now: datetime,
    *,
    version: str | None,
    actor: str,
    reason: str | None,
) -> Complaint:
    """Write a complaint down. ``version`` None: that of the tenant's last call within a week, else v1."""
    said = {"tenant_id": tenant_id, "text": text, "version": version, "now": now, "actor": actor, "reason": reason}
    return Complaint(**await one(connection, statement("metrics", "add_complaint"), said))


async def complaints(connection: Connection, *, dismissed: bool = False) -> list[Complaint]:
    """Those that count, newest first; with ``dismissed`` also the others."""
    rows = await every(connection, statement("metrics", "complaints"), {"every": dismissed})
    return [Complaint(**row) for row in rows]


async def dismiss(
    connection: Connection, complaint_id: int, now: datetime, *, actor: str, reason: str | None
) -> Complaint:
    """Count a complaint no more. Raises UnknownName where none of that number counts."""
    said = {"id": complaint_id, "now": now, "actor": actor, "reason": reason}
    row = await first(connection, statement("metrics", "dismiss_complaint"), said)
    if row is None:
        raise UnknownName(f"there is no complaint {complaint_id} that counts", fix="see: relevo complaints list")
    return Complaint(**row)
