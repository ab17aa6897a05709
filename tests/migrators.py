"""Migrators in processes of their own, forked from one that has everything imported already: cheap enough to kill by
the hundred.

``python -m tests.migrators`` is that one process. It reads a request per line, answers each with the new process's
number, and with how it ended once it has. One that is told to sends itself a signal at something it says: SIGKILL, or
SIGSTOP to be found there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relevo.db.pool import Database
from relevo.errors import RelevoError
from relevo.events import Event
from relevo.migration import runner
from relevo.migration.run import Options
from tests.forks import PATIENCE_S, Forks, forking


@dataclass(frozen=True, slots=True)
class Ended:
    """How a migrator ended: by a signal, with an error of ours, or well. Anything else is a traceback."""

    said: int = 0  # things, where it ended well
    signal: int | None = None
    error: str | None = None  # the class of a RelevoError
    message: str = ""
    traceback: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it came to its end."""
        return self == Ended(said=self.said)


class Migrators:
    """Starts one migrator after the other."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks

    def start(self, url: str, now: datetime, *, until: int = 0, hit_by: int = signal.SIGKILL, **options: int) -> int:
        """Begin to migrate; returns the number of the process. It gets the signal at the ``until``-th thing it says."""
        return self._forks.request(url, now.isoformat(), until, int(hit_by), options)

    def wait(self, longest_s: float = PATIENCE_S) -> Ended | None:
        """How it ended; None while it works after ``longest_s`` seconds."""
        told = self._forks.heard(longest_s)
        return Ended(**told) if told is not None else None

    def run(self, url: str, now: datetime, *, until: int = 0, **options: int) -> Ended:
        """Migrate to the end, or to the ``until``-th thing it says."""
        self.start(url, now, until=until, **options)
        ended = self.wait()
        assert ended is not None, f"still at work after {PATIENCE_S} s"
        return ended


@contextmanager
def migrators() -> Iterator[Migrators]:
    """Where they come from, for the length of the block."""
    with forking("tests.migrators") as forks:
        yield Migrators(forks)


def _serve() -> None:
    for line in sys.stdin:
        url, now, until, hit_by, options = json.loads(line)
        told, tells = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(told)
            os.write(tells, json.dumps(_migrate(url, datetime.fromisoformat(now), until, hit_by, options)).encode())
            os._exit(0)
        os.close(tells)
        print(pid, flush=True)
        with open(told, encoding="utf-8") as answer:
            text = answer.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"signal": -status}) if status < 0 else text, flush=True)


def _migrate(url: str, now: datetime, until: int, hit_by: int, options: dict[str, Any]) -> dict[str, Any]:
    """Returns how much it said when all went well, else what went wrong."""
    said = 0

    def sink(_event: Event) -> None:
        nonlocal said
        said += 1
        if said == until:
            os.kill(os.getpid(), hit_by)

    async def migrate() -> None:
        async with Database(url) as database:
            result = await runner.migrate(database, Options(**options), actor="victim", clock=lambda: now, emit=sink)
            assert result.success, result.errors

    try:
        asyncio.run(migrate())
    except RelevoError as error:
        return {"error": error.code, "message": str(error)}
    except BaseException:
        return {"traceback": traceback.format_exc()}
    return {"said": said}


if __name__ == "__main__":
    _serve()
