"""The rollout at the dashboard's wheel, in a real browser: who would join or go back is shown first, then it is so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from relevo.access.roles import Role
from relevo.alerts.incidents import note
from relevo.alerts.thresholds import Finding
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.errors import SomebodyWasFaster
from relevo.flags.writing import get
from relevo.migration import runner
from relevo.migration.mapping import DEFAULT as MAPPING
from relevo.migration.run import Options
from relevo.rollout import controller, operating
from relevo.rollout.moving import Rollout, last_rollout
from relevo.rollout.plan import DEFAULT
from tests.browser import CHROMIUM, Tab
from tests.conftest import copied, rows, value
from tests.dashboard import Visitor, visible
from tests.rollouts import ANA
from tests.servers import Server
from tests.serving import House, secrets_of_each_role, serving
from tests.test_dashboard import put, verified
from tests.test_dashboard_browser import signed_in

pytestmark = [
    pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"]),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]


@pytest_asyncio.fixture(loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """A server on moved tenants, and a rollout that has reached its canary."""
    with copied(server, template) as url:
        async with Database(url) as database:
            await runner.migrate(database, Options(), actor="tests", clock=system_clock)
            await put(database, False, 0, [])
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                served.until("/readyz", 200)
                await begin(database)
                yield House(served, database, secrets)


async def begin(database: Database) -> None:
    """Start the default plan, and reach the canary."""
    plan = replace(DEFAULT, named=tuple(await verified(database, 2)))
    await operating.start(database, plan, MAPPING.fill(), ANA, system_clock, force=True)
    await reach(database)


async def reach(database: Database) -> None:
    """Until every process has obeyed, by this tick or by the server's own."""
    while (await newest(database)).standing.state == "Pending":
        try:
            await controller.tick(database, system_clock())
        except SomebodyWasFaster:
            continue


async def newest(database: Database) -> Rollout:
    """The rollout as its row has it."""
    async with database.transaction(read_only=True) as connection:
        found = await last_rollout(connection)
    assert found is not None
    return found


async def last_entry(database: Database, action: str) -> dict[str, object]:
    """The newest entry of the audit log of a kind."""
    (entry,) = await rows(
        database, "SELECT * FROM relevo.audit_log WHERE action = %s ORDER BY id DESC LIMIT 1", (action,)
    )
    return entry


async def confirm(tab: Tab, reason: str) -> None:
    """Say why on the page that asks, and do it."""
    await tab.run(f"document.querySelector('#reason').value = {reason!r}")
    await tab.click("main form button")
    assert "Done." in await tab.run("document.querySelector('main').textContent")


async def test_promoting_over_the_gate_asks_shows_who_joins_and_goes_to_the_audit_log(house: House) -> None:
    before = await get(house.database)
    active = await value(house.database, "SELECT count(*) FROM relevo.active_tenants()")
    async with signed_in(house, Role.OPERATOR) as tab:
        assert "The gate cannot tell yet" in await tab.run("document.querySelector('#progress').textContent")
        await tab.click("#promote")
        asked = await tab.run("document.querySelector('main').textContent")
        assert "early_adopters" in asked
        joining = await tab.run("[...document.querySelectorAll('.named a')].map((a) => a.pathname.split('/').pop())")
        await tab.run("document.querySelector('main form').requestSubmit()")  # without a reason nothing is sent
        assert (await newest(house.database)).standing.phase == 0
        await confirm(tab, "the canary is quiet")
    flag = await get(house.database)
    assert set(joining) == flag.enabled_tenants - before.enabled_tenants
    assert len(flag.enabled_tenants) == -(-active // 10)
    entry = await last_entry(house.database, "rollout.force")
    assert entry["reason"] == "the canary is quiet"
    assert str(entry["actor"]).endswith("(operator)")


async def test_pausing_resuming_and_aborting(house: House) -> None:
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.click("#pause")
        await confirm(tab, "lunch")
        assert (await newest(house.database)).standing.state == "Paused"
        assert "somebody paused it" in await tab.run("document.querySelector('#progress').textContent")
        assert await tab.run("document.querySelector('#pause')") is None
        await tab.click("#resume")
        await confirm(tab, "lunch is over")
        assert (await newest(house.database)).standing.cause is None
        await tab.click("#abort")
        assert "2 go back to v1" in await tab.run("document.querySelector('main').textContent")
        await confirm(tab, "enough")
        assert "The newest rollout has ended" in await tab.run("document.querySelector('#progress').textContent")
    assert (await newest(house.database)).standing.state == "RolledBack"
    flag = await get(house.database)
    assert (flag.enabled, flag.enabled_tenants) == (False, frozenset())
    assert (await last_entry(house.database, "rollout.abort"))["reason"] == "enough"


async def test_what_the_controller_does_is_seen_without_reloading(house: House) -> None:
    async with signed_in(house, Role.VIEWER) as tab:
        await tab.until("document.querySelector('#live').dataset.state === 'live'")
        await tab.run("window.notReloaded = true")
        await operating.change(house.database, "pause", ANA, system_clock())
        await tab.until("document.querySelector('#rollout-state').textContent === 'Paused'")
        assert await tab.run("window.notReloaded") is True
        assert await tab.run("document.querySelector('#promote, #resume, #abort, #rollback')") is None


async def test_ten_points_more_resize_the_cohort_exactly_as_shown_and_pause_it(house: House) -> None:
    active = await value(house.database, "SELECT count(*) FROM relevo.active_tenants()")
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.click("#extend-10")
        asked = " ".join((await tab.run("document.querySelector('main').innerText")).split())
        assert "pauses it" in asked
        shown = re.search(r"Tenants on v2 (\d+) / \d+ (\d+) / \d+", asked)
        assert shown is not None
        await confirm(tab, "")
    flag = await get(house.database)
    assert len(flag.enabled_tenants) == int(shown[2])
    assert len(flag.enabled_tenants) == -(-(100 * 2 // active + 10) * active // 100)
    assert (await newest(house.database)).standing.cause == "flag"


async def test_rolling_back_to_zero_ends_the_rollout_and_says_how_to_undo_it(house: House) -> None:
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.click("#rollback")
        await confirm(tab, "3 a.m.")
        told = await tab.run("document.querySelector('.alert-success code').textContent")
    entry = await last_entry(house.database, "rollback.total")
    assert told == f"relevo rollback --undo {entry['id']}"
    assert (await newest(house.database)).standing.state == "RolledBack"


async def test_what_was_decided_on_another_page_of_the_rollout_is_refused(house: House) -> None:
    operator = Visitor(house.served).sign_in(house.operator)
    page = operator.page("/rollout/promote")
    (seen,) = re.findall(r'name="seen" value="([^"]*)"', page)
    await operating.promote(house.database, ANA, system_clock(), force=True)
    await reach(house.database)
    phase = (await newest(house.database)).standing.phase
    sent = {"seen": seen, "forced": "yes", "reason": "twice"}
    assert operator.ask("POST", "/rollout/promote", sent).status == 409
    assert (await newest(house.database)).standing.phase == phase


async def test_going_over_the_gate_needs_a_reason_and_an_unforced_step_does_not_go_over_it(house: House) -> None:
    operator = Visitor(house.served).sign_in(house.operator)
    (seen,) = re.findall(r'name="seen" value="([^"]*)"', operator.page("/rollout/promote"))
    assert operator.ask("POST", "/rollout/promote", {"seen": seen, "forced": "yes"}).status == 400
    assert operator.ask("POST", "/rollout/promote", {"seen": seen, "reason": "go"}).status == 409
    assert (await newest(house.database)).standing.phase == 0


async def test_what_a_state_has_no_arrow_for_is_refused(house: House) -> None:
    operator = Visitor(house.served).sign_in(house.operator)
    assert "has nothing to resume" in visible(operator.page("/rollout/resume", 409))
    assert operator.ask("POST", "/rollout/resume", {}).status == 409
    operator.page("/rollout/dance", 404)
    await operating.change(house.database, "abort", ANA, system_clock())
    for action in ("promote", "skip", "pause", "abort"):
        assert "no rollout runs" in visible(operator.page(f"/rollout/{action}", 409))


async def test_an_incident_is_taken_on_by_whoever_is_first(house: House) -> None:
    finding = Finding("v2.error_rate", "critical", "Voice Agent V2: Critical Error Rate", "Error rate is 9%")
    async with house.database.transaction() as connection:
        await note(connection, finding, system_clock())
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.click("form[action='/alerts/ack'] button")
        assert "is at it" in await tab.run("document.querySelector('#alerts').textContent")
        assert await tab.run("document.querySelector(\"form[action='/alerts/ack']\")") is None
    assert str((await last_entry(house.database, "incident.acknowledge"))["actor"]).endswith("(operator)")
    operator = Visitor(house.served).sign_in(house.operator)
    assert operator.ask("POST", "/alerts/ack", {"incident": "999"}).status == 404


async def test_phases_lie_behind_the_charts(house: House) -> None:
    await operating.rehearse(house.database, DEFAULT, MAPPING.fill()["calls"], system_clock)
    async with signed_in(house, Role.VIEWER) as tab:
        band = "document.querySelector('#bands li')"
        began = await tab.run(f"Date.parse({band}.dataset.from)")
        asked = (await newest(house.database)).started_at
        assert abs(began / 1000 - asked.timestamp()) < timedelta(seconds=1).total_seconds()
        assert (await tab.run(f"{band}.textContent")).startswith("canary")
