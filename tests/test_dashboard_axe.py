"""Every page, in English wide and light, in Spanish narrow and dark: axe-core finds nothing, and nothing sticks out.

Pictures of all of it are left in ``test-output/dashboard`` (or in the folder that RELEVO_TEST_PICTURES names).
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relevo.access.roles import Role
from relevo.alerts.incidents import note
from relevo.alerts.thresholds import Finding
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.metrics import complaints
from relevo.migration import runner
from relevo.migration.run import Options
from tests.browser import CHROMIUM, Tab
from tests.conftest import change, copied, value
from tests.recorded import reported, say
from tests.servers import Server
from tests.serving import House, secrets_of_each_role, serving
from tests.test_dashboard import SCRIPT, put, verified
from tests.test_dashboard_browser import signed_in
from tests.test_dashboard_rollout import begin

AXE = Path(__file__).parent / "npm" / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = Path(os.environ.get("RELEVO_TEST_PICTURES", "test-output/dashboard"))
LOOKS = {"en-1280-light": ("en", 1280, False), "es-320-dark": ("es", 320, True)}
pytestmark = [
    pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"]),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: make test installs it from npm"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """A house with something to see on every page, texts that look like scripts among it."""
    with copied(server, template) as url:
        async with Database(url) as database:
            await runner.migrate(database, Options(), actor="tests", clock=system_clock)
            await put(database, False, 0, [])
            (tenant,) = await verified(database, 1)
            texts = "UPDATE public.voice_agent_config SET system_prompt = %s, first_message = %s WHERE business_id = %s"
            await change(database, texts, (SCRIPT, SCRIPT, tenant))
            await change(database, "UPDATE public.businesses SET name = %s WHERE id = %s", (SCRIPT, tenant))
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                served.until("/readyz", 200)
                await begin(database)
                await happen(database, tenant)
                yield House(served, database, secrets)


async def happen(database: Database, tenant: str) -> None:
    """Calls of both versions, an incident, a complaint."""
    now = system_clock()
    bad = "call.in-progress.error-assistant-did-not-receive-customer-audio"
    calls = [
        reported(f"a-{n}", bad if n % 9 == 0 else "customer-ended-call", tenant_id=tenant, version=version,
                 decided_at=now, at=now)
        for n, version in enumerate(["v1", "v2"] * 20)
    ]  # fmt: skip
    await say(database, *calls)
    finding = Finding("v2.p95_latency", "warning", f"Voice Agent V2: {SCRIPT}", "p95 latency is 812ms", SCRIPT)
    async with database.transaction() as connection:
        await note(connection, finding, now)
        await complaints.add(connection, tenant, SCRIPT, now, version="v2", actor=SCRIPT, reason=SCRIPT)


@pytest.fixture(autouse=True)
def folder() -> None:
    """Where the pictures go."""
    PICTURES.mkdir(parents=True, exist_ok=True)


async def pages(house: House) -> dict[str, str]:
    """Every page there is, by a name for its picture."""
    (tenant,) = await verified(house.database, 1)
    backup = await value(house.database, "SELECT id FROM public.migration_backups ORDER BY created_at DESC LIMIT 1")
    config = await value(
        house.database, "SELECT config_id FROM relevo.config_origins WHERE review <> '{}' ORDER BY config_id LIMIT 1"
    )
    return {
        "overview": "/?window=1h",
        "tenants": "/tenants",
        "tenant": f"/tenants/{tenant}",
        "to-v1": f"/tenants/{tenant}/to/v1",
        "migration": "/migration",
        "backup": f"/backups/{backup}",
        "review": f"/review/{config}",
        "calls": "/calls",
        "call": "/calls/a-1",
        "audit": "/audit",
        "settings": "/settings",
        "extend": "/extend?points=10",
        "rollback": "/rollback",
        "promote": "/rollout/promote",
        "pause": "/rollout/pause",
        "abort": "/rollout/abort",
        "refused": "/rollout/resume",
    }


async def violations(tab: Tab) -> list[str]:
    """What axe-core finds wrong with the page as it is shown."""
    await tab.run(AXE.read_text(encoding="utf-8") + "; undefined")
    found = await tab.run("axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)")
    return [f"{each['id']}: {json.dumps([node['html'][:200] for node in each['nodes']][:3])}" for each in found]


@pytest.mark.parametrize("look", LOOKS)
async def test_no_page_has_a_violation_or_says_anything_to_the_console(house: House, look: str) -> None:
    language, width, dark = LOOKS[look]
    wrong = []
    async with signed_in(house, Role.ADMIN) as tab:
        await tab.click(f"button[name='language'][value='{language}']")
        await tab.size(width, 900, dark=dark)
        for name, path in (await pages(house)).items():
            await tab.open(house.served.address + path)
            await tab.picture(PICTURES / f"{name}-{look}.png")
            wrong += [f"{path} {each}" for each in await violations(tab)]
            page = "document.documentElement"
            if await tab.run(f"{page}.scrollWidth > {page}.clientWidth"):
                wrong.append(f"{path} is wider than {width} pixels")
            assert await tab.run("document.querySelector('main script')") is None
            tab.complaints[:] = [each for each in tab.complaints if "409 (Conflict)" not in each]  # /rollout/resume
    assert wrong == [], "\n".join(wrong)


async def test_the_sign_in_page_has_no_violation(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.run("document.querySelector(\"form[action='/sign-out']\").requestSubmit()")
        await tab.until("document.querySelector('#token') !== null")
        assert await violations(tab) == []
        await tab.picture(PICTURES / "sign-in.png")
