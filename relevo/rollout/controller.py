"""One tick of the rollout: measure, judge, decide, and act where the rollout is still as it was seen.

Any number of processes may tick; who acts holds the lease, and its token is asked for in the acting transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from relevo.alerts.incidents import note
from relevo.alerts.thresholds import Finding
from relevo.clock import Clock
from relevo.db.lease import Lease, lease
from relevo.db.pool import Connection, Database, first, one
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, RelevoError, SomebodyWasFaster
from relevo.flags.evaluate import Flag
from relevo.flags.writing import Author, flag_of
from relevo.rollout.evidence import gather, whole_minute
from relevo.rollout.gate import Evaluation, judge, unmeasured
from relevo.rollout.moving import (
    CONTROLLER,
    Rollout,
    act,
    columns,
    frozen_for,
    move,
    open_rollout,
    phase_with_fewer,
    rollout_of,
)
from relevo.rollout.state import Move, decide, within

LEASE = "rollout"
TICK_S = 10.0
TOLD_APART = 2_000
"""Tenants on v2 up to which one of them may be the trouble of all."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick came to."""

    rollout: Rollout  # as it was seen
    evaluation: Evaluation
    move: Move | None  # what was done; None: nothing was to be done


async def tick(database: Database, now: datetime, held: Lease | None = None) -> Ticked | None:
    """Look once, and act on it; None when no rollout runs.

    ``held``: what is done counts only while this lease is ours. Raises LeaseLost, and SomebodyWasFaster where the
    rollout or the flag changed in between; then nothing was done.
    """
    async with database.transaction(read_only=True, snapshot=True) as connection:
        rollout = await open_rollout(connection)
        if rollout is None:
            return None
        flag = flag_of(await first(connection, statement("rollout", "flag")))
        frozen_until = await frozen_for(connection, rollout, now)
        behind = await one(connection, statement("rollout", "behind"), {"version": rollout.standing.flag_version})
    rollout = await _by_this_clock(database, rollout, now, held)
    said = await evaluate(database, rollout, flag, now)
    chosen = decide(
        rollout.standing,
        said,
        now,
        reached=behind["behind"] == 0,
        frozen_until=frozen_until,
        back_to=await _back_to(database, rollout) if said.level == 2 else None,
    )
    await _act(database, rollout, flag, said, chosen, now, held)
    return Ticked(rollout, said, chosen)


async def _back_to(database: Database, rollout: Rollout) -> int | None:
    async with database.transaction(read_only=True) as connection:
        return await phase_with_fewer(connection, rollout)


async def _by_this_clock(database: Database, rollout: Rollout, now: datetime, held: Lease | None) -> Rollout:
    """The rollout with no time further ahead than it can be, written down where a clock that ran ahead had set one."""
    phase, soonest = rollout.phase, whole_minute(now)
    right = replace(
        rollout,
        standing=within(rollout.standing, now, phase.min_hold, phase.max_hold, phase.every),
        judged_from=min(rollout.judged_from, soonest),
        gathered_from=min(rollout.gathered_from, soonest),
    )
    if right == rollout:
        return rollout
    async with database.transaction() as connection:
        if held is not None:
            await held.hold(connection)
        row = await first(connection, statement("rollout", "set_right"), {**columns(right), "actor": CONTROLLER})
        if row is None:
            raise SomebodyWasFaster("the rollout was changed meanwhile", fix="the next tick looks again")
    return rollout_of(row)


async def evaluate(
    database: Database, rollout: Rollout, flag: Flag, now: datetime, *, whole: bool = False
) -> Evaluation:
    """The verdict now; ``error`` where the figures cannot be read. ``whole``: each tenant's figures too, which are
    otherwise read only when something is wrong; and never of more tenants than one of them could weigh among."""
    few = not flag.percentage and len(flag.enabled_tenants) <= TOLD_APART
    try:
        said = await _judge(database, rollout, flag if whole and few else None, now)
        if said.level is not None and few and not whole:
            said = await _judge(database, rollout, flag, now)
    except (psycopg.Error, RelevoError, TimeoutError) as error:
        return unmeasured(str(error).strip().splitlines()[0])
    return said


async def keep_ticking(
    database: Database, clock: Clock, *, every_s: float = TICK_S, told: Callable[[Ticked], None] = lambda _: None
) -> None:
    """Tick for as long as this task is not cancelled and the work is ours; another process that does it is waited
    for, and a database that is away is asked again."""
    while True:
        with contextlib.suppress(LeaseHeld, RelevoError, psycopg.Error):
            async with lease(database, LEASE) as held:
                while True:
                    with contextlib.suppress(SomebodyWasFaster):
                        ticked = await tick(database, clock(), held)
                        if ticked is not None:
                            told(ticked)
                    await watch(database, clock(), held)
                    await asyncio.sleep(every_s)
        await asyncio.sleep(every_s)


async def watch(database: Database, now: datetime, held: Lease | None = None) -> None:
    """Open and resolve incidents by where the rollout stands; v2's figures are relevo.alerts.watching's business."""
    async with database.transaction() as connection:
        if held is not None:
            await held.hold(connection)
        rollout = await open_rollout(connection)
        for finding in findings(rollout):
            await note(connection, finding, now)


def findings(rollout: Rollout | None) -> tuple[Finding, Finding]:
    """What somebody must hear of where the rollout stands."""
    degraded, waits = Finding("rollout.degraded", "healthy"), Finding("rollout.waits", "healthy")
    if rollout is None:
        return degraded, waits
    where = f"Phase {rollout.phase.name} of rollout {rollout.id}"
    if rollout.standing.state == "Degraded":
        message = f"{where} fails, and v2 is not shown to be worse than v1: nobody was moved"
        action = "See: relevo rollout evaluate"
        degraded = Finding("rollout.degraded", "critical", "Voice Agent V2: Degraded", message, action)
    if rollout.standing.cause == "max_hold":
        message = f"{where} had its longest hold without a pass: a human decides"
        waits = Finding("rollout.waits", "warning", "Voice Agent V2: Rollout Waits For You", message)
    return degraded, waits


async def _judge(database: Database, rollout: Rollout, flag: Flag | None, now: datetime) -> Evaluation:
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await connection.execute(statement("rollout", "by_index"))
        evidence = await gather(
            connection,
            judged_from=rollout.judged_from,
            gathered_from=rollout.gathered_from,
            started_at=rollout.started_at,
            on_v2=None if flag is None else flag.enabled_tenants,
            now=now,
        )
    return judge(rollout.phase, rollout.plan.limits, evidence)


async def _act(
    database: Database,
    rollout: Rollout,
    flag: Flag,
    said: Evaluation,
    chosen: Move | None,
    now: datetime,
    held: Lease | None,
) -> None:
    """Store the evaluation where it is due or new, and do what was decided, all or nothing."""
    due = rollout.standing.due_at is not None and now >= rollout.standing.due_at
    async with database.transaction() as connection:
        if held is not None:
            await held.hold(connection)
        author = Author(CONTROLLER, chosen.why if chosen else None)
        if chosen is not None and (await act(connection, author)).version != flag.version:
            raise SomebodyWasFaster("the flag was changed meanwhile", fix="nothing was done; the next tick looks again")
        if chosen is not None or due or await _is_news(connection, rollout, said):
            rollout = await store(connection, rollout, said, flag.version, now, due=due)
        if chosen is None:
            return
        await move(connection, rollout, chosen.event, now, author, phase=chosen.phase, tenant=chosen.tenant)


async def _is_news(connection: Connection, rollout: Rollout, said: Evaluation) -> bool:
    last = await first(connection, statement("rollout", "last_evaluation"), {"id": rollout.id})
    return last is None or (last["verdict"], last["level"], last["phase"]) != (
        said.verdict,
        said.level,
        rollout.standing.phase,
    )


async def store(
    connection: Connection, rollout: Rollout, said: Evaluation, flag_version: int, now: datetime, *, due: bool
) -> Rollout:
    """Write an evaluation down, whole; returns the rollout as it is then. Raises SomebodyWasFaster."""
    next_at = now + rollout.phase.every if due else rollout.standing.due_at
    stored = await first(
        connection,
        statement("rollout", "looked"),
        {
            "id": rollout.id,
            "revision": rollout.revision,
            "phase": rollout.standing.phase,
            "due_at": next_at,
            "now": now,
            "verdict": said.verdict,
            "level": said.level,
            "flag_version": flag_version,
            "details": Jsonb(as_json(said)),
        },
    )
    if stored is None:
        raise SomebodyWasFaster("the rollout was changed meanwhile", fix="nothing was done; the next tick looks again")
    return replace(rollout, revision=rollout.revision + 1, standing=replace(rollout.standing, due_at=next_at))


def as_json(said: Evaluation) -> dict[str, Any]:
    """An evaluation as it is stored and shown to machines."""
    findings = [
        asdict(each) | {"interval": each.interval and list(each.interval), "limit_met": each.grade == "go"}
        for each in said.findings
    ]
    return asdict(said) | {"findings": findings}
