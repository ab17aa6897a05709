"""The checklist in the database: what the machine finds is ticked, what people know is signed, what is late is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg

from relevo.alerts import incidents
from relevo.alerts.incident import Step
from relevo.alerts.thresholds import Finding
from relevo.clock import Clock
from relevo.comms import clients
from relevo.comms.notices import notice_of
from relevo.db.lease import lease
from relevo.db.pool import Connection, Database, every, first, one
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, Refused, RelevoError, UnknownName, UsageError, nearest
from relevo.metrics.reading import health
from relevo.metrics.window import Window
from relevo.report import checklist
from relevo.report.checklist import BY_NAME, DUE_AFTER, WINDOW, Done, Facts, Line, Mails, TestCall, Wanted

MACHINE = "relevo"
LEASE = "checklist"
EVERY_S = 300.0
_AGAIN_AFTER_S = 5.0
_LONGEST_NAME, _LONGEST_NOTE = 200, 2000


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the checklist stands."""

    rollout_id: int
    completed_at: datetime
    lines: list[Line]


async def look(connection: Connection, now: datetime) -> Standing | None:
    """Where each item stands, those ticked that hold now, in the transaction on this connection. None where nobody has
    completed a rollout, or it was taken back."""
    rollout = await first(connection, statement("checklist", "completed"))
    if rollout is None:
        return None
    known = await facts(connection, rollout["finished_at"], now)
    done = await _done(connection, rollout["id"])
    for item, evidence in checklist.to_tick(known, done).items():
        ticked = await _write(connection, rollout["id"], item, now, MACHINE, None, evidence, MACHINE, None)
        done |= ticked
    return Standing(rollout["id"], rollout["finished_at"], checklist.stand(known, done))


async def sign(
    connection: Connection, item: str, now: datetime, *, name: str, note: str, actor: str, reason: str | None
) -> Done:
    """Say that an item is done, which only people can know.

    Raises UnknownName for no such item, UsageError for one that the machine checks and for an empty name or note,
    Refused where no rollout is complete or it was signed before.
    """
    if item not in BY_NAME:
        raise UnknownName(f"there is no item {item!r}.{nearest(item, BY_NAME)}", fix="see them: relevo checklist")
    if BY_NAME[item].check is not None:
        raise UsageError(f"{item} is checked by Relevo, and not signed", fix="see what it lacks: relevo checklist")
    for what, said, longest in (("name", name, _LONGEST_NAME), ("note", note, _LONGEST_NOTE)):
        if not said.strip() or len(said) > longest:
            raise UsageError(f"--{what} is empty or over {longest:,} characters", fix=f"give --{what} TEXT")
    if name.strip().lower() == MACHINE:
        raise UsageError("that name is the machine's", fix="sign with your own")
    rollout = await first(connection, statement("checklist", "completed"))
    if rollout is None:
        raise Refused("no rollout is complete, so there is nothing to sign yet", fix="see: relevo rollout status")
    signed = await _write(connection, rollout["id"], item, now, name.strip(), note.strip(), None, actor, reason)
    if item not in signed:
        before = (await _done(connection, rollout["id"]))[item]
        raise Refused(f"{item} was signed by {before.name} at {before.at:%Y-%m-%d %H:%M}", fix="there is nothing to do")
    return signed[item]


async def facts(connection: Connection, completed_at: datetime, now: datetime) -> Facts:
    """What the machine can know of now."""
    since = max(completed_at, now - WINDOW)
    stages = {row["stage"]: row["done_at"] for row in await every(connection, statement("checklist", "stages"))}
    breakers = await every(connection, statement("checklist", "breakers_open"), {"v1_retired": "flags" in stages})
    logged = await every(connection, statement("checklist", "logged"), {"since": since})
    lines = await every(connection, statement("checklist", "lines"))
    calls = await every(connection, statement("checklist", "test_calls"), {"since": completed_at})
    call_names = tuple(TestCall.__dataclass_fields__)
    return Facts(
        now=now,
        completed_at=completed_at,
        v2=(await health(connection, Window.between(since, now, now)))["v2"],
        incidents=[row["title"] for row in await every(connection, statement("checklist", "wrong"))],
        open_breakers=[f"{row['version']} {row['upstream'] or 'built in'}: {row['state']}" for row in breakers],
        logged_errors={row["event"]: row["errors"] for row in logged},
        servers=(await one(connection, statement("checklist", "servers"), {"now": now}))["servers"],
        wanted=[Wanted(row["vertical"], row["outcome"], row["transfers"]) for row in lines],
        calls=[TestCall(**{name: row[name] for name in call_names}) for row in calls],
        mails=await _mails(connection),
        backups=(await one(connection, statement("checklist", "backups")))["backups"],
        stages=stages,
    )


async def remind(database: Database, now: datetime) -> dict[str, Step]:
    """Tick what holds, and open, keep or close an incident for each stage with items that are late; by its cause, what
    was done."""
    async with database.transaction() as connection:
        standing = await look(connection, now)
        found = [_finding(stage, standing) for stage in DUE_AFTER]
        return {each.cause: await incidents.note(connection, each, now) for each in found}


async def keep_reminding(database: Database, clock: Clock, *, every_s: float = EVERY_S) -> None:
    """Do so for as long as this task is not cancelled; of several processes one does, and a database that is away is
    asked again."""
    while True:
        with contextlib.suppress(LeaseHeld, RelevoError, psycopg.Error):
            async with lease(database, LEASE):
                while True:
                    await remind(database, clock())
                    await asyncio.sleep(every_s)
        await asyncio.sleep(min(_AGAIN_AFTER_S, every_s))


def _finding(stage: str, standing: Standing | None) -> Finding:
    late = [line for line in standing.lines if line.overdue and line.item.stage == stage] if standing else []
    cause = f"checklist.{stage}"
    if not late:
        return Finding(cause, "healthy")
    names = ", ".join(line.item.name for line in late)
    return Finding(
        cause,
        "warning",
        f"Voice Agent V2: checklist of {stage.replace('_', ' ')} is overdue",
        f"{len(late)} items are not done: {names}",
        "relevo checklist",
        {"items": [line.item.name for line in late], "due_at": late[0].due_at.isoformat()},
    )


async def _mails(connection: Connection) -> Mails | None:
    try:
        planned = await clients.plan(connection, notice_of("client_complete"), None)
    except Refused:
        return None
    why = [client.why_not or "" for client in planned.left_out]
    unreachable = sum(each.startswith("has ") for each in why)
    return Mails(why.count("was told already"), why.count("is being told"), len(planned.to), unreachable)


async def _done(connection: Connection, rollout_id: int) -> dict[str, Done]:
    rows = await every(connection, statement("checklist", "done"), {"rollout_id": rollout_id})
    return {row["item"]: Done(row["at"], row["name"], row["note"], row["evidence"]) for row in rows}


async def _write(
    connection: Connection,
    rollout_id: int,
    item: str,
    now: datetime,
    name: str,
    note: str | None,
    evidence: str | None,
    actor: str,
    reason: str | None,
) -> Mapping[str, Done]:
    values = {"rollout_id": rollout_id, "item": item, "now": now, "name": name, "note": note, "evidence": evidence}
    row = await first(connection, statement("checklist", "sign"), {**values, "actor": actor, "reason": reason})
    return {} if row is None else {item: Done(row["at"], row["name"], row["note"], row["evidence"])}
