"""Every page, in English wide and light, in Spanish narrow and dark: axe-core finds nothing, and nothing sticks out.

Pictures of all of it are left in ``test-output/dashboard`` (or in the folder that RELEVO_TEST_PICTURES names).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relevo.access.roles import Role
from relevo.alerts.incidents import note
from relevo.alerts.thresholds import WINDOWS, Finding
from relevo.alerts.watching import drift, findings
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.metrics import complaints
from relevo.metrics.health import Health
from relevo.migration import runner
from relevo.migration.run import Options
from tests.browser import CHROMIUM, Tab
from tests.conftest import behind, change, copied, value
from tests.recorded import asked, reported, say
from tests.servers import Server
from tests.serving import House, secrets_of_each_role, serving
from tests.test_dashboard import SCRIPT, put, verified
from tests.test_dashboard_browser import signed_in
from tests.test_dashboard_rollout import begin

AXE = Path(__file__).parent / "npm" / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = Path(os.environ.get("RELEVO_TEST_PICTURES", "test-output/dashboard"))
LOOKS = {"en-1280-light": ("en", 1280, False), "es-320-dark": ("es", 320, True)}
WITHOUT = """SELECT c.business_id FROM public.voice_agent_config c JOIN public.businesses b ON b.id = c.business_id
             WHERE b.vertical IS NOT NULL AND NOT EXISTS (SELECT FROM {} o WHERE o.business_id = c.business_id)
             LIMIT 1"""
# Words that no Spanish sentence has.
ENGLISH = re.compile(
    r"\b(the|of|is|are|was|were|and|not|with|which|from|this|that|have|has|been|its|it|to|for|by|in|on)\b"
)
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
    """Calls of both versions, incidents, a complaint, tenants in trouble of each kind."""
    now = system_clock()
    bad = "call.in-progress.error-assistant-did-not-receive-customer-audio"
    calls = [
        reported(f"a-{n}", bad if n % 9 == 0 else "customer-ended-call", tenant_id=tenant, version=version,
                 decided_at=now, at=now)
        for n, version in enumerate(["v1", "v2"] * 20)
    ]  # fmt: skip
    calls += [reported("fallen back", fallback="v2: no answer within 3 s", served_version="v1", tenant_id=tenant,
                       decided_at=now, at=now), asked("not over", tenant_id=tenant, decided_at=now)]  # fmt: skip
    await say(database, *calls)
    drifted, copied_only, moved_not, _, _ = (await verified(database, 6))[1:]
    trouble = "UPDATE relevo.verifications SET state = 'drifted', fields = '{voice_id}' WHERE business_id = %s"
    await behind(database, trouble, (drifted,))
    await behind(database, "DELETE FROM relevo.verifications WHERE business_id = %s", (copied_only,))
    await behind(database, "DELETE FROM public.voice_assistant_configs WHERE business_id = %s", (moved_not,))
    bad_figures = Health("v2", total_calls=100, errors=9, measured_calls=100, breaker_opens=3)
    known = findings(dict.fromkeys(WINDOWS, bad_figures))
    async with database.transaction() as connection:
        for each in [each for each in known if each.judgement in ("warning", "critical")]:
            await note(connection, each, now)
        await note(connection, drift({"tenants": 2, "first": tenant}), now)
    finding = Finding(
        "v2.p95_latency", "warning", f"Voice Agent V2: {SCRIPT}", "p95 latency is 812ms (threshold: 800ms)", SCRIPT
    )
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
    of_state = "SELECT business_id FROM relevo.verifications WHERE state = 'drifted'"
    drifted = await value(house.database, of_state)
    copied_only = await value(house.database, WITHOUT.format("relevo.verifications"))
    moved_not = await value(house.database, WITHOUT.format("public.voice_assistant_configs"))
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
        "calls-of-a-kind": "/calls?fault=ours&version=v2",
        "no-calls": "/calls?outcome=voicemail",
        "call": "/calls/a-1",
        "call-fallen-back": "/calls/fallen%20back",
        "audit": "/audit",
        "settings": "/settings",
        "extend": "/extend?points=10",
        "rollback": "/rollback",
        "promote": "/rollout/promote",
        "pause": "/rollout/pause",
        "abort": "/rollout/abort",
        "refused": "/rollout/resume",
        "unverified": f"/tenants/{copied_only}/to/v2",
        "drifted": f"/tenants/{drifted}",
        "moved-not": f"/tenants/{moved_not}",
        "unknown": "/tenants/nobody",
        "nonsense": "/?window=2h",
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
            refused = ("409 (Conflict)", "404 (Not Found)", "400 (Bad Request)")
            tab.complaints[:] = [each for each in tab.complaints if not any(status in each for status in refused)]
    assert wrong == [], "\n".join(wrong)


# What a page says itself: without what others wrote, what is typed, and names of things in the database.
OTHERS_WORDS = (
    "code, pre, q, textarea, .said, .lost, .retold, .compared td, .provenance td, .form-check, select#type, h1, "
    "[lang=en], a[href^='/tenants/'], a[href^='/review/']"
)
OWN_WORDS = f"""(() => {{
    const page = document.querySelector("main").cloneNode(true);
    page.querySelectorAll({json.dumps(OTHERS_WORDS)}).forEach((each) => each.remove());
    return [document.title, ...page.textContent.split("\\n")].map((line) => line.trim()).filter(Boolean);
}})()"""


async def test_a_spanish_page_says_nothing_in_english(house: House) -> None:
    found = []
    async with signed_in(house, Role.ADMIN) as tab:
        await tab.click("button[name='language'][value='es']")
        for path in (await pages(house)).values():
            await tab.open(house.served.address + path)
            for line in await tab.run(OWN_WORDS):
                if ENGLISH.search(line.replace(SCRIPT, "")):
                    found.append(f"{path}: {line}")
        tab.complaints.clear()  # of pages that are refused
    assert found == [], "\n".join(found)


async def test_the_sign_in_page_has_no_violation(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.run("document.querySelector(\"form[action='/sign-out']\").requestSubmit()")
        await tab.until("document.querySelector('#token') !== null")
        assert await violations(tab) == []
        await tab.picture(PICTURES / "sign-in.png")
