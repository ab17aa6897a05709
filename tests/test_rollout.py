"""The rollout on a real database: phases, gates, humans at the flag, two controllers, and what is left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from relevo import events
from relevo.clock import system_clock
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import LeaseLost, Refused, SomebodyWasFaster
from relevo.rollout import controller, operating
from relevo.rollout import plan as plans
from relevo.rollout.cohort import line_up
from relevo.rollout.moving import move
from relevo.rollout.plan import DEFAULT, parse
from relevo.rollout.state import ARROWS
from tests.commands import relevo
from tests.conftest import change, rows, value
from tests.flags import row, write
from tests.rollouts import ANA, HOUR, SOURCE, Scene, audited, scene

AUTOMATIC = replace(DEFAULT, promotion="automatic")


async def healthy(here: Scene, *, v2: int = 30, v1: int = 90) -> None:
    """Calls without a fault, a minute after the cohort changed."""
    here.now += timedelta(minutes=1, seconds=10)
    await here.calls("v2", v2)
    await here.calls("v1", v1)


async def test_the_database_holds_the_same_arrows(ready: Database) -> None:
    found = await rows(ready, "SELECT source, event, target FROM relevo.rollout_arrows")
    assert {tuple(each.values()) for each in found} == {(each.source, each.event, each.target) for each in ARROWS}


async def test_a_state_without_an_arrow_is_refused_by_the_database(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    with pytest.raises(psycopg.IntegrityError, match="does not go from Pending to Healthy"):
        await change(ready, "UPDATE relevo.rollouts SET state = 'Healthy', hold_until = now(), expires_at = now()")


async def test_two_rollouts_at_once_are_refused(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    with pytest.raises(Refused, match="runs already"):
        await here.start()
    with pytest.raises(psycopg.IntegrityError):
        await change(
            ready,
            """INSERT INTO relevo.rollouts (plan, phases, flag_version, judged_from, gathered_from, started_at, actor)
               VALUES ('', 1, 1, now(), now(), now(), 'x')""",
        )


async def test_a_rollout_begins_with_its_canary_and_nobody_else(ready: Database) -> None:
    here = await scene(ready, unverified=3)
    rollout = await here.start()
    flag = await row(ready)
    assert (rollout.standing.state, flag["enabled"], flag["percentage"]) == ("Pending", True, 0)
    assert flag["enabled_tenants"] == here.tenants[:2]
    assert await audited(ready) == ["rollout.start"]


async def test_it_does_not_begin_where_the_flag_already_says_something(ready: Database) -> None:
    here = await scene(ready)
    await write(ready, "enabled = true, enabled_tenants = %s", [here.tenants[5]])
    with pytest.raises(Refused, match="1 tenants and 0 % on v2 already"):
        await here.start()


async def test_a_v1_that_is_itself_no_go_needs_force_or_a_relative_limit(ready: Database) -> None:
    here = await scene(ready)
    await change(
        ready,
        """INSERT INTO public.voice_calls
           SELECT 'v' || n, %s::uuid, 'w' || n, 'completed', %s::timestamptz - n * interval '1 minute', 60, 3000
           FROM generate_series(1, 200) AS n""",
        (here.tenants[0], here.now),
    )
    with pytest.raises(Refused, match="v1 itself is No-Go in p95_latency_ms"):
        await here.start(force=False)
    latency = replace(DEFAULT.limits["p95_latency_ms"], relative=1.1)
    rollout = await here.start(replace(DEFAULT, limits={**DEFAULT.limits, "p95_latency_ms": latency}), force=False)
    assert rollout.plan.limits["p95_latency_ms"].go == pytest.approx(3300, rel=0.02)


async def test_healthy_phases_are_held_and_then_a_human_promotes(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    assert (await here.rollout()).standing.state == "Progressing"
    await healthy(here)
    await here.tick(hours=3)
    assert (await here.rollout()).standing.state == "Progressing"
    with pytest.raises(Refused, match="is held until"):
        await operating.promote(ready, ANA, here.now, force=False)
    await here.tick(hours=1)
    assert (await here.rollout()).standing.state == "Healthy"
    await here.tick(hours=30)
    assert len(await here.on_v2()) == 2
    promoted = await operating.promote(ready, ANA, here.now, force=False)
    assert (promoted.standing.state, promoted.standing.phase) == ("Pending", 1)
    assert len(await here.on_v2()) == 2  # 10 % of 20, and the canary is 2 already


async def test_it_goes_to_the_end_by_itself_where_the_plan_says_so(ready: Database) -> None:
    here = await scene(ready, verified=40, unverified=2)
    await here.start(AUTOMATIC, canary=3)
    sizes = []
    for _ in range(60):
        ticked = await here.tick(seconds=5)
        if ticked is None:
            break
        if ticked.move is not None and ticked.move.event == "reach":
            before = await here.on_v2()
            sizes.append(len(before))
            await healthy(here, v2=260, v1=300)
        here.now += 4 * HOUR
    rollout = await here.rollout()
    flag = await row(ready)
    assert sizes == [3, 5, 11, 21, 40]
    assert rollout.standing.state == "Complete"
    assert (flag["enabled"], flag["percentage"], flag["enabled_tenants"]) == (True, 100, [])
    assert len(flag["disabled_tenants"]) == 2
    assert {each["reached_at"] is not None for each in await operating.phases(ready, rollout)} == {True}


async def test_a_failing_v2_goes_back_at_the_next_tick(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 40, errors=16)
    await here.calls("v1", 120, errors=2)
    ticked = await here.tick(seconds=1)
    assert ticked is not None
    assert ticked.move is not None
    assert ticked.move.event == "roll_back"
    flag = await row(ready)
    assert (flag["enabled"], flag["percentage"], flag["enabled_tenants"]) == (False, 0, [])
    assert (await here.rollout()).standing.state == "RolledBack"
    assert (await audited(ready))[-1] == "rollout.roll_back"
    (stored,) = await rows(ready, "SELECT * FROM relevo.rollout_evaluations WHERE verdict = 'fail'")
    assert stored["level"] == 3
    assert stored["details"]["findings"][0]["bad"] == 16
    assert await here.tick(hours=1) is None


async def test_when_both_versions_suffer_nobody_is_moved(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 40, errors=12)
    await here.calls("v1", 120, errors=36)
    await here.tick(seconds=1)
    assert (await here.rollout()).standing.state == "Degraded"
    assert len(await here.on_v2()) == 2


async def test_one_failing_tenant_goes_back_alone_and_the_phase_goes_on(ready: Database) -> None:
    here = await scene(ready)
    await here.start(canary=3)
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    bad, *others = await here.on_v2()
    await here.calls("v2", 12, errors=10, tenants=[bad])
    await here.calls("v2", 60, tenants=others)
    await here.calls("v1", 200)
    ticked = await here.tick(seconds=1)
    assert ticked is not None
    assert ticked.move is not None
    assert (ticked.move.event, ticked.move.tenant) == ("single_out", bad)
    flag = await row(ready)
    assert (flag["enabled_tenants"], flag["disabled_tenants"]) == (others, [bad])
    await here.tick(seconds=30)
    after = await here.tick(minutes=2)
    assert after is not None
    assert (after.evaluation.verdict, after.rollout.standing.state) == ("inconclusive", "Progressing")


async def test_partial_rollback_takes_the_last_to_join(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    for _ in range(2):
        await here.settle_into()
        await operating.promote(ready, ANA, here.now, force=True)
    before = await here.on_v2()
    assert len(before) == 5
    await here.settle_into()
    here.now += timedelta(minutes=2)
    await here.calls("v2", 2000, errors=80)
    await here.calls("v1", 8000, errors=80)
    ticked = await here.tick(seconds=1)
    assert ticked is not None
    assert ticked.move is not None
    assert ticked.move.event == "shrink"
    rollout = await here.rollout()
    assert (rollout.standing.state, rollout.standing.cause, rollout.standing.phase) == ("Paused", "rollback", 1)
    assert await here.on_v2() == before[:2]


async def test_without_a_pass_the_longest_hold_pauses_and_a_human_decides(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.settle_into()
    ticked = await here.tick(hours=8)
    assert ticked is not None
    assert (ticked.evaluation.verdict, (await here.rollout()).standing.cause) == ("inconclusive", "max_hold")
    with pytest.raises(Refused, match="Paused and the gate says inconclusive"):
        await operating.promote(ready, ANA, here.now, force=False)
    assert (await operating.promote(ready, ANA, here.now, force=True)).standing.phase == 1


async def test_a_phase_resumed_after_its_longest_hold_has_it_once_more(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.settle_into()
    await here.tick(hours=8)
    assert (await here.rollout()).standing.cause == "max_hold"
    here.now += 3 * HOUR
    await operating.change(ready, "resume", ANA, here.now)
    await here.settle_into(hours=7)
    assert (await here.rollout()).standing.state == "Progressing"
    await here.tick(hours=1)
    assert (await here.rollout()).standing.cause == "max_hold"


@pytest.mark.parametrize("ahead", ["as it begins", "as the phase is reached"])
async def test_a_clock_that_ran_ahead_for_a_while_holds_nothing_up_and_moves_nobody(
    ready: Database, ahead: str
) -> None:
    here = await scene(ready)
    here.now += timedelta(days=30 if ahead == "as it begins" else 0)
    await here.start()
    here.now += timedelta(days=0 if ahead == "as it begins" else 30)
    await here.tick(seconds=5)
    here.now -= timedelta(days=30)
    await here.tick(seconds=5)
    await healthy(here)
    await here.tick(hours=3)
    assert (await here.rollout()).standing.state == "Progressing"
    for _ in range(5):
        await here.tick(hours=1)
    assert (await here.rollout()).standing.state == "Healthy"
    assert len(await here.on_v2()) == 2


async def test_no_force_goes_over_a_failing_gate(ready: Database) -> None:
    here = await scene(ready)
    await here.start(replace(DEFAULT, rollback="manual"))
    await here.settle_into()
    here.now += timedelta(minutes=2)
    await here.calls("v2", 40, errors=30)
    await here.calls("v1", 100)
    await here.tick(seconds=1)
    assert (await here.rollout()).standing.state == "Degraded"
    with pytest.raises(Refused, match="the gate says fail"):
        await operating.promote(ready, ANA, here.now, force=True)


async def test_nobody_joins_while_one_of_those_who_would_is_in_a_freeze_of_their_own_time(ready: Database) -> None:
    here = await scene(ready, verified=30)
    await change(
        ready,
        """CREATE OR REPLACE FUNCTION relevo.v1_tenants()
           RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text,
                          human_phone_number text)
           LANGUAGE sql STABLE AS $$
               SELECT b.id, b.vertical, b.name, CASE WHEN b.id = '{}' THEN 'America/Tijuana' ELSE 'America/Cancun' END,
                      NULL, NULL, NULL FROM public.businesses b $$""".replace("{}", here.tenants[1]),
    )
    plan = parse('[[freeze]]\ndays = ["monday"]\nbegins = 06:00:00\nlasts = "1h"')  # 14:00 in Tijuana, UTC
    here.now = here.now.replace(hour=14, minute=30)
    with pytest.raises(Refused, match="in a freeze, which lasts until 2093-11-23 15:00"):
        await here.start(plan, force=False)
    here.now = here.now.replace(hour=11, minute=30)  # 06:30 in Cancun
    with pytest.raises(Refused, match="in a freeze, which lasts until 2093-11-23 12:00"):
        await here.start(plan, force=False)
    here.now = here.now.replace(hour=12, minute=0)
    await here.start(replace(plan, promotion="automatic"), force=False)
    await here.tick(seconds=5)
    await healthy(here)
    await here.tick(hours=167)  # until monday again, 11:0x in Cancun
    assert (await here.rollout()).standing.state == "Healthy"
    frozen = await here.tick(seconds=1)
    assert frozen is not None
    assert frozen.move is None
    with pytest.raises(Refused, match="in a freeze"):
        await operating.promote(ready, ANA, here.now, force=False)
    thawed = await here.tick(hours=1)
    assert thawed is not None
    assert thawed.move is not None
    assert thawed.move.event == "promote"


async def test_figures_that_cannot_be_read_promote_nobody(ready: Database) -> None:
    here = await scene(ready)
    await here.start(AUTOMATIC)
    await here.settle_into()
    await healthy(here)
    await change(ready, "ALTER TABLE relevo.call_stats RENAME TO gone")
    ticked = await here.tick(hours=5)
    assert ticked is not None
    assert (ticked.evaluation.verdict, ticked.move) == ("error", None)
    with pytest.raises(Refused, match="the gate says error"):
        await operating.promote(ready, ANA, here.now, force=True)


async def test_a_phase_larger_than_a_list_is_a_share_of_the_tenants(
    ready: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await value(ready, "SELECT relevo.largest_list()") == plans.LARGEST_LIST
    monkeypatch.setattr(plans, "LARGEST_LIST", 10)
    await change(
        ready,
        """CREATE OR REPLACE FUNCTION relevo.largest_list() RETURNS integer
           LANGUAGE sql IMMUTABLE SET search_path = '' RETURN 10""",
    )
    here = await scene(ready, verified=40, unverified=4)
    line = line_up(replace(DEFAULT, named=tuple(here.tenants[:2])), await operating.candidates(ready, SOURCE, here.now))
    await here.start()
    planned = [{each.tenant.tenant_id for each in line.order if each.phase <= phase} for phase in range(5)]
    for phase, percentage in ((1, 0), (2, 25), (3, 50), (4, 100)):
        await here.settle_into()
        before = await who_is_on_v2(here)
        assert before == planned[phase - 1]
        await operating.promote(ready, ANA, here.now, force=True)
        after = await who_is_on_v2(here)
        assert before <= after == planned[phase]
        assert ((await row(ready))["percentage"], len(await here.on_v2())) == (percentage, 5)
    await here.settle_into()
    here.now += timedelta(minutes=2)
    await here.calls("v2", 2000, errors=80)
    await here.calls("v1", 8000, errors=80)
    await here.tick(seconds=1)
    assert ((await here.rollout()).standing.cause, await who_is_on_v2(here)) == ("rollback", planned[3])
    await write(ready, "percentage = 10")
    assert ((await row(ready))["percentage"], await who_is_on_v2(here)) == (0, planned[1])
    await write(ready, "percentage = 50")
    assert ((await row(ready))["percentage"], await who_is_on_v2(here)) == (50, planned[3])


async def who_is_on_v2(here: Scene) -> set[str]:
    """By the flag's row."""
    query = "SELECT id FROM relevo.active_tenants() AS t (id) WHERE public.should_use_voice_agent_v2(id)"
    return {each["id"] for each in await rows(here.database, query)}


# Humans at the flag ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percentage", "many"), [(10, 2), (25, 5), (26, 6), (50, 10), (0, 0)])
async def test_a_percentage_written_by_hand_resizes_the_cohort_and_pauses(
    ready: Database, percentage: int, many: int
) -> None:
    here = await scene(ready, verified=18, unverified=2)
    await here.start(canary=3)
    await here.tick(seconds=5)
    order = [each["tenant_id"] for each in await rows(ready, "SELECT * FROM relevo.rollout_cohort ORDER BY place")]
    await write(ready, "percentage = %s", percentage)
    flag = await row(ready)
    assert (flag["percentage"], flag["enabled_tenants"]) == (0, order[:many])
    rollout = await here.rollout()
    assert (rollout.standing.state, rollout.standing.cause) == ("Paused", "flag")
    assert (await audited(ready))[-1] == "rollout.overrule"


async def test_the_seeds_total_rollback_empties_the_cohort(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await write(ready, "percentage = 0, enabled = false")
    assert await here.on_v2() == []


async def test_a_writer_of_whole_rows_means_the_lists(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    chosen = [*here.tenants[:2], here.tenants[7]]
    await write(ready, "percentage = 0, enabled = true, enabled_tenants = %s", chosen)
    assert await here.on_v2() == chosen


async def test_without_a_rollout_a_percentage_is_a_percentage(ready: Database) -> None:
    await scene(ready)
    await write(ready, "percentage = 25")
    assert (await row(ready))["percentage"] == 25


async def test_a_human_is_not_overruled_even_when_v2_fails(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    await write(ready, "percentage = 50")
    here.now += timedelta(minutes=3)
    await change(ready, "UPDATE relevo.rollouts SET judged_from = %s", (here.now - timedelta(minutes=2),))
    await here.calls("v2", 40, errors=30)
    await here.calls("v1", 100)
    ticked = await here.tick(seconds=1)
    assert ticked is not None
    assert (ticked.evaluation.level, ticked.move) == (3, None)
    assert len(await here.on_v2()) == 10
    await operating.change(ready, "resume", ANA, here.now)
    ticked = await here.tick(seconds=1)
    assert ticked is not None
    assert ticked.move is not None
    assert ticked.move.event == "roll_back"


async def test_a_change_between_looking_and_acting_stops_the_controller(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    seen = await here.rollout()
    await write(ready, "enabled_tenants = enabled_tenants || %s::text[]", [here.tenants[9]])
    with pytest.raises(SomebodyWasFaster):
        async with ready.transaction() as connection:
            await move(connection, seen, "reach", here.now, ANA)
    assert (await here.rollout()).standing.state == "Paused"


# Operators and controllers --------------------------------------------------------------------------------------------


async def test_a_pause_moves_the_timers(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.settle_into()
    before = (await here.rollout()).standing.hold_until
    await operating.change(ready, "pause", ANA, here.now)
    assert (await here.tick(hours=30)) is not None
    assert (await here.rollout()).standing.state == "Paused"
    resumed = await operating.change(ready, "resume", ANA, here.now)
    assert before is not None
    assert resumed.standing.hold_until == before + 30 * HOUR


async def test_abort_brings_everybody_back_and_what_has_no_arrow_is_refused(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    with pytest.raises(Refused, match="nothing to resume"):
        await operating.change(ready, "resume", ANA, here.now)
    await operating.change(ready, "abort", ANA, here.now)
    assert (await row(ready))["enabled"] is False
    with pytest.raises(Refused, match="no rollout runs"):
        await operating.change(ready, "pause", ANA, here.now)


async def test_a_phase_is_reached_when_every_living_process_answers_by_it(ready: Database) -> None:
    here = await scene(ready)
    rollout = await here.start()
    await change(
        ready,
        "INSERT INTO relevo.flag_readers VALUES ('a:1:1', 'voice_agent_v2', %s, 'listen', now(), now())",
        (rollout.standing.flag_version - 1,),
    )
    await here.tick(seconds=5)
    assert (await here.rollout()).standing.state == "Pending"
    await change(ready, "UPDATE relevo.flag_readers SET version = version + 1")
    await here.tick(seconds=5)
    assert (await here.rollout()).standing.state == "Progressing"


async def test_two_controllers_at_once_act_once(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    done = await asyncio.gather(
        *(controller.tick(ready, here.now + timedelta(seconds=5)) for _ in range(6)), return_exceptions=True
    )
    assert all(not isinstance(each, BaseException) or isinstance(each, SomebodyWasFaster) for each in done), done
    assert await audited(ready) == ["rollout.start", "rollout.reach"]


async def test_a_controller_that_lost_its_lease_does_nothing(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    async with lease(ready, controller.LEASE) as held:
        await change(ready, "UPDATE relevo.leases SET token = token + 1 WHERE name = 'rollout'")
        with pytest.raises(LeaseLost):
            await controller.tick(ready, here.now, held)
    assert await audited(ready) == ["rollout.start"]


async def test_history_is_not_rewritten(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.settle_into()
    for table in ("rollout_evaluations", "rollout_transitions"):
        with pytest.raises(psycopg.IntegrityError, match="only ever added to"):
            await change(ready, f"DELETE FROM relevo.{table}")
    assert await value(ready, "SELECT count(*) FROM relevo.rollout_evaluations") > 0


async def test_a_canary_that_is_not_verified_any_more_does_not_begin(ready: Database) -> None:
    here = await scene(ready)
    await change(
        ready, "UPDATE relevo.verifications SET state = 'drifted' WHERE business_id::text = %s", (here.tenants[0],)
    )
    with pytest.raises(Refused, match="cannot be a canary"):
        await here.start()
    assert await operating.candidates(ready, SOURCE, here.now)


async def test_a_start_tells_how_far_the_counting_of_v1s_history_is(ready: Database) -> None:
    here = await scene(ready)
    told: list[events.Event] = []
    plan = replace(DEFAULT, named=tuple(here.tenants[:2]))
    await operating.start(ready, plan, SOURCE, ANA, here.clock, force=True, emit=told.append)
    counted = [each for each in told if isinstance(each, events.Progress)]
    assert [each.done for each in counted] == [*range(1, len(counted) + 1)]
    assert counted[-1].done == counted[-1].total


# By command -----------------------------------------------------------------------------------------------------------


async def test_the_commands_from_plan_to_abort(ready: Database) -> None:
    here = await scene(ready)

    async def run(*words: str, status: int = 0) -> Any:
        answered = await asyncio.to_thread(relevo, "rollout", *words, url=ready.url)
        assert answered.status == status, (words, answered.told)
        return answered.data

    planned = await run("plan")
    assert (planned["canary_to_be_named"], [each["tenants"] for each in planned["phases"]]) == (True, [2, 2, 5, 10, 20])
    assert {"joining", "calls_in_min_hold", "decides_after_hours", "in_time"} <= planned["phases"][2].keys()
    empty = await run("status")
    assert (empty["state"], empty["phase"], empty["tenants_on_v2"], empty["total_tenants"]) == (None, None, 0, 20)
    await run("rehearse")
    assert "2 to 3 tenants" in (await run("start", status=3))["error"]["message"]
    assert "no active tenant" in (await run("start", "--canary", "a,b", status=2))["error"]["message"]
    begun = await run("start", "--canary", ",".join(here.tenants[:2]))
    assert (begun["state"], begun["phase"], begun["tenants"]) == ("Pending", "canary", here.tenants[:2])
    await controller.tick(ready, system_clock())
    found = await run("status")
    assert (found["state"], found["phase"], found["percentage"]) == ("Progressing", "canary", 10.0)
    assert found.keys() >= {"verdict", "hold_until", "alerts", "metrics"}
    figures = "total_calls error_rate failed_call_rate breaker_opens complaints avg_latency_ms p50_latency_ms"
    assert found["metrics"]["v1"].keys() == found["metrics"]["v2"].keys() == {*figures.split(), "p95_latency_ms"}
    evaluated = await run("evaluate")
    assert (evaluated["verdict"], len(evaluated["evaluation"]["findings"])) == ("inconclusive", 5)
    assert "held until" in (await run("promote", status=3))["error"]["message"]
    assert (await run("pause"))["state"] == "Paused"
    assert "nothing to pause" in (await run("pause", status=3))["error"]["message"]
    assert (await run("resume"))["state"] == "Pending"
    await controller.tick(ready, system_clock())
    assert (await run("skip", "--force"))["phase"] == "expansion"
    await controller.tick(ready, system_clock())
    full = await run("promote", "--full", "--force")
    assert (full["phase"], full["tenants_on_v2"]) == ("complete", 20)
    assert (await run("abort"))["tenants_on_v2"] == 0
    told = await run("history", "--limit", "3")
    assert [each["event"] for each in told["transitions"]] == ["abort", "force", "reach"]
    assert "cannot be read" in (await run("plan", "--plan", "absent.toml", status=2))["error"]["message"]
