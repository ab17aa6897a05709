"""The move from end to end: backup, validate, configurations, calls and metrics, verify.

A kill or a lost connection leaves the run open, and the next ``migrate`` goes on from its cursors. Only a
failed verification undoes, and then exactly what the run wrote.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from relevo import events
from relevo.clock import Clock, system_clock
from relevo.db import migrations
from relevo.db.lease import lease
from relevo.db.pool import Database, one
from relevo.db.statements import statement
from relevo.migration import mirror, overrides, preflight, rehearsal, runs
from relevo.migration.mapping import DEFAULT, SourceMapping
from relevo.migration.retired import refuse_deprecated
from relevo.migration.run import MoveResult, Options, Work
from relevo.migration.steps import backup, calls, copy, verify

STEPS = ("Backup", "Validate", "Configurations", "Calls and metrics", "Verify")
LEASE = "migrate"


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
    await refuse_deprecated(database)
    preflight.refuse_blocked(await preflight.structure(database, mapping))
    await preflight.require_tenants(database, mapping, options.tenant_ids)
    if options.dry_run:
        result = await rehearsal.rehearse(database, options, mapping, emit)
    else:
        result = await _run(database, options, mapping, runs.Who(actor, reason), clock, emit)
    result.duration_seconds = round(time.monotonic() - began, 3)
    return result


async def abandon(
    database: Database,
    *,
    actor: str,
    reason: str | None = None,
    mapping: SourceMapping = DEFAULT,
    clock: Clock = system_clock,
    emit: events.Sink = events.silent,
) -> MoveResult:
    """Give up the open run: all that it wrote is taken back, its backup stays. Raises UnknownName where none is open,
    LeaseHeld while somebody works on it."""
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
    async with lease(database, LEASE) as held:
        run = await runs.opened(database)
        result = MoveResult(run_id=run.id, backup_id=run.backup_id, errors=[f"given up by {actor}"], undone=True)
        await runs.end(Work(database, mapping, run, held, clock, emit), runs.Who(actor, reason), result)
    return result


async def _run(
    database: Database, options: Options, mapping: SourceMapping, who: runs.Who, clock: Clock, emit: events.Sink
) -> MoveResult:
    tables = overrides.read(options.overrides) if options.overrides else {}
    if options.resume is not None:  # a run to resume has had the schema; where it is missing, nothing is made
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
    await migrations.up(database)
    decided = await overrides.check(database, mapping, tables)
    async with lease(database, LEASE) as held:
        findings = await _look(database, mapping, options)
        run = await runs.begin(database, held, options, decided, who, clock, emit)
        return await _move(Work(database, mapping, run, held, clock, emit), who, findings)


async def _look(database: Database, mapping: SourceMapping, options: Options) -> list[preflight.Finding]:
    """What is wrong with the rows. Raises Refused for what blocks, before anything is written."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        findings = await preflight.rows(connection, mapping, tenant_ids=options.tenant_ids)
    preflight.refuse_blocked(findings)
    return findings


async def _move(work: Work, who: runs.Who, findings: list[preflight.Finding]) -> MoveResult:
    result = MoveResult(run_id=work.run.id)
    announce = _announcer(work.emit)
    announce()
    await _backup(work, who, result)
    announce()
    await _validate(work, findings)
    announce()
    await mirror.install(work.database, work.mapping, who, work.clock, emit=work.emit)
    await _configurations(work, result)
    announce()
    await _calls(work, result)
    announce()
    await _verify(work, who, result)
    return result


async def _backup(work: Work, who: runs.Who, result: MoveResult) -> None:
    if work.run.skip_backup:
        work.emit(events.Note("backup skipped: the data cannot be restored from here", warning=True))
        return
    result.backup_id = await backup.run(work, actor=who.actor, reason=who.reason)
    work.emit(events.StepFinished(f"backup {result.backup_id}, read back and verified"))


async def _validate(work: Work, findings: list[preflight.Finding]) -> None:
    """Tell and keep what was found; it was looked for before anything was written."""
    for finding in findings:
        work.emit(events.Note(finding.message, warning=finding.severity != "notice"))
    async with work.database.transaction() as connection:
        found = {finding.code: finding.count for finding in findings}
        await work.save(connection, "validate", {"found": found}, finished=True)
    work.emit(events.StepFinished(_in_short(findings)))


async def _configurations(work: Work, result: MoveResult) -> None:
    counts = await copy.run(work)
    result.migrated_configs, result.skipped_configs = counts.migrated, counts.skipped
    result.quarantined_configs = counts.quarantined
    work.emit(
        events.StepFinished(
            f"{counts.migrated:,} migrated, {counts.skipped:,} already there, {counts.quarantined:,} set aside"
        )
    )


async def _calls(work: Work, result: MoveResult) -> None:
    if work.run.config_ids is not None:
        work.emit(events.StepFinished("not asked for: the run is for some configurations only"))
        return
    done = await calls.run(work)
    result.updated_calls, result.metrics_businesses = done.updated_calls, done.metrics_businesses
    result.refused_outcomes = done.refused_outcomes
    if done.refused_outcomes:
        words = f"calls left without an outcome, because their table refuses it: {done.refused_outcomes:,}"
        work.emit(events.Note(words, warning=True))
    work.emit(
        events.StepFinished(
            f"{done.updated_calls:,} calls given an outcome, figures of {done.metrics_businesses:,} businesses"
        )
    )


async def _verify(work: Work, who: runs.Who, result: MoveResult) -> None:
    _, waiting = await mirror.repair(work.database, who, work.clock, emit=work.emit)
    for each in waiting:
        work.emit(
            events.Note(f"a write made meanwhile could not be mirrored and waits for repair: {each}", warning=True)
        )
    verdict = await verify.run(
        work.database,
        work.mapping,
        tenant_ids=work.run.tenant_ids,
        config_ids=work.run.config_ids,
        emit=work.emit,
        metrics=work.run.config_ids is None,
        clock=work.clock,
    )
    async with work.database.transaction(read_only=True) as connection:
        result.review_configs = (await one(connection, statement("migration", "review_count"), work.scope))["many"]
    result.success, result.errors = verdict.move_success, verdict.errors
    result.undone = not result.success
    await runs.end(work, who, result)
    work.emit(
        events.StepFinished(f"{verdict.matched:,} of {verdict.checked:,} match, {verdict.quarantined:,} set aside")
        if result.success
        else events.Note(f"verification failed ({len(verdict.errors)} errors); the run was undone", warning=True)
    )


def _announcer(emit: events.Sink) -> Callable[[], None]:
    numbers = iter(enumerate(STEPS, start=1))

    def announce() -> None:
        number, title = next(numbers)
        emit(events.StepStarted(number, len(STEPS), title))

    return announce


def _in_short(findings: Sequence[preflight.Finding]) -> str:
    count = Counter(finding.severity for finding in findings)
    return f"{count['warning']} warnings, {count['notice']} notices, no blockers"
