"""The sample: a v1 platform that looks lived in, and is the same for everybody who asks for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from statistics import quantiles
from zoneinfo import ZoneInfo

import psycopg
import pytest

from relevo.errors import Refused, UsageError
from relevo.events import Event, Progress
from relevo.simulator.rows import Business, Call, Configuration
from relevo.simulator.sample import SampleSummary, load
from relevo.simulator.world import DEFAULT_ASSISTANT_NAME, DEFAULT_FIRST_MESSAGE, World

NOW = datetime(2025, 11, 22, 14, tzinfo=UTC)


@cache
def businesses(tenants: int = 90, seed: int = 7) -> tuple[Business, ...]:
    return tuple(World(tenants, 0, seed, NOW).businesses())


@cache
def configurations(tenants: int = 90, seed: int = 7) -> tuple[Configuration, ...]:
    return tuple(World(tenants, 0, seed, NOW).configurations())


@cache
def calls(count: int = 50_000, tenants: int = 90, seed: int = 7) -> tuple[Call, ...]:
    return tuple(World(tenants, count, seed, NOW).call_rows())


def everything(world: World) -> list[tuple[object, ...]]:
    return [*world.businesses(), *world.configurations(), *world.call_rows()]


def test_the_same_seed_and_time_give_the_same_rows() -> None:
    assert everything(World(40, 2_000, 3, NOW)) == everything(World(40, 2_000, 3, NOW))


def test_another_seed_gives_other_rows() -> None:
    first, second = World(40, 2_000, 3, NOW), World(40, 2_000, 4, NOW)
    assert {row[0] for row in everything(first)}.isdisjoint(row[0] for row in everything(second))
    assert [row.name for row in first.businesses()] != [row.name for row in second.businesses()]


def test_the_zone_in_which_now_is_written_does_not_matter() -> None:
    there = NOW.astimezone(ZoneInfo("America/Tijuana"))
    assert everything(World(25, 1_000, 3, NOW)) == everything(World(25, 1_000, 3, there))


def test_verticals_keep_their_shares() -> None:
    count = Counter(row.vertical for row in businesses(2_000))
    assert count["restaurant"] / 2_000 == pytest.approx(0.55, abs=0.02)
    assert count["dental"] / 2_000 == pytest.approx(0.35, abs=0.02)
    assert {"veterinary", "salon", "spa"} < set(count)


def test_most_businesses_live_in_mexico_city_time_and_some_elsewhere() -> None:
    count = Counter(row.time_zone for row in businesses())
    assert count["America/Mexico_City"] > 60
    assert {"America/Tijuana", "America/Cancun", "America/Hermosillo"} < set(count)


def test_phone_numbers_are_mexican_distinct_and_nobodys() -> None:
    numbers = [row.phone_number for row in businesses(20_000)]
    assert all(re.fullmatch(r"\+52(55|33|81|442|664|998|662)0\d+", number) for number in numbers)
    assert {len(number) for number in numbers} == {13}
    assert len(set(numbers)) == len(numbers)


def test_no_sample_address_can_receive_mail() -> None:
    assert all(re.fullmatch(r"contacto\d+@[a-z0-9]+\.example", row.email) for row in businesses(2_000))


def test_businesses_are_older_than_the_history_of_calls() -> None:
    assert all(row.created_at < NOW - timedelta(days=60) for row in businesses())


def test_every_business_has_a_configuration_and_a_few_have_an_inactive_second() -> None:
    count = Counter(row.business_id for row in configurations())
    assert {row.id for row in businesses()} <= set(count)
    twice = [row for row in configurations() if row.business_id and count[row.business_id] == 2]
    assert len(twice) == 6
    assert sum(row.is_active is False and row.phone_number_id is None for row in twice) == 3


def test_names_and_greetings_are_mostly_the_platforms_own() -> None:
    names = {row.id: row.name for row in businesses(2_000)}
    rows = [row for row in configurations(2_000) if row.business_id in names]
    named = Counter(
        row.assistant_name and row.assistant_name == DEFAULT_ASSISTANT_NAME.format(business=names[row.business_id])
        for row in rows
        if row.business_id
    )
    greeted = Counter(
        row.first_message and row.first_message == DEFAULT_FIRST_MESSAGE.format(business=names[row.business_id])
        for row in rows
        if row.business_id
    )
    for count in (named, greeted):
        assert count[True] / len(rows) == pytest.approx(0.60, abs=0.05)
        assert count[False] / len(rows) == pytest.approx(0.22, abs=0.05)
        assert count[None] > 0


def test_some_are_inactive_some_undecided_and_some_without_a_voice() -> None:
    activity = Counter(row.is_active for row in configurations())
    voices = Counter(row.voice_id for row in configurations())
    assert 0.04 <= activity[False] / len(configurations()) <= 0.15
    assert activity[None] >= 1
    assert voices[None] >= 1
    assert voices[""] >= 1
    assert len(voices) >= 6


def test_no_configuration_is_younger_than_now_or_older_than_its_business() -> None:
    since = {row.id: row.created_at for row in businesses()}
    for row in configurations():
        assert row.created_at <= row.updated_at <= NOW
        if row.business_id in since:
            assert since[row.business_id] <= row.created_at


def test_latency_has_the_median_and_the_tail_that_v1_is_known_for() -> None:
    centiles = quantiles((row.avg_latency_ms for row in calls() if row.avg_latency_ms), n=100)
    assert centiles[49] == pytest.approx(700, rel=0.05)
    assert centiles[94] == pytest.approx(1_200, rel=0.05)


def test_three_calls_in_a_hundred_fail() -> None:
    count = Counter(row.status for row in calls())
    assert count["failed"] / len(calls()) == pytest.approx(0.03, abs=0.005)
    assert set(count) == {"completed", "failed", "no_answer", "canceled", "busy"}


def test_completed_calls_last_about_ninety_seconds() -> None:
    spoken = [row.duration_seconds for row in calls() if row.duration_seconds]
    assert quantiles(spoken, n=100)[49] == pytest.approx(90, rel=0.05)
    assert all(row.status == "completed" for row in calls() if row.duration_seconds)


def test_a_call_without_a_turn_has_no_latency() -> None:
    silent = [row for row in calls() if not row.duration_seconds]
    assert {row.duration_seconds for row in silent} == {0, None}
    assert {row.avg_latency_ms for row in silent} == {None}
    assert any(row.duration_seconds and row.avg_latency_ms is None for row in calls())


def test_calls_end_after_their_duration_and_before_now() -> None:
    for row in calls():
        if row.duration_seconds is None:
            assert row.ended_at is None
        else:
            assert row.ended_at == row.started_at + timedelta(seconds=row.duration_seconds)
            assert row.ended_at < NOW


def test_calls_come_in_order_from_the_last_sixty_days() -> None:
    times = [row.started_at for row in calls()]
    assert times == sorted(times)
    assert NOW - timedelta(days=60) <= times[0] < NOW - timedelta(days=58)
    assert NOW - timedelta(days=1) < times[-1] < NOW


def local_times(vertical: str) -> list[datetime]:
    zones = {row.id: ZoneInfo(row.time_zone) for row in businesses() if row.vertical == vertical}
    return [row.started_at.astimezone(zones[row.business_id]) for row in calls() if row.business_id in zones]


def test_clinics_are_called_in_office_hours_and_hardly_on_sundays() -> None:
    times = local_times("dental")
    assert 0 < sum(time.weekday() == 6 for time in times) / len(times) < 0.01
    assert sum(8 <= time.hour < 20 for time in times) / len(times) > 0.95


def test_restaurants_are_called_around_meals_and_most_at_weekends() -> None:
    times = local_times("restaurant")
    assert sum(time.hour in {13, 14, 15, 19, 20, 21} for time in times) / len(times) > 0.5
    assert sum(time.weekday() in {4, 5, 6} for time in times) / len(times) > 0.5
    assert not any(time.hour in {2, 3, 4} for time in times)


def test_volumes_are_very_unequal_and_some_tenants_are_never_called() -> None:
    known = {row.id for row in businesses()}
    volumes = sorted(Counter(row.business_id for row in calls() if row.business_id in known).values())
    assert len(volumes) < 90
    assert sum(volumes[-9:]) > 0.4 * sum(volumes)
    assert volumes[0] < 100 < 2_000 < volumes[-1]


def repeated(values: Iterable[str | None]) -> int:
    count = Counter(value for value in values if value is not None)
    return sum(times > 1 for times in count.values())


def broken_in(world: World) -> dict[str, int]:
    """The broken rows, counted as a reader of the tables would."""
    known = {row.id for row in world.businesses()}
    configured = [row.business_id for row in world.configurations()]
    called = [row.business_id for row in world.call_rows()]
    mute = {row.id for row in world.businesses() if row.vertical is None}
    return {
        "config_without_business": configured.count(None),
        "config_with_unknown_business": len(set(configured) - known - {None}),
        "business_without_vertical": len(mute & set(configured)),
        "duplicate_phone_number_id": repeated(row.phone_number_id for row in world.configurations()),
        "call_without_business": called.count(None),
        "call_with_unknown_business": len(set(called) - known - {None}),
        "duplicate_vapi_call_id": repeated(row.vapi_call_id for row in world.call_rows()),
    }


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_of_broken_row_occurs_as_often_as_said(seed: int) -> None:
    world = World(90, 3_000, seed, NOW)
    assert broken_in(world) == world.faults.counts()
    assert set(world.faults.counts().values()) <= {1, 2, 3}


def test_a_small_world_is_whole() -> None:
    world = World(19, 3_000, 7, NOW)
    assert world.faults.counts() == {}
    assert not any(broken_in(world).values())


def test_few_calls_are_all_whole() -> None:
    kinds = World(90, 999, 7, NOW).faults.counts()
    assert kinds
    assert not any("call" in kind for kind in kinds)


def test_the_number_of_calls_changes_no_other_table() -> None:
    quiet, busy = World(90, 0, 7, NOW), World(90, 5_000, 7, NOW)
    assert list(quiet.businesses()) == list(busy.businesses())
    assert list(quiet.configurations()) == list(busy.configurations())


def test_broken_rows_do_not_change_how_many_calls_there_are() -> None:
    assert len(calls()) == 50_000
    assert len({row.id for row in calls()}) == 50_000


def test_a_world_of_one_is_a_flawless_restaurant() -> None:
    world = World(1, 500, 7, NOW)
    (business,), (configuration,) = world.businesses(), world.configurations()
    assert (business.vertical, business.time_zone) == ("restaurant", "America/Mexico_City")
    assert configuration.business_id == business.id
    assert configuration.is_active is True
    assert "## " in (configuration.system_prompt or "")
    assert {row.business_id for row in world.call_rows()} == {business.id}


@pytest.mark.parametrize(("tenants", "count"), [(0, 0), (-1, 5), (1, -1)])
def test_impossible_numbers_are_refused(tenants: int, count: int) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        World(tenants, count, 7, NOW)


COUNTS = """
    SELECT (SELECT count(*) FROM businesses), (SELECT count(*) FROM voice_agent_config),
           (SELECT count(*) FROM voice_calls)
"""


async def test_loading_fills_the_tables_with_the_worlds_rows(database_url: str) -> None:
    world = World(25, 1_500, 7, NOW)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        summary = await load(connection, tenants=25, calls=1_500, now=NOW)
        assert summary == SampleSummary(25, world.configuration_count, 1_500, world.faults.counts())
        for table, expected in (
            ("businesses", world.businesses()),
            ("voice_agent_config", world.configurations()),
            ("voice_calls", world.call_rows()),
        ):
            rows = await (await connection.execute(f"TABLE {table}".encode())).fetchall()
            assert set(rows) == set(map(tuple, expected))


async def test_one_tenant_without_calls_can_be_loaded(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        assert await load(connection, tenants=1, calls=0, now=NOW) == SampleSummary(1, 1, 0, {})


async def test_a_database_with_rows_is_refused_and_left_as_it_is(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await load(connection, tenants=2, calls=10, now=NOW)
        with pytest.raises(Refused, match="businesses already has rows"):
            await load(connection, tenants=3, calls=10, now=NOW)
        assert await (await connection.execute(COUNTS)).fetchone() == (2, 2, 10)


async def test_a_load_that_breaks_leaves_nothing(database_url: str) -> None:
    def unplugged(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "calls":
            raise ConnectionError

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        with pytest.raises(ConnectionError):
            await load(connection, tenants=2, calls=10, now=NOW, emit=unplugged)
        assert await (await connection.execute("SELECT to_regclass('public.businesses')")).fetchone() == (None,)


async def test_progress_reaches_the_total_of_each_table_once(database_url: str) -> None:
    events: list[Event] = []
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await load(connection, tenants=30, calls=10_000, now=NOW, emit=events.append)
    reached = [each.unit for each in events if isinstance(each, Progress) and each.done == each.total]
    assert reached == ["businesses", "configurations", "calls"]
    assert Progress(5_000, 10_000, "calls") in events


async def test_defaults_of_the_tables_are_those_of_the_platform(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await load(connection, tenants=1, calls=0, now=NOW)
        found = await connection.execute(
            "INSERT INTO voice_agent_config (id) VALUES (gen_random_uuid())"
            " RETURNING is_active, created_at = now(), updated_at = now()"
        )
        assert await found.fetchone() == (True, True, True)
        found = await connection.execute(
            "INSERT INTO businesses (id) VALUES (gen_random_uuid()) RETURNING time_zone, vertical"
        )
        assert await found.fetchone() == ("America/Mexico_City", None)
