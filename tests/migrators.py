"""Migrators in processes of their own, forked from one that has everything imported already: cheap enough to kill by
the hundred.

``python -m tests.migrators`` is that one process. It reads a request per line, answers each with the new process's
number, and with how it ended once it has.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from relevo.db.pool import Database
from relevo.errors import RelevoError
from relevo.migration import runner
from relevo.migration.run import Options

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a migrator ended: by a signal, with an error of ours, or well. Anything else is a traceback."""

    signal: int | None = None
    error: str | None = None  # the class of a RelevoError
    message: str = ""
    traceback: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it came to its end."""
        return self == Ended()


class Migrators:
    """Starts one migrator after the other."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def start(self, url: str, now: datetime, **options: int) -> int:
        """Begin to migrate; returns the number of the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([url, now.isoformat(), options]).encode() + b"\n")
        return int(self._line(PATIENCE_S))

    def wait(self, longest_s: float = PATIENCE_S) -> Ended | None:
        """How it ended; None while it works after ``longest_s`` seconds."""
        line = self._line(longest_s)
        return Ended(**json.loads(line)) if line else None

    def run(self, url: str, now: datetime, **options: int) -> Ended:
        """Migrate to the end."""
        self.start(url, now, **options)
        ended = self.wait()
        assert ended is not None, f"still at work after {PATIENCE_S} s"
        return ended

    def _line(self, longest_s: float) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], longest_s)
        return self._process.stdout.readline() if ready else b""


@contextmanager
def migrators() -> Iterator[Migrators]:
    """The process that forks them, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.migrators"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # what a buffer holds, no select sees
        cwd=Path(__file__).parent.parent,
    )
    with process:
        yield Migrators(process)
        assert process.stdin is not None
        process.stdin.close()


def _serve() -> None:
    for line in sys.stdin:
        url, now, options = json.loads(line)
        told, tells = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(told)
            os.write(tells, json.dumps(_migrate(url, datetime.fromisoformat(now), options)).encode())
            os._exit(0)
        os.close(tells)
        print(pid, flush=True)
        with open(told, encoding="utf-8") as answer:
            text = answer.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"signal": -status}) if status < 0 else text, flush=True)


def _migrate(url: str, now: datetime, options: dict[str, Any]) -> dict[str, str]:
    """Returns nothing when all went well, else what went wrong."""

    async def migrate() -> None:
        async with Database(url) as database:
            result = await runner.migrate(database, Options(**options), actor="victim", clock=lambda: now)
            assert result.success, result.errors

    try:
        asyncio.run(migrate())
    except RelevoError as error:
        return {"error": error.code, "message": str(error)}
    except BaseException:
        return {"traceback": traceback.format_exc()}
    return {}


if __name__ == "__main__":
    _serve()
