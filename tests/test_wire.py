"""The connection that is kept for statements whose answer is waited for: what it gives, and how it ends."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from relevo.db.pool import Database
from relevo.errors import DatabaseUnreachable
from tests.conftest import OWNER, made, rows, value
from tests.poolers import PGBOUNCER, pooling
from tests.servers import Server
from tests.silence import relay

WHO = "SELECT pg_backend_pid()::text"
LARGER_THAN_A_SOCKET_TAKES = 20_000_000


async def who(database: Database) -> int:
    """Which of the server's processes answers."""
    ((answer,),) = await database.brief(WHO)
    return int(answer or 0)


async def until_asleep(database: Database, many: int) -> list[int]:
    """The server's processes that sleep as they were asked to, as soon as they are so many."""
    query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    while len(found := await rows(database, query)) != many:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return [row["pid"] for row in found]


async def test_rows_are_given_as_text_and_one_connection_is_kept(database: Database) -> None:
    told = await database.brief("SELECT n, $1 || n, NULL FROM generate_series(1, 2) AS n", "ñ")
    assert told == [(b"1", "ñ1".encode(), None), (b"2", "ñ2".encode(), None)]
    assert await database.brief("SET LOCAL search_path = ''") == []
    assert await who(database) == await who(database)


async def test_what_the_server_refuses_is_raised_and_the_connection_stays(database: Database) -> None:
    before = await who(database)
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        await database.brief("SELECT 1 / $1::integer", "0")
    assert await who(database) == before


async def test_much_is_sent_piece_by_piece(database: Database) -> None:
    ((length,),) = await database.brief("SELECT length($1)::text", "x" * LARGER_THAN_A_SOCKET_TAKES)
    assert int(length or 0) == LARGER_THAN_A_SOCKET_TAKES


async def test_much_is_received_piece_by_piece(database: Database) -> None:
    ((much,),) = await database.brief("SELECT repeat('x', $1::integer)", str(LARGER_THAN_A_SOCKET_TAKES))
    assert len(much or b"") == LARGER_THAN_A_SOCKET_TAKES


async def test_a_server_keeps_what_it_is_asked_ready(database: Database) -> None:
    for _ in range(3):
        await who(database)
    kept = "SELECT string_agg(statement || ' ' || name, ', ' ORDER BY name) FROM pg_prepared_statements"
    assert await database.brief(kept) == [(f"{WHO} relevo_0, {kept} relevo_1".encode(),)]


@pytest.mark.skipif(not PGBOUNCER.exists(), reason="pgbouncer is not installed: apt-get install pgbouncer")
async def test_behind_a_pooler_nothing_is_kept_ready(server: Server, database_url: str) -> None:
    with pooling(server, OWNER) as port:
        async with Database(database_url.replace(f":{server.port}/", f":{port}/")) as pooled:
            backends = {await who(pooled)}
            async with pooled.transaction() as other:  # takes the server process, so that another answers
                await other.execute("SELECT 1")
                backends.add(await who(pooled))
            assert len(backends) == 2
            assert await pooled.brief("SELECT count(*)::text FROM pg_prepared_statements") == [(b"0",)]


async def test_what_an_upgrade_changed_is_asked_for_anew(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("CREATE FUNCTION public.grown() RETURNS integer LANGUAGE sql RETURN 1")
    assert await database.brief("SELECT public.grown()") == [(b"1",)]
    async with database.transaction() as connection:
        await connection.execute("DROP FUNCTION public.grown()")
        await connection.execute("CREATE FUNCTION public.grown() RETURNS text LANGUAGE sql RETURN 'more'")
    assert await database.brief("SELECT public.grown()") == [(b"more",)]
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        await database.brief("SELECT * FROM another_database.public.said")  # which no asking anew mends


async def test_those_who_ask_at_once_do_not_wait_for_each_other(database: Database) -> None:
    waiting = asyncio.create_task(database.brief("SELECT pg_sleep(600)::text"))
    (sleeper,) = await until_asleep(database, 1)
    assert await who(database) != sleeper
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_whoever_is_cancelled_takes_the_statement_along(database: Database) -> None:
    before = await who(database)
    waiting = asyncio.create_task(database.brief("SELECT pg_sleep(600)::text"))
    assert await until_asleep(database, 1) == [before]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until_asleep(database, 0)
    assert await who(database) != before  # nobody gets the answer to what another asked


async def test_a_server_that_hung_up_meanwhile_is_called_again(database: Database) -> None:
    before = await who(database)
    assert await value(database, "SELECT pg_terminate_backend(%s, 60000)", [before])
    assert await who(database) != before


async def test_a_server_that_hangs_up_in_the_middle_is_unreachable(database: Database) -> None:
    waiting = asyncio.create_task(database.brief("SELECT pg_sleep(600)::text"))
    (sleeper,) = await until_asleep(database, 1)
    await value(database, "SELECT pg_terminate_backend(%s)", [sleeper])
    with pytest.raises(DatabaseUnreachable):
        await waiting
    assert await who(database) != sleeper


async def test_nothing_is_left_open(database_url: str, database: Database) -> None:
    async with Database(database_url) as another:
        pid = await who(another)
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    while await value(database, query, [pid]):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_a_server_that_says_nothing_is_given_up_by_whoever_waits(server: Server) -> None:
    with made(server, "silent_wire") as url:
        async with relay(server.port) as way, Database(url.replace(f":{server.port}/", f":{way.port}/")) as database:
            before = await who(database)
            way.silent = True
            waiting = asyncio.create_task(database.brief(WHO))
            await asyncio.wait({waiting}, timeout=0.1)
            assert not waiting.done()
            waiting.cancel()
            await way.arrived.wait()  # the request to cancel, which nobody answers
            way.cut()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            way.silent = False
            assert await who(database) != before
