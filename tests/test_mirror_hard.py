"""Dual write where it hurts: deadlocks, held locks, time limits, other people's triggers, poisoned rows, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relevo.db.pool import Database
from relevo.migration import mirror
from relevo.migration.mapping import DEFAULT
from relevo.migration.steps import verify
from tests.conftest import OWNER, change, rows, value
from tests.test_mirror import DENTAL, LATER, REST, WHO, assert_equal, queued, some_config, v1, v2

V1, V2 = "public.voice_agent_config", "public.voice_assistant_configs"
Session = psycopg.AsyncConnection[Any]


@asynccontextmanager
async def session(database: Database, user: str = OWNER) -> AsyncIterator[Session]:
    """A connection as an application has one: nothing of ours set."""
    url = database.url.replace(f"//{OWNER}@", f"//{user}@")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def set_phone(connection: Session, table: str, config: UUID, phone: str) -> int:
    query = f"UPDATE {table} SET phone_number_id = %s WHERE id = %s"
    return (await connection.execute(query.encode(), (phone, config))).rowcount


async def phones(database: Database, config: UUID) -> tuple[str, str]:
    """What v1 and v2 have."""
    return (await v1(database, config))["phone_number_id"], (await v2(database, config))["phone_number_id"]


async def repair(database: Database) -> list[str]:
    """Why some could not be mended."""
    _, failed = await mirror.repair(database, WHO, lambda: LATER)
    return failed


async def until_it_waits(database: Database, connection: Session) -> None:
    """Until a session's statement waits for a lock."""
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    while not await value(database, query, (connection.info.backend_pid,)):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_both_sides_write_one_row_at_once(mirrored: Database) -> None:
    config = await some_config(mirrored)
    async with session(mirrored) as one, session(mirrored) as two:
        await one.execute("BEGIN")
        await two.execute("BEGIN")
        # Each holds its own side before the mirror of either reaches for the other.
        await one.execute(f"SELECT FROM {V1} WHERE id = %s FOR UPDATE".encode(), (config,))
        await two.execute(f"SELECT FROM {V2} WHERE id = %s FOR UPDATE".encode(), (config,))
        assert sum(await asyncio.gather(set_phone(one, V1, config, "a"), set_phone(two, V2, config, "b"))) == 2
        await one.execute("COMMIT")
        await two.execute("COMMIT")
    assert await phones(mirrored, config) == ("a", "b")
    assert len(await queued(mirrored)) == 2
    verdict = await verify.run(mirrored, DEFAULT, tenant_ids=None, clock=lambda: LATER)
    assert (verdict.queued, verdict.success) == (1, False)
    assert await repair(mirrored) == []
    (clash,) = (await mirror.look(mirrored, DEFAULT)).open_conflicts
    assert {clash["v1_value"], clash["v2_value"]} == {"a", "b"}
    assert clash["v1_writer"] == clash["v2_writer"] == OWNER
    kept = clash[f"{clash['kept']}_value"]
    assert await phones(mirrored, config) == (kept, kept)
    await assert_equal(mirrored)


@pytest.mark.parametrize(("side", "other"), [(V1, V2), (V2, V1)], ids=["v1", "v2"])
@pytest.mark.parametrize("held", ["row", "table"])
async def test_a_lock_on_the_other_side_makes_nobody_fail(mirrored: Database, side: str, other: str, held: str) -> None:
    config = await some_config(mirrored)
    async with session(mirrored) as holder, session(mirrored) as writer:
        await holder.execute("BEGIN")
        if held == "row":
            await holder.execute(f"SELECT FROM {other} WHERE id = %s FOR UPDATE".encode(), (config,))
        else:
            await holder.execute(f"LOCK TABLE {other} IN SHARE ROW EXCLUSIVE MODE".encode())
        await writer.execute("SET statement_timeout = '1s'")  # of which we take a part
        assert await set_phone(writer, side, config, "new") == 1
        (reason,) = [row["reason"] for row in await rows(mirrored, "SELECT reason FROM relevo.mirror_queue")]
        assert "lock timeout" in reason
        await holder.execute("ROLLBACK")
    assert await repair(mirrored) == []
    assert await phones(mirrored, config) == ("new", "new")
    await assert_equal(mirrored)


async def test_a_statement_of_many_rows_waits_no_longer_than_one_of_one(mirrored: Database) -> None:
    tenant = await a_tenant(mirrored)
    async with session(mirrored) as holder, session(mirrored) as writer:
        await holder.execute("BEGIN")
        await holder.execute(f"LOCK TABLE {V2} IN SHARE ROW EXCLUSIVE MODE".encode())
        await writer.execute("SET statement_timeout = '10s'")  # 200 ms for each part of a thousand would be 24
        await writer.execute(
            f"""INSERT INTO {V1} (id, business_id)
                SELECT gen_random_uuid(), %s FROM generate_series(1, 30000)""".encode(),
            (tenant,),
        )
        await holder.execute("ROLLBACK")
    assert len(await queued(mirrored)) == 30_000


async def test_a_time_limit_below_the_wait_fails_the_statement_whole(mirrored: Database) -> None:
    config = await some_config(mirrored)
    before = await phones(mirrored, config)
    async with session(mirrored) as holder, session(mirrored) as writer:
        await holder.execute("BEGIN")
        await holder.execute(f"SELECT FROM {V2} WHERE id = %s FOR UPDATE".encode(), (config,))
        await writer.execute("SET statement_timeout = '60ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await set_phone(writer, V1, config, "new")
        await holder.execute("ROLLBACK")
    assert await phones(mirrored, config) == before
    await assert_equal(mirrored)


async def test_a_prompt_written_by_hand_is_not_rendered_over(mirrored: Database) -> None:
    """v2 must look at v1's prompt after it holds the row, not before."""
    config, tenant = uuid4(), await a_tenant(mirrored)
    await change(
        mirrored,
        f"""INSERT INTO {V2} (id, business_id, assistant_type_id, enabled_capabilities)
            VALUES (%s, %s, 'dental_standard', '{{appointments}}')""",
        (config, tenant),
    )
    async with session(mirrored) as one, session(mirrored) as two:
        await one.execute("BEGIN")
        await two.execute("BEGIN")
        await two.execute(f"SELECT FROM {V2} WHERE id = %s FOR UPDATE".encode(), (config,))
        # The mirror of this one finds v2 held, and queues.
        await one.execute(f"UPDATE {V1} SET system_prompt = 'Mío.' WHERE id = %s".encode(), (config,))
        query = f"UPDATE {V2} SET special_instructions = 'Hay elevador.' WHERE id = %s"
        editing = asyncio.create_task(two.execute(query.encode(), (config,)))
        await until_it_waits(mirrored, two)
        await one.execute("COMMIT")
        await editing
        await two.execute("COMMIT")
    assert (await v1(mirrored, config))["system_prompt"] == "Mío."
    assert await repair(mirrored) == []
    assert (await v1(mirrored, config))["system_prompt"] == "Mío."
    assert (await v2(mirrored, config))["special_instructions"] == "Hay elevador."


async def test_an_edit_that_waits_is_not_inferred_over(mirrored: Database) -> None:
    config = await some_config(mirrored)
    async with session(mirrored) as holder, session(mirrored) as writer:
        await holder.execute("BEGIN")
        await holder.execute(f"SELECT FROM {V1} WHERE id = %s FOR UPDATE".encode(), (config,))
        query = f"UPDATE {V2} SET special_instructions = 'Hablar de usted', updated_at = now() WHERE id = %s"
        await writer.execute(query.encode(), (config,))
        await holder.execute("ROLLBACK")
    assert len(await queued(mirrored)) == 1
    await change(mirrored, f"UPDATE {V1} SET system_prompt = %s WHERE id = %s", (REST, config))
    assert (await v2(mirrored, config))["special_instructions"] == "Hablar de usted"
    assert await repair(mirrored) == []
    assert (await v2(mirrored, config))["special_instructions"] == "Hablar de usted"
    (clash,) = (await mirror.look(mirrored, DEFAULT)).open_conflicts
    assert (clash["field"], clash["v1_value"]) == ("special_instructions", "No hay estacionamiento.")


async def test_a_vertical_is_inferred_from_the_prompt_as_it_stands(mirrored: Database) -> None:
    """The tenant's writer must not bring back the prompt that it read before it held the row."""
    config = await some_config(mirrored)
    tenant = (await v1(mirrored, config))["business_id"]
    async with session(mirrored) as one, session(mirrored) as two:
        await one.execute("BEGIN")
        await one.execute(f"UPDATE {V1} SET system_prompt = %s WHERE id = %s".encode(), (DENTAL, config))
        query = "UPDATE public.businesses SET vertical = 'dental' WHERE id = %s"
        changing = asyncio.create_task(two.execute(query.encode(), (tenant,)))
        await until_it_waits(mirrored, two)
        await one.execute("COMMIT")
        await changing
    assert (await v2(mirrored, config))["assistant_type_id"] == "dental_standard"
    await assert_equal(mirrored)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_writer_that_sees_one_moment_only(mirrored: Database, level: str) -> None:
    one, two, three = [await some_config(mirrored, skip=skip) for skip in range(3)]
    async with session(mirrored) as writer:
        await writer.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
        await writer.execute(f"SELECT FROM {V1}".encode())
        await change(mirrored, f"UPDATE {V2} SET voice_speed = 1.1 WHERE id = %s", (one,))
        await change(mirrored, f"UPDATE {V2} SET voice_speed = 1.1 WHERE id = %s", (two,))
        assert await set_phone(writer, V1, one, "new") == 1
        assert (await writer.execute(f"DELETE FROM {V1} WHERE id = %s".encode(), (two,))).rowcount == 1
        assert await set_phone(writer, V1, three, "third") == 1
        await writer.execute("COMMIT")
    assert (await v2(mirrored, three))["phone_number_id"] == "third"
    assert len(await queued(mirrored)) == 2
    assert await repair(mirrored) == []
    assert await phones(mirrored, one) == ("new", "new")
    assert await value(mirrored, f"SELECT count(*) FROM {V2} WHERE id = %s", (two,)) == 0
    await assert_equal(mirrored)


async def a_tenant(database: Database) -> UUID:
    found: UUID = await value(
        database, "SELECT id FROM public.businesses WHERE vertical = 'dental' ORDER BY id LIMIT 1"
    )
    return found
