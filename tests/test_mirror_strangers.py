"""Dual write beside what others do to the tables: their triggers, constraints, roles, statements and poolers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from relevo.db.pool import Database
from relevo.migration import mirror, runner
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import Options
from tests.conftest import NOW, OWNER, behind, change, rows, value
from tests.poolers import PGBOUNCER, pooling
from tests.servers import Server
from tests.test_mirror import LATER, WHO, assert_equal, on_v2, queued, some_config, v1, v2
from tests.test_mirror_hard import V1, V2, a_tenant, phones, repair, session, set_phone, until_it_waits

TOUCH = """
CREATE FUNCTION public.touch_{clock}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.updated_at := {clock}(); RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION public.touch_{clock}();
"""
POISON = f"ALTER TABLE {V2} ADD CONSTRAINT clean CHECK (phone_number_id <> 'poison')"


@pytest.fixture
def stranger(server: Server) -> Iterator[str]:
    """A role that has nothing, yet."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger_of_mirrors LOGIN")
        yield "stranger_of_mirrors"
        connection.execute("DROP ROLE stranger_of_mirrors")


async def let_in(database: Database, role: str, table: str) -> None:
    """What the platform gives to the role of one side."""
    await change(database, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")
    await change(database, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    await change(database, f"CREATE POLICY ours ON {table} TO {role} USING (true) WITH CHECK (true)")


async def shut_out(database: Database, role: str) -> None:
    for table in (V1, V2):
        await change(database, f"DROP POLICY IF EXISTS ours ON {table}")
        await change(database, f"REVOKE ALL ON {table} FROM {role}")


async def test_what_a_trigger_of_v2_does_to_another_row_is_mirrored_as_well(mirrored: Database) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    await change(
        mirrored,
        f"""CREATE FUNCTION public.sibling() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                UPDATE {V2} SET phone_number_id = 'of ' || NEW.phone_number_id
                WHERE id = '{two}' AND NEW.id = '{one}';
                RETURN NULL;
            END $$;
            CREATE TRIGGER sibling AFTER UPDATE ON {V2} FOR EACH ROW EXECUTE FUNCTION public.sibling()""",
    )
    await change(mirrored, f"UPDATE {V2} SET phone_number_id = 'by hand' WHERE id = %s", (one,))
    assert await phones(mirrored, two) == ("of by hand", "of by hand")
    await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'by v1' WHERE id = %s", (one,))
    assert await phones(mirrored, two) == ("of by v1", "of by v1")
    await assert_equal(mirrored)


@pytest.mark.parametrize(
    ("of_v1", "of_v2", "settles"),
    [
        ("now", "now", True),
        ("clock_timestamp", None, True),
        (None, "clock_timestamp", True),
        ("clock_timestamp", "now", False),
        ("clock_timestamp", "clock_timestamp", False),
    ],
)
async def test_clocks_of_both_sides_do_not_answer_each_other_for_ever(
    mirrored: Database, of_v1: str | None, of_v2: str | None, settles: bool
) -> None:
    """Where each side insists on a moment of its own, the row is queued: equal it cannot be."""
    for table, clock in ((V1, of_v1), (V2, of_v2)):
        if clock is not None:
            await change(mirrored, TOUCH.format(clock=clock, table=table).replace("OR REPLACE", "")) if (
                of_v1 != of_v2 or table == V1
            ) else await change(
                mirrored,
                f"CREATE TRIGGER touch BEFORE UPDATE ON {V2} FOR EACH ROW EXECUTE FUNCTION public.touch_{clock}()",
            )
    for table in (V1, V2):
        config = await some_config(mirrored)
        async with session(mirrored) as writer:
            assert await set_phone(writer, table, config, f"of {table}") == 1
        assert await phones(mirrored, config) == (f"of {table}", f"of {table}")
        same = (await v1(mirrored, config))["updated_at"] == (await v2(mirrored, config))["updated_at"]
        assert same or await queued(mirrored)
        assert same or not settles
    if settles:
        await assert_equal(mirrored)


async def test_a_trigger_that_swallows_what_we_write_is_noticed(mirrored: Database) -> None:
    config, tenant = await some_config(mirrored), await a_tenant(mirrored)
    await change(
        mirrored,
        f"""CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER swallow BEFORE INSERT OR UPDATE OR DELETE ON {V2}
            FOR EACH ROW EXECUTE FUNCTION public.swallow()""",
    )
    born, dead = uuid4(), await some_config(mirrored, skip=1)
    await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'new' WHERE id = %s", (config,))
    await change(mirrored, f"INSERT INTO {V1} (id, business_id) VALUES (%s, %s)", (born, tenant))
    await change(mirrored, f"DELETE FROM {V1} WHERE id = %s", (dead,))
    assert len(await queued(mirrored)) == 3
    assert len(await repair(mirrored)) == 3
    await change(mirrored, f"DROP TRIGGER swallow ON {V2}")
    assert await repair(mirrored) == []
    assert await phones(mirrored, config) == ("new", "new")
    assert await value(mirrored, f"SELECT count(*) FROM {V2} WHERE id = ANY (%s)", ([born, dead],)) == 1
    await assert_equal(mirrored)


async def test_one_poisoned_row_of_five_thousand_waits_alone(mirrored: Database) -> None:
    tenant = await a_tenant(mirrored)
    await change(mirrored, POISON)
    spent = await transactions_of(
        mirrored,
        f"""INSERT INTO {V1} (id, business_id, phone_number_id)
            SELECT gen_random_uuid(), '{tenant}', CASE WHEN n = 3210 THEN 'poison' ELSE 'good' END
            FROM generate_series(1, 5000) AS n""",
    )
    assert spent <= 64
    assert await on_v2(mirrored, "phone_number_id", "good") == 4_999
    (reason,) = await queued(mirrored)
    assert "clean" in reason
    await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'good' WHERE phone_number_id = 'poison'")
    assert await repair(mirrored) == []
    await assert_equal(mirrored)


async def test_where_many_rows_are_poisoned_few_attempts_are_made(mirrored: Database) -> None:
    tenant = await a_tenant(mirrored)
    await change(mirrored, POISON)
    spent = await transactions_of(
        mirrored,
        f"""INSERT INTO {V1} (id, business_id, phone_number_id)
            SELECT gen_random_uuid(), '{tenant}', CASE WHEN n %% 10 = 0 THEN 'poison' ELSE 'good' END
            FROM generate_series(1, 600) AS n""".replace("%%", "%"),
    )
    assert spent <= 64
    assert await on_v2(mirrored, "phone_number_id", "good") + len(await queued(mirrored)) == 600
    assert len(await repair(mirrored)) == 60
    assert await on_v2(mirrored, "phone_number_id", "good") == 540


async def transactions_of(database: Database, statement: str) -> int:
    """How many transaction ids a statement takes, its sub-transactions' included."""
    async with session(database) as writer:
        await writer.execute("BEGIN")
        (first,) = (await (await writer.execute("SELECT pg_current_xact_id()::text::bigint")).fetchall())[0]
        await writer.execute(statement.encode())
        await writer.execute("COMMIT")
        (last,) = (await (await writer.execute("SELECT pg_current_xact_id()::text::bigint")).fetchall())[0]
    return int(last - first)


async def test_a_key_that_changes_a_merge_and_rows_without_key(mirrored: Database) -> None:
    old, new, other, tenant = await some_config(mirrored), uuid4(), uuid4(), await a_tenant(mirrored)
    await change(mirrored, f"UPDATE {V1} SET id = %s WHERE id = %s", (new, old))
    assert await value(mirrored, f"SELECT array_agg(id) FROM {V2} WHERE id IN (%s, %s)", (old, new)) == [new]
    await change(mirrored, f"UPDATE {V2} SET id = %s WHERE id = %s", (old, new))
    assert await value(mirrored, f"SELECT array_agg(id) FROM {V1} WHERE id IN (%s, %s)", (old, new)) == [old]
    await change(
        mirrored,
        f"""MERGE INTO {V1} AS a USING (VALUES (%s::uuid, 'merged'), (%s, 'merged')) AS n (id, phone) ON a.id = n.id
            WHEN MATCHED THEN UPDATE SET phone_number_id = n.phone
            WHEN NOT MATCHED THEN INSERT (id, business_id, phone_number_id) VALUES (n.id, %s, n.phone)""",
        (old, other, tenant),
    )
    assert await on_v2(mirrored, "phone_number_id", "merged") == 2
    await change(mirrored, f"ALTER TABLE {V1} DROP CONSTRAINT voice_agent_config_pkey, ALTER id DROP NOT NULL")
    await change(mirrored, f"INSERT INTO {V1} (id, business_id) VALUES (NULL, %s), (NULL, %s)", (tenant, tenant))
    await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'nobody' WHERE id IS NULL")
    await change(mirrored, f"UPDATE {V1} SET id = NULL WHERE id = %s", (other,))
    assert (
        await value(mirrored, f"SELECT count(*) FROM {V2} WHERE id = %s OR phone_number_id = 'nobody'", (other,)) == 0
    )
    await assert_equal(mirrored)


async def test_what_was_set_aside_catches_up_with_all_it_missed(mirrored: Database) -> None:
    config = await some_config(mirrored)
    tenant = (await v1(mirrored, config))["business_id"]
    await change(mirrored, f"UPDATE {V1} SET business_id = NULL WHERE id = %s", (config,))
    await change(
        mirrored, f"UPDATE {V1} SET phone_number_id = 'missed', updated_at = %s WHERE id = %s", (LATER, config)
    )
    await change(mirrored, f"UPDATE {V1} SET business_id = %s WHERE id = %s", (tenant, config))
    assert await phones(mirrored, config) == ("missed", "missed")
    await assert_equal(mirrored)


async def test_a_session_that_replays_is_mirrored_as_well(mirrored: Database) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    async with session(mirrored, "postgres") as replay:
        await replay.execute("SET session_replication_role = replica")
        await set_phone(replay, V1, one, "one")
        await set_phone(replay, V2, two, "two")
    assert (await phones(mirrored, one), await phones(mirrored, two)) == (("one", "one"), ("two", "two"))
    await assert_equal(mirrored)


async def test_only_the_owner_may_write_one_side_alone(mirrored: Database, stranger: str) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    await let_in(mirrored, stranger, V1)
    async with session(mirrored, stranger) as writer:
        await writer.execute("SET relevo.mirror = 'off'")
        await set_phone(writer, V1, one, "new")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await set_phone(writer, V2, one, "other")
    assert await phones(mirrored, one) == ("new", "new")
    await assert_equal(mirrored)
    await behind(mirrored, f"UPDATE {V1} SET phone_number_id = 'alone' WHERE id = %s", (two,))
    assert (await v2(mirrored, two))["phone_number_id"] != "alone"
    await shut_out(mirrored, stranger)


async def test_under_forced_row_level_security_an_owner_that_passes_it_is_enough(
    mirrored: Database, server: Server, stranger: str
) -> None:
    config = await some_config(mirrored)
    for table in (V1, V2):
        await change(mirrored, f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    await let_in(mirrored, stranger, V1)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {OWNER} BYPASSRLS".encode())
        try:
            async with session(mirrored, stranger) as writer:
                assert await set_phone(writer, V1, config, "new") == 1
            assert await phones(mirrored, config) == ("new", "new")
            await assert_equal(mirrored)
        finally:
            connection.execute(f"ALTER ROLE {OWNER} NOBYPASSRLS".encode())
    await shut_out(mirrored, stranger)


async def test_strict_fails_the_writer_and_leaves_both_sides_as_they_were(mirrored: Database) -> None:
    config = await some_config(mirrored)
    before = await phones(mirrored, config)
    await change(mirrored, POISON)
    await mirror.install(mirrored, DEFAULT, WHO, lambda: LATER, strict=True)
    with pytest.raises(psycopg.errors.CheckViolation, match="clean"):
        await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'poison' WHERE id = %s", (config,))
    async with session(mirrored) as holder:
        await holder.execute("BEGIN")
        await holder.execute(f"SELECT FROM {V1} WHERE id = %s FOR UPDATE".encode(), (config,))
        with pytest.raises(psycopg.errors.LockNotAvailable, match="lock timeout"):
            await change(mirrored, f"UPDATE {V2} SET phone_number_id = 'new' WHERE id = %s", (config,))
        await holder.execute("ROLLBACK")
    assert await phones(mirrored, config) == before
    await assert_equal(mirrored)


async def test_v1_can_still_be_written_when_its_columns_are_not_what_they_were(mirrored: Database) -> None:
    config = await some_config(mirrored)
    await change(mirrored, f"ALTER TABLE {V1} RENAME assistant_name TO nombre")
    await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'new' WHERE id = %s", (config,))
    (reason,) = await queued(mirrored)
    assert "assistant_name" in reason
    await change(mirrored, f"ALTER TABLE {V1} RENAME nombre TO assistant_name")
    assert await repair(mirrored) == []
    assert await phones(mirrored, config) == ("new", "new")
    await assert_equal(mirrored)


async def test_writes_and_deletions_during_the_copy(sampled: Database) -> None:
    """The copy stands still between reading a row and writing it; who writes the row waits for it, and comes after."""
    await change(
        sampled,
        f"""CREATE FUNCTION public.stand() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END';
            CREATE TRIGGER stand BEFORE INSERT ON {V2} FOR EACH ROW EXECUTE FUNCTION public.stand()""",
    )
    ids = [
        row["id"]
        for row in await rows(sampled, f"SELECT id FROM {V1} WHERE business_id IS NOT NULL ORDER BY id LIMIT 2")
    ]
    async with session(sampled) as holder, session(sampled) as one, session(sampled) as two:
        await holder.execute("SELECT pg_advisory_lock(1)")
        moving = asyncio.create_task(runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW))
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = 1 AND NOT granted"
        )
        while not await value(sampled, waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        deleting = asyncio.create_task(one.execute(f"DELETE FROM {V1} WHERE id = %s".encode(), (ids[0],)))
        writing = asyncio.create_task(set_phone(two, V1, ids[1], "newest"))
        await until_it_waits(sampled, one)
        await until_it_waits(sampled, two)
        await holder.execute("SELECT pg_advisory_unlock(1)")
        await asyncio.gather(deleting, writing)
        assert (await moving).success
    assert await repair(sampled) == []
    assert await value(sampled, f"SELECT count(*) FROM {V2} WHERE id = %s", (ids[0],)) == 0
    assert (await v2(sampled, ids[1]))["phone_number_id"] == "newest"
    await assert_equal(sampled)


async def test_what_was_deleted_on_v2_does_not_come_back(mirrored: Database) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    async with session(mirrored) as holder:
        await holder.execute("BEGIN")
        await holder.execute(f"SELECT FROM {V1} WHERE id IN (%s, %s) FOR UPDATE".encode(), (one, two))
        await change(mirrored, f"DELETE FROM {V2} WHERE id IN (%s, %s)", (one, two))
        await holder.execute("ROLLBACK")
    assert len(await queued(mirrored)) == 2
    await change(mirrored, f"UPDATE {V1} SET phone_number_id = 'late' WHERE id = %s", (one,))
    moved = await runner.migrate(mirrored, Options(skip_backup=True), actor="tester", clock=lambda: LATER)
    assert (moved.success, moved.migrated_configs) == (True, 0)
    for table in (V1, V2):
        assert await value(mirrored, f"SELECT count(*) FROM {table} WHERE id IN (%s, %s)", (one, two)) == 0
    kept = "SELECT row ->> 'phone_number_id' FROM relevo.deleted_configs WHERE side = 'v1' AND config_id = %s"
    assert await value(mirrored, kept, (one,)) == "late"
    await assert_equal(mirrored)


async def test_what_was_deleted_on_v1_does_not_come_back(mirrored: Database) -> None:
    config = await some_config(mirrored)
    async with session(mirrored) as holder:
        await holder.execute("BEGIN")
        await holder.execute(f"SELECT FROM {V2} WHERE id = %s FOR UPDATE".encode(), (config,))
        await change(mirrored, f"DELETE FROM {V1} WHERE id = %s", (config,))
        await holder.execute("ROLLBACK")
    await change(mirrored, f"UPDATE {V2} SET phone_number_id = 'late' WHERE id = %s", (config,))
    assert await value(mirrored, f"SELECT count(*) FROM {V1} WHERE id = %s", (config,)) == 0
    assert await repair(mirrored) == []
    for table in (V1, V2):
        assert await value(mirrored, f"SELECT count(*) FROM {table} WHERE id = %s", (config,)) == 0
    kept = "SELECT row ->> 'phone_number_id' FROM relevo.deleted_configs WHERE config_id = %s"
    assert await value(mirrored, kept, (config,)) == "late"
    await assert_equal(mirrored)


@pytest.mark.skipif(not PGBOUNCER.exists(), reason="PgBouncer is not installed: apt-get install pgbouncer")
async def test_behind_a_pooler_of_transactions(mirrored: Database, server: Server) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    name = mirrored.url.rsplit("/", 1)[1]
    with pooling(server, OWNER) as port:
        url = f"postgresql://anybody@127.0.0.1:{port}/{name}"
        for config, table in ((one, V1), (two, V2)):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None) as writer:
                await set_phone(writer, table, config, "pooled")
        async with Database(url) as pooled:
            assert await repair(pooled) == []
    assert (await phones(mirrored, one), await phones(mirrored, two)) == (("pooled",) * 2, ("pooled",) * 2)
    await assert_equal(mirrored)
