"""The flag from the command line: what people type, what they are told, what is left as it was."""

from __future__ import annotations

from typing import Any

import pytest

from relevo.db.pool import Database
from tests.commands import relevo, succeeds
from tests.conftest import value
from tests.flags import audited, settle, version


async def test_an_evaluation_answers_in_the_order_asked_for_any_text(ready: Database, database_url: str) -> None:
    asked = ["zoé", "-x", "😀", "", "a b", "zoé"]
    answers = succeeds("flags", "evaluate", *asked, url=database_url)
    assert [each["tenant_id"] for each in answers] == asked
    assert answers[0] == {
        "tenant_id": "zoé",
        "value": False,
        "variant": "v1",
        "reason": "DISABLED",
        "percentile": await value(ready, "SELECT public.voice_agent_v2_percentile('zoé')"),
        "flag_version": 1,
    }
    assert (answers[3]["reason"], answers[3]["percentile"]) == ("ERROR", None)


async def test_each_change_tells_what_the_row_is_afterwards(ready: Database, database_url: str) -> None:
    tenants = await settle(ready, verified=2, unverified=1)
    one, other = tenants.verified
    by = ["--actor", "ana", "--reason", "canary"]
    assert succeeds("flags", "on", *by, url=database_url)["enabled"] is True
    enabled = succeeds("flags", "enable", one, other, *by, url=database_url)
    assert (enabled["changed"], enabled["enabled_tenants"], enabled["version"]) == (True, sorted((one, other)), 3)
    again = succeeds("flags", "enable", one, *by, url=database_url)
    assert (again["changed"], again["version"]) == (False, 3)
    disabled = succeeds("flags", "disable", one, *by, url=database_url)
    assert (disabled["enabled_tenants"], disabled["disabled_tenants"]) == ([other], [one])
    raised = succeeds("flags", "set-percentage", "100", *by, url=database_url)
    assert [each["tenant_id"] for each in raised["unverified"]] == tenants.unverified
    assert raised["disabled_tenants"] == sorted((one, *tenants.unverified))
    off = succeeds("flags", "off", *by, url=database_url)
    assert (off["enabled"], off["percentage"]) == (False, 100)
    shown = succeeds("flags", "show", url=database_url)
    assert {name: shown[name] for name in ("enabled", "percentage", "version")} == {
        "enabled": False,
        "percentage": 100,
        "version": off["version"],
    }
    told = succeeds("flags", "history", "--limit", "3", url=database_url)
    assert [each["details"]["version"] for each in told] == [6, 5, 4]
    assert {(each["actor"], each["reason"]) for each in told} == {("ana", "canary")}


@pytest.mark.parametrize("percentage", ["-1", "101", "12.5", "abc", ""])
async def test_what_is_no_percentage_is_one_clear_line(ready: Database, database_url: str, percentage: str) -> None:
    answered = relevo("flags", "set-percentage", percentage, url=database_url)
    assert answered.status == 2
    assert answered.told.strip() == (
        f"relevo: a percentage is a whole number from 0 to 100, not {percentage!r} — nothing was changed; give one"
    )
    assert await version(ready) == 1


async def test_refusals_say_why_and_change_nothing(ready: Database, database_url: str) -> None:
    tenants = await settle(ready, verified=1, unverified=1)
    (unverified,) = tenants.unverified
    refused = relevo("flags", "enable", *tenants.verified, unverified, url=database_url)
    assert (refused.status, refused.data["error"]["code"]) == (3, "UnverifiedTenants")
    assert f"{unverified} its configuration is not on v2 yet" in refused.told
    for verb in ("enable", "disable"):
        unknown = relevo("flags", verb, unverified[:-1] + "x", url=database_url)
        assert (unknown.status, unknown.data["error"]["code"]) == (2, "UnknownName")
        assert f"Did you mean {unverified}" in unknown.told
    assert await version(ready) == 1
    forced: dict[str, Any] = succeeds("flags", "enable", unverified, "--force", url=database_url)
    assert forced["unverified"] == [{"tenant_id": unverified, "why": "its configuration is not on v2 yet"}]
    assert (await audited(ready))[-1]["details"]["forced"] is True


def test_what_a_real_move_verified_may_go_live_and_nobody_else(sampled: Database) -> None:
    url = sampled.url
    before = next(
        each for each in succeeds("status", url=url)["tenants"] if each["name"] and each["state"] == "pending"
    )
    refused = relevo("flags", "enable", before["tenant_id"], url=url)
    assert (refused.status, refused.data["error"]["code"]) == (3, "UnverifiedTenants")
    assert succeeds("migrate", url=url)["success"]
    stand = {each["tenant_id"]: each["state"] for each in succeeds("status", url=url)["tenants"]}
    verified = [tenant for tenant, state in stand.items() if state == "verified"]
    others = [tenant for tenant, state in stand.items() if state != "verified"]
    assert verified
    assert others
    for tenant in {stand[each]: each for each in others}.values():  # one of each state; without a business: unknown
        assert relevo("flags", "enable", verified[0], tenant, url=url).status in {2, 3}, stand[tenant]
    assert succeeds("flags", "show", url=url)["enabled_tenants"] == []
    succeeds("flags", "on", url=url)
    assert succeeds("flags", "enable", *verified, url=url)["enabled_tenants"] == sorted(verified)
    now = succeeds("status", url=url)
    assert {each["tenant_id"] for each in now["tenants"] if each["version"] == "v2"} == set(verified)
    assert {each["state"] for each in now["tenants"] if each["version"] == "v2"} == {"live"}
    assert succeeds("why", verified[0], url=url)["flag"]["reason"] == "TARGETING_MATCH"
    succeeds("flags", "set-percentage", "100", url=url)
    assert {each["tenant_id"] for each in succeeds("status", url=url)["tenants"] if each["version"] == "v2"} <= {
        *verified,
        *(tenant for tenant, state in stand.items() if state == "unconfigured"),
    }
