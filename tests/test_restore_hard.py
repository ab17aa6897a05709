"""Restoring into tables as people really build them, and while everything goes wrong."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from relevo import events
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import DatabaseUnreachable
from relevo.migration.mapping import DEFAULT
from relevo.migration.steps import difference
from tests.conftest import OWNER, change, copied, durable_server, load_sample, rows, value
from tests.poolers import PGBOUNCER, pooling
from tests.servers import Server
from tests.test_kills import start_again
from tests.test_pooler import through
from tests.test_restore import MEDDLE, NEW_CALL, RESTORED, refused, restored, shown, state, taken

V1 = ("public.voice_agent_config", "public.voice_calls")


# --- foreign keys ---


async def test_foreign_keys_in_and_out_and_between_and_to_itself(sampled: Database) -> None:
    """In a circle, so that no order of statements would do."""
    await change(sampled, "DELETE FROM public.voice_agent_config c WHERE business_id IS NULL")
    await change(
        sampled,
        """INSERT INTO public.businesses (id) SELECT DISTINCT business_id FROM public.voice_agent_config
           UNION SELECT business_id FROM public.voice_calls WHERE business_id IS NOT NULL ON CONFLICT DO NOTHING""",
    )
    await change(
        sampled,
        """ALTER TABLE public.voice_agent_config
               ADD FOREIGN KEY (business_id) REFERENCES public.businesses,
               ADD parent_id uuid REFERENCES public.voice_agent_config,
               ADD last_call_id uuid REFERENCES public.voice_calls;
           ALTER TABLE public.voice_calls
               ADD config_id uuid REFERENCES public.voice_agent_config;
           UPDATE public.voice_agent_config SET parent_id = id,
               last_call_id = (SELECT id FROM public.voice_calls c WHERE c.business_id = voice_agent_config.business_id
                               ORDER BY id LIMIT 1);
           UPDATE public.voice_calls SET config_id = (SELECT id FROM public.voice_agent_config c
               WHERE c.business_id = voice_calls.business_id ORDER BY id LIMIT 1);
           CREATE TABLE public.notes (config_id uuid REFERENCES public.voice_agent_config)""",
    )
    made = await taken(sampled)
    before = await state(sampled, *V1)
    # A new configuration takes the place of an old one everywhere, and the old one goes.
    await change(
        sampled,
        """INSERT INTO public.voice_agent_config (id, business_id) SELECT gen_random_uuid(), business_id
           FROM public.voice_agent_config;
           UPDATE public.voice_agent_config SET last_call_id = NULL, parent_id = (SELECT max(id::text)::uuid
               FROM public.voice_agent_config n WHERE n.system_prompt IS NULL AND n.parent_id IS NULL);
           UPDATE public.voice_calls SET config_id = (SELECT max(id::text)::uuid FROM public.voice_agent_config n
               WHERE n.last_call_id IS NULL AND n.assistant_name IS NULL);
           DELETE FROM public.voice_calls WHERE status = 'failed';
           DELETE FROM public.voice_agent_config WHERE assistant_name IS NOT NULL""",
    )
    present = await state(sampled, *V1)
    keys = "SELECT conname, condeferrable, condeferred FROM pg_constraint WHERE contype = 'f' ORDER BY oid"
    constraints = await rows(sampled, keys)
    done = await restored(sampled, made)
    assert await state(sampled, *V1) == before
    assert await rows(sampled, keys) == constraints
    await restored(sampled, done.backup_before)
    assert await state(sampled, *V1) == present


@pytest.mark.parametrize(("action", "what"), [("NO ACTION", "keeps"), ("CASCADE", "deleted"), ("SET NULL", "emptied")])
async def test_what_hangs_on_an_extra_row_is_counted_first(sampled: Database, action: str, what: str) -> None:
    made = await taken(sampled)
    before = await state(sampled, *V1)
    await change(
        sampled,
        f"""INSERT INTO public.voice_agent_config (id) VALUES ('00000000-0000-4000-8000-000000000001');
            CREATE TABLE public.notes (id int PRIMARY KEY,
                config_id uuid REFERENCES public.voice_agent_config ON DELETE {action});
            CREATE TABLE public.pages (note_id int REFERENCES public.notes ON DELETE {action});
            INSERT INTO public.notes VALUES (1, '00000000-0000-4000-8000-000000000001'), (2, NULL);
            INSERT INTO public.pages VALUES (1), (1), (2)""",
    )
    found = await difference.preview(sampled, DEFAULT, made, tenant_ids=None, discard_newer=False)
    told = {each.table: (each.rows, each.what) for each in found.hanging}
    assert told["public.notes"][0] == 1
    assert what in told["public.notes"][1]
    assert told.get("public.pages") == ((2, "deleted") if action == "CASCADE" else None)
    error = await refused(sampled, made)
    assert "public.notes" in str(error)
    assert error.exit_status == 3
    if action == "NO ACTION":
        await refused(sampled, made, discard_newer=True)
    else:
        await restored(sampled, made, discard_newer=True)
        assert await state(sampled, *V1) == before
        assert await value(sampled, "SELECT count(config_id) FROM public.notes") == 0


async def test_a_kept_call_that_points_at_an_extra_configuration_keeps_it(sampled: Database) -> None:
    await change(
        sampled,
        "ALTER TABLE public.voice_calls ADD config_id uuid REFERENCES public.voice_agent_config ON DELETE CASCADE",
    )
    made = await taken(sampled)
    before = await state(sampled, *V1)
    await change(
        sampled,
        """INSERT INTO public.voice_agent_config (id) VALUES ('00000000-0000-4000-8000-000000000001');
           INSERT INTO public.voice_calls (id, config_id)
           VALUES (gen_random_uuid(), '00000000-0000-4000-8000-000000000001')""",
    )
    assert "--discard-newer" in (await refused(sampled, made)).fix
    await restored(sampled, made, discard_newer=True)
    assert await state(sampled, *V1) == before


async def test_a_row_whose_parent_is_gone_is_refused_by_name(sampled: Database) -> None:
    await change(sampled, "DELETE FROM public.voice_agent_config c WHERE business_id IS NULL")
    await change(
        sampled,
        """INSERT INTO public.businesses (id) SELECT DISTINCT business_id FROM public.voice_agent_config
           ON CONFLICT DO NOTHING;
           ALTER TABLE public.voice_agent_config ADD FOREIGN KEY (business_id) REFERENCES public.businesses
           ON DELETE CASCADE""",
    )
    made = await taken(sampled)
    business = await value(sampled, "SELECT min(business_id::text) FROM public.voice_agent_config")
    await change(sampled, "DELETE FROM public.businesses WHERE id = %s", [business])
    error = await refused(sampled, made)
    assert business in str(error)
    assert "businesses" in str(error)


# --- columns, keys, triggers, policies ---


async def test_swapped_unique_values_identities_and_generated_columns(sampled: Database) -> None:
    await change(
        sampled,
        """ALTER TABLE public.voice_agent_config
               ADD slug text UNIQUE, ADD number bigint GENERATED ALWAYS AS IDENTITY,
               ADD loud text GENERATED ALWAYS AS (upper(assistant_name)) STORED;
           UPDATE public.voice_agent_config SET slug = id::text""",
    )
    made = await taken(sampled)
    before = await state(sampled, *V1)
    await change(
        sampled,
        """UPDATE public.voice_agent_config SET slug = NULL;
           UPDATE public.voice_agent_config c SET slug = o.id::text, assistant_name = 'other'
           FROM (SELECT id, lead(id) OVER (ORDER BY id) AS next FROM public.voice_agent_config) AS o
           WHERE o.next = c.id;
           UPDATE public.voice_agent_config SET number = DEFAULT
           WHERE id = (SELECT min(id::text)::uuid FROM public.voice_agent_config);
           DELETE FROM public.voice_agent_config
           WHERE id = (SELECT max(id::text)::uuid FROM public.voice_agent_config)""",
    )
    present = await state(sampled, *V1)
    done = await restored(sampled, made)
    assert await state(sampled, *V1) == before
    await restored(sampled, done.backup_before)
    assert await state(sampled, *V1) == present


async def test_numbers_go_on_after_those_that_came_back(sampled: Database) -> None:
    await change(sampled, "ALTER TABLE public.voice_calls ADD number bigint GENERATED ALWAYS AS IDENTITY UNIQUE")
    made = await taken(sampled)
    await change(sampled, "TRUNCATE public.voice_calls RESTART IDENTITY")
    await restored(sampled, made)
    await change(sampled, NEW_CALL)


TRIGGER_STATES = """
    SELECT c.relname, t.tgname, t.tgenabled::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal ORDER BY 1, 2
"""


async def test_triggers_do_not_fire_and_are_as_they_were(sampled: Database) -> None:
    await change(
        sampled,
        """CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.updated_at = '2030-01-01'; RETURN NEW; END $$;
           CREATE FUNCTION public.never() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE 'a trigger fired'; END $$;
           CREATE TRIGGER touched BEFORE INSERT OR UPDATE ON public.voice_agent_config
           FOR EACH ROW EXECUTE FUNCTION public.touch();""",
    )
    made = await taken(sampled)
    before = await state(sampled, *V1)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    await change(sampled, "DELETE FROM public.voice_calls WHERE status = 'failed'")
    for table in V1:
        for name, mode in (("o", ""), ("d", "DISABLE"), ("a", "ENABLE ALWAYS"), ("r", "ENABLE REPLICA")):
            await change(
                sampled,
                f"""CREATE TRIGGER never_{name} AFTER INSERT OR UPDATE OR DELETE ON {table}
                    FOR EACH ROW EXECUTE FUNCTION public.never()""",
            )
            if mode:
                await change(sampled, f"ALTER TABLE {table} {mode} TRIGGER never_{name}")
    states = await rows(sampled, TRIGGER_STATES)
    assert {row["tgenabled"] for row in states} == {"O", "D", "A", "R"}
    await restored(sampled, made)
    assert await state(sampled, *V1) == before
    assert await rows(sampled, TRIGGER_STATES) == states


@pytest.mark.parametrize("force", ["NO FORCE", "FORCE"])
async def test_row_level_security(sampled: Database, force: str) -> None:
    made = await taken(sampled)
    before = await state(sampled, *V1)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    await change(sampled, "DELETE FROM public.voice_calls WHERE status = 'failed'")
    for table in V1:
        await change(sampled, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, {force} ROW LEVEL SECURITY")
    assert (await shown(sampled, made))["public.voice_calls"].insert > 0
    await restored(sampled, made)
    flags = await rows(
        sampled,
        """SELECT relrowsecurity, relforcerowsecurity FROM pg_class
           WHERE oid IN ('public.voice_agent_config'::regclass, 'public.voice_calls'::regclass)""",
    )
    assert [tuple(row.values()) for row in flags] == [(True, force == "FORCE")] * 2
    for table in V1:
        await change(sampled, f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    assert await state(sampled, *V1) == before


async def test_partitioned_calls(sampled: Database) -> None:
    await change(
        sampled,
        """ALTER TABLE public.voice_calls RENAME TO old_calls;
           CREATE TABLE public.voice_calls (LIKE public.old_calls INCLUDING DEFAULTS, PRIMARY KEY (id, started_at))
           PARTITION BY RANGE (started_at);
           CREATE TABLE public.calls_past PARTITION OF public.voice_calls FOR VALUES FROM (MINVALUE) TO ('2026-11-08');
           CREATE TABLE public.calls_now PARTITION OF public.voice_calls FOR VALUES FROM ('2026-11-08') TO (MAXVALUE);
           INSERT INTO public.voice_calls SELECT * FROM public.old_calls WHERE started_at IS NOT NULL;
           CREATE FUNCTION public.never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$""",
    )
    made = await taken(sampled)
    before = await state(sampled, *V1)
    await change(sampled, "UPDATE public.voice_calls SET status = 'lost' WHERE status = 'failed'")
    await change(sampled, "UPDATE public.voice_calls SET started_at = '2026-11-20' WHERE status = 'no-answer'")
    await change(sampled, "DELETE FROM public.voice_calls WHERE duration_seconds > 100")
    await change(
        sampled,
        """CREATE TRIGGER never AFTER INSERT OR UPDATE OR DELETE ON public.voice_calls
           FOR EACH ROW EXECUTE FUNCTION public.never();
           ALTER TABLE public.calls_past ENABLE ALWAYS TRIGGER never""",
    )
    present, states = await state(sampled, *V1), await rows(sampled, TRIGGER_STATES)
    done = await restored(sampled, made, discard_newer=True)  # what moved to another time is another row
    assert await state(sampled, *V1) == before
    assert await rows(sampled, TRIGGER_STATES) == states
    await restored(sampled, done.backup_before)
    assert await state(sampled, *V1) == present


async def test_columns_added_dropped_and_of_another_type(sampled: Database) -> None:
    made = await taken(sampled)
    before = await state(
        sampled,
        "(SELECT id, system_prompt, duration_seconds::text FROM public.voice_agent_config"
        " LEFT JOIN public.voice_calls USING (id))",
    )
    await change(sampled, "ALTER TABLE public.voice_agent_config ADD colour text DEFAULT 'red'")
    await change(sampled, "UPDATE public.voice_agent_config SET colour = 'blue', system_prompt = 'edited'")
    await change(sampled, "ALTER TABLE public.voice_calls ALTER COLUMN duration_seconds TYPE bigint")
    await change(sampled, "UPDATE public.voice_calls SET duration_seconds = 5000000000")
    foretold = await shown(sampled, made)
    assert foretold["public.voice_agent_config"].added_columns == ("colour",)
    await restored(sampled, made)
    assert await state(sampled, *before) == before
    assert await value(sampled, "SELECT count(*) FROM public.voice_agent_config WHERE colour <> 'blue'") == 0
    await change(sampled, "ALTER TABLE public.voice_calls ALTER COLUMN duration_seconds TYPE boolean USING true")
    assert "duration_seconds was integer and is boolean now" in str(await refused(sampled, made))
    await change(sampled, "ALTER TABLE public.voice_calls DROP COLUMN duration_seconds")
    error = await refused(sampled, made)
    assert "has lost columns since the backup: duration_seconds" in str(error)
    assert "ADD COLUMN duration_seconds integer" in error.fix


async def test_a_table_without_a_key_cannot_be_told_apart(sampled: Database) -> None:
    made = await taken(sampled)
    await change(sampled, "ALTER TABLE public.voice_calls DROP CONSTRAINT voice_calls_pkey")
    assert "no primary key" in str(await refused(sampled, made))
    await change(sampled, "CREATE UNIQUE INDEX ON public.voice_calls (id)")
    await restored(sampled, made)


# --- in the middle ---


async def test_writers_wait_and_are_not_lost(sampled: Database) -> None:
    made = await taken(sampled)
    before = await state(sampled, "public.voice_agent_config")
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    (victim,) = (await rows(sampled, "SELECT id FROM public.voice_agent_config ORDER BY id LIMIT 1"))[0].values()
    writers: list[asyncio.Task[Any]] = []

    async with Database(sampled.url) as another:

        def sink(event: events.Event) -> None:
            if isinstance(event, events.Progress) and "update" in event.unit and not writers:
                written = "UPDATE public.voice_agent_config SET voice_id = 'later' WHERE id = %s"
                writers.append(asyncio.create_task(change(another, written, [victim])))
                writers.append(asyncio.create_task(change(another, NEW_CALL)))

        await restored(sampled, made, emit=sink)
        assert len(writers) == 2
        await asyncio.gather(*writers)
    assert await value(sampled, "SELECT voice_id FROM public.voice_agent_config WHERE id = %s", [victim]) == "later"
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE vapi_call_id = 'new'") == 8
    await restored(sampled, made)
    assert await state(sampled, "public.voice_agent_config") == before


async def test_a_reader_need_not_wait(sampled: Database) -> None:
    made = await taken(sampled)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    reading: list[asyncio.Task[Any]] = []
    async with Database(sampled.url) as another:

        def sink(event: events.Event) -> None:
            if isinstance(event, events.Progress) and "update" in event.unit:
                query = "SELECT count(*) FROM public.voice_agent_config WHERE first_message = 'edited'"
                reading.append(asyncio.create_task(value(another, query)))

        done = asyncio.create_task(restored(sampled, made, emit=sink))
        await done
        assert reading
        await asyncio.gather(*reading)


SUICIDAL = """
import asyncio, os, signal, sys
from relevo import events
from relevo.db.pool import Database
from tests.test_restore import restored
from uuid import UUID

url, backup_id, last = sys.argv[1], UUID(sys.argv[2]), int(sys.argv[3])
said = 0

def sink(event):
    global said
    said += 1
    if said == last:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Database(url) as database:
        await restored(database, backup_id, emit=sink)

asyncio.run(main())
"""


def restoring(url: str, backup_id: object, last: int) -> int:
    """How a restore ends whose process kills itself at the ``last`` thing it says."""
    return subprocess.run([sys.executable, "-c", SUICIDAL, url, str(backup_id), str(last)]).returncode


async def test_killed_at_anything_it_says_it_changed_nothing_and_the_next_says_so(sampled: Database) -> None:
    made = await taken(sampled)
    before = await state(sampled)
    await change(sampled, MEDDLE)
    present = await state(sampled)
    backups = await value(sampled, "SELECT count(*) FROM public.migration_backups")
    killed = 0
    for last in (1, 2, 3, 5, 7, 9, 11):
        status = await asyncio.to_thread(restoring, sampled.url, made.id, last)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        assert await state(sampled) == present
        assert await value(sampled, "SELECT count(*) FROM public.migration_backups") == backups
    assert killed >= 5
    if await state(sampled) == present:
        done = await restored(sampled, made)
        assert "was cut off: nothing was changed by it" in done.interrupted[0]
    assert await state(sampled) == before


@pytest.fixture
def durable() -> Iterator[Server]:
    """A server that keeps what it has committed."""
    with durable_server("killed") as server:
        yield server


@pytest.mark.parametrize("moment", [1, 4, 7, 9])  # of the nine things a restore of this backup says
async def test_postgresql_killed_in_the_middle(durable: Server, moment: int) -> None:
    async with Database(durable.url("killed", OWNER)) as database:
        await migrations.up(database)
        await load_sample(database)
        made = await taken(database)
        before = await state(database)
        await change(database, MEDDLE)
        present = await state(database)
        said = 0

        def sink(_event: events.Event) -> None:
            nonlocal said
            said += 1
            if said == moment:
                durable.pull_the_plug()

        with pytest.raises(DatabaseUnreachable):
            await restored(database, made, emit=sink)
    start_again(durable)
    async with Database(durable.url("killed", OWNER)) as database:
        assert await state(database) == present
        done = await restored(database, made)
        assert len(done.interrupted) == 1
        assert await state(database) == before


async def test_through_a_transaction_pooler(server: Server, template: str) -> None:
    if not PGBOUNCER.exists():
        pytest.skip(f"{PGBOUNCER} is not installed: apt-get install pgbouncer")
    with copied(server, template) as url, pooling(server, OWNER) as port:
        async with Database(through(port, url)) as database:
            made = await taken(database)
            before = await state(database)
            await change(database, MEDDLE)
            present = await state(database)
            done = await restored(database, made)
            assert await state(database) == before
            await restored(database, done.backup_before)
            assert await state(database) == present


async def test_an_interfering_rule_is_found_and_nothing_changes(sampled: Database) -> None:
    made = await taken(sampled)
    await change(sampled, "DELETE FROM public.voice_agent_config WHERE is_active")
    await change(sampled, "CREATE RULE deaf AS ON INSERT TO public.voice_agent_config DO INSTEAD NOTHING")
    assert "interferes" in str(await refused(sampled, made))


# --- a law ---

CONFIGS = st.tuples(st.just("config"), st.sampled_from(["insert", "update", "delete", "swap"]), st.integers(0, 5))
CALLS = st.tuples(st.just("call"), st.sampled_from(["insert", "update", "delete"]), st.integers(0, 5))
EDITS = st.lists(st.one_of(CONFIGS, CALLS), max_size=8)


def statement_of(edit: tuple[str, str, int]) -> str:
    """An edit of the ``n``-th rows, in SQL; "swap": two rows exchange a unique value."""
    kind, what, n = edit
    table, text = ("voice_agent_config", "assistant_name") if kind == "config" else ("voice_calls", "status")
    nth = f"(SELECT id FROM public.{table} ORDER BY md5(id::text || {n}) LIMIT 3)"
    return {
        "insert": f"INSERT INTO public.{table} (id, {text}) SELECT gen_random_uuid(), '{n}'"
        f" FROM generate_series(0, {n})",
        "update": f"UPDATE public.{table} SET {text} = coalesce({text}, '') || '{n}' WHERE id IN {nth}",
        "delete": f"DELETE FROM public.{table} WHERE id IN {nth}",
        "swap": f"""UPDATE public.{table} SET slug = '~' || slug WHERE id IN {nth};
                    UPDATE public.{table} c SET slug = n.next
                    FROM (SELECT id, substr(coalesce(lead(slug) OVER w, first_value(slug) OVER w), 2) AS next
                          FROM public.{table} WHERE slug LIKE '~%' WINDOW w AS (ORDER BY id)) AS n
                    WHERE n.id = c.id""",
    }[what]


@pytest.fixture
def with_slugs(server: Server, template: str) -> Iterator[str]:
    """A v1 whose configurations have a unique column beside their key."""
    with copied(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(b"ALTER TABLE public.voice_agent_config ADD slug text UNIQUE")
            connection.execute(b"UPDATE public.voice_agent_config SET slug = id::text")
            connection.execute(
                b"DELETE FROM public.voice_agent_config WHERE id NOT IN"
                b" (SELECT id FROM public.voice_agent_config ORDER BY id LIMIT 12)"
            )
            connection.execute(
                b"DELETE FROM public.voice_calls WHERE id NOT IN"
                b" (SELECT id FROM public.voice_calls ORDER BY id LIMIT 12)"
            )
        yield url


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits=EDITS, discard=st.booleans())
def test_whatever_was_edited_a_restore_is_exact_and_so_is_its_undo(
    with_slugs: str, edits: list[tuple[str, str, int]], discard: bool
) -> None:
    async def holds() -> None:
        async with Database(with_slugs, size=4) as database:
            made = await taken(database)
            before = await state(database)
            for edit in edits:
                await change(database, statement_of(edit))
            present = await state(database)
            known = made.contents["public.voice_calls"]["copy"]
            newer = await ids(database, f"id NOT IN (SELECT id FROM {known})")
            done = await restored(database, made, discard_newer=discard)
            old = f"id IN (SELECT id FROM {known})"
            for table in RESTORED:
                whole = "true" if table != "public.voice_calls" or discard else old
                expected = {table: before[table]}
                assert await state(database, table, where=whole) == expected
            assert await ids(database, f"NOT {old}") == ([] if discard else newer)
            await restored(database, done.backup_before)
            assert await state(database) == present

    asyncio.run(holds())


async def ids(database: Database, where: str) -> list[str]:
    """The ids of calls, in order."""
    return [row["id"] for row in await rows(database, f"SELECT id FROM public.voice_calls WHERE {where} ORDER BY id")]
