"""One harness takes every step of the move: start, roll back, start, complete. A step without a case fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from relevo import events
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import LeaseHeld, UnknownName
from relevo.migration import mirror, runner
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import MoveResult, Options
from relevo.migration.steps import difference
from relevo.rollback import data
from tests.commands import relevo
from tests.conftest import change, rows, value
from tests.test_move import RUN_BEGINS, fingerprint


class StopHere(Exception):
    """The harness has seen enough."""


@dataclass(frozen=True)
class Case:
    """One step: what must be there once it is done, and what must be gone once it was rolled back."""

    done: Callable[[Database], Awaitable[bool]]


async def _backed_up(database: Database) -> bool:
    return bool(await value(database, "SELECT bool_and(verified_at IS NOT NULL) FROM public.migration_backups"))


async def _validated(database: Database) -> bool:
    query = "SELECT count(*) FROM relevo.run_steps WHERE step = 'validate' AND finished_at IS NOT NULL"
    return bool(await value(database, query))


async def _copied(database: Database) -> bool:
    return (await mirror.look(database, DEFAULT)).installed and bool(
        await value(database, "SELECT count(*) FROM public.voice_assistant_configs")
    )


async def _counted(database: Database) -> bool:
    without = await value(database, "SELECT count(*) FROM public.voice_calls WHERE outcome IS NULL")
    return without == 0 and bool(await value(database, "SELECT count(*) FROM public.voice_assistant_metrics"))


async def _verified(database: Database) -> bool:
    return bool(await value(database, "SELECT count(*) FROM relevo.verifications WHERE state = 'matched'"))


CASES = {
    "Backup": Case(_backed_up),
    "Validate": Case(_validated),
    "Configurations": Case(_copied),
    "Calls and metrics": Case(_counted),
    "Verify": Case(_verified),
}


def test_every_step_has_a_case() -> None:
    assert tuple(CASES) == runner.STEPS


async def go(database: Database, upto: str | None = None) -> MoveResult | None:
    """The move, stopped once a step is done; None: it was stopped, and its run is open."""

    def sink(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and upto is not None and event.number > runner.STEPS.index(upto) + 1:
            raise StopHere

    try:
        return await runner.migrate(database, Options(), actor="tester", clock=lambda: RUN_BEGINS, emit=sink)
    except StopHere:
        return None


async def roll_back(database: Database, before: dict[str, Any]) -> None:
    """An open run is given up; a finished one goes back to its backup."""
    if await value(database, "SELECT count(*) FROM relevo.runs WHERE state = 'running'"):
        await runner.abandon(database, actor="tester", reason="the harness", clock=lambda: RUN_BEGINS)
    else:
        last = await value(
            database,
            """SELECT b.id FROM relevo.runs r JOIN public.migration_backups b ON b.id = r.backup_id
               WHERE r.state = 'succeeded' ORDER BY b.number DESC LIMIT 1""",
        )
        found = await difference.find(database, str(last))
        await data.run(database, DEFAULT, data.Request(found, "tester", "the harness"))
        await change(database, "UPDATE public.voice_calls SET outcome = NULL")  # a column newer than the backup stays
    assert await fingerprint(database) == before


@pytest.mark.parametrize("step", CASES)
async def test_a_step_starts_rolls_back_starts_and_completes(sampled: Database, step: str) -> None:
    await change(sampled, "ALTER TABLE public.voice_calls ADD outcome text, ADD agent_version text DEFAULT 'v1'")
    before = await fingerprint(sampled)
    await go(sampled)
    straight_through = await fingerprint(sampled)
    await roll_back(sampled, before)
    for _ in range(2):  # what was rolled back once can be started, and rolled back, again
        await go(sampled, upto=step)
        assert await CASES[step].done(sampled)
        await roll_back(sampled, before)
    await go(sampled, upto=step)
    done = await go(sampled)
    assert done is not None
    assert done.success, done.errors
    assert await fingerprint(sampled) == straight_through


async def test_giving_up_tells_who_and_why_and_waits_for_whoever_works(sampled: Database) -> None:
    with pytest.raises(UnknownName, match="no run is open"):
        await runner.abandon(sampled, actor="tester")
    await go(sampled, upto="Configurations")
    async with lease(sampled, runner.LEASE):
        with pytest.raises(LeaseHeld):
            await runner.abandon(sampled, actor="tester")
    answered: Any = relevo("migrate", "--abandon", "--reason", "not today", url=sampled.url)
    assert answered.status == 0
    (told,) = await rows(sampled, "SELECT reason, details FROM relevo.audit_log WHERE action = 'migration.undone'")
    assert told["reason"] == "not today"
    assert told["details"]["errors"][0].startswith("given up by")


async def test_what_was_edited_on_v2_meanwhile_is_not_the_runs_to_take_back(sampled: Database) -> None:
    await go(sampled, upto="Configurations")
    edited = await value(
        sampled,
        """UPDATE public.voice_assistant_configs SET voice_speed = 1.3
           WHERE id = (SELECT min(id::text)::uuid FROM public.voice_assistant_configs) RETURNING id""",
    )
    await runner.abandon(sampled, actor="tester")
    assert await value(sampled, "SELECT array_agg(id) FROM public.voice_assistant_configs") == [edited]
