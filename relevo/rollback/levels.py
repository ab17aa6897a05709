"""Levels 1 to 3: tenants go back to v1 by the flag, within a second, and what was done can be undone.

Calls in progress stay with the version they began with. A rollout that runs is paused by it, and ended by level total.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg.types.json import Jsonb

from relevo.clock import Clock
from relevo.db import migrations
from relevo.db.pool import Connection, Database, every, first, one
from relevo.db.statements import statement
from relevo.errors import Refused, UnknownName, UsageError
from relevo.flags.evaluate import Flag, evaluate_all
from relevo.flags.writing import Author, flag_of, refuse_strangers

Level = Literal["tenant", "partial", "total", "undo"]

OBEYED_WITHIN_S = 5.0
"""How long to wait until every process has told that it answers by the new row."""
_LOOK_EVERY_S = 0.02
LONGEST_CALL = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Row:
    """What the flag says, in short."""

    enabled: bool
    percentage: int
    enabled_tenants: list[str]  # in the order in which they joined
    tenants_on_v2: int  # of those with an active configuration
    version: int


@dataclass(frozen=True, slots=True)
class WentBack:
    """What was done, and what it means."""

    level: Level
    before: Row
    after: Row
    affected_tenants: list[str]  # whose answer changed
    calls_in_progress: int  # of them; they end with v2
    readers: int  # processes that answer by the flag
    lagging: list[str]  # of them, those that had not obeyed when we stopped waiting
    propagation_ms: float | None  # until the slowest obeyed; None: there is none, or one has not
    edits: list[dict[str, Any]]  # made on v2, which v1 will not carry
    undo_command: str | None  # None: nothing was changed
    audit_id: int
    duration_seconds: float
    left_out: list[str] = field(default_factory=list)  # undo: who may not live on v2 any more


async def tenants_back(database: Database, tenants: Sequence[str], author: Author, clock: Clock) -> WentBack:
    """Level 1: these tenants go back, and stay there until somebody enables them. Raises UnknownName."""
    if not tenants:
        raise UsageError("level tenant needs --tenant-id", fix="name the tenant")
    return await _go_back(database, "tenant", {"tenants": list(tenants)}, author, clock)


async def partly_back(database: Database, percentage: int | None, author: Author, clock: Clock) -> WentBack:
    """Level 2: so much of the tenants stays on v2; the last to join leave. Raises UsageError without 0 to 100."""
    if percentage is None or not 0 <= percentage <= 100:
        raise UsageError("level partial needs --percentage, from 0 to 100", fix="say what share stays on v2")
    return await _go_back(database, "partial", {"percentage": percentage}, author, clock)


async def all_back(database: Database, author: Author, clock: Clock) -> WentBack:
    """Level 3: the flag off, its percentage 0 and its list empty; a rollout ends."""
    return await _go_back(database, "total", {}, author, clock)


async def undo(database: Database, audit_id: int, author: Author, clock: Clock) -> WentBack:
    """Put the flag back as it was before a level 2 or 3, by the number of its entry in the audit log.

    Raises UnknownName for no such entry, and Refused where the flag was changed since.
    """
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        done = await first(connection, statement("rollback", "done_by"), {"id": audit_id})
    if done is None:
        raise UnknownName(
            f"entry {audit_id} of the audit log is no rollback that can be undone", fix="see: relevo flags history"
        )
    before = done["details"]["before"]
    names = ("enabled", "percentage", "enabled_tenants")
    values = {name: before[name] for name in names} | {"version": done["details"]["flag_version"]}
    return await _go_back(database, "undo", values, author, clock)


async def _go_back(
    database: Database, level: Level, values: Mapping[str, Any], author: Author, clock: Clock
) -> WentBack:
    began = clock()
    async with database.transaction() as connection:
        await migrations.require(connection)
        said = {"actor": author.actor, "reason": author.reason, "level": level}
        await connection.execute(statement("rollback", "act"), said)
        raw = await one(connection, statement("rollback", "locked_flag"))
        before = flag_of(raw)
        values = await _checked(connection, level, values, before)
        written = await one(connection, statement("rollback", level), values)
        after = flag_of(written)
        active = [row["id"] for row in await every(connection, statement("rollback", "active"))]
        affected = _affected(before, after, active)
        rows = _row(raw, before, active), _row(written, after, active)
        entry = await _record(connection, level, author, rows, affected)
        wanted = {"tenants": affected, "since": began - LONGEST_CALL}
        calls = await one(connection, statement("rollback", "in_progress"), wanted)
        edits = await every(connection, statement("rollback", "edits"), wanted) if level != "undo" else []
    seen = await _obeyed(database, after.version, entry["changed_at"])
    return WentBack(
        level,
        *rows,
        affected,
        calls["calls"] if level != "undo" else 0,
        seen["readers"],
        seen["lagging"],
        None if seen["lagging"] else seen["propagation_ms"],
        edits,
        _undo_command(level, affected, entry["id"]) if after.version != before.version else None,
        entry["id"],
        round((clock() - began).total_seconds(), 3),
        sorted(set(values.get("enabled_tenants", ())) - after.enabled_tenants),
    )


async def _checked(connection: Connection, level: Level, values: Mapping[str, Any], before: Flag) -> dict[str, Any]:
    """What the statement needs; raises where it would not do what it says."""
    match level:
        case "tenant":
            await refuse_strangers(connection, values["tenants"], before.enabled_tenants | before.disabled_tenants)
        case "partial":
            return {**values, **await one(connection, statement("rollback", "size_at"), values)}
        case "undo" if values["version"] != before.version:
            raise Refused(
                f"the flag was changed since: it is at version {before.version}, and that left version"
                f" {values['version']}",
                fix="look at it, and enable whom you mean: relevo flags show",
            )
    return dict(values)


def _affected(before: Flag, after: Flag, active: Sequence[str]) -> list[str]:
    """Whose answer changed: of the active tenants, and of all that stood on a list."""
    known = {*active, *before.enabled_tenants, *before.disabled_tenants, *after.disabled_tenants}
    was, now = ({each.tenant_id for each in evaluate_all(flag, known) if each.value} for flag in (before, after))
    return sorted(was ^ now)


def _row(raw: Mapping[str, Any], flag: Flag, active: Sequence[str]) -> Row:
    on_v2 = sum(each.value for each in evaluate_all(flag, active))
    return Row(flag.enabled, flag.percentage, list(raw["enabled_tenants"]), on_v2, flag.version)


async def _record(
    connection: Connection, level: Level, author: Author, rows: tuple[Row, Row], affected: list[str]
) -> Mapping[str, Any]:
    before, after = rows
    kept = {"enabled": before.enabled, "percentage": before.percentage, "enabled_tenants": before.enabled_tenants}
    details = {"before": kept, "flag_version": after.version, "affected_tenants": affected}
    return await one(
        connection,
        statement("rollback", "audit"),
        {
            "actor": author.actor,
            "action": f"rollback.{level}",
            "reason": author.reason,
            "details": Jsonb(details),
        },
    )


async def _obeyed(database: Database, version: int, changed_at: datetime) -> Mapping[str, Any]:
    """Wait until every living process answers by the version, but not for ever."""
    wanted = {"version": version, "changed_at": changed_at}
    for _ in range(int(OBEYED_WITHIN_S / _LOOK_EVERY_S)):
        async with database.transaction(read_only=True) as connection:
            seen = await one(connection, statement("rollback", "obeyed"), wanted)
        if not seen["behind"]:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    return seen


def _undo_command(level: Level, affected: list[str], audit_id: int) -> str:
    if level == "tenant":
        return f"relevo flags enable {' '.join(affected)}" if affected else "relevo flags show"
    return f"relevo rollback --undo {audit_id}"
