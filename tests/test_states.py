"""Where a tenant stands follows from what is in the database, and says why."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from relevo.db.pool import Database
from relevo.flags.evaluate import Evaluation
from relevo.migration import runner, states
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import Options
from relevo.migration.steps import verify
from tests.commands import relevo
from tests.conftest import NOW, behind, change, rows, value

FACTS = dict.fromkeys(
    ("configs", "active", "quarantined", "absent", "without_v1", "unverified", "drifted", "waiting", "edited"), 0
) | {"clashing": 0, "to_review": 0, "quarantined_because": None, "known": True}
ON_V1 = Evaluation("t", False, "v1", "SPLIT", 50, 1)
ON_V2 = Evaluation("t", True, "v2", "TARGETING_MATCH", 50, 1)


@pytest.mark.parametrize(
    ("facts", "evaluation", "state"),
    [
        ({}, ON_V1, "unconfigured"),
        ({"configs": 1, "absent": 1}, ON_V1, "pending"),
        ({"configs": 2, "absent": 1, "quarantined": 1}, ON_V1, "quarantined"),
        ({"configs": 1, "unverified": 1}, ON_V1, "copied"),
        ({"configs": 1}, ON_V1, "verified"),
        ({"configs": 1}, ON_V2, "live"),
        ({"configs": 1, "drifted": 1}, ON_V2, "drifted"),
        ({"configs": 1, "waiting": 1}, ON_V1, "waiting"),
    ],
)
def test_the_first_rule_that_applies_names_the_state(facts: dict[str, int], evaluation: Evaluation, state: str) -> None:
    found, reasons = states.state_of(FACTS | facts | {"active": 1}, evaluation)
    assert found == state
    assert bool(reasons) == (state not in {"verified", "live"})


def test_a_tenant_on_v2_with_wrong_data_is_told_first() -> None:
    _, reasons = states.state_of(FACTS | {"configs": 1, "active": 1, "drifted": 1}, ON_V2)
    assert reasons[0] == "it is on v2 all the same"


async def state(database: Database, tenant: UUID) -> states.TenantState:
    return (await states.why(database, DEFAULT, tenant)).tenant


async def test_a_tenant_goes_its_way(sampled: Database) -> None:
    (found,) = await rows(
        sampled,
        """SELECT c.id, c.business_id FROM public.voice_agent_config c JOIN public.businesses b ON b.id = c.business_id
           WHERE b.vertical = 'dental' AND c.is_active
             AND (SELECT count(*) FROM public.voice_agent_config o WHERE o.business_id = b.id) = 1
           ORDER BY c.id LIMIT 1""",
    )
    config, tenant = found["id"], found["business_id"]
    assert (await state(sampled, tenant)).state == "pending"
    await runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW)
    assert (await state(sampled, tenant)).state == "verified"
    assert await unverified(sampled, tenant) == []
    await behind(sampled, "UPDATE public.voice_agent_config SET phone_number_id = 'x' WHERE id = %s", (config,))
    await verify.run(sampled, DEFAULT, tenant_ids=None, clock=lambda: NOW)
    drifted = await states.why(sampled, DEFAULT, tenant)
    assert (drifted.tenant.state, drifted.configs[0]["differs_in"]) == ("drifted", ["phone_number_id"])
    assert await unverified(sampled, tenant) == ["its configuration was verified and found drifted"]
    await behind(sampled, "UPDATE public.voice_assistant_configs SET phone_number_id = 'x' WHERE id = %s", (config,))
    await verify.run(sampled, DEFAULT, tenant_ids=None, clock=lambda: NOW)
    await change(
        sampled,
        "UPDATE public.feature_flags SET enabled = true, enabled_tenants = ARRAY[%s] WHERE name = 'voice_agent_v2'",
        (str(tenant),),
    )
    live = await state(sampled, tenant)
    assert (live.state, live.version) == ("live", "v2")
    await change(sampled, "UPDATE public.voice_assistant_configs SET voice_speed = 1.1 WHERE id = %s", (config,))
    assert "1 edited on v2: what v1 would not carry" in (await state(sampled, tenant)).reasons


async def unverified(database: Database, tenant: UUID) -> list[str]:
    found = await rows(database, "SELECT why FROM relevo.unverified_tenants(ARRAY[%s])", (str(tenant),))
    return [row["why"] for row in found]


async def test_a_tenant_that_nobody_knows_is_not_verified(sampled: Database) -> None:
    await runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW)
    why = await rows(sampled, "SELECT * FROM relevo.unverified_tenants(ARRAY['nobody', 'nobody'])")
    assert why == [{"tenant_id": "nobody", "why": "has no configuration"}]
    set_aside = await value(
        sampled, "SELECT business_id::uuid FROM relevo.quarantine WHERE reason = 'no_vertical' LIMIT 1"
    )
    assert await unverified(sampled, set_aside) == ["its configuration is set aside: no_vertical"]


async def test_status_and_the_flag_agree_on_who_may_go_live(sampled: Database) -> None:
    """Through every step of the move, and for data that went wrong in every way that verification knows."""
    await agree(sampled)
    await runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW)
    before = await agree(sampled)
    wrong = ("drifted", "missing", "queued", "quarantined")
    for place, state_found in enumerate(wrong):
        await change(
            sampled,
            """UPDATE relevo.verifications SET state = %s WHERE config_id IN
               (SELECT config_id FROM relevo.verifications ORDER BY config_id OFFSET %s LIMIT 1)""",
            (state_found, place),
        )
    await change(
        sampled,
        "DELETE FROM relevo.verifications WHERE config_id = (SELECT max(config_id::text)::uuid"
        " FROM relevo.verifications)",
    )
    assert before > await agree(sampled) > 0


async def agree(database: Database) -> int:
    """How many may go live, by both."""
    by_status = {
        str(each.tenant_id)
        for each in await states.all_tenants(database, DEFAULT)
        if each.state in {"verified", "live"}
    }
    asked = [str(row["id"]) for row in await rows(database, "SELECT id FROM public.businesses")]
    refused = await rows(database, "SELECT tenant_id FROM relevo.unverified_tenants(%s)", (asked,))
    assert by_status == set(asked) - {row["tenant_id"] for row in refused}
    return len(by_status)


async def test_every_tenant_is_listed_once(sampled: Database) -> None:
    await runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW)
    found = await states.all_tenants(sampled, DEFAULT)
    ids = [each.tenant_id for each in found]
    assert len(ids) == len(set(ids))
    assert set(ids) >= {row["id"] for row in await rows(sampled, "SELECT id FROM public.businesses")}


def test_the_commands_tell_it(sampled: Database) -> None:
    assert relevo("migrate", url=sampled.url).status == 0
    told: Any = relevo("status", url=sampled.url)
    assert told.status == 0
    assert told.data["total_tenants"] == len(told.data["tenants"]) == sum(told.data["states"].values())
    tenant = next(each for each in told.data["tenants"] if each["state"] == "verified")
    one: Any = relevo("why", tenant["tenant_id"][:8], url=sampled.url)
    assert (one.status, one.data["state"], one.data["flag"]["variant"]) == (0, "verified", "v1")
    assert relevo("why", "No hay tal negocio", url=sampled.url).status == 2
