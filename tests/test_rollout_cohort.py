"""Who is on v2 as a rollout goes forwards and back: forwards nobody leaves; back nobody joins, and somebody leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import Refused, SomebodyWasFaster
from relevo.flags.writing import Author
from relevo.rollout import operating
from relevo.rollout import plan as plans
from relevo.rollout.moving import CONTROLLER, move
from relevo.rollout.plan import DEFAULT
from relevo.rollout.state import ENDED
from tests.conftest import change, copied, made, rows, value
from tests.flags import row, write
from tests.rollouts import ANA, Scene, scene
from tests.servers import Server

MOST = 44
Step = tuple[Literal["forward", "skip", "back", "single out", "unverify"], int]
STEPS = st.tuples(
    st.sampled_from(["forward", "forward", "skip", "back", "back", "single out", "unverify"]), st.integers(0, MOST - 1)
)


async def suffer(here: Scene) -> str | None:
    """v2 fails as level 2 does, for all of its tenants alike; returns what was done."""
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 600, errors=27, tenants=sorted(await on_v2(here.database)))
    await here.calls("v1", 900, errors=2)
    ticked = await here.tick(seconds=1)
    return None if ticked is None or ticked.move is None else ticked.move.event


async def on_v2(database: Database) -> set[str]:
    """By the flag's row, of the active tenants."""
    query = "SELECT id FROM relevo.active_tenants() AS t (id) WHERE public.should_use_voice_agent_v2(id)"
    return {each["id"] for each in await rows(database, query)}


async def send_back_alone(here: Scene, tenant: str) -> None:
    """As level 1 does."""
    async with here.database.transaction() as connection:
        rollout = await here.rollout()
        await move(connection, rollout, "single_out", here.now, Author(CONTROLLER, "alone"), tenant=tenant)


async def unverify(database: Database, tenant: str) -> None:
    """Its rows are not any more as they were verified."""
    await change(database, "UPDATE relevo.verifications SET state = 'drifted' WHERE business_id::text = %s", (tenant,))


async def begin(here: Scene, *, canary: int, phase: int) -> None:
    """A rollout that has come to this phase."""
    await here.start(canary=canary)
    for _ in range(phase):
        await here.settle_into()
        await operating.promote(here.database, ANA, here.now, force=True)


async def test_a_phase_of_fewer_than_the_canary_takes_none_of_it_off(ready: Database) -> None:
    here = await scene(ready, verified=20)
    await begin(here, canary=3, phase=1)
    assert await here.on_v2() == here.tenants[:3]


async def test_level_2_where_no_phase_had_fewer_brings_everybody_back(ready: Database) -> None:
    here = await scene(ready, verified=26)
    await begin(here, canary=3, phase=1)
    assert await suffer(here) == "roll_back"
    assert (await on_v2(ready), (await here.rollout()).standing.state) == (set(), "RolledBack")


async def test_level_2_goes_to_the_last_phase_that_had_fewer_than_are_on_v2(ready: Database) -> None:
    here = await scene(ready, verified=40)
    await begin(here, canary=3, phase=3)
    before = await here.on_v2()
    for tenant in before[3:16]:
        await send_back_alone(here, tenant)
    assert await suffer(here) == "shrink"  # 7 are left; expansion has 10, early adopters 4
    assert ((await here.rollout()).standing.phase, await here.on_v2()) == (1, [*before[:3], before[16]])


async def test_level_2_switches_nothing_on_that_somebody_switched_off(ready: Database) -> None:
    here = await scene(ready, verified=40)
    await begin(here, canary=3, phase=2)
    await here.tick(seconds=5)
    listed = await here.on_v2()
    await write(ready, "enabled = false, enabled_tenants = %s", listed)
    await operating.change(ready, "resume", ANA, here.now)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 600, errors=27, tenants=listed)  # they had begun before
    await here.calls("v1", 900, errors=2)
    await here.tick(seconds=1)
    assert (await on_v2(ready), (await here.rollout()).standing.state) == (set(), "RolledBack")


async def test_a_way_back_on_which_nobody_would_leave_any_more_is_not_gone(ready: Database) -> None:
    here = await scene(ready, verified=26)
    await begin(here, canary=3, phase=1)
    with pytest.raises(SomebodyWasFaster):
        async with ready.transaction() as connection:
            await move(connection, await here.rollout(), "shrink", here.now, ANA, phase=0)
    assert ((await here.rollout()).standing.state, await here.on_v2()) == ("Pending", here.tenants[:3])


async def test_who_was_sent_back_alone_joins_no_more_though_the_disabled_list_has_lost_them(ready: Database) -> None:
    here = await scene(ready, verified=20)
    await begin(here, canary=3, phase=0)
    await here.tick(seconds=5)
    await send_back_alone(here, here.tenants[0])
    marked = "SELECT array_agg(tenant_id) FROM relevo.rollout_cohort WHERE singled_out_at IS NOT NULL"
    assert await value(ready, marked) == [here.tenants[0]]
    await write(ready, "disabled_tenants = '{}'")
    await here.tick(seconds=5)
    await operating.promote(ready, ANA, here.now, force=True, ahead=9)
    assert await on_v2(ready) == {*here.tenants[1:]}


# Whatever the arrows --------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What a walk has seen."""

    singled_out: set[str] = field(default_factory=set)
    unverified: set[str] = field(default_factory=set)
    happened: Counter[str] = field(default_factory=Counter)


async def go(here: Scene, step: Step, told: Told) -> None:
    """One step, and the law of it."""
    what, place = step
    await here.tick(seconds=5)
    standing = (await here.rollout()).standing
    before = await on_v2(here.database)
    if standing.state in ENDED:
        return
    if what == "unverify":
        tenant = here.tenants[place % len(here.tenants)]
        await unverify(here.database, tenant)
        told.unverified.add(tenant)
    elif what == "single out" and len(before) > 1:
        tenant = sorted(before)[place % len(before)]
        await send_back_alone(here, tenant)
        told.singled_out.add(tenant)
        assert await on_v2(here.database) == before - {tenant}
    elif what in ("forward", "skip") and not standing.is_last:
        with suppress(Refused):
            await operating.promote(here.database, ANA, here.now, force=True, ahead=1 if what == "forward" else 2)
        after = await on_v2(here.database)
        shared = (await row(here.database))["percentage"] > 0
        left = before - after  # by a share only who is verified stays: the flag's trigger sees to that
        assert left <= (told.unverified if shared else set()), "who was on v2 was thrown off by going forwards"
        assert not (after - before) & (told.singled_out | told.unverified)
        told.happened["share"] += shared
    elif what == "back":
        did = await suffer(here)
        after = await on_v2(here.database)
        told.happened[did or "nothing"] += 1
        if did in ("shrink", "roll_back"):
            assert after < before, "going back put somebody on v2, or took nobody off"
            assert (did == "shrink") == bool(after)


async def walk(url: str, tenants: int, canary: int, unverified: Sequence[int], steps: Sequence[Step]) -> Counter[str]:
    """A rollout of so many tenants along these steps; returns what happened how often."""
    told = Told()
    async with Database(url) as database:
        found = await rows(database, "SELECT business_id::text AS id FROM relevo.verifications ORDER BY 1")
        here = Scene(database, [each["id"] for each in found][:tenants])
        idle = "UPDATE public.voice_agent_config SET is_active = false WHERE business_id::text <> ALL (%s)"
        await change(database, idle, (here.tenants,))
        for place in unverified:
            if canary <= place < tenants:
                await unverify(database, here.tenants[place])
                told.unverified.add(here.tenants[place])
        await here.start(replace(DEFAULT, rollback="automatic"), canary=canary)
        for step in steps:
            await go(here, step, told)
    return told.happened


@pytest.fixture(scope="module", params=[plans.LARGEST_LIST, 8], ids=["listed", "shared"])
def platform(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a database with verified tenants, to be copied; all of them fit on the flag's list, or few do."""

    async def make() -> None:
        async with Database(url) as database:
            await migrations.up(database)
            await scene(database, verified=MOST)
            await change(
                database,
                f"""CREATE OR REPLACE FUNCTION relevo.largest_list() RETURNS integer
                    LANGUAGE sql IMMUTABLE SET search_path = '' RETURN {request.param}""",
            )

    with made(server, "cohorts") as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "LARGEST_LIST", request.param)
        asyncio.run(make())
        yield "cohorts"


def test_forwards_nobody_leaves_and_back_nobody_joins_and_somebody_leaves(server: Server, platform: str) -> None:
    happened: Counter[str] = Counter()

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.integers(5, MOST),
        st.integers(2, 3),
        st.lists(st.integers(0, MOST - 1), max_size=20),
        st.integers(0, 4),
        st.lists(STEPS, min_size=1, max_size=8),
    )
    def whatever_happens(tenants: int, canary: int, unverified: list[int], phases: int, steps: list[Step]) -> None:
        with copied(server, platform) as url:
            ahead: list[Step] = [("forward", 0)] * phases
            happened.update(asyncio.run(walk(url, tenants, canary, unverified, [*ahead, *steps])))

    whatever_happens()
    print(f"went over {dict(happened)}")
    assert happened.keys() >= {"shrink", "roll_back"}
    assert bool(happened["share"]) == (plans.LARGEST_LIST < MOST)
