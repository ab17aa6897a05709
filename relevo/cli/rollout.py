"""``relevo rollout``: the plan, and taking tenants to v2 by it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import ConsoleRenderable, Group
from rich.table import Column, Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.errors import ConfigurationError, UsageError
from relevo.flags.writing import Author
from relevo.rollout import operating
from relevo.rollout import plan as plans
from relevo.rollout.cohort import Line, line_up, with_canary
from relevo.rollout.controller import as_json
from relevo.rollout.gate import Evaluation, shown
from relevo.rollout.moving import Rollout
from relevo.rollout.operating import Expected, Rehearsed, Status
from relevo.rollout.plan import Plan
from relevo.rollout.state import Event

app = App(name="rollout", help="Taking tenants to v2, phase by phase.")

PlanFile = Annotated[Path | None, Parameter(name="--plan", help="A plan as TOML; default: the specification's.")]
Canary = Annotated[str | None, Parameter(help="The tenants of the first phase, 2 or 3, separated by commas.")]
FIGURES = (
    "total_calls",
    "error_rate",
    "failed_call_rate",
    "avg_latency_ms",
    "p50_latency_ms",
    "p95_latency_ms",
    "breaker_opens",
    "complaints",
)

Force = Annotated[bool, Parameter(negative="", help="Go over what a human may go over; goes to the audit log.")]


@app.command
async def plan(*, plan: PlanFile = None, canary: Canary = None, common: Common = ORDINARY) -> Answer:
    """Who would join when and why, the calls to expect, and when each gate can decide. Changes nothing."""
    chosen = _plan(plan, canary)
    async with common.database() as database:
        found = await operating.candidates(database, common.mapping().fill(), system_clock())
    line = line_up(chosen, found, unnamed=True)
    expected = operating.expect(chosen, line)
    data = {
        "active_tenants": line.active,
        "verified_tenants": line.active - len(line.left_out),
        "canary_to_be_named": not chosen.named,
        "promotion": chosen.promotion,
        "rollback": chosen.rollback,
        "phases": [_phase_data(each, line, number) for number, each in enumerate(expected)],
        "left_out": [asdict(each) for each in line.left_out],
        "toml": plans.written(chosen),
    }
    return Answer(data, _planned(chosen, line, expected))


@app.command
async def start(
    *, plan: PlanFile = None, canary: Canary = None, force: Force = False, common: Common = ORDINARY
) -> Answer:
    """Begin: the canary's tenants go to v2. The gates are rehearsed on v1's own history first."""
    chosen = _plan(plan, canary)
    async with common.database() as database:
        rollout, line, rehearsed = await operating.start(
            database, chosen, common.mapping().fill(), _author(common), system_clock, force=force, emit=common.sink()
        )
    names = [each.tenant.tenant_id for each in line.steps[0].joining]
    data = {
        "success": True,
        **_rollout_data(rollout),
        "tenants": names,
        "rehearsal": [asdict(each) for each in rehearsed],
    }
    told = Text(f"rollout {rollout.id} has begun with {', '.join(names)}; next: relevo rollout status")
    return Answer(data, Group(told, _rehearsal(rehearsed)))


@app.command
async def status(*, common: Common = ORDINARY) -> Answer:
    """Where the rollout stands: phase, verdict, both versions side by side."""
    async with common.database() as database:
        found = await operating.status(database, system_clock())
    share = 100 * found.tenants_on_v2 / found.total_tenants if found.total_tenants else 0.0
    figures = {version: {name: getattr(health, name) for name in FIGURES} for version, health in found.health.items()}
    data = {
        **(_rollout_data(found.rollout) if found.rollout else {"state": None, "phase": None, "hold_until": None}),
        "percentage": share,
        "tenants_on_v2": found.tenants_on_v2,
        "total_tenants": found.total_tenants,
        "verdict": found.last["verdict"] if found.last else None,
        "why": found.last["details"]["why"] if found.last else None,
        "readers": found.readers,
        "readers_behind": found.behind,
        "metrics": figures,
        "alerts": [asdict(each) for each in found.alerts],
    }
    return Answer(data, _standing(found, share, figures))


@app.command
async def promote(
    *,
    full: Annotated[bool, Parameter(negative="", help="To the last phase at once.")] = False,
    force: Force = False,
    common: Common = ORDINARY,
) -> Answer:
    """Take the next phase, where the gate passes and the hold is over; with --force also before."""
    return await _promoted(common, force=force, ahead=1000 if full else 1)


@app.command
async def skip(*, force: Force = False, common: Common = ORDINARY) -> Answer:
    """Leave the next phase out: its tenants join together with those of the one after."""
    return await _promoted(common, force=force, ahead=2)


@app.command
async def pause(*, common: Common = ORDINARY) -> Answer:
    """Stay as it is: nobody joins and no hold runs out. Guardrails still send tenants back."""
    return await _changed(common, "pause")


@app.command
async def resume(*, common: Common = ORDINARY) -> Answer:
    """Go on, with the tenants who are on v2 now; holds are longer by the pause."""
    return await _changed(common, "resume")


@app.command
async def abort(*, common: Common = ORDINARY) -> Answer:
    """End the rollout: everybody goes back to v1."""
    return await _changed(common, "abort")


@app.command
async def evaluate(*, common: Common = ORDINARY) -> Answer:
    """What the gate says right now, and why. Exit status 1 when it fails."""
    async with common.database() as database:
        rollout, said = await operating.evaluate(database, system_clock())
    data = {**_rollout_data(rollout), "verdict": said.verdict, "evaluation": as_json(said)}
    return Answer(data, _evaluated(rollout, said), 1 if said.verdict in ("fail", "error") else 0)


@app.command
async def rehearse(*, plan: PlanFile = None, common: Common = ORDINARY) -> Answer:
    """The gates on v1's own history of the last days. Exit status 1 where v1 itself is No-Go."""
    async with common.database() as database:
        _chosen, found, v1 = await operating.rehearse(
            database, _plan(plan, None), common.mapping().calls.rows(), system_clock, emit=common.sink()
        )
    bad = any(each.grade == "no_go" for each in found)
    data = {"success": not bad, "calls": v1.calls, "metrics": [asdict(each) for each in found]}
    return Answer(data, Group(_rehearsal(found), Text(f"{v1.calls:,} calls of v1")), 1 if bad else 0)


@app.command
async def history(
    *, limit: Annotated[WholeNumber, Parameter(help="How many of each.")] = 20, common: Common = ORDINARY
) -> Answer:
    """What happened in the newest rollout, and every evaluation of its gate; newest first."""
    if limit < 1:
        raise UsageError(f"--limit is {limit}", fix="give 1 or more")
    async with common.database() as database:
        rollout, transitions, evaluations = await operating.events(database, limit)
    table = Table("when", "from", "event", "to", "phase", "who", "why")
    for each in transitions:
        names = (each["source"] or "", each["event"], each["target"], str(each["phase"] + 1), each["actor"])
        table.add_row(f"{each['at']:%Y-%m-%d %H:%M:%S}", *map(Text, names), Text(each["why"] or ""))
    looks = Table("when", "phase", "verdict", "level", "why")
    for each in evaluations:
        level = str(each["level"] or "")
        row = (f"{each['at']:%Y-%m-%d %H:%M:%S}", str(each["phase"] + 1), each["verdict"], level)
        looks.add_row(*row, Text(each["details"]["why"]))
    newest = _rollout_data(rollout) if rollout else None
    data = {"rollout": newest, "transitions": transitions, "evaluations": evaluations}
    return Answer(data, Group(table, looks) if rollout else "there never was a rollout")


async def _promoted(common: Common, *, force: bool, ahead: int) -> Answer:
    async with common.database() as database:
        rollout = await operating.promote(database, _author(common), system_clock(), force=force, ahead=ahead)
        found = await operating.status(database, system_clock())
    return _done(rollout, found)


async def _changed(common: Common, event: Event) -> Answer:
    async with common.database() as database:
        rollout = await operating.change(database, event, _author(common), system_clock())
        found = await operating.status(database, system_clock())
    return _done(rollout, found)


def _done(rollout: Rollout, found: Status) -> Answer:
    data = {
        "success": True,
        **_rollout_data(rollout),
        "tenants_on_v2": found.tenants_on_v2,
        "total_tenants": found.total_tenants,
    }
    return Answer(data, f"{_named(rollout)}: {found.tenants_on_v2} of {found.total_tenants} tenants on v2")


def plan_of(path: Path | None) -> Plan:
    """The plan of a file; None: the specification's. Raises ConfigurationError for one that cannot be read."""
    if path is None:
        return plans.DEFAULT
    try:
        return plans.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the plan {path} cannot be read: {error}", fix="name a TOML file") from error


def _plan(path: Path | None, canary: str | None) -> Plan:
    return with_canary(plan_of(path), [each.strip() for each in (canary or "").split(",") if each.strip()])


def _author(common: Common) -> Author:
    return Author(common.actor, common.reason)


def _named(rollout: Rollout) -> str:
    where = f"phase {rollout.standing.phase + 1} of {rollout.standing.phases}, {rollout.phase.name}"
    return f"rollout {rollout.id} is {rollout.standing.state} ({where})"


def _rollout_data(rollout: Rollout) -> dict[str, Any]:
    standing = rollout.standing
    return {
        "rollout_id": rollout.id,
        "state": standing.state,
        "phase": rollout.phase.name,
        "phase_number": standing.phase + 1,
        "phases": standing.phases,
        "hold_until": standing.hold_until,
        "expires_at": standing.expires_at,
        "next_evaluation_at": standing.due_at,
        "paused_because": standing.cause,
        "flag_version": standing.flag_version,
    }


def _phase_data(expected: Expected, line: Line, number: int) -> dict[str, Any]:
    after = expected.decides_after
    joining = [
        {"tenant_id": each.tenant.tenant_id, "name": each.tenant.name, "vertical": each.tenant.vertical,
         "calls_per_day": each.tenant.calls_per_day, "why": each.why}
        for each in line.steps[number].joining
    ]  # fmt: skip
    hours = None if after is None else after / timedelta(hours=1)
    return asdict(expected) | {"decides_after": None, "decides_after_hours": hours, "joining": joining}


def _planned(plan: Plan, line: Line, expected: list[Expected]) -> ConsoleRenderable:
    right = [Column(name, justify="right") for name in ("tenants", "joining", "calls a day", "in the hold")]
    table = Table("phase", *right, "hold", "gate can decide", "asks for")
    for phase, each in zip(plan.phases, expected, strict=True):
        after = "never: no calls" if each.decides_after is None else f"after {_length(each.decides_after)}"
        late = "" if each.in_time else ", later than the longest hold: a human decides"
        asked = [f"{metric} {shown(metric, limit)}" for metric, limit in phase.criteria.items()]
        asked += ["upper bounds below No-Go"] * phase.evidence + ["stable"] * phase.stable
        short = "" if each.tenants >= each.wanted else f" of {each.wanted}"
        table.add_row(
            each.name, f"{each.tenants}{short}", str(each.joining), f"{each.calls_per_day:,.0f}",
            f"{each.calls_in_min_hold:,.0f}", f"{_length(phase.min_hold)} to {_length(phase.max_hold)}", after + late,
            "; ".join(asked) or "no critical error",
        )  # fmt: skip
    who = Table("phase", "tenant", "name", "vertical", "why")
    for joined in line.order[:50]:
        tenant = joined.tenant
        named = (
            plan.phases[joined.phase].name,
            tenant.tenant_id,
            tenant.name or "—",
            tenant.vertical or "—",
            joined.why,
        )
        who.add_row(*map(Text, named))
    lines = [f"and {len(line.order) - 50:,} more: --json"] if len(line.order) > 50 else []
    lines += [] if plan.named else ["the canary's tenants are to be named: relevo rollout start --canary a,b"]
    lines += [f"{each.tenant_id} stays on v1: {each.unverified}" for each in line.left_out[:10]]
    return Group(table, who, *map(Text, lines))


def _length(length: timedelta) -> str:
    hours = length / timedelta(hours=1)
    return f"{hours:,.0f} h" if hours >= 1 else f"{length / timedelta(minutes=1):,.0f} min"


def _standing(found: Status, share: float, figures: dict[str, dict[str, Any]]) -> ConsoleRenderable:
    lines = [_named(found.rollout)] if found.rollout else ["no rollout was ever started"]
    lines.append(f"{found.tenants_on_v2} of {found.total_tenants} tenants on v2 ({share:.1f} %)")
    if found.last:
        lines.append(f"verdict {found.last['verdict']}: {found.last['details']['why']}")
    if found.rollout and found.rollout.standing.hold_until and found.rollout.finished_at is None:
        lines.append(f"held until {_moment(found.rollout.standing.hold_until)}")
    lines += [f"{found.behind} of {found.readers} processes answer by an older flag"] if found.behind else []
    lines += [f"{each.severity}: {each.message}" for each in found.alerts]
    table = Table("", Column("v1", justify="right"), Column("v2", justify="right"))
    for name in figures["v1"]:
        table.add_row(name, _figure(name, figures["v1"][name]), _figure(name, figures["v2"][name]))
    return Group(*map(Text, lines), table)


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    return f"{100 * value:.2f} %" if name.endswith("rate") else f"{value:,.0f}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _evaluated(rollout: Rollout, said: Evaluation) -> ConsoleRenderable:
    table = Table("metric", "v2", "Go", "No-Go", "asked", "bad of all", "95 % interval", "v1", "grade", "worst tenant")
    for each in said.findings:
        low_high = "" if each.interval is None else f"{100 * each.interval.low:.2f} to {100 * each.interval.high:.2f} %"
        values = [shown(each.metric, value) for value in (each.value, each.go, each.no_go)]
        asked = "" if each.wanted is None else shown(each.metric, each.wanted)
        counts = f"{each.bad} of {each.of}" if each.of else ""
        row = (each.metric, *values, asked, counts, low_high, shown(each.metric, each.v1), each.grade)
        table.add_row(*row, Text(each.worst_tenant or ""))
    level = f", level {said.level}" if said.level else ""
    return Group(Text(_named(rollout)), table, Text(f"{said.verdict}{level}: {said.why}"))


def _rehearsal(found: list[Rehearsed]) -> Table:
    table = Table("metric", "v1", "Go", "No-Go", "grade", title="The gates on v1's own history", title_justify="left")
    for each in found:
        table.add_row(
            each.metric, *(shown(each.metric, value) for value in (each.value, each.go, each.no_go)), each.grade
        )
    return table
