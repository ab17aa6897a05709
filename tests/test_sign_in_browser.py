"""Signing in through an identity provider in a real browser, to which the provider is another site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from relevo.db.pool import Database
from tests.browser import CHROMIUM, Tab, browsing
from tests.conftest import copied, value
from tests.issuers import EMAIL, Issuer, issuing
from tests.servers import Server
from tests.serving import Served, serving
from tests.test_dashboard_axe import AXE, PICTURES, violations

pytestmark = [
    pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"]),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[tuple[Served, Issuer, Database]]:
    with copied(server, template) as url, issuing() as issuer:
        async with Database(url) as database:
            with serving(url, env=issuer.settings) as served:
                yield served, issuer, database


async def agree(tab: Tab) -> None:
    """Go to the provider by the link on the sign-in page, say yes there, and come back."""
    await tab.click("#through-provider")
    assert await tab.run("document.title") == "Consent"
    assert (await tab.run("location.hostname")) == "localhost"
    await tab.run("document.querySelector('#yes').click()")


async def test_somebody_comes_in_through_the_provider_acts_and_leaves(
    house: tuple[Served, Issuer, Database],
) -> None:
    served, issuer, database = house
    issuer.role = "admin"
    async with browsing() as tab:
        await tab.open(f"{served.address}/settings")
        assert await tab.run("location.pathname + location.search") == "/sign-in?to=/settings"
        await agree(tab)
        await tab.until("location.pathname === '/settings' && document.querySelector('.who') !== null")
        assert EMAIL in await tab.run("document.querySelector('.who').textContent")
        held = await tab.send("Network.getCookies", urls=[served.address])
        assert {each["name"]: each["sameSite"] for each in held["cookies"]} == {"relevo_session": "Strict"}
        await tab.click("form[action='/sign-out'] button")
        assert await tab.run("location.pathname") == "/sign-in"
        await tab.open(f"{served.address}/settings")
        assert await tab.run("location.pathname") == "/sign-in"
        assert tab.complaints == []
    assert await value(database, "SELECT count(*) FROM relevo.sessions WHERE ended_at IS NOT NULL") == 1


async def test_somebody_without_a_role_is_told_and_may_try_again(house: tuple[Served, Issuer, Database]) -> None:
    served, issuer, _ = house
    issuer.role = None
    async with browsing() as tab:
        await tab.size(320, 900, dark=True)
        await tab.open(served.address)
        await agree(tab)
        await tab.until("document.querySelector('#refused') !== null")
        assert "has no role in Relevo" in await tab.run("document.querySelector('#refused').textContent")
        PICTURES.mkdir(parents=True, exist_ok=True)
        assert await tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        if AXE.exists():
            assert await violations(tab) == []
        await tab.picture(PICTURES / "sign-in-no-role.png")
        issuer.role = "viewer"
        await agree(tab)
        await tab.until("document.querySelector('.who') !== null")
        assert urlsplit(await tab.run("location.href")).path == "/"
        tab.complaints[:] = [each for each in tab.complaints if "403 (Forbidden)" not in each]
        assert tab.complaints == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: make test installs it from npm")
@pytest.mark.parametrize("look", [("en", 1280, False), ("es", 320, True)], ids=["en-1280-light", "es-320-dark"])
async def test_the_sign_in_page_with_a_provider_has_no_violation(
    house: tuple[Served, Issuer, Database], look: tuple[str, int, bool]
) -> None:
    served, _, _ = house
    language, width, dark = look
    async with browsing() as tab:
        await tab.size(width, 900, dark=dark)
        await tab.open(f"{served.address}/sign-in")
        await tab.click(f"button[name='language'][value='{language}']")
        assert await violations(tab) == []
        assert await tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        PICTURES.mkdir(parents=True, exist_ok=True)
        await tab.picture(PICTURES / f"sign-in-provider-{language}.png")
        assert tab.complaints == []
