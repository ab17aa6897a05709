"""The command line as people use it: a process of its own, an exit status, one JSON document."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import forked


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command left behind."""

    status: int
    data: Any  # of standard output
    told: str  # standard error


def relevo(*words: str, url: str, config: Path | None = None) -> Answered:
    """Run a command to its end."""
    options = ["--json", "--database-url", url, *(["--config", str(config)] if config else [])]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = forked.start(*words, *options, stdout=out.fileno(), stderr=err.fileno()).wait()
        for each in (out, err):
            each.seek(0)
        said, told = out.read(), err.read()
    assert "Traceback" not in told, told
    return Answered(status, json.loads(said), told)


def succeeds(*words: str, url: str, config: Path | None = None) -> Any:
    """The JSON of a command that must succeed."""
    answered = relevo(*words, url=url, config=config)
    assert answered.status == 0, answered.told
    return answered.data
