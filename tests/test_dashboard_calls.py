"""The list of calls: every call once however one pages, and an honest word of how far a rare kind was looked for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape

import pytest
import pytest_asyncio

from relevo.access.roles import Role
from relevo.clock import system_clock
from tests.conftest import change
from tests.dashboard import Visitor, visible
from tests.recorded import asked, reported, say
from tests.servers import Server
from tests.serving import House, housed

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

MANY = 130
OTHER = "5f0a3d52-47b1-4c0a-9f55-0a3a4f3b1c11"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """Calls of both versions and two tenants, five at each moment, one in ten with our fault."""
    async with housed(server, template) as house:
        now = system_clock()
        for number in range(MANY):
            at = now - timedelta(minutes=number // 5)
            fault = "assistant-request-failed" if number % 10 == 0 else "customer-ended-call"
            told = {"version": f"v{1 + number % 2}", "decided_at": at, "at": at}
            await say(house.database, reported(f"n-{number}", fault, tenant_id=OTHER, **told))
        await say(house.database, asked("open", decided_at=now))
        yield house


def walked(visitor: Visitor, path: str) -> list[str]:
    """The calls of all pages, from the first to the last."""
    found = []
    while True:
        page = visitor.page(path)
        found += re.findall(r'href="/calls/([^"]+)"', page)
        older = re.search(r'rel="next" href="([^"]+)"', page)
        if older is None:
            return found
        path = unescape(older[1])


@pytest.mark.parametrize(
    ("asked_for", "many"),
    [
        ("", MANY + 1),
        ("version=v1", MANY // 2),
        ("version=v2", MANY // 2 + 1),
        (f"tenant={OTHER}", MANY),
        (f"tenant={OTHER}&version=v2", MANY // 2),
        ("outcome=customer_hangup", MANY * 9 // 10),
        ("outcome=asked", 1),
        ("fault=ours", MANY // 10),
        (f"tenant={OTHER}&fault=ours&outcome=failed", MANY // 10),
    ],
)
def test_every_call_is_on_one_page_also_of_those_of_one_moment(house: House, asked_for: str, many: int) -> None:
    visitor = Visitor(house.served).sign_in(house.secrets[Role.VIEWER])
    found = walked(visitor, f"/calls?{asked_for}")
    assert (len(found), len(set(found))) == (many, many)


async def test_a_rare_kind_is_looked_for_in_so_many_calls_and_then_further_back(house: House) -> None:
    now = system_clock()
    long_ago = now - timedelta(days=2)
    await say(house.database, reported("rare", "voicemail", decided_at=long_ago, at=long_ago))
    hour = (now - timedelta(hours=3)).replace(minute=0, second=0, microsecond=0)
    made = """INSERT INTO relevo.call_stats VALUES ('hour', 'calls', %s, 'v2', '', 60000, 0, 0, 0, 0, 0, 0, 0, 0)
              ON CONFLICT (grain, starts_at, version, tenant_id, source) DO UPDATE SET calls = 60000"""
    await change(house.database, made, (hour,))
    visitor = Visitor(house.served).sign_in(house.secrets[Role.VIEWER])
    first = visitor.page("/calls?outcome=voicemail")
    assert f"Looked through the calls back to {hour:%Y-%m-%d %H:%M}:00 UTC." in visible(first)
    assert walked(visitor, "/calls?outcome=voicemail") == ["rare"]


@pytest.mark.parametrize("path", ["/calls?version=v3", "/calls?before=yesterday"])
def test_what_makes_no_sense_is_refused(house: House, path: str) -> None:
    visitor = Visitor(house.served).sign_in(house.secrets[Role.VIEWER])
    assert visitor.ask("GET", path).status in (400, 404)
