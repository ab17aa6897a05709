"""A rollout tells of itself: the team at once and in its own transaction, clients where the team has said so."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import structlog

from relevo.comms.blockkit import payload
from relevo.comms.delivery import Delivery
from relevo.comms.following import Following
from relevo.comms.notices import NOTICES
from relevo.comms.slack import Slack
from relevo.comms.texts import shipped
from relevo.db.pool import Database
from relevo.errors import Refused
from relevo.rollout import controller, operating, telling
from relevo.rollout.controller import watch
from tests.conftest import change, rows, value
from tests.rollouts import ANA, Scene, scene
from tests.wires import hook

MINUTE = timedelta(minutes=1)


async def told(database: Database) -> list[dict[str, Any]]:
    return await rows(database, "SELECT notice, variables FROM relevo.outbox WHERE channel = 'slack' ORDER BY id")


def read(each: dict[str, Any]) -> str:
    """As the team reads it."""
    return json.dumps(payload(shipped().slack(each["notice"], each["variables"]), "#c"), ensure_ascii=False)


async def failing(here: Scene, *, v2: int, v1: int) -> None:
    """A canary of which so many of 40 calls fail, beside a v1 of which so many of 120 do."""
    await here.start()
    await here.tick(seconds=5)
    here.now += 2 * MINUTE
    await here.calls("v2", 40, errors=v2)
    await here.calls("v1", 120, errors=v1)
    await here.tick(seconds=1)


async def test_a_way_back_is_told_as_the_specification_has_it(ready: Database) -> None:
    here = await scene(ready)
    await failing(here, v2=16, v1=2)
    start, back = await told(ready)
    assert (start["notice"], back["notice"]) == ("team_phase", "team_rollback")
    assert "phase 1 of 5" in read(start)
    text = read(back)
    for words in ("URGENT: Voice Agent V2 Rollback Initiated", "Rolled back to 0%", "All tenants now on V1"):
        assert words in text


async def test_the_panic_statement_is_told_too(ready: Database) -> None:
    """Whoever changes the flag by hand overrules the rollout, in that writer's own transaction."""
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    await change(ready, "UPDATE public.feature_flags SET enabled = false WHERE name = 'voice_agent_v2'")
    last = (await told(ready))[-1]
    assert (last["notice"], last["variables"]["event"], last["variables"]["tenants_on_v2"]) == (
        "team_phase",
        "overrule",
        0,
    )


async def test_every_message_counts_the_tenants_that_the_status_counts(ready: Database) -> None:
    """All with an active configuration: those too who cannot join yet, or who joined by hand."""
    here = await scene(ready, verified=18, unverified=2)
    await here.start()
    await here.tick(seconds=5)
    await change(ready, "UPDATE public.feature_flags SET enabled_tenants = array_append(enabled_tenants, 'of no v1')")
    standing = await operating.status(ready, here.now)
    assert (standing.tenants_on_v2, standing.total_tenants) == (2, 20)
    await telling.tell_status(ready, here.now)
    overruled, update = (await told(ready))[-2:]
    for each in (overruled, update):
        assert "10% (2/20 tenants)" in read(each)


async def test_the_panic_statement_waits_for_nobody_who_holds_v1(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    async with ready.transaction() as restoring:
        await restoring.execute("LOCK TABLE public.voice_agent_config IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10):
            await change(
                ready,
                "UPDATE public.feature_flags SET enabled = false, percentage = 0, enabled_tenants = '{}'"
                " WHERE name = 'voice_agent_v2'",
            )
    assert "0% (0/20 tenants)" in read((await told(ready))[-1])


async def test_what_cannot_be_told_is_no_reason_to_fail(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await change(ready, "ALTER TABLE relevo.outbox ADD CHECK (notice <> 'team_rollback')")
    await operating.change(ready, "abort", ANA, here.now)
    assert (await here.rollout()).standing.state == "RolledBack"
    assert [each["notice"] for each in await told(ready)] == ["team_phase"]


@pytest.mark.parametrize(
    "event", sorted({"pause", "resume", "abort", "overrule", "promote", "force", "finish", "start"})
)
def test_every_event_reads_well(event: str) -> None:
    sample = {**NOTICES["team_phase"].sample, "event": event, "why": None}
    assert event in json.dumps(payload(shipped().slack("team_phase", sample), "#c"))


async def test_when_both_versions_suffer_somebody_is_paged_until_it_heals(ready: Database) -> None:
    here = await scene(ready)
    await failing(here, v2=12, v1=36)
    await watch(ready, here.now)
    await watch(ready, here.now + MINUTE)
    pages = "SELECT variables->>'event_action' AS what FROM relevo.outbox WHERE channel = 'pagerduty' ORDER BY id"
    assert [row["what"] for row in await rows(ready, pages)] == ["trigger"]
    await operating.change(ready, "abort", ANA, here.now + MINUTE)
    for minute in (2, 13):
        await controller.watch(ready, here.now + minute * MINUTE)
    assert [row["what"] for row in await rows(ready, pages)] == ["trigger", "resolve"]


async def test_the_status_update_says_where_it_stands(ready: Database) -> None:
    with pytest.raises(Refused, match="never was a rollout"):
        await telling.tell_status(ready, (await scene(ready)).now)


async def test_the_status_update_reads_as_the_specification_has_it(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    here.now += 2 * MINUTE
    await here.calls("v2", 30, ms=650)
    said = await telling.tell_status(ready, here.now)
    assert await telling.tell_status(ready, here.now) == said  # once a minute
    (update,) = [each for each in await told(ready) if each["notice"] == "team_status"]
    text = read(update)
    for words in (
        "Voice Agent V2 Rollout Update",
        "10% (2/20 tenants)",
        "Error Rate: 0% (target &lt;2%)",
        "Calls Today: 30",
    ):
        assert words in text
    assert "Expand to 10% in 4 hours if metrics stable" in text


async def test_a_whole_rollout_is_told_once_through_a_crash_in_the_middle(ready: Database) -> None:
    """Each message as expected, in order, though the delivering process dies after every third."""
    here = await scene(ready)
    await here.start()
    for event in ("pause", "resume"):
        await here.tick(seconds=5)
        await operating.change(ready, event, ANA, here.now)
    await operating.change(ready, "abort", ANA, here.now)
    async with hook() as slack:
        channel = Slack(slack.url, "#c", shipped(), here.clock)
        for _life in range(4):
            delivery = Delivery(ready, channel, here.clock, lambda: 0.5)
            for _ in range(3):
                await delivery.deliver_next()
            doomed = asyncio.create_task(delivery.deliver_next())
            await asyncio.sleep(0)
            doomed.cancel()
            await asyncio.wait({doomed})
        await channel.close()
    titles = [message["blocks"][0]["text"]["text"] for message in slack.taken]
    assert [title.split(":")[-1].strip() for title in titles] == [
        "Pending, phase 1 of 5",
        "Paused, phase 1 of 5",
        "Pending, phase 1 of 5",
        ["URGENT", " Voice Agent V2 Rollback Initiated"][-1].strip(),
    ]


# Clients -----------------------------------------------------------------------------------------------------------


async def with_contacts(ready: Database) -> Scene:
    here = await scene(ready)
    await change(
        ready,
        """CREATE OR REPLACE FUNCTION relevo.v1_tenants()
           RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text,
                          human_phone_number text)
           LANGUAGE sql STABLE AS 'SELECT b.id, b.vertical, b.name, ''America/Tijuana'', ''c'' || left(b.id::text, 8)
                                   || ''@example.mx'', NULL, NULL FROM public.businesses b'""",
    )
    await change(ready, "INSERT INTO relevo.source_mapping (fingerprint) VALUES ('x')")
    return here


async def mails(database: Database) -> dict[str, int]:
    found = await rows(database, "SELECT notice, count(*) AS n FROM relevo.outbox WHERE channel = 'email' GROUP BY 1")
    return {row["notice"]: row["n"] for row in found}


async def test_everybody_is_told_once_that_it_is_complete(ready: Database) -> None:
    here = await with_contacts(ready)
    await here.start()
    await here.tick(seconds=5)
    await operating.promote(ready, ANA, here.now, force=True, ahead=4)
    await here.tick(seconds=5)
    assert await Following(ready, here.clock).look() == 0
    await operating.promote(ready, ANA, here.now, force=True)
    assert (await here.rollout()).standing.state == "Complete"
    following = Following(ready, here.clock)
    looks = await asyncio.gather(following.look(), Following(ready, here.clock).look())
    assert sum(looks) == 20
    assert await following.look() == 0
    assert await mails(ready) == {"client_complete": 20}


async def test_one_who_was_sent_back_alone_is_told(ready: Database) -> None:
    here = await with_contacts(ready)
    await here.start(canary=3)
    await here.tick(seconds=5)
    here.now += 2 * MINUTE
    await here.calls("v2", 60, tenants=here.tenants[:2])
    await here.calls("v2", 30, errors=25, tenants=here.tenants[2:3])
    await here.calls("v1", 300)
    ticked = await here.tick(seconds=1)
    assert ticked is not None
    assert ticked.move is not None
    assert ticked.move.event == "single_out"
    assert await Following(ready, here.clock).look() == 1
    assert await value(ready, "SELECT tenant_id FROM relevo.outbox WHERE channel = 'email'") == here.tenants[2]
    assert await mails(ready) == {"client_returned": 1}
    assert f"Tenant {here.tenants[2]} back on V1" in read((await told(ready))[-1])


async def test_one_who_is_gone_since_keeps_nobody_else_uninformed(ready: Database) -> None:
    here = await with_contacts(ready)
    await here.start(canary=3)
    gone, there = "00000000-0000-4000-8000-00000000dead", here.tenants[2]
    for tenant in (gone, there):
        await change(
            ready,
            """INSERT INTO relevo.rollout_transitions (rollout_id, at, source, event, target, phase, actor, details)
               SELECT a.rollout_id, %s, s.source, s.event, s.target, 0, 'relevo', jsonb_build_object('tenant', %s::text)
               FROM (SELECT max(rollout_id) AS rollout_id FROM relevo.rollout_transitions) AS a,
                    (SELECT * FROM relevo.rollout_arrows WHERE event = 'single_out' LIMIT 1) AS s""",
            (here.now, tenant),
        )
    await change(ready, "UPDATE public.feature_flags SET disabled_tenants = %s", ([there],))
    following = Following(ready, here.clock)
    with structlog.testing.capture_logs() as logs:
        assert await following.look() == 1
        assert await following.look() == 0
    assert await value(ready, "SELECT tenant_id FROM relevo.outbox WHERE channel = 'email'") == there
    (told,) = [each for each in logs if each["event"] == "clients not told"]
    assert f"there is no tenant '{gone}'" in told["why"]
