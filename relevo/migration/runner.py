"""The move from end to end: backup, validate, configurations, calls and metrics, verify.

A kill or a lost connection leaves the run open, and the next ``migrate`` goes on from its cursors. Only a
failed verification undoes, and then exactly what the run wrote.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from relevo import events
from relevo.clock import Clock, system_clock
from relevo.db import migrations
from relevo.db.lease import Lease, lease
from relevo.db.pool import Database, first, one
from relevo.db.statements import statement
from relevo.errors import Refused, UnknownName
from relevo.migration import preflight, rehearsal
from relevo.migration.mapping import DEFAULT, SourceMapping
from relevo.migration.run import MoveResult, Options, Run, Work, audit
from relevo.migration.steps import backup, calls, copy, verify

STEPS = ("Backup", "Validate", "Configurations", "Calls and metrics", "Verify")
LEASE = "migrate"


@dataclass(frozen=True, slots=True)
class _Who:
    actor: str
    reason: str | None


async def migrate(
    database: Database,
    options: Options,
    *,
    actor: str,
    reason: str | None = None,
    mapping: SourceMapping = DEFAULT,
    clock: Clock = system_clock,
    emit: events.Sink = events.silent,
) -> MoveResult:
    """Do, resume or rehearse the move.

    Raises Refused when a blocker stands in the way or another migrator works, UnknownName for a tenant or run
    that does not exist. A failed verification is a result, not an error.
    """
    began = time.monotonic()
    preflight.refuse_blocked(await preflight.structure(database, mapping))
    await preflight.require_tenants(database, mapping, options.tenant_ids)
    if options.dry_run:
        result = await rehearsal.rehearse(database, options, mapping, emit)
    else:
        await migrations.up(database)
        async with lease(database, LEASE) as held:
            who = _Who(actor, reason)
            run = await _open(database, held, options, who, clock, emit)
            result = await _move(Work(database, mapping, run, held, clock, emit), who)
    result.duration_seconds = round(time.monotonic() - began, 3)
    return result


async def _open(database: Database, held: Lease, options: Options, who: _Who, clock: Clock, emit: events.Sink) -> Run:
    """The interrupted run, if there is one, else a new one."""
    async with database.transaction() as connection:
        await held.hold(connection)
        row = await first(connection, statement("migration", "open_run"))
        if row is None and options.resume is not None:
            raise UnknownName(f"run {options.resume} is not open", fix="leave --resume out to start a new run")
        if row is not None:
            _require_same(row, options)
            action = "migration.resume"
            emit(events.Note(f"resuming run {row['id']}, begun {row['started_at']:%Y-%m-%d %H:%M} UTC"))
        else:
            row = await one(
                connection,
                statement("migration", "start_run"),
                {
                    "now": clock(),
                    "actor": who.actor,
                    "reason": who.reason,
                    "tenant_ids": list(options.tenant_ids) if options.tenant_ids is not None else None,
                    "batch_size": options.batch_size,
                    "skip_backup": options.skip_backup,
                },
            )
            action = "migration.start"
        await audit(connection, actor=who.actor, action=action, subject=row["id"], reason=who.reason)
    return Run(**row)


def _require_same(row: dict[str, Any], options: Options) -> None:
    """An open run is finished as it was begun."""
    if options.resume is not None and options.resume != row["id"]:
        raise UnknownName(
            f"run {options.resume} is not open; {row['id']} is", fix=f"relevo migrate --resume {row['id']}"
        )
    asked = sorted(options.tenant_ids) if options.tenant_ids is not None else None
    begun = sorted(row["tenant_ids"]) if row["tenant_ids"] is not None else None
    if options.resume is None and asked != begun:
        raise Refused(
            f"run {row['id']} is open and was begun for other tenants",
            fix=f"finish it first: relevo migrate --resume {row['id']}",
        )


async def _move(work: Work, who: _Who) -> MoveResult:
    result = MoveResult(run_id=work.run.id)
    announce = _announcer(work.emit)

    announce()
    if work.run.skip_backup:
        work.emit(events.Note("backup skipped: the data cannot be restored from here", warning=True))
    else:
        result.backup_id = await backup.run(work, actor=who.actor, reason=who.reason)
        work.emit(events.StepFinished(f"backup {result.backup_id}, read back and verified"))

    announce()
    findings = await _validate(work)
    work.emit(events.StepFinished(_in_short(findings)))

    announce()
    counts = await copy.run(work)
    result.migrated_configs, result.skipped_configs = counts.migrated, counts.skipped
    result.quarantined_configs = counts.quarantined
    work.emit(
        events.StepFinished(
            f"{counts.migrated:,} migrated, {counts.skipped:,} already there, {counts.quarantined:,} set aside"
        )
    )

    announce()
    done = await calls.run(work)
    result.updated_calls, result.metrics_businesses = done["updated_calls"], done["metrics_businesses"]
    work.emit(
        events.StepFinished(
            f"{result.updated_calls:,} calls given an outcome, figures of {result.metrics_businesses:,} businesses"
        )
    )

    announce()
    verdict = await verify.run(
        work.database, work.mapping, tenant_ids=work.run.tenant_ids, emit=work.emit, metrics=True
    )
    result.review_configs = await _review_count(work)
    result.success, result.errors, result.undone = verdict.success, verdict.errors, not verdict.success
    await _close(work, who, result)
    work.emit(
        events.StepFinished(f"{verdict.matched:,} of {verdict.checked:,} match, {verdict.quarantined:,} set aside")
        if verdict.success
        else events.Note(f"verification failed ({len(verdict.errors)} errors); the run was undone", warning=True)
    )
    return result


async def _validate(work: Work) -> list[preflight.Finding]:
    async with work.database.transaction(read_only=True, snapshot=True) as connection:
        findings = await preflight.rows(connection, work.mapping, tenant_ids=work.run.tenant_ids)
    for finding in findings:
        work.emit(events.Note(finding.message, warning=finding.severity != "notice"))
    preflight.refuse_blocked(findings)
    async with work.database.transaction() as connection:
        found = {finding.code: finding.count for finding in findings}
        await work.save(connection, "validate", {"found": found}, finished=True)
    return findings


async def _close(work: Work, who: _Who, result: MoveResult) -> None:
    """End the run, in one transaction with what ending means: undone, or its notes dropped."""
    async with work.database.transaction() as connection:
        await work.lease.hold(connection)
        run_id = {"run_id": work.run.id}
        if result.success:
            await connection.execute(statement("migration", "forget_touched_calls"), run_id)
        else:
            source = work.mapping.calls
            for name in ("undo_metrics", "undo_configurations", "undo_quarantine", "undo_types"):
                await connection.execute(statement("migration", name), run_id)
            query = statement("migration", "undo_calls", calls_table=source.relation, id=source.read("id"))
            await connection.execute(query, run_id)
            await connection.execute(statement("migration", "forget_touched_calls"), run_id)
        summary = {
            "success": result.success,
            "migrated_configs": result.migrated_configs,
            "quarantined_configs": result.quarantined_configs,
            "updated_calls": result.updated_calls,
            "errors": result.errors[:10],
        }
        state = "succeeded" if result.success else "undone"
        await connection.execute(
            statement("migration", "finish_run"),
            {**run_id, "state": state, "now": work.clock(), "result": Jsonb(summary)},
        )
        await audit(connection, actor=who.actor, action=f"migration.{state}", subject=work.run.id, details=summary)


async def _review_count(work: Work) -> int:
    """Configurations in scope that a person should look at before they go live."""
    async with work.database.transaction(read_only=True) as connection:
        return int((await one(connection, statement("migration", "review_count"), work.scope))["many"])


def _announcer(emit: events.Sink) -> Callable[[], None]:
    numbers = iter(enumerate(STEPS, start=1))

    def announce() -> None:
        number, title = next(numbers)
        emit(events.StepStarted(number, len(STEPS), title))

    return announce


def _in_short(findings: Sequence[preflight.Finding]) -> str:
    count = Counter(finding.severity for finding in findings)
    return f"{count['warning']} warnings, {count['notice']} notices, no blockers"
