"""Work that only one process may do at a time: a row that expires, and a token that fences off the one before.

The database's clock decides, because it is the only one that all processes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from relevo.db.pool import Connection, Database, first, one
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, LeaseLost, RelevoError

TIME_TO_LIVE_S = 15
_RENEW_EVERY_S = 4
_GIVE_BACK_WITHIN_S = 3  # where nobody answers any more, the error should not wait for it

_takings = itertools.count()
_held: set[str] = set()  # by this process; two databases may each have work of one name


@dataclass(frozen=True, slots=True)
class Lease:
    """A piece of work held by this process."""

    name: str
    token: int

    async def hold(self, connection: Connection) -> None:
        """Make the transaction on this connection count only while the lease is ours.

        Raises LeaseLost when another process has taken over; until the commit nobody can.
        """
        ours = {"name": self.name, "token": self.token}
        if await first(connection, statement("db", "hold_lease"), ours) is None:
            raise LeaseLost(
                f"another process took over the work '{self.name}'",
                fix="see what it does with: relevo status",
            )


@asynccontextmanager
async def lease(database: Database, name: str) -> AsyncIterator[Lease]:
    """Take the work ``name``, keep it for the length of the block, give it back.

    A holder of this machine and container that is no longer at it is not waited for. Raises LeaseHeld.
    """
    holder = f"{_me()}:{next(_takings)}"
    _held.add(holder)  # before others can read it in the row
    try:
        taken = await _take(database, name, holder)
        renewal = asyncio.create_task(_renew(database, taken))
        try:
            yield taken
        finally:
            renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewal
            await _give_back(database, taken)
    finally:
        _held.discard(holder)


async def _give_back(database: Database, held: Lease) -> None:
    """Free the work for others, within a few seconds or not at all: a lease that is not given back expires."""
    giving = asyncio.create_task(_release(database, held))
    await asyncio.wait({giving}, timeout=_GIVE_BACK_WITHIN_S)
    giving.cancel()
    with contextlib.suppress(asyncio.CancelledError, RelevoError, psycopg.Error):
        await giving


async def _release(database: Database, held: Lease) -> None:
    async with database.transaction() as connection:
        await connection.execute(statement("db", "release_lease"), {"name": held.name, "token": held.token})


async def _take(database: Database, name: str, holder: str) -> Lease:
    async with database.transaction() as connection:
        row = await first(connection, statement("db", "lock_lease"), {"name": name})
        if row is not None and row["alive"] and not _is_gone(row["holder"]):
            raise LeaseHeld(
                f"the work '{name}' is being done by {row['holder']} right now",
                fix=f"let it finish; a process that died frees it within {TIME_TO_LIVE_S} s",
            )
        claim = {"name": name, "holder": holder, "seconds": TIME_TO_LIVE_S}
        taken = await one(connection, statement("db", "take_lease"), claim)
    return Lease(name, taken["token"])


async def _renew(database: Database, held: Lease) -> None:
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        with contextlib.suppress(RelevoError, psycopg.Error):  # the next batch finds out by itself
            async with database.transaction() as connection:
                await connection.execute(
                    statement("db", "renew_lease"),
                    {"name": held.name, "token": held.token, "seconds": TIME_TO_LIVE_S},
                )


def _me() -> str:
    return f"{_here()}:{os.getpid()}:{_started(os.getpid())}"


def _here() -> str:
    """Where the number of a process means one process: a boot of a machine, and among its containers one. They may have
    one name, as on the host's network, and a process 1 each."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        numbering = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot}/{numbering}"


def _is_gone(holder: str) -> bool:
    """Whether the holder was of this machine, and among its containers of this one, and is at it no more.

    Its process is gone (the number perhaps another's by now), or is this one, which could not give the lease back
    because the database was away.
    """
    process, _taking = holder.rsplit(":", 1)
    if process == _me():
        return holder not in _held
    where, pid, started = process.rsplit(":", 2)
    return where == _here() and Path("/proc/self/ns").exists() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the process began, in ticks since boot; empty when there is none, or no /proc to ask. One that is dead and
    only not buried yet, as in a container where nobody does that, is none."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if told[0] in "ZX" else told[19]
