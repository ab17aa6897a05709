"""The cleanup in the database: what stands in its way, what a stage would touch, doing it, and taking it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from relevo import events
from relevo.cleanup.stages import Stage, World
from relevo.cleanup.steps import STEPS, Place, Work, table_of, take_writes_again
from relevo.clock import Clock
from relevo.db import migrations
from relevo.db.patience import patiently
from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement
from relevo.errors import Refused, UsageError
from relevo.migration import mirror
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import audit
from relevo.migration.runs import Who
from relevo.report import ticking

BACKUPS_KEPT = timedelta(days=28)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage would do, or did."""

    stage: str
    means: str
    done_at: datetime | None  # None: not done
    blockers: list[str]
    objects: list[str]  # all that is touched, a line each
    notes: list[str]
    details: Mapping[str, Any] = field(default_factory=dict)  # of one that is done


async def plan(
    database: Database, mapping: SourceMapping, stage: Stage, clock: Clock, *, kept: timedelta = BACKUPS_KEPT
) -> Plan:
    """What stands in a stage's way, and all that it would touch. What the checklist finds to hold is ticked."""
    async with database.transaction() as connection:
        await migrations.require(connection)
        return await _plan(connection, _place(mapping), stage, clock(), kept)


async def do(
    database: Database,
    mapping: SourceMapping,
    stage: Stage,
    who: Who,
    clock: Clock,
    *,
    file: Path | None = None,
    export_url: str | None = None,
    kept: timedelta = BACKUPS_KEPT,
    emit: events.Sink = events.silent,
) -> Plan:
    """Do a stage, in one transaction. ``file``: where the final backup goes that stage drop exports, by ``export_url``
    (None: the database's own); ``kept``: younger backups stay.

    Raises Refused with the first of what stands in its way, UsageError where stage drop is given no file, MoveFailed
    where the export does not hold what is in the tables; then nothing was changed.
    """
    if stage.name == "drop" and file is None:
        raise UsageError("the final backup needs a file", fix="name one that is kept: --archive FILE")
    async for attempt in patiently(emit, "a table of v1 is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                await migrations.require(connection)
                await connection.execute(statement("cleanup", "hold_stages"), {})
                planned = await _plan(connection, _place(mapping), stage, clock(), kept)
                if planned.done_at is not None:
                    raise Refused(f"stage {stage.name} is done since {planned.done_at:%Y-%m-%d %H:%M}", fix=_SEE)
                if planned.blockers:
                    more = f" (and {len(planned.blockers) - 1} more)" if len(planned.blockers) > 1 else ""
                    raise Refused(f"stage {stage.name}: {planned.blockers[0]}{more}", fix=_SEE)
                work = Work(connection, _place(mapping), clock(), kept, file, export_url or database.url)
                details = await STEPS[stage.name](work)
                await _record(connection, stage, who, clock(), planned, details)
    return Plan(stage.name, stage.means, clock(), [], planned.objects, planned.notes, details)


_SEE = "see: relevo cleanup"


async def undo(
    database: Database,
    mapping: SourceMapping,
    stage: Stage,
    who: Who,
    clock: Clock,
    *,
    emit: events.Sink = events.silent,
) -> list[str]:
    """Take a stage back, in one transaction; returns a line for each write of the time between that could not be
    brought to v1. Bringing them follows, one configuration a transaction: whoever is stopped there leaves them queued.

    Raises Refused for one that is not done, that cannot be taken back, or while a later one is done.
    """
    async for attempt in patiently(emit, "a table of v1 or v2 is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                await migrations.require(connection)
                await connection.execute(statement("cleanup", "hold_stages"), {})
                done = await _stages(connection)
                _refuse_undoing(stage, done)
                act = {"stage": stage.name, "actor": who.actor, "reason": who.reason}
                await connection.execute(statement("cleanup", "forget"), act)
                if stage.name == "deprecate":
                    await _let_v1_lead(connection, mapping, who, clock, done["deprecate"]["details"])
    if stage.name != "deprecate":
        return []
    _mended, failed = await mirror.repair(database, who, clock, emit=emit)
    return failed


def _refuse_undoing(stage: Stage, done: Mapping[str, Any]) -> None:
    if stage.undone_before is None:
        raise Refused(f"stage {stage.name} cannot be undone", fix="what it dropped is in the archive: pg_restore")
    if stage.name not in done:
        raise Refused(f"stage {stage.name} is not done", fix=_SEE)
    if stage.undone_before in done:
        raise Refused(
            f"stage {stage.undone_before} is done",
            fix=f"undo it first: relevo cleanup --stage {stage.undone_before} --undo",
        )


async def _let_v1_lead(
    connection: Connection, mapping: SourceMapping, who: Who, clock: Clock, details: Mapping[str, Any]
) -> None:
    """v1 takes writes, dual write is there, and what v2 has ahead of v1 is queued: at one commit, or v1 would be taken
    for the newer of the two wherever they differ."""
    await take_writes_again(connection, _place(mapping))
    await mirror.put_in_place(connection, mapping, who, clock)
    known = {"only_on_v1": details["only_on_v1"], "actor": who.actor}
    await connection.execute(statement("cleanup", "queue_edits"), known)


def _place(mapping: SourceMapping) -> Place:
    return Place(mapping.configurations.schema, mapping.configurations.table)


async def _stages(connection: Connection) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in await every(connection, statement("cleanup", "stages"))}


async def _plan(connection: Connection, place: Place, stage: Stage, now: datetime, kept: timedelta) -> Plan:
    done = await _stages(connection)
    if stage.name in done:
        row = done[stage.name]
        return Plan(stage.name, stage.means, row["done_at"], [], row["details"].get("objects", []), [], row["details"])
    objects, notes = await _touched(connection, place, stage, done, now - kept)
    world = await _world(connection, place, done, now, kept)
    return Plan(stage.name, stage.means, None, stage.blockers(world), objects, notes)


async def _world(
    connection: Connection, place: Place, done: Mapping[str, Any], now: datetime, kept: timedelta
) -> World:
    standing = await ticking.look(connection, now)
    facts = await one(connection, statement("cleanup", "standing"), {"now": now})
    deprecated = "deprecate" in done
    table = await table_of(connection, place, deprecated=deprecated)
    needed = []
    if table is not None:
        wanted = {"oid": table["oid"], "schema": place.schema, "view": place.name if deprecated else None}
        needed = [row["what"] for row in await every(connection, statement("cleanup", "needed_by"), wanted)]
    old = await every(connection, statement("cleanup", "backups_before"), {"before": now - kept})
    return World(
        now=now,
        completed_at=standing.completed_at if standing else None,
        items_done={line.item.name for line in standing.lines if line.state == "done"} if standing else set(),
        stages=set(done),
        for_all=facts["for_all"],
        on_v1=facts["on_v1"],
        v1_calls=facts["v1_calls"],
        waiting=facts["queued"] + facts["conflicts"],
        open_run=facts["open_run"] and str(facts["open_run"]),
        table_fault=_table_fault(place, table),
        needed_by=needed,
        backups=len(old),
    )


def _table_fault(place: Place, table: Mapping[str, Any] | None) -> str | None:
    named = f"{place.schema}.{place.name}"
    if table is None:
        return f"{named} is not there"
    if table["kind"] != "r":
        return f"{named} is no ordinary table; deprecate it by hand"
    if not table["ours"]:
        return f"{named} is another role's; run this as its owner"
    return f"{place.schema}.{place.kept} is there already; rename it" if table["other_is_taken"] else None


async def _touched(
    connection: Connection, place: Place, stage: Stage, done: Mapping[str, Any], before: datetime
) -> tuple[list[str], list[str]]:
    """Every object that a stage touches, a line each; and what is good to know."""
    old, new = f"{place.schema}.{place.name}", f"{place.schema}.{place.kept}"
    if stage.name == "flags":
        return [
            "flag voice_agent_v2: its row stays as it is, and takes no change any more",
            "v1's handlers, built in and upstream: not asked any more, neither as fallback",
        ], []
    if stage.name == "deprecate":
        triggers = [f"trigger {each}: dropped" for each in await mirror.triggers(connection)]
        return [
            *triggers,
            f"table {old}: renamed {new}, takes no writes",
            f"view {old}: made in its place; reads go through, with the table's grants",
        ], []
    if stage.name == "drop":
        table = await table_of(connection, place, deprecated="deprecate" in done)
        notes = await _reads(connection, table, done) if table else []
        return [
            f"table {new}: exported, then dropped",
            f"view {old}: says from then on that v1 was dropped",
            "relevo.config_origins: the archive of v1's prompts is exported, then emptied",
            "relevo.deleted_configs: exported, then emptied",
        ], notes
    backups = await every(connection, statement("cleanup", "backups_before"), {"before": before})
    return [
        f"backup {row['id']} of {row['created_at']:%Y-%m-%d %H:%M}: {len(row['contents'])} tables in relevo_backup"
        for row in backups
    ], []


async def _reads(connection: Connection, table: Mapping[str, Any], done: Mapping[str, Any]) -> list[str]:
    """How often v1's table was read since it is deprecated, by the server's own count."""
    if "deprecate" not in done:
        return []
    now = (await one(connection, statement("cleanup", "reads"), {"oid": table["oid"]}))["reads"]
    reads = max(now - done["deprecate"]["details"].get("reads", 0), 0)
    since = done["deprecate"]["done_at"]
    return [f"v1's table was read {reads:,} times since {since:%Y-%m-%d %H:%M}, by Relevo's own commands or by others"]


async def _record(
    connection: Connection, stage: Stage, who: Who, now: datetime, planned: Plan, details: Mapping[str, Any]
) -> None:
    """Backups may go in several sittings: the stage is done when none is left."""
    told = {**details, "objects": planned.objects}
    if stage.name == "backups" and (await one(connection, statement("cleanup", "backups_left")))["left"]:
        await audit(
            connection, actor=who.actor, action="cleanup.backups", subject="v1", reason=who.reason, details=told
        )
        return
    values = {"stage": stage.name, "now": now, "actor": who.actor, "reason": who.reason, "details": Jsonb(told)}
    await connection.execute(statement("cleanup", "record"), values)
