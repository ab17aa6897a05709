"""Work that one process does at a time: who is waited for, and who is not."""

from __future__ import annotations

import asyncio
import sys

import pytest

from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import LeaseHeld
from tests.conftest import change, value

HOLD = """
import asyncio, sys
from relevo.db.lease import lease
from relevo.db.pool import Database
async def hold():
    async with Database(sys.argv[1]) as database, lease(database, "work"):
        print("held", flush=True)
        await asyncio.Event().wait()
asyncio.run(hold())
"""
HOLDER = "SELECT holder FROM relevo.leases WHERE name = 'work'"


async def killed_at_it(database: Database) -> None:
    """A lease whose holder, of this machine, was killed just now."""
    words = (sys.executable, "-c", HOLD, database.url)
    holding = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert holding.stdout is not None
    assert await holding.stdout.readline() == b"held\n"
    holding.kill()
    await holding.wait()


async def test_who_was_killed_is_not_waited_for(ready: Database) -> None:
    await killed_at_it(ready)
    async with lease(ready, "work") as taken:
        assert taken.token == 2


@pytest.mark.parametrize(
    ("part", "another"),
    [
        ("/[0-9]+:", "/4026500000:"),  # on the host's network containers share its name, and each has a process 1
        ("/[0-9a-f]{8}/", "/00000000/"),  # a machine of the same name
    ],
    ids=["container", "machine"],
)
async def test_another_place_of_the_same_name_has_no_dead_process_of_ours(
    ready: Database, part: str, another: str
) -> None:
    await killed_at_it(ready)
    await change(ready, "UPDATE relevo.leases SET holder = regexp_replace(holder, %s, %s)", [part, another])
    with pytest.raises(LeaseHeld):
        async with lease(ready, "work"):
            pass


async def test_who_is_at_it_is_told_by_name(ready: Database) -> None:
    async with lease(ready, "work"):
        with pytest.raises(LeaseHeld) as refusal:
            async with lease(ready, "work"):
                pass
        assert await value(ready, HOLDER) in str(refusal.value)
