"""Controllers in processes of their own, to be killed: forked from one that has everything imported already.

``python -m tests.controllers`` is that one process. A request is a line: ``["tick", url, now, n]`` ticks once and is
killed before the ``n``-th thing that it asks of the database; ``["keep", url, began, hours]`` goes on ticking, in time
that runs ``hours`` a second since ``began`` on the machine's steady clock. Each is answered with the process's number.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import psycopg

from relevo.clock import Clock
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.rollout import controller
from tests.forks import Forks, forking

EVERY_S = 0.05
EPOCH = datetime.fromisoformat("2026-11-23T12:00:00+00:00")


def compressed(began_s: float, hours_a_second: float) -> Clock:
    """A clock that all processes of this machine share."""
    return lambda: EPOCH + timedelta(hours=(time.monotonic() - began_s) * hours_a_second)


class Controllers:
    """Starts controllers, and ends them without a word."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks
        self.running: list[int] = []

    def keep(self, url: str, began_s: float, hours_a_second: float) -> int:
        """Begin to tick; returns the number of the process."""
        pid = self._forks.request("keep", url, began_s, hours_a_second)
        self.running.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        """Kill -9."""
        self.running.remove(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def tick(self, url: str, now: datetime, until: int) -> str:
        """Tick once, killed before the ``until``-th request: "killed", "done", or what went wrong."""
        self._forks.request("tick", url, now.isoformat(), until)
        told = self._forks.heard()
        assert told is not None, "no word from a controller"
        return str(told)


@contextmanager
def controllers() -> Iterator[Controllers]:
    """Where they come from; none is left at the end of the block."""
    with forking("tests.controllers") as forks:
        found = Controllers(forks)
        try:
            yield found
        finally:
            for pid in list(found.running):
                found.kill(pid)


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for line in sys.stdin:
        kind, url, *rest = json.loads(line)
        told, tells = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(told)
            os.write(tells, _run(kind, url, rest).encode())
            os._exit(0)
        os.close(tells)
        print(json.dumps(str(pid)), flush=True)
        if kind == "tick":
            with open(told, encoding="utf-8") as answer:
                text = answer.read()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(json.dumps("killed" if status == -signal.SIGKILL else text), flush=True)
        else:
            os.close(told)


def _run(kind: str, url: str, rest: list[Any]) -> str:
    try:
        asyncio.run(_keep(url, *rest) if kind == "keep" else _tick(url, datetime.fromisoformat(rest[0]), rest[1]))
    except BaseException:
        return traceback.format_exc()
    return "done"


async def _keep(url: str, began_s: float, hours_a_second: float) -> None:
    async with Database(url, wait_s=2, must_answer=False) as database:
        await controller.keep_ticking(database, compressed(began_s, hours_a_second), every_s=EVERY_S)


async def _tick(url: str, now: datetime, until: int) -> None:
    """Everything that goes to the database goes through one method: BEGIN and COMMIT too."""
    asked, real = 0, psycopg.AsyncConnection.wait

    async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == until:
            os.kill(os.getpid(), signal.SIGKILL)
        return await real(self, *arguments, **options)

    async with Database(url, size=1) as database:
        psycopg.AsyncConnection.wait = counted  # type: ignore[method-assign]
        async with lease(database, controller.LEASE) as held:
            await controller.tick(database, now, held)
            await controller.watch(database, now, held)


if __name__ == "__main__":
    _serve()
