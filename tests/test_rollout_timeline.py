"""The specification's plan on the sample's 90 tenants, from the first tenant to the last, in compressed time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random

from relevo.db.pool import Database
from relevo.metrics.folding import fold
from relevo.rollout import operating
from relevo.rollout.cohort import Candidate, line_up, with_canary
from relevo.rollout.plan import DEFAULT
from tests.commands import succeeds
from tests.conftest import NOW, change, load_sample, rows
from tests.flags import row
from tests.rollouts import ANA, SOURCE, Scene

ERRORS = 0.004  # of healthy calls
CALLS_A_DAY = 1234


async def hour_of_calls(here: Scene, found: Sequence[Candidate], rng: Random) -> None:
    """An hour's calls of every tenant, by its share of the volume, on the version that the flag says."""
    v2 = set(await here.on_v2())
    per_hour = CALLS_A_DAY / 24 / sum(each.calls_per_day for each in found)
    whose = [each.tenant_id for each in found for _ in range(_poisson(rng, each.calls_per_day * per_hour))]
    await change(
        here.database,
        """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked, stage,
                                     ending, report)
           SELECT 'call ' || (%(base)s + n), u.tenant, u.version, u.version, %(at)s, 'flag', true, 6,
                  ROW (4, %(at)s, u.reason)::relevo.ending,
                  ROW (4, %(at)s, NULL, NULL, 60000, u.ms, NULL, NULL, NULL)::relevo.report
           FROM unnest(%(tenants)s::text[], %(versions)s::text[], %(reasons)s::text[], %(ms)s::float8[])
               WITH ORDINALITY AS u (tenant, version, reason, ms, n)""",
        {
            "base": here.calls_made,
            "at": here.now,
            "tenants": whose,
            "versions": ["v2" if each in v2 else "v1" for each in whose],
            "reasons": ["assistant-not-found" if rng.random() < ERRORS else "customer-ended-call" for _ in whose],
            "ms": [rng.lognormvariate(6.1, 0.25) for _ in whose],
        },
    )
    here.calls_made += len(whose)


def _poisson(rng: Random, mean: float) -> int:
    many, left = 0, rng.expovariate(1)
    while left < mean:
        many, left = many + 1, left + rng.expovariate(1)
    return many


async def go(here: Scene, found: Sequence[Candidate]) -> int:
    """Hour by hour until it ends; a human promotes where that is asked. Returns the hours."""
    rng = Random(7)
    for hour in range(24 * 30):
        here.now += timedelta(minutes=1)
        await hour_of_calls(here, found, rng)
        await here.tick(minutes=1)
        await here.tick(minutes=1)
        rollout = await here.rollout()
        if rollout.finished_at is not None:
            return hour
        if rollout.standing.state == "Healthy" and not rollout.standing.is_last:
            await operating.promote(here.database, ANA, here.now, force=False)
        elif rollout.standing.state == "Paused":
            await operating.promote(here.database, replace(ANA, reason="few calls, none bad"), here.now, force=True)
        await fold(here.database)
        here.now += timedelta(minutes=57)
    raise AssertionError("it does not end")


async def test_the_default_plan_reaches_everybody(ready: Database) -> None:
    await load_sample(ready, tenants=90, calls=20_000)
    await asyncio.to_thread(succeeds, "migrate", "--skip-backup", url=ready.url)
    found = await operating.candidates(ready, SOURCE, NOW)
    fit = sorted((each for each in found if each.unverified is None), key=lambda each: -each.calls_per_day)
    here = Scene(ready, [each.tenant_id for each in fit[10:12]], NOW)
    plan = with_canary(DEFAULT, here.tenants)
    line = line_up(plan, found)
    expected = operating.expect(plan, line)
    await here.start(plan)
    hours = await go(here, found)
    rollout = await here.rollout()
    told = await rows(ready, "SELECT * FROM relevo.rollout_transitions ORDER BY id")
    for each in told:
        at = (each["at"] - told[0]["at"]) / timedelta(hours=1)
        name = plan.phases[each["phase"]].name
        print(
            f"{at:6.1f} h  {name:15} {each['source'] or '':>11} → {each['target']:11} {each['actor']:18} {each['why']}"
        )
    calls = await rows(ready, "SELECT version, count(*) AS calls FROM relevo.calls GROUP BY version ORDER BY version")
    print(f"complete after {hours} hours; calls {calls}; phases of {[each.tenants for each in expected]} tenants")
    assert rollout.standing.state == "Complete"
    assert (await row(ready))["percentage"] == 100
    forced = {each["phase"] - 1 for each in told if each["event"] == "force"}
    assert forced <= {number for number, each in enumerate(expected) if not each.in_time}
    assert not {each["event"] for each in told} & {"degrade", "single_out", "shrink", "roll_back", "overrule"}
