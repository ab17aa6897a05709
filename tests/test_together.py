"""Statements asked together, in one round trip: they only read, see one moment, and leave the connection as it was."""

from __future__ import annotations

import pytest
from psycopg import errors, sql

from relevo.db.pool import Asked, Database


def asked(query: str, **values: object) -> Asked:
    return sql.SQL(query).format(), values


async def test_they_see_one_moment_and_may_not_write(ready: Database) -> None:
    moment = "SELECT pg_current_snapshot()::text AS seen, current_setting('transaction_read_only') AS read_only"
    first, nothing, last = await ready.together(asked(moment), asked("SELECT 1 AS one WHERE false"), asked(moment))
    assert (first, nothing) == (last, [])
    assert first[0]["read_only"] == "on"
    with pytest.raises(errors.ReadOnlySqlTransaction):
        await ready.together(asked("DELETE FROM relevo.call_deltas"))


async def test_a_fault_leaves_the_connection_fit_for_whoever_comes_next(database_url: str) -> None:
    async with Database(database_url, size=1) as database:
        for _ in range(3):
            with pytest.raises(errors.DivisionByZero):
                await database.together(asked("SELECT 1 AS one"), asked("SELECT 1 / 0"), asked("SELECT 2 AS two"))
        assert await database.together(asked("SELECT 1 AS one")) == [[{"one": 1}]]
        assert await database.alone(*asked("SELECT current_setting('transaction_isolation') AS level")) == [
            {"level": "read committed"}
        ]


async def test_values_come_through_as_they_are(database_url: str) -> None:
    hard = ["'; SELECT 1; --", "100 %", "%(a)s", "\\'", "{}", "$1", "ñ\n\t", ""]
    async with Database(database_url) as database:
        for text in hard:
            found = await database.together(
                asked("SELECT %(a)s::text AS a", a=text), asked("SELECT %(a)s::text[] AS a", a=hard)
            )
            assert found == [[{"a": text}], [{"a": hard}]]
