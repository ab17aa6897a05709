"""Going back by the flag: levels 1 to 3, how soon every process obeys, what is told, and undoing it."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest

from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.errors import Refused, UnknownName, UsageError
from relevo.flags.store import Flags
from relevo.rollback import levels
from relevo.rollout import operating
from tests.commands import relevo, succeeds
from tests.conftest import change, rows, value
from tests.flags import row, write
from tests.rollouts import ANA, Scene, scene

RUNBOOK = (Path(__file__).parent.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
PANIC, ALONE = re.findall(r"```sql\n(.*?);\n```", RUNBOOK, re.DOTALL)


async def live(database: Database, many: int = 6) -> Scene:
    """So many of ten tenants on v2, by the list, in the order in which they joined."""
    here = await scene(database, verified=10)
    await write(database, "enabled = true, enabled_tenants = %s", here.tenants[:many])
    return here


async def state_of(database: Database) -> dict[str, object]:
    """What the row says."""
    found = await row(database)
    return {name: found[name] for name in ("enabled", "percentage", "enabled_tenants", "disabled_tenants")}


async def test_level_1_takes_one_tenant_and_no_other(ready: Database) -> None:
    here = await live(ready)
    done = await levels.tenants_back(ready, [here.tenants[2]], ANA, system_clock)
    assert done.affected_tenants == [here.tenants[2]]
    assert (done.before.tenants_on_v2, done.after.tenants_on_v2) == (6, 5)
    assert (await row(ready))["disabled_tenants"] == [here.tenants[2]]
    assert done.undo_command == f"relevo flags enable {here.tenants[2]}"


async def test_level_1_of_a_stranger_is_an_error_and_of_nobody_too(ready: Database) -> None:
    here = await live(ready)
    with pytest.raises(UnknownName, match="Did you mean"):
        await levels.tenants_back(ready, [here.tenants[2][:-1] + "x"], ANA, system_clock)
    with pytest.raises(UsageError, match="--tenant-id"):
        await levels.tenants_back(ready, [], ANA, system_clock)
    assert (await row(ready))["disabled_tenants"] == []


async def test_level_2_takes_the_last_to_join(ready: Database) -> None:
    here = await live(ready)
    done = await levels.partly_back(ready, 25, ANA, system_clock)
    assert (await row(ready))["enabled_tenants"] == here.tenants[:3]  # ⌈25 % of 10⌉
    assert (await row(ready))["percentage"] == 0
    assert done.affected_tenants == sorted(here.tenants[3:6])


async def test_level_2_never_puts_anybody_on_v2(ready: Database) -> None:
    here = await live(ready)
    done = await levels.partly_back(ready, 90, ANA, system_clock)
    assert (await row(ready))["enabled_tenants"] == here.tenants[:6]
    assert (done.affected_tenants, done.undo_command) == ([], None)
    for wrong in (None, -1, 101):
        with pytest.raises(UsageError, match="from 0 to 100"):
            await levels.partly_back(ready, wrong, ANA, system_clock)


async def test_level_2_after_the_end_of_a_rollout_lowers_the_percentage(ready: Database) -> None:
    await live(ready)
    await write(ready, "percentage = 100, enabled_tenants = '{}'")
    await levels.partly_back(ready, 50, ANA, system_clock)
    assert (await row(ready))["percentage"] == 50


async def test_level_3_leaves_nobody_on_v2(ready: Database) -> None:
    here = await live(ready)
    await write(ready, "percentage = 50")
    done = await levels.all_back(ready, ANA, system_clock)
    assert await state_of(ready) == {
        "enabled": False, "percentage": 0, "enabled_tenants": [], "disabled_tenants": []
    }  # fmt: skip
    assert set(done.affected_tenants) >= set(here.tenants[:6])
    assert done.after.tenants_on_v2 == 0


async def test_levels_2_and_3_are_undone_as_they_were(ready: Database) -> None:
    here = await live(ready)
    before = await state_of(ready)
    for back in (levels.all_back(ready, ANA, system_clock), levels.partly_back(ready, 10, ANA, system_clock)):
        done = await back
        assert await state_of(ready) != before
        undone = await levels.undo(ready, done.audit_id, ANA, system_clock)
        assert await state_of(ready) == before
        assert undone.after.enabled_tenants == here.tenants[:6]


async def test_undoing_overrules_nobody_and_enables_only_who_is_verified(ready: Database) -> None:
    here = await live(ready)
    done = await levels.all_back(ready, ANA, system_clock)
    await change(ready, "DELETE FROM relevo.verifications WHERE business_id::text = %s", (here.tenants[1],))
    undone = await levels.undo(ready, done.audit_id, ANA, system_clock)
    assert undone.left_out == [here.tenants[1]]
    with pytest.raises(Refused, match="was changed since"):
        await levels.undo(ready, done.audit_id, ANA, system_clock)
    with pytest.raises(UnknownName, match="no rollback that can be undone"):
        await levels.undo(ready, 1, ANA, system_clock)


async def test_it_is_in_the_audit_log_with_who_and_why(ready: Database) -> None:
    await live(ready)
    done = await levels.all_back(ready, ANA, system_clock)
    (entry,) = await rows(ready, "SELECT * FROM relevo.audit_log WHERE id = %s", (done.audit_id,))
    assert (entry["actor"], entry["action"], entry["reason"]) == ("ana", "rollback.total", "because")
    assert entry["details"]["affected_tenants"] == done.affected_tenants


async def test_calls_in_progress_and_edits_of_those_who_go_back_are_told(ready: Database) -> None:
    here = await live(ready)
    here.now = system_clock()
    await here.calls("v2", 6)
    await here.calls("v1", 3)
    await change(
        ready,
        """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked)
           SELECT 'open ' || t, t, 'v2', 'v2', %s, 'flag', true FROM unnest(%s::text[]) AS t""",
        (here.now, here.tenants[1:4]),
    )
    await change(
        ready,
        """INSERT INTO relevo.v2_edits (config_id, field, edited_by)
           SELECT id, 'voice_id', 'eva' FROM public.voice_assistant_configs WHERE business_id::text = %s""",
        (here.tenants[2],),
    )
    done = await levels.tenants_back(ready, here.tenants[2:3], ANA, system_clock)
    assert done.calls_in_progress == 1
    assert [(each["tenant_id"], each["field"]) for each in done.edits] == [(here.tenants[2], "voice_id")]


async def test_it_says_how_long_until_every_process_obeyed(ready: Database) -> None:
    here = await live(ready)
    async with Flags(ready) as one, Flags(ready) as another:
        assert one.should_use_v2(here.tenants[0])
        done = await levels.all_back(ready, ANA, system_clock)
        assert not one.should_use_v2(here.tenants[0])
        assert not another.should_use_v2(here.tenants[0])
    assert (done.readers, done.lagging) == (2, [])
    assert done.propagation_ms is not None
    assert 0 <= done.propagation_ms < 5000


async def test_a_process_that_does_not_obey_is_named(ready: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await live(ready)
    monkeypatch.setattr(levels, "OBEYED_WITHIN_S", 0.1)
    await change(
        ready, "INSERT INTO relevo.flag_readers VALUES ('deaf:1:1', 'voice_agent_v2', 1, 'poll', now(), now())"
    )
    done = await levels.all_back(ready, ANA, system_clock)
    assert (done.lagging, done.propagation_ms) == (["deaf:1:1"], None)


# With a rollout -------------------------------------------------------------------------------------------------------


async def test_level_3_ends_a_rollout_and_undoing_it_takes_it_up_again_paused(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.settle_into()
    done = await levels.all_back(ready, ANA, here.clock)
    assert (await here.rollout()).standing.state == "RolledBack"
    await levels.undo(ready, done.audit_id, ANA, here.clock)
    rollout = await here.rollout()
    assert (rollout.standing.state, rollout.standing.cause) == ("Paused", "undo")
    assert await here.on_v2() == here.tenants[:2]
    await operating.change(ready, "resume", ANA, here.now)
    await here.tick(seconds=5)
    assert (await here.rollout()).standing.state == "Progressing"


async def test_levels_1_and_2_pause_a_rollout(ready: Database) -> None:
    here = await scene(ready)
    await here.start(canary=3)
    await levels.tenants_back(ready, here.tenants[:1], ANA, here.clock)
    assert await here.on_v2() == here.tenants[1:3]
    assert (await here.rollout()).standing.cause == "flag"
    await operating.change(ready, "resume", ANA, here.now)
    await levels.partly_back(ready, 5, ANA, here.clock)
    assert await here.on_v2() == here.tenants[1:2]
    assert (await here.rollout()).standing.cause == "flag"


async def test_level_2_in_a_rollout_that_is_smaller_already_takes_nobody(ready: Database) -> None:
    here = await scene(ready)
    await here.start(canary=3)
    before = await state_of(ready)
    done = await levels.partly_back(ready, 90, ANA, here.clock)
    assert (await state_of(ready), done.affected_tenants, done.undo_command) == (before, [], None)


async def test_what_the_controller_did_can_be_undone(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 40, errors=30)
    await here.calls("v1", 100)
    await here.tick(seconds=1)
    assert await here.on_v2() == []
    entry = await value(ready, "SELECT max(id) FROM relevo.audit_log WHERE action = 'rollout.roll_back'")
    await levels.undo(ready, entry, ANA, here.clock)
    assert await here.on_v2() == here.tenants[:2]
    assert (await here.rollout()).standing.cause == "undo"


# Without Relevo -------------------------------------------------------------------------------------------------------


async def test_the_panic_statement_of_the_runbook_puts_everybody_on_v1(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    async with Flags(ready) as flags:
        assert flags.should_use_v2(here.tenants[0])
        heard = asyncio.create_task(_version_above(flags, flags.flag.version))
        await change(ready, PANIC)
        await asyncio.wait_for(heard, 10)
        assert not flags.should_use_v2(here.tenants[0])
    assert (await here.rollout()).standing.state == "Paused"
    assert await value(ready, "SELECT count(*) FROM relevo.audit_log WHERE action = 'flag.change'") == 2


async def test_the_runbooks_statement_for_one_tenant(ready: Database) -> None:
    here = await live(ready)
    await change(ready, ALONE.replace("TENANT", here.tenants[3]))
    assert here.tenants[3] not in await here.on_v2()


async def _version_above(flags: Flags, version: int) -> None:
    async for state in flags.changes():
        if flags.flag.version > version:
            return
        assert state is not None


# By command -----------------------------------------------------------------------------------------------------------


async def test_the_commands(ready: Database) -> None:
    here = await live(ready)

    async def run(*words: str) -> dict[str, object]:
        found: dict[str, object] = await asyncio.to_thread(succeeds, "rollback", *words, url=ready.url)
        return found

    alone = await run("--level", "tenant", "--tenant-id", here.tenants[0])
    keys = {"level", "success", "before", "after", "affected_tenants", "propagation_ms", "duration_seconds", "audit_id"}
    assert keys <= alone.keys()
    some = await run("--level", "partial", "--percentage", "20")
    assert (some["level"], some["affected_tenants"]) == ("partial", sorted(here.tenants[3:6]))
    everybody = await run()
    assert (everybody["level"], everybody["after"]["tenants_on_v2"]) == ("total", 0)  # type: ignore[index]
    await run("--undo", str(everybody["audit_id"]))
    assert await here.on_v2() == here.tenants[1:3]
    for words, status in (
        (("--level", "tenant"), 2),
        (("--level", "partial"), 2),
        (("--level", "partial", "--percentage", "12.5"), 2),
        (("--level", "totl"), 2),
        (("--level", "tenant", "--tenant-id", "nobody"), 2),
        (("--undo", str(everybody["audit_id"])), 3),
    ):
        assert (await asyncio.to_thread(relevo, "rollback", *words, url=ready.url)).status == status, words
