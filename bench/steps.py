"""How long the steps of a real run take, by the events it emits."""

from __future__ import annotations

import time
from collections import defaultdict

from relevo import events
from relevo.db.pool import Database
from relevo.migration import runner
from relevo.migration.run import Options


class _EnoughSeen(Exception):
    """Ends a run after the step that was to be measured."""


class Stopwatch:
    """A sink that measures each step, up to its last progress report and up to its end."""

    def __init__(self, *, until: str) -> None:
        self._until = until
        self._step = ""
        self._began_s = 0.0
        self.progressed_s: dict[str, float] = defaultdict(float)  # by the step's title
        self.took_s: dict[str, float] = {}

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.StepStarted(title=title):
                self._step, self._began_s = title, time.perf_counter()
            case events.Progress():
                self.progressed_s[self._step] = time.perf_counter() - self._began_s
            case events.StepFinished():
                self.took_s[self._step] = time.perf_counter() - self._began_s
                if self._step == self._until:
                    raise _EnoughSeen


async def measured(url: str, options: Options, *, until: str) -> Stopwatch:
    """Migrate up to the end of a step."""
    watch = Stopwatch(until=until)
    async with Database(url) as database:
        try:
            await runner.migrate(database, options, actor="bench", emit=watch)
        except _EnoughSeen:
            return watch
    raise AssertionError(f"the run has no step {until!r}")
