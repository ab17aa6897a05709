"""Deciding otherwise than was inferred, trying again what was set aside, and seeing what a backup would bring back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from relevo.access.roles import Role
from relevo.migration.steps import backup
from tests.browser import CHROMIUM
from tests.conftest import change, rows, value
from tests.dashboard import Visitor, visible
from tests.servers import Server
from tests.serving import House, housed
from tests.test_dashboard_browser import signed_in

pytestmark = [
    pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"]),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]
TO_REVIEW = "SELECT config_id FROM relevo.config_origins WHERE review <> '{}' ORDER BY config_id LIMIT 1"
CONFIG = "SELECT * FROM public.voice_assistant_configs WHERE id = %s"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """A server on moved tenants, some of them set aside."""
    async with housed(server, template, moved=True) as house:
        yield house


async def test_another_decision_takes_effect_and_says_whose_it_is(house: House) -> None:
    config = await value(house.database, TO_REVIEW)
    (before,) = await rows(house.database, CONFIG, (config,))
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.open(f"{house.served.address}/review/{config}")
        await tab.run("document.querySelector('#instructions').value = 'No aceptar perros.'")
        await tab.run("document.querySelector('#reason').value = 'they called'")
        await tab.click("main form button")
        assert "Done." in await tab.run("document.querySelector('main').textContent")
    (after,) = await rows(house.database, CONFIG, (config,))
    assert after["special_instructions"] == "No aceptar perros."
    assert after["assistant_type_id"] == before["assistant_type_id"]
    (kept,) = await rows(house.database, "SELECT * FROM relevo.overrides WHERE config_id = %s", (config,))
    assert kept["fields"] == ["special_instructions"]
    assert kept["actor"].endswith("(operator)")


async def test_a_value_that_does_not_exist_is_refused(house: House) -> None:
    config = await value(house.database, TO_REVIEW)
    (before,) = await rows(house.database, CONFIG, (config,))
    operator = Visitor(house.served).sign_in(house.operator)
    assert operator.ask("POST", f"/review/{config}", {"assistant_type_id": "no_such_type"}).status == 404
    assert (await rows(house.database, CONFIG, (config,))) == [before]
    for wrong in ("nothing", "00000000-0000-0000-0000-000000000000"):
        operator.page(f"/review/{wrong}", 404)


async def test_what_was_set_aside_goes_once_it_is_mended(house: House) -> None:
    (row,) = await rows(
        house.database, "SELECT * FROM relevo.quarantine WHERE reason = 'no_vertical' ORDER BY config_id LIMIT 1"
    )
    await change(
        house.database, "UPDATE public.businesses SET vertical = 'dental' WHERE id = %s", (row["business_id"],)
    )
    async with signed_in(house, Role.OPERATOR) as tab:
        await tab.open(f"{house.served.address}/migration")
        await tab.click("#retry")
        assert "Done." in await tab.run("document.querySelector('main').textContent")
    left = await value(
        house.database, "SELECT count(*) FROM relevo.quarantine WHERE config_id = %s", (row["config_id"],)
    )
    assert left == 0
    assert await value(
        house.database, "SELECT count(*) FROM public.voice_assistant_configs WHERE id = %s", (row["config_id"],)
    )


async def test_what_a_backup_would_change_is_counted_and_nothing_is_written(house: House) -> None:
    (made, *_) = await backup.listed(house.database)
    some = "(SELECT id FROM public.voice_agent_config ORDER BY id LIMIT 1)"
    name = f"UPDATE public.voice_agent_config SET assistant_name = 'Otra' WHERE id = {some}"
    await change(house.database, name)
    operator = Visitor(house.served).sign_in(house.operator)
    page = visible(operator.page(f"/backups/{made.id}"))
    assert "assistant_name (1)" in page
    assert await value(house.database, "SELECT count(*) FROM public.voice_agent_config WHERE assistant_name = 'Otra'")
    operator.page("/backups/00000000-0000-0000-0000-000000000000", 404)
