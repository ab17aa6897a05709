"""Complaints over HTTP: who may, what counts, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from relevo.clock import system_clock
from relevo.metrics.reading import health
from relevo.metrics.window import HOUR, Window
from relevo.serving.envelope import LONGEST_BODY
from tests.conftest import rows, value
from tests.servers import Server
from tests.serving import House, housed

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])
API = "/api/v1/complaints"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    async with housed(server, template) as house:
        yield house


async def counted(house: House) -> int:
    """Complaints about v2 of the last hour, as the gate counts them."""
    async with house.database.transaction(read_only=True) as connection:
        return (await health(connection, Window.last(HOUR, system_clock())))["v2"].complaints


async def test_a_complaint_is_written_down_counts_and_is_dismissed(house: House) -> None:
    tenant = str(await value(house.database, "SELECT min(id::text) FROM public.businesses"))
    before = await counted(house)
    said = {"tenant": tenant, "text": " No entiende mi nombre ", "version": "v2", "reason": "by telephone"}
    made = house.served.ask("POST", API, said, token=house.operator)
    assert (made.status, made.json["text"], made.json["version"]) == (201, "No entiende mi nombre", "v2")
    assert await counted(house) == before + 1
    listed = house.served.ask("GET", API, token=house.viewer)
    assert (listed.status, [each["id"] for each in listed.json]) == (200, [made.json["id"]])
    gone = house.served.ask("POST", f"{API}/{made.json['id']}/dismiss", token=house.operator)
    assert (gone.status, gone.json["dismissed_at"] is not None) == (200, True)
    assert await counted(house) == before
    assert house.served.ask("GET", API, token=house.viewer).json == []
    assert len(house.served.ask("GET", f"{API}?dismissed=true", token=house.viewer).json) == 1
    told = await rows(
        house.database, "SELECT action, reason FROM relevo.audit_log WHERE action LIKE 'complaint.%%' ORDER BY id", ()
    )
    assert [tuple(each.values()) for each in told] == [("complaint.add", "by telephone"), ("complaint.dismiss", None)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tenant": "nobody at all", "text": "x"}, 404),
        ({"tenant": "TENANT", "text": " "}, 422),
        ({"tenant": "TENANT", "text": "x" * 4_001}, 422),
        ({"tenant": "TENANT", "text": "x", "version": "v3"}, 422),
        ({"tenant": "TENANT", "text": "x", "count": 9}, 422),
        ({"tenant": "TENANT", "text": "a\0b"}, 422),
        (b" " * (LONGEST_BODY + 1), 413),
    ],
)
async def test_what_makes_no_sense_is_refused(house: House, body: object, status: int) -> None:
    if isinstance(body, dict):
        tenant = str(await value(house.database, "SELECT min(id::text) FROM public.businesses"))
        body = {key: tenant if each == "TENANT" else each for key, each in body.items()}
    many = await value(house.database, "SELECT count(*) FROM relevo.complaints")
    assert house.served.ask("POST", API, body, token=house.operator).status == status
    assert await value(house.database, "SELECT count(*) FROM relevo.complaints") == many


def test_writing_is_for_operators_and_reading_for_viewers(house: House) -> None:
    for method, path in (("POST", API), ("POST", f"{API}/1/dismiss")):
        assert house.served.ask(method, path, b"{", token=house.viewer).status == 403
        assert house.served.ask(method, path, b"{").status == 401
    assert house.served.ask("GET", API).status == 401
    assert house.served.ask("POST", f"{API}/999999/dismiss", token=house.operator).status == 404
