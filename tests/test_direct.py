"""RELEVO_DIRECT_URL: what changes the schema goes by the direct connection, and never to another database."""

from __future__ import annotations

import psycopg
import pytest

from relevo.db.pool import Database
from tests.commands import relevo, succeeds
from tests.conftest import OWNER, value
from tests.servers import Server


@pytest.fixture
def by_way_of_a_pooler(server: Server, database_url: str) -> str:
    """A connection string by which nothing may be created, as a stand-in for a pooler that does not carry it."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE pooled LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    return database_url.replace(OWNER, "pooled")


async def test_the_schema_is_applied_by_the_direct_connection(
    database_url: str, by_way_of_a_pooler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = relevo("db", "up", url=by_way_of_a_pooler)
    assert (refused.status, refused.data["error"]["code"]) == (3, "MissingPrivilege")
    monkeypatch.setenv("RELEVO_DIRECT_URL", database_url)
    assert succeeds("db", "up", url=by_way_of_a_pooler)["applied"]


async def test_a_direct_connection_to_another_database_changes_neither(
    server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEVO_DIRECT_URL", server.url("postgres"))
    for words in (["db", "up"], ["db", "down", "--yes"], ["mirror", "install"], ["mirror", "remove"], ["migrate"]):
        refused = relevo(*words, url=database_url)
        assert refused.status == 2, words
        assert "RELEVO_DIRECT_URL leads to another database" in refused.told
    for url in (database_url, server.url("postgres")):
        async with Database(url) as database:
            assert await value(database, "SELECT to_regnamespace('relevo')") is None
