"""Progress on standard error: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from relevo import events

_PLAIN_LINE_EVERY_S = 5.0
_drawn: list[Progress] = []  # what is on the terminal at the moment


def end_drawing() -> None:
    """Takes every bar off the terminal, and gives the cursor back. A job that failed, or was interrupted, ends none."""
    while _drawn:
        _drawn.pop().stop()


class TerminalSink:
    """Draws the events of a job; call it with each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._started_s = self._last_line_s = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.StepStarted():
                self._started_s = self._last_line_s = time.monotonic()
                self._console.print(f"[bold]\\[{event.number}/{event.of}][/] {event.title}")
            case events.Progress():
                self._advance(event)
            case events.Note():
                self._close()
                self._console.print(f"  {'[yellow]![/] ' if event.warning else ''}{event.text}")
            case events.StepFinished():
                self._close()
                self._console.print(f"  [green]✓[/] {event.summary}")

    def _advance(self, event: events.Progress) -> None:
        rate = event.done / max(time.monotonic() - self._started_s, 0.001)
        if not self._console.is_terminal:
            self._plain_line(event, rate)
            return
        if self._bar is None or self._bar not in _drawn:
            self._bar = Progress(
                TextColumn("  "),
                BarColumn(40),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}, {task.fields[rate]:,.0f}/s,"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            _drawn.append(self._bar)
            self._bar.add_task("", unit=event.unit, rate=rate)
        total = event.total or event.done
        self._bar.update(self._bar.task_ids[0], completed=event.done, total=total, unit=event.unit, rate=rate)

    def _plain_line(self, event: events.Progress, rate: float) -> None:
        now = time.monotonic()
        if now - self._last_line_s < _PLAIN_LINE_EVERY_S:
            return
        self._last_line_s = now
        left = f", {(event.total - event.done) / max(rate, 0.001):,.0f} s left" if event.total else ""
        of = f"/{event.total:,}" if event.total else ""
        self._console.print(f"  {event.done:,}{of} {event.unit}, {rate:,.0f}/s{left}")

    def _close(self) -> None:
        if self._bar in _drawn:
            _drawn.remove(self._bar)
            self._bar.stop()
        self._bar = None
