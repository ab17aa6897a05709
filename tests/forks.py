"""Processes to be killed: forked from one that has everything imported already, which takes requests by the line."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


class Forks:
    """The process that forks them. Each request is answered with the number of the process that does it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def request(self, *said: Any) -> int:
        """Have something begun; returns the number of the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        return int(self.heard())

    def heard(self, longest_s: float = PATIENCE_S) -> Any:
        """The next thing that is said; None for nothing within ``longest_s`` seconds."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], longest_s)
        return json.loads(self._process.stdout.readline()) if ready else None


@contextmanager
def forking(module: str) -> Iterator[Forks]:
    """``python -m module`` as the one that forks, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # what a buffer holds, no select sees
        cwd=Path(__file__).parent.parent,
    )
    with process:
        yield Forks(process)
        assert process.stdin is not None
        process.stdin.close()
