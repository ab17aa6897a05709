"""What can happen in a rollout, each with what must be true at its end. A new scenario is a row of ``SCENARIOS``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relevo import events
from relevo.clock import system_clock
from relevo.db.embedded import EmbeddedServer
from relevo.db.pool import every, first
from relevo.db.statements import statement
from relevo.errors import RelevoError
from relevo.flags import writing
from relevo.flags.writing import Author
from relevo.metrics.record import Version
from relevo.migration.steps import backup as backups
from relevo.rehearsal.stage import HEALTHY, Manners, Stage, healthy
from relevo.rollback import data
from relevo.rollout import operating
from relevo.simulator.lines import Line
from relevo.simulator.script import Manner

ANA = Author("ana", "rehearsal: a person steps in")

Facts = Mapping[str, Any]
Play = Callable[[Stage], Awaitable[Facts]]


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must be true at the end, and the statement of relevo/sql/queries/rehearsal.sql that tells."""

    sentence: str
    statement: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim, whether it holds, and what was found."""

    sentence: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of the things that can happen."""

    name: str
    sentence: str
    play: Play
    claims: tuple[Claim, ...]
    times: float = 7_200.0  # as fast as the real clock
    calls_a_day: float = 1_234.0  # of all tenants, as in the specification's status update


ALWAYS = (
    Claim("every call was answered by one version", "claim_one_version"),
    Claim("what the callers counted is what the database has", "claim_same_numbers"),
    Claim("no report of a call was lost", "claim_nothing_lost"),
    Claim("everything that was to be said arrived, once", "claim_told"),
    Claim("v1 and v2 are in step", "claim_data_in_step"),
)
_ROLLED_BACK = Claim("everybody is on v1 again, by the controller's own decision", "claim_rolled_back")
_TEAM_TOLD = Claim("the team was told of it", "claim_team_told_of_rollback")


async def _healthy(stage: Stage) -> Facts:
    while not await stage.until(lambda: stage.state in ("Complete", "Paused", "RolledBack", "Degraded"), 300):
        pass
    if stage.state == "Paused":  # the longest hold, without evidence enough: a human decides
        stage.tell("act", "the product owner looks at the figures and takes the next phase: promote --force")
        await stage.promote(Author("ana", "the figures are good, only few"))
        return await _healthy(stage)
    await stage.until(lambda: bool(stage.inbox.of("email")), 10)
    return {}


async def _fails(stage: Stage) -> Facts:
    await stage.take_phase("expansion")
    stage.tell("act", "v2 now fails 8 % of its calls")
    stage.manners = _of_v2(Manner(0.08, 430))
    await stage.until(lambda: stage.state == "RolledBack")
    await stage.pass_hours(2)
    return {}


async def _slow(stage: Stage) -> Facts:
    await stage.take_phase("expansion")
    stage.tell("act", "v2 now takes twice as long to answer a turn")
    stage.manners = _of_v2(Manner(0.0005, 1_000))
    await stage.until(lambda: stage.state in ("Paused", "RolledBack"))
    await stage.pass_hours(2)
    return {}


async def _sick(stage: Stage) -> Facts:
    sick = stage.canary[0]
    await stage.take_phase("expansion")
    stage.tell("act", f"v2 fails most calls of one tenant: {sick}")

    def manners(line: Line, version: Version | None) -> Manner:
        # The others have no errors: with a few of chance, the gate may not find that v2 holds without the one.
        return Manner(0.85 if line.tenant_id == sick else 0.0, 430) if version == "v2" else healthy(line, version)

    stage.manners = manners
    await stage.until(lambda: bool(stage.inbox.of("email")) or stage.state in ("Paused", "RolledBack"))
    await stage.until(lambda: stage.state == "Progressing", 10)
    return {"sick": sick}


async def _carrier(stage: Stage) -> Facts:
    await stage.take_phase("expansion")
    stage.tell("act", "the carrier drops half of all calls, whoever answers")
    stage.manners = lambda _line, version: Manner(0.0, HEALTHY[version].latency_ms, 0.5)
    await stage.until(lambda: stage.state in ("Degraded", "Paused", "RolledBack"))
    await stage.pass_hours(2)
    return {}


async def _restart(stage: Stage) -> Facts:
    await stage.take_phase("expansion")
    await stage.pass_hours(0.25)
    since, away_from = system_clock(), stage.clock()
    stage.tell("act", "the database is stopped, while calls go on")
    server = EmbeddedServer(stage.home)
    await asyncio.to_thread(server.stop)
    await stage.pass_hours(0.2)
    away_until = stage.clock()
    await asyncio.to_thread(server.keep)
    stage.tell("act", "the database is back")
    await stage.pass_hours(0.75)
    return {"since": since, "away_from": away_from, "away_until": away_until}


async def _slack(stage: Stage) -> Facts:
    await stage.take_phase("expansion")
    stage.tell("act", "Slack answers nobody, and v2 now fails a third of its calls")
    stage.inbox.away.add("slack")
    stage.manners = _of_v2(Manner(0.33, 430))
    await stage.until(lambda: stage.state == "RolledBack")
    await stage.until(lambda: bool(stage.inbox.of("pagerduty")), 10)  # who is paged waits for no Slack
    await stage.pass_hours(1)
    stage.tell("act", f"Slack is back; it refused {stage.inbox.refused} times")
    stage.inbox.away.clear()
    return {}


async def _corrupt(stage: Stage) -> Facts:
    await stage.take_phase("early_adopters")
    nightly = await backups.create(
        stage.database,
        stage.mapping,
        tenant_ids=None,
        clock=system_clock,
        emit=events.silent,
        actor="cron",
        reason="every night",
    )
    stage.tell("act", "the backup of every night is taken: relevo backups create")
    async with stage.database.transaction() as connection:
        spoilt = (await connection.execute(statement("rehearsal", "spoil"))).rowcount
    stage.tell("act", f"somebody's script overwrites {spoilt} prompts of v1")
    await stage.pass_hours(1)
    stage.tell("act", "ana goes back to that backup: relevo rollback --level data")
    done = await data.run(stage.database, stage.mapping, data.Request(nightly, ANA.actor, ANA.reason))
    stage.tell("note", f"restored in {done.duration_seconds:.1f} s; undone by: {done.undo_command}")
    await stage.pass_hours(2)
    return {}


async def _edits(stage: Stage) -> Facts:
    await stage.take_phase("early_adopters")
    on_v1, on_v2 = stage.canary[:2]
    async with stage.database.transaction() as connection:
        await connection.execute(statement("rehearsal", "edit_v1"), {"tenant": on_v1})
    stage.tell("act", f"a client changes the voice in v1: {on_v1}")
    async with stage.database.transaction() as connection:
        await connection.execute(statement("rehearsal", "edit_v2"), {"tenant": on_v2})
    stage.tell("act", f"another changes it in v2: {on_v2}")
    await stage.pass_hours(2)
    return {"chosen": on_v1, "sick": on_v2}


async def _human(stage: Stage) -> Facts:
    chosen = stage.canary[0]
    await stage.take_phase("expansion")
    stage.tell("act", f"ana takes a tenant back to v1, whatever the plan says: {chosen}")
    await writing.disable(stage.database, [chosen], ANA)
    await stage.until(lambda: stage.state == "Paused")
    await stage.pass_hours(6)
    stage.tell("act", "ana resumes")
    await operating.change(stage.database, "resume", ANA, stage.clock())
    await stage.until(lambda: stage.state == "Progressing")
    await stage.pass_hours(2)
    return {"chosen": chosen}


def _of_v2(manner: Manner) -> Manners:
    return lambda line, version: manner if version == "v2" else healthy(line, version)


SCENARIOS: Mapping[str, Scenario] = {
    each.name: each
    for each in (
        Scenario(
            "healthy",
            "All goes well: five phases, and everybody is on v2",
            _healthy,
            (
                Claim("everybody is on v2", "claim_complete"),
                Claim("no phase was shorter than its plan", "claim_all_phases"),
            ),
            9_000.0,
            600.0,
        ),
        Scenario(
            "v2-fails",
            "v2 fails for 8 % of calls at 25 %: total rollback, by itself",
            _fails,
            (_ROLLED_BACK, _TEAM_TOLD, Claim("whatever was critical paged somebody", "claim_paged_when_critical")),
        ),
        Scenario(
            "v2-slow",
            "v2 is slow: the last to join go back",
            _slow,
            (Claim("the phase before stays on v2, and a human decides", "claim_shrunk"), _TEAM_TOLD),
        ),
        Scenario(
            "sick-tenant",
            "One tenant fares badly: it alone goes back",
            _sick,
            (
                Claim("that tenant alone is on v1 again, and the rollout goes on", "claim_singled_out"),
                Claim("its owner was told, and no other client was", "claim_client_told"),
                _TEAM_TOLD,
            ),
        ),
        Scenario(
            "carrier-down",
            "The carrier is down for both: nobody is moved, somebody is paged",
            _carrier,
            (
                Claim("the rollout is told to be degraded, and nobody was moved", "claim_not_rolled_back"),
                Claim("somebody was paged", "claim_paged"),
            ),
        ),
        Scenario(
            "database-restart",
            "The database restarts in the middle: calls are answered all the same",
            _restart,
            (Claim("calls came in while the database was away, and were answered", "claim_restarted"),),
            600.0,
            3_000.0,
        ),
        Scenario(
            "slack-down",
            "Slack is down while v2 fails: the rollback waits for nobody, and the team hears of it later",
            _slack,
            (_ROLLED_BACK, _TEAM_TOLD, Claim("Slack was asked again, and held nobody up", "claim_slack_waited")),
        ),
        Scenario(
            "corrupt-data",
            "Corrupt data is found: level 4, back to the backup",
            _corrupt,
            (Claim("what was spoilt is as it was", "claim_repaired"),),
            1_800.0,
        ),
        Scenario(
            "edits-both-sides",
            "Clients edit v1 and v2 during the rollout",
            _edits,
            (Claim("each edit is on both sides", "claim_edits_on_both_sides"),),
            3_600.0,
        ),
        Scenario(
            "human-steps-in",
            "A human changes the flag: the rollout obeys",
            _human,
            (
                Claim("the rollout paused, and went on when told to", "claim_human_kept"),
                Claim("the hold is longer by the pause, and no more", "claim_timers_shifted"),
            ),
            3_600.0,
        ),
    )
}


async def play(stage: Stage, scenario: Scenario) -> list[Checked]:
    """The scenario to its end: the claims, each checked on the database once all is quiet."""
    await stage.begin()
    facts = await scenario.play(stage)
    await stage.hang_up()
    await stage.settle()
    return await check(stage, scenario.claims, facts)


async def check(stage: Stage, claims: tuple[Claim, ...], facts: Facts) -> list[Checked]:
    """Ask the database, and nobody else."""
    tally = stage.traffic.tally if stage.traffic else None
    counted = {version: tally.of(version).calls if tally else 0 for version in ("v1", "v2")}
    arrived = {channel: len(stage.inbox.of(channel)) for channel in ("slack", "pagerduty", "email")}
    calls = {"calls": tally.calls if tally else 0}
    unknown = {"sick": "", "chosen": "", "since": None, "away_from": None, "away_until": None}
    holds = {"holds": [phase.min_hold for phase in stage.plan.phases]}
    params = {**unknown, **holds, **calls, **counted, **arrived, **facts}
    checked = []
    for claim in (*ALWAYS, *claims):
        try:
            async with stage.database.transaction(read_only=True) as connection:
                row = await first(connection, statement("rehearsal", claim.statement), params)
        except RelevoError as error:
            row = {"holds": False, "found": str(error)}
        found = row or {"holds": False, "found": "there is nothing to look at"}
        checked.append(Checked(claim.sentence, bool(found["holds"]), str(found["found"])))
    return checked


async def heard(stage: Stage) -> list[dict[str, Any]]:
    """What callers heard: version, how the call ended, calls, tenants."""
    async with stage.database.transaction(read_only=True) as connection:
        return await every(connection, statement("rehearsal", "heard"))
