"""What people do with a rollout: start it, promote, pause, resume, skip, abort; and see what it would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from relevo.alerts.incidents import Incident, incidents
from relevo.clock import Clock
from relevo.db import migrations
from relevo.db.pool import Connection, Database, every, first, one
from relevo.db.statements import statement
from relevo.errors import Refused, SomebodyWasFaster
from relevo.events import Sink, silent
from relevo.flags.evaluate import Flag
from relevo.flags.writing import Author, flag_of
from relevo.metrics import reading
from relevo.metrics.health import Health
from relevo.metrics.history import backfill
from relevo.rollout import controller
from relevo.rollout import plan as plans
from relevo.rollout.cohort import Candidate, Line, line_up
from relevo.rollout.evidence import HISTORY, history, whole_minute, window_since
from relevo.rollout.gate import Evaluation, Grade, against_v1, grade
from relevo.rollout.moving import Rollout, act, frozen_for, last_rollout, move, open_rollout, rollout_of
from relevo.rollout.plan import METRICS, Metric, Phase, Plan
from relevo.rollout.sample import SLOW_SHARE, Sample
from relevo.rollout.state import Event, may
from relevo.rollout.statistics import calls_to_show

VOLUME_DAYS = 28


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One gate on v1's own history."""

    metric: Metric
    value: float | None
    go: float
    no_go: float
    grade: Grade


@dataclass(frozen=True, slots=True)
class Expected:
    """What a phase will see, at v1's present volume."""

    name: str
    wanted: int
    tenants: int
    joining: int
    calls_per_day: float
    calls_in_min_hold: float
    decides_after: timedelta | None  # when the gate can pass, without a single bad call; None: never
    in_time: bool  # before the longest hold is over


async def candidates(database: Database, source: Mapping[str, sql.Composable], now: datetime) -> list[Candidate]:
    """The tenants with an active configuration. ``source``: v1's tenants and calls, as the mapping gives them."""
    wanted = {"since": now - timedelta(days=VOLUME_DAYS), "until": now, "days": VOLUME_DAYS}
    fill = {name: source[name] for name in ("tenants", "calls")}
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        rows = await every(connection, statement("rollout", "candidates", **fill), wanted)
    return [Candidate(**row) for row in rows]


def expect(plan: Plan, line: Line) -> list[Expected]:
    """What each phase comes to, and when its gate can decide."""
    shown_before = 0.0  # evidence adds up over phases
    found = []
    for phase, step in zip(plan.phases, line.steps, strict=True):
        after = _decides_after(phase, plan, step.calls_per_day, shown_before)
        hold = phase.min_hold if after is None else max(phase.min_hold, after)
        shown_before += step.calls_per_day * (hold / timedelta(days=1))
        found.append(
            Expected(
                step.name,
                step.wanted,
                step.tenants,
                len(step.joining),
                step.calls_per_day,
                step.calls_per_day * (phase.min_hold / timedelta(days=1)),
                after,
                after is not None and after <= phase.max_hold,
            )
        )
    return found


def _decides_after(phase: Phase, plan: Plan, calls_per_day: float, shown_before: float) -> timedelta | None:
    """When the phase has the calls that it needs to pass, if none of them is bad."""
    needed = float(phase.min_calls)
    if phase.evidence:
        rates = [plan.limits[metric].no_go for metric in ("error_rate", "failed_call_rate")]
        needed = max(needed, max(calls_to_show(rate) for rate in (*rates, SLOW_SHARE)) - shown_before)
    if calls_per_day <= 0:
        return None
    return max(timedelta(minutes=ceil(1440 * needed / calls_per_day)), phase.min_hold)


async def rehearse(
    database: Database, plan: Plan, calls: sql.Composable, clock: Clock, *, emit: Sink = silent
) -> tuple[Plan, list[Rehearsed], Sample]:
    """The gates on v1's own history: the plan with its relative limits worked out, each metric, and what v1 had."""
    await backfill(database, calls, days=HISTORY.days + 1, clock=clock, emit=emit)
    async with database.transaction(read_only=True) as connection:
        v1 = await history(connection, clock())
    plan = replace(plan, limits=against_v1(plan.limits, v1))
    found = []
    for metric in METRICS:
        limit, value = plan.limits[metric], v1.value(metric)
        found.append(Rehearsed(metric, value, limit.go, limit.no_go, grade(metric, value, limit)))
    return plan, found, v1


async def start(
    database: Database,
    plan: Plan,
    source: Mapping[str, sql.Composable],
    author: Author,
    clock: Clock,
    *,
    force: bool,
    emit: Sink = silent,
) -> tuple[Rollout, Line, list[Rehearsed]]:
    """Begin: the canary's tenants go to v2.

    Raises Refused while one runs, while the flag puts somebody on v2 already, in a freeze, where v1 itself is No-Go
    (the last two unless ``force``), and where the canary does not fit.
    """
    now = clock()
    line = line_up(plan, await candidates(database, source, now))
    plan, rehearsed, _v1 = await rehearse(database, plan, source["calls"], clock, emit=emit)
    bad = [each.metric for each in rehearsed if each.grade == "no_go" and each.metric not in ("complaints",)]
    if bad and not force:
        raise Refused(
            f"v1 itself is No-Go in {', '.join(bad)}: such a gate would send every rollout back",
            fix="give limits relative to v1 in the plan (relative_to_v1 = 1.1), or --force",
        )
    async with database.transaction() as connection:
        zones = await every(connection, statement("rollout", "zones"), {"tenants": list(plan.named)})
        _refuse_freeze(plans.frozen_until(plan, now, [row["time_zone"] for row in zones]), force)
        flag = await act(connection, author)
        if await open_rollout(connection) is not None:
            raise Refused("a rollout runs already", fix="see: relevo rollout status; end it: relevo rollout abort")
        if flag.enabled_tenants or flag.percentage:
            raise Refused(
                f"the flag has {len(flag.enabled_tenants)} tenants and {flag.percentage} % on v2 already",
                fix="begin from nobody: relevo rollback --level total",
            )
        return rollout_of(await _begin(connection, plan, line, flag, author, now)), line, rehearsed


async def _begin(
    connection: Connection, plan: Plan, line: Line, flag: Flag, author: Author, now: datetime
) -> Mapping[str, Any]:
    begun = await one(
        connection,
        statement("rollout", "begin"),
        {
            "plan": plans.written(plan),
            "phases": len(plan.phases),
            "flag_version": flag.version + 1,
            "now": now,
            "judged_from": whole_minute(now),
            "actor": author.actor,
            "reason": author.reason,
            "details": Jsonb({"canary": list(plan.named)}),
        },
    )
    named = {"id": begun["id"], "now": now}
    phases = {
        "ordinals": list(range(len(plan.phases))),
        "names": [phase.name for phase in plan.phases],
        "percents": [None if phase.cohort == "named" else phase.percent for phase in plan.phases],
        "tenants": [step.tenants for step in line.steps],
    }
    await connection.execute(statement("rollout", "add_phases"), named | phases)
    order = {
        "tenants": [each.tenant.tenant_id for each in line.order],
        "phases": [each.phase for each in line.order],
        "whys": [each.why for each in line.order],
    }
    await connection.execute(statement("rollout", "add_cohort"), named | order)
    written = await one(connection, statement("rollout", "write_more"), {"id": begun["id"], "phase": 0})
    as_planned = written["percentage"] > 0 or len(written["enabled_tenants"]) == line.steps[0].tenants
    if written["version"] != flag.version + 1 or not as_planned:
        raise SomebodyWasFaster("a tenant of the first phase is not verified any more", fix="run: relevo verify")
    return begun


async def promote(database: Database, author: Author, now: datetime, *, force: bool, ahead: int = 1) -> Rollout:
    """Take the next phase; ``ahead`` phases on, at most the last.

    Raises Refused unless the gate passed and the hold is over; with ``force`` also before that, but never on a
    failed or failing gate.
    """
    rollout, flag = await _running(database)
    said = await controller.evaluate(database, rollout, flag, now)
    phase = min(rollout.standing.phase + ahead, len(rollout.plan.phases) - 1)
    event: Event = "force" if force else "promote"
    if rollout.standing.is_last:
        event = "finish"
    if force and said.verdict in ("fail", "error"):
        raise Refused(
            f"the gate says {said.verdict}: {said.why}", fix="no force goes over that; see: relevo rollout evaluate"
        )
    if not force and (rollout.standing.state != "Healthy" or said.verdict != "pass"):
        hold = rollout.standing.hold_until
        held = f"; the phase is held until {hold:%Y-%m-%d %H:%M} UTC" if hold and hold > now else ""
        raise Refused(
            f"the rollout is {rollout.standing.state} and the gate says {said.verdict}: {said.why}{held}",
            fix="wait, or take it with the numbers in front of you: --force --reason WHY",
        )
    _refuse_arrow(rollout, event)
    async with database.transaction() as connection:
        _refuse_freeze(await frozen_for(connection, rollout, now, ahead), force)
        await act(connection, author)
        stored = await controller.store(connection, rollout, said, flag.version, now, due=False)
        return await move(connection, stored, event, now, author, phase=phase)


async def change(database: Database, event: Event, author: Author, now: datetime) -> Rollout:
    """Pause, resume or abort. Raises Refused where the rollout's state has no such arrow, or none runs."""
    rollout, _flag = await _running(database)
    _refuse_arrow(rollout, event)
    async with database.transaction() as connection:
        return await move(connection, rollout, event, now, author)


async def evaluate(database: Database, now: datetime) -> tuple[Rollout, Evaluation]:
    """What the gate says right now, with every tenant's figures; stores nothing."""
    rollout, flag = await _running(database)
    return rollout, await controller.evaluate(database, rollout, flag, now, whole=True)


async def events(database: Database, most: int) -> tuple[Rollout | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """The newest rollout, its transitions and its evaluations, newest first."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        rollout = await last_rollout(connection)
        if rollout is None:
            return None, [], []
        wanted = {"id": rollout.id, "most": most}
        return (
            rollout,
            await every(connection, statement("rollout", "transitions"), wanted),
            await every(connection, statement("rollout", "evaluations"), wanted),
        )


@dataclass(frozen=True, slots=True)
class Status:
    """Where things stand right now."""

    rollout: Rollout | None  # the newest; None: there never was one
    flag: Flag
    total_tenants: int  # with an active configuration
    tenants_on_v2: int  # of them, by the flag's row
    readers: int  # processes that answer by the flag
    behind: int  # of them, by an older version than was asked for
    health: Mapping[str, Health]  # since the cohort last changed; the last day where no rollout runs
    last: Mapping[str, Any] | None  # the last stored evaluation
    alerts: Sequence[Incident]  # that last


async def status(database: Database, now: datetime) -> Status:
    """Where the rollout stands."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        rollout = await last_rollout(connection)
        flag = flag_of(await first(connection, statement("rollout", "flag")))
        tenants = await one(connection, statement("rollout", "standing_tenants"))
        runs = rollout is not None and rollout.finished_at is None
        since = rollout.judged_from if rollout is not None and runs else now - timedelta(days=1)
        version = rollout.standing.flag_version if rollout is not None and runs else flag.version
        readers = await one(connection, statement("rollout", "behind"), {"version": version})
        health = await reading.health(connection, window_since(since, now))
        last = None
        if rollout is not None:
            last = await first(connection, statement("rollout", "last_evaluation"), {"id": rollout.id})
        alerts = await incidents(connection)
    counted = (tenants["total"], tenants["on_v2"], readers["readers"], readers["behind"])
    return Status(rollout, flag, *counted, health, last, alerts)


async def phases(database: Database, rollout: Rollout) -> Sequence[Mapping[str, Any]]:
    """Each phase with when it was asked for, reached and left."""
    async with database.transaction(read_only=True) as connection:
        return await every(connection, statement("rollout", "phases"), {"id": rollout.id})


async def _running(database: Database) -> tuple[Rollout, Flag]:
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        rollout = await open_rollout(connection)
        flag = flag_of(await first(connection, statement("rollout", "flag")))
    if rollout is None:
        raise Refused("no rollout runs", fix="start one: relevo rollout start --canary a,b")
    return rollout, flag


def _refuse_arrow(rollout: Rollout, event: Event) -> None:
    if not may(rollout.standing.state, event):
        raise Refused(
            f"a rollout that is {rollout.standing.state} has nothing to {event}", fix="see: relevo rollout status"
        )


def _refuse_freeze(until: datetime | None, force: bool) -> None:
    if until is not None and not force:
        raise Refused(
            f"nobody joins in a freeze, which lasts until {until:%Y-%m-%d %H:%M} UTC", fix="wait, or give --force"
        )
