"""The command line as people use it: a process of its own, an exit status, one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command left behind."""

    status: int
    data: Any  # of standard output
    told: str  # standard error


def relevo(*words: str, url: str, config: Path | None = None) -> Answered:
    """Run a command to its end."""
    options = ["--json", "--database-url", url, *(["--config", str(config)] if config else [])]
    done = subprocess.run([sys.executable, "-m", "relevo", *words, *options], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return Answered(done.returncode, json.loads(done.stdout), done.stderr)


def succeeds(*words: str, url: str, config: Path | None = None) -> Any:
    """The JSON of a command that must succeed."""
    answered = relevo(*words, url=url, config=config)
    assert answered.status == 0, answered.told
    return answered.data
