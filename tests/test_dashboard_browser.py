"""The dashboard in a real browser: it draws, says nothing to the console, hears news, and fits a phone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from relevo.access.roles import Role
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.flags.writing import get
from relevo.migration import runner
from relevo.migration.run import Options
from tests.browser import CHROMIUM, Tab, browsing
from tests.conftest import change, copied
from tests.recorded import reported, say
from tests.servers import Server
from tests.serving import House, secrets_of_each_role, serving
from tests.test_dashboard import put, verified

pytestmark = [
    pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"]),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]
PAGES = ("/", "/tenants", "/migration", "/calls", "/audit", "/settings", "/extend?points=10", "/rollback")
PICTURES = os.environ.get("RELEVO_TEST_PICTURES")  # a folder to keep what was seen in


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """A server with moved tenants, three of them on v2, and calls."""
    with copied(server, template) as url:
        async with Database(url) as database:
            await runner.migrate(database, Options(), actor="tests", clock=system_clock)
            listed = await verified(database)
            await put(database, True, 0, listed)
            now = system_clock()
            calls = [
                reported(f"b-{n}", tenant_id=listed[0], version=version, decided_at=now, at=now)
                for n, version in enumerate(["v1", "v2"] * 10)
            ]
            await say(database, *calls)
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                yield House(served, database, secrets)


@asynccontextmanager
async def signed_in(house: House, role: Role) -> AsyncIterator[Tab]:
    """A tab that came in by the sign-in page."""
    async with browsing() as tab:
        await tab.open(f"{house.served.address}/")
        await tab.run(f"document.querySelector('#token').value = {json.dumps(house.secrets[role])}")
        await tab.click("form[action='/sign-in'] button")
        yield tab
        assert tab.complaints == []


async def test_every_page_fits_and_the_console_is_quiet(house: House) -> None:
    (tenant,) = await verified(house.database, 1)
    async with signed_in(house, Role.ADMIN) as tab:
        for path in (*PAGES, f"/tenants/{tenant}", f"/tenants/{tenant}/to/v1", "/calls/b-1"):
            for width in (1280, 320):
                for dark in (False, True):
                    await tab.size(width, 900, dark=dark)
                    await tab.open(house.served.address + path)
                    assert await tab.run("document.documentElement.getAttribute('data-bs-theme')") == (
                        "dark" if dark else "light"
                    )
                    page = "document.documentElement"
                    assert await tab.run(f"{page}.scrollWidth <= {page}.clientWidth"), (path, width)
                    assert tab.complaints == [], path
                    if PICTURES:
                        name = path.split("?")[0].strip("/").replace("/", "-").replace(tenant, "one") or "overview"
                        await tab.picture(Path(PICTURES) / f"{name}-{width}-{'dark' if dark else 'light'}.png")


async def test_charts_are_drawn_from_the_table_beneath_them(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.until("document.querySelectorAll('.chart svg').length === 3")
        told = "document.querySelector('#chart-calls').getAttribute('aria-label')"
        assert "v1" in await tab.run(told)
        assert await tab.run("document.querySelectorAll('#points tbody tr').length") >= 1


async def test_a_change_of_the_flag_is_seen_without_reloading(house: House) -> None:
    listed = await verified(house.database)
    await put(house.database, True, 0, listed)
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.until("document.querySelector('#live').dataset.state === 'live'")
        await tab.run("window.notReloaded = true")
        await tab.until("document.querySelector('#progress').textContent.includes('3 / ')")
        await put(house.database, True, 0, listed[:1])
        await tab.until("document.querySelector('#progress').textContent.includes('1 / ')")
        assert await tab.run("window.notReloaded") is True
    await put(house.database, True, 0, listed)


async def test_all_figures_come_with_one_request_and_what_was_opened_stays_open(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.until("document.querySelector('#live').dataset.state === 'live'")
        await tab.run("document.querySelector('#numbers details').open = true; window.asked = []")
        await tab.run("document.querySelector('#as-a-table').focus()")
        await tab.run("document.addEventListener('htmx:beforeRequest', (event) => window.asked.push(event.target.id))")
        now = system_clock()
        await say(house.database, *(reported(f"more-{n}", version="v2", decided_at=now, at=now) for n in range(7)))
        counted = "document.querySelectorAll('#figures section')[1].querySelector('.value').textContent"
        before = await tab.run(counted)
        await tab.until(f"{counted} !== {json.dumps(before)}")
        assert await tab.run("document.querySelector('#numbers details').open")
        assert await tab.run("document.activeElement.id") == "as-a-table"
        last = "[...document.querySelectorAll('#points tbody tr')].at(-1).children[2].textContent"
        assert await tab.run(f"{last} === {counted}")
        assert set(await tab.run("window.asked")) == {"figures"}


async def test_a_new_call_is_seen_without_reloading(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.open(f"{house.served.address}/calls")
        await tab.until("document.querySelector('#live').dataset.state === 'live'")
        await tab.run("document.querySelector('#c-b-1').focus()")
        await say(house.database, reported("seen", decided_at=system_clock(), at=system_clock()))
        await tab.until("document.querySelector('#c-seen') !== null")
        assert await tab.run("document.activeElement.id") == "c-b-1"


async def test_a_lost_connection_is_said_and_so_is_its_return(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.until("document.querySelector('#live').dataset.state === 'live'")
        house.served.process.send_signal(signal.SIGSTOP)
        try:
            await tab.until("document.querySelector('#live').dataset.state === 'lost'")
            assert "Connection lost" in await tab.run("document.querySelector('#live').textContent")
        finally:
            house.served.process.send_signal(signal.SIGCONT)
        await tab.until("document.querySelector('#live').dataset.state === 'live'")


async def test_an_operator_rolls_back_in_two_presses(house: House) -> None:
    await put(house.database, True, 0, await verified(house.database))
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.click("#rollback")
        await tab.click("form[action='/rollback'] button")
        assert "Done." in await tab.run("document.querySelector('main').textContent")
    flag = await get(house.database)
    assert (flag.enabled, flag.percentage, flag.enabled_tenants) == (False, 0, frozenset())
    await put(house.database, True, 0, await verified(house.database))


async def test_a_search_shows_what_it_finds_and_can_be_gone_back_from(house: House) -> None:
    await change(
        house.database,
        "UPDATE public.businesses SET name = 'Ñandú' WHERE id = %s",
        (await verified(house.database))[:1],
    )
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.open(f"{house.served.address}/tenants")
        typed = "q.value = 'nandu'; q.dispatchEvent(new Event('input', {bubbles: true}))"
        await tab.run(f"(() => {{ const q = document.querySelector('#q'); {typed} }})()")
        await tab.until("document.querySelectorAll('#found tbody tr').length === 1")
        assert "q=nandu" in await tab.run("location.search")


async def test_spanish_is_spoken_and_remembered(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.click("button[name='language'][value='es']")
        assert await tab.run("document.documentElement.lang") == "es"
        assert "Avance del rollout" in await tab.run("document.querySelector('main').textContent")
        await tab.open(f"{house.served.address}/tenants")
        assert await tab.run("document.documentElement.lang") == "es"


async def test_the_first_key_leads_past_the_navigation(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        for kind in ("keyDown", "keyUp"):
            await tab.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert await tab.run("document.activeElement.className") == "skip"
