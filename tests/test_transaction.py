"""What a transaction of ours sets, how it ends, and that its end is told."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from relevo.db.pool import Database
from relevo.errors import DatabaseUnreachable
from tests.conftest import rows

CREATE = "CREATE TABLE public.said (word text)"
SAY = "INSERT INTO public.said VALUES ('once')"
SETTINGS = """
    SELECT current_setting('transaction_isolation') AS isolation, current_setting('transaction_read_only') AS read_only,
           current_setting('synchronous_commit') AS durable, current_setting('lock_timeout') AS patience,
           current_setting('TimeZone') AS zone
"""


async def said(database: Database) -> list[str]:
    return [row["word"] for row in await rows(database, "SELECT word FROM public.said")]


async def settings(database: Database, **wanted: bool) -> dict[str, str]:
    async with database.transaction(**wanted) as connection:
        found = await (await connection.execute(SETTINGS)).fetchone()
    assert found is not None
    return found


async def said_and_failed(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(SAY)
        raise ZeroDivisionError


async def said_and_cut_off(database: Database) -> None:
    """By whoever thinks that it did not matter."""
    async with database.transaction() as connection:
        await connection.execute(SAY)
        await rows(database, f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        with contextlib.suppress(psycopg.OperationalError):
            await connection.execute(SAY)


async def test_it_sets_what_it_is_asked_to_and_leaves_nothing_of_it(database: Database) -> None:
    usual = {"isolation": "read committed", "read_only": "off", "durable": "on", "patience": "0", "zone": "UTC"}
    wanted = {"read_only": True, "snapshot": True, "durable": False, "patient": True}
    assert await settings(database, **wanted) == {
        "isolation": "repeatable read",
        "read_only": "on",
        "durable": "off",
        "patience": "2s",
        "zone": "UTC",
    }
    assert await settings(database) == usual


async def test_it_is_committed_at_its_end_and_rolled_back_by_an_error(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(CREATE)
        await connection.execute(SAY)
    with pytest.raises(ZeroDivisionError):
        await said_and_failed(database)
    async with database.transaction() as connection:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            async with connection.transaction():  # a part of it, which fails alone
                await connection.execute("SELECT FROM public.nothing")
        await connection.execute(SAY)
    assert await said(database) == ["once", "once"]


async def test_it_is_taken_back_without_an_error(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(CREATE)
    async with database.transaction() as connection:
        await connection.execute(SAY)
        raise psycopg.Rollback
    assert await said(database) == []


async def test_one_whose_connection_was_lost_is_not_taken_for_committed(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(CREATE)
    with pytest.raises(DatabaseUnreachable):
        await said_and_cut_off(database)
    assert await said(database) == []
