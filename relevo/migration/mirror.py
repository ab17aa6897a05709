"""Dual write: what one side writes the other has at the same commit, or it waits in a queue.

The triggers are generated from the source mapping around the one transform, and installed before the first row is
copied. Here they are put in place, taken away, looked at; what they could not do is repaired, and what both sides
wrote is decided by a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg import sql
from psycopg.types.json import Jsonb

from relevo import events
from relevo.clock import Clock
from relevo.db import migrations
from relevo.db.patience import patiently
from relevo.db.pool import Connection, Database, every, first, one
from relevo.db.statements import identifier, statement
from relevo.errors import Refused, UnknownName
from relevo.migration import source
from relevo.migration.mapping import CONFIGURATION_FIELDS, SourceMapping
from relevo.migration.retired import refuse_deprecated
from relevo.migration.run import audit
from relevo.migration.runs import Who

V2 = identifier("public", "voice_assistant_configs")
_SHOWN = 100  # of a list, to people and machines alike

# What fires where: side, event, the images it needs.
_TRIGGERS = (
    ("v1", "insert", "INSERT", "relevo.v1_inserted", "NEW TABLE AS new_rows"),
    ("v1", "update", "UPDATE", "relevo.v1_updated", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("v1", "delete", "DELETE", "relevo.v1_deleted", "OLD TABLE AS old_rows"),
    ("v2", "insert", "INSERT", "relevo.v2_inserted", "NEW TABLE AS new_rows"),
    ("v2", "update", "UPDATE", "relevo.v2_updated", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("v2", "delete", "DELETE", "relevo.v2_deleted", "OLD TABLE AS old_rows"),
    ("tenants", "insert", "INSERT", "relevo.tenants_inserted", "NEW TABLE AS new_rows"),
    ("tenants", "update", "UPDATE", "relevo.tenants_updated", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
)
_TRUNCATED = ("v1", "v2")


@dataclass(frozen=True, slots=True)
class State:
    """What there is of the mirror."""

    installed: bool  # every trigger in place, firing for everybody, made from the mapping in force
    missing: tuple[str, ...]  # triggers that are not there, or do not always fire
    strict: bool  # a fault fails the writer instead of being queued
    queued: int
    oldest: datetime | None  # of the queue
    conflicts: int
    edited_configs: int
    deleted_configs: int
    unwritable: tuple[str, ...]  # fields of v1 that nothing can be written back to
    queue: list[dict[str, Any]] = field(default_factory=list)
    open_conflicts: list[dict[str, Any]] = field(default_factory=list)


async def install(
    database: Database,
    mapping: SourceMapping,
    who: Who,
    clock: Clock,
    *,
    strict: bool | None = None,
    emit: events.Sink = events.silent,
) -> bool:
    """Put dual write in place, or bring it up to date; returns whether anything changed. ``strict`` None: as it was.

    Waits for each table's lock only briefly, again and again: writers are not held up behind us.
    """
    await refuse_deprecated(database)
    async for attempt in patiently(emit, "a table to mirror is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                await migrations.require(connection)
                changed = await put_in_place(connection, mapping, who, clock, strict=strict)
    return changed


async def put_in_place(
    connection: Connection, mapping: SourceMapping, who: Who, clock: Clock, *, strict: bool | None = None
) -> bool:
    """As ``install``, in the caller's transaction, which answers for it that v1 leads or will."""
    changed = await _install(connection, mapping, clock)
    if strict is not None:
        await connection.execute(statement("mirror", "set_strict"), {"strict": strict})
    if changed or strict is not None:
        details = {"strict": strict, "tables": [s.name for s in (mapping.configurations, mapping.tenants)]}
        await audit(connection, actor=who.actor, action="mirror.install", reason=who.reason, details=details)
    return changed


async def _install(connection: Connection, mapping: SourceMapping, clock: Clock) -> bool:
    """One transaction: functions and triggers are there together or not at all."""
    remade = await source.install(connection, mapping, clock())
    lacking = _lacking(await _in_place(connection), mapping, await tenants_watched(connection, mapping))
    if not (remade or lacking):
        return False
    for name, (side, event, referencing, function_name) in _wanted().items():
        if name in lacking:
            table = _table(mapping, side)
            await connection.execute(statement("mirror", "drop_trigger", trigger=sql.Identifier(name), table=table), {})
            await _create(connection, name, table, event, referencing, function_name)
    return True


async def _create(
    connection: Connection, name: str, table: sql.Composable, event: str, referencing: str, function: str
) -> None:
    fill: dict[str, sql.Composable] = {"trigger": sql.Identifier(name), "table": table}
    if event == "TRUNCATE":
        await connection.execute(statement("mirror", "truncate_trigger", **fill), {})
    else:
        images = sql.SQL("REFERENCING {}").format(sql.SQL(referencing))
        await connection.execute(
            statement(
                "mirror",
                "trigger",
                event=sql.SQL(event),
                referencing=images,
                function=sql.Identifier(*function.split(".")),
                **fill,
            ),
            {},
        )
    await connection.execute(statement("mirror", "always", **fill), {})


async def remove(database: Database, who: Who, *, emit: events.Sink = events.silent) -> list[str]:
    """Take the triggers away; returns their names. Nothing is written to either side; what waits, waits."""
    async for attempt in patiently(emit, "a mirrored table is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                removed = await drop_triggers(connection)
                if removed:
                    await audit(connection, actor=who.actor, action="mirror.remove", reason=who.reason)
    return removed


async def triggers(connection: Connection) -> list[str]:
    """Our triggers, wherever they are: name and table."""
    return [f"{row['name']} on {row['table']}" for row in await _in_place(connection)]


async def drop_triggers(connection: Connection) -> list[str]:
    """Take our triggers away, in the caller's transaction; returns which."""
    found = await triggers(connection)
    for row in await _in_place(connection):
        table, name = identifier(row["schema"], row["relation"]), sql.Identifier(row["name"])
        await connection.execute(statement("mirror", "drop_trigger", trigger=name, table=table), {})
    return found


async def look(database: Database, mapping: SourceMapping) -> State:
    """What there is of the mirror, and what waits for a person or for repair."""
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        numbers = await one(connection, statement("mirror", "state"))
        lacking = _lacking(await _in_place(connection), mapping, await tenants_watched(connection, mapping))
        columns = await source.column_types(connection, mapping.configurations)
        carried = source.writes(mapping.configurations, columns)
        return State(
            installed=not lacking,
            missing=tuple(lacking),
            unwritable=tuple(name for name in CONFIGURATION_FIELDS if name not in carried),
            queue=await every(connection, statement("mirror", "queue"), {"most": _SHOWN}),
            open_conflicts=await every(connection, statement("mirror", "conflicts"), {"most": _SHOWN}),
            **numbers,
        )


async def repair(
    database: Database,
    who: Who,
    clock: Clock,
    *,
    drifted: bool = False,
    tried_before: datetime | None = None,
    emit: events.Sink = events.silent,
) -> tuple[int, list[str]]:
    """Bring what is queued to the other side, one configuration a transaction; returns how many were mended, and a line
    for each that was not.

    ``drifted``: also what verification last found wrong, as v1 has it. ``tried_before``: of what could not be mended,
    only what was last tried before that moment; None: all of it.
    """
    if drifted:
        async with database.transaction() as connection:
            await connection.execute(statement("mirror", "queue_drift", fields=source.fields()), {"actor": who.actor})
    mended, failed = 0, []
    after = UUID(int=0)
    while batch := await _to_repair(database, after, tried_before):
        for config_id in batch:
            reason = await _repair_one(database, config_id, clock, emit)
            mended += reason is None
            if reason is not None:
                failed.append(f"config {config_id}: {reason}")
        emit(events.Progress(mended + len(failed), None, "configurations"))
        after = batch[-1]
    if mended or failed:
        async with database.transaction() as connection:
            details = {"mended": mended, "failed": len(failed)}
            await audit(connection, actor=who.actor, action="mirror.repair", reason=who.reason, details=details)
    return mended, failed


async def _to_repair(database: Database, after: UUID, tried_before: datetime | None) -> list[UUID]:
    async with database.transaction(read_only=True) as connection:
        scope = {"after": after, "tried_before": tried_before}
        rows = await every(connection, statement("mirror", "to_repair"), scope)
    return [row["config_id"] for row in rows]


async def _repair_one(database: Database, config_id: UUID, clock: Clock, emit: events.Sink) -> str | None:
    async for attempt in patiently(emit, f"configuration {config_id} is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                reason: str | None = (await one(connection, statement("mirror", "repair"), {"config_id": config_id}))[
                    "reason"
                ]
                if reason is not None:
                    failed = {"config_id": config_id, "reason": reason, "now": clock()}
                    await connection.execute(statement("mirror", "mark_failed"), failed)
    return reason


async def resolve(database: Database, conflict_id: int, take: Literal["v1", "v2"], who: Who, clock: Clock) -> None:
    """Decide a conflict: write the value of one side to v2, from where a shared field goes on to v1.

    Raises UnknownName for no such conflict, Refused for one that was decided already.
    """
    async with database.transaction() as connection:
        found = await first(connection, statement("mirror", "conflict"), {"id": conflict_id})
        if found is None:
            raise UnknownName(f"there is no conflict {conflict_id}", fix="see: relevo mirror status")
        if found["resolved_at"] is not None:
            raise Refused(
                f"conflict {conflict_id} was decided already, for {found['kept']}", fix="see: relevo mirror status"
            )
        closed = {"id": conflict_id, "now": clock(), "actor": who.actor, "take": take}
        await connection.execute(statement("mirror", "close_conflict"), closed)
        value = {"field": found["field"], "value": Jsonb(found[f"{take}_value"]), "config_id": found["config_id"]}
        await connection.execute(statement("mirror", "take_value", field=sql.Identifier(found["field"])), value)
        await audit(
            connection,
            actor=who.actor,
            action="mirror.resolve",
            subject=conflict_id,
            reason=who.reason,
            details={"config_id": str(found["config_id"]), "field": found["field"], "take": take},
        )


def _wanted() -> Mapping[str, tuple[str, str, str, str]]:
    """Name of each trigger: side, event, images, function."""
    found = {}
    for side, event, command, function, images in _TRIGGERS:
        found[f"relevo_mirror_{side}_{event}"] = (side, command, images, function)
    for side in _TRUNCATED:
        found[f"relevo_mirror_{side}_truncate"] = (side, "TRUNCATE", "", "relevo.refuse_truncate")
    return found


async def tenants_watched(connection: Connection, mapping: SourceMapping) -> bool:
    """Whether the table of tenants can bear our triggers: it is a table, and ours to alter. Where it cannot, a vertical
    that changes is not seen by dual write, only by verification."""
    where = [{"kind": "tenants", "schema": mapping.tenants.schema, "table": mapping.tenants.table}]
    fact = await one(connection, statement("migration", "tables"), {"sources": Jsonb(where)})
    return bool(fact["is_table"] and fact["may_alter"])


def _lacking(in_place: list[dict[str, Any]], mapping: SourceMapping, tenants_too: bool) -> list[str]:
    """Names of the triggers that are not where they should be, or do not fire for everybody."""
    there = {(row["name"], row["schema"], row["relation"]) for row in in_place if row["always"]}
    places = {
        "v1": (mapping.configurations.schema, mapping.configurations.table),
        "v2": ("public", "voice_assistant_configs"),
        "tenants": (mapping.tenants.schema, mapping.tenants.table),
    }
    wanted = {name: side for name, (side, *_) in _wanted().items() if side != "tenants" or tenants_too}
    return [name for name, side in wanted.items() if (name, *places[side]) not in there]


def _table(mapping: SourceMapping, side: str) -> sql.Composable:
    return {"v1": mapping.configurations.relation, "v2": V2, "tenants": mapping.tenants.relation}[side]


async def _in_place(connection: Connection) -> list[dict[str, Any]]:
    return await every(connection, statement("mirror", "triggers_in_place"))
