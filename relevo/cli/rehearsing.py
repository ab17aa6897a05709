"""What the rehearsal looks like: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from relevo.rehearsal.scenario import Checked
from relevo.rehearsal.stage import Stage, Told
from relevo.rollout.gate import shown
from relevo.rollout.operating import Status
from relevo.rollout.plan import Metric

_EVENTS = 30  # remembered; as many are shown as fit
_LEAST_ROWS = 6
_TALLEST = 4  # lines of one event
_COLOURS = {"act": "bold yellow", "move": "bold cyan", "message": "magenta", "note": "dim"}
_FIGURES: tuple[Metric, ...] = ("error_rate", "failed_call_rate", "p95_latency_ms")


class View:
    """Shows what it is told, and on a terminal where things stand meanwhile."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: deque[Told] = deque(maxlen=_EVENTS)
        self._mails = 0
        self._live: Live | None = None
        self.stage: Stage | None = None
        """What to draw; None: nothing is there yet."""

    def __enter__(self) -> View:
        """Begins to draw."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._drawn, console=self._console, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leaves the last picture where it is."""
        if self._live is not None:
            self._live.stop()
        elif self._mails > 1:
            self._console.print(f"and {self._mails - 1:,} more e-mails to clients")

    def told(self, what: Told) -> None:
        """Something happened. Of a crowd of e-mails the first is shown."""
        if what.kind == "message" and what.text.startswith("email"):
            self._mails += 1
            if self._mails > 1:
                return
        self._told.append(what)
        if self._live is None:
            self._console.print(_line(what), soft_wrap=True)

    def _drawn(self) -> RenderableType:
        if self.stage is None or self.stage.status is None:
            return Text("the server starts …")
        standing = Group(_where(self.stage), _figures(self.stage))
        taken = len(self._console.render_lines(standing))
        return Group(standing, Text(""), *self._newest(max(self._console.height - taken - 2, _LEAST_ROWS)))

    def _newest(self, rows: int) -> list[Text]:
        """What happened last, in its order, whole: as much as fits."""
        shown: list[Text] = []
        for what in sorted(self._told, key=lambda each: each.at, reverse=True):
            lines = _line(what).wrap(self._console, self._console.width)
            rows -= min(len(lines), _TALLEST)
            if rows < 0:
                break
            shown.append(Text("\n").join(lines[:_TALLEST]))
        return shown[::-1]


def _line(what: Told) -> Text:
    return Text.assemble((f"{what.at:%a %d %H:%M}  ", "dim"), (f"{what.kind:<8}", _COLOURS[what.kind]), what.text)


def _where(stage: Stage) -> Text:
    status, rollout = stage.status, stage.status.rollout if stage.status else None
    tally = stage.traffic.tally if stage.traffic else None
    at = f"{stage.clock():%A %d %H:%M} UTC, {stage.clock.times:,.0f} times as fast"
    if status is None or rollout is None:
        return Text(at)
    return Text.assemble(
        (f"{rollout.phase.name} ", "bold"),
        f"(phase {rollout.standing.phase + 1} of {rollout.standing.phases}) ",
        (rollout.standing.state, "bold green" if rollout.standing.state in ("Healthy", "Complete") else "bold"),
        f" · {status.tenants_on_v2} of {status.total_tenants} active tenants on v2\n",
        (f"{at} · {tally.calls if tally else 0:,} calls", "dim"),
    )


def _figures(stage: Stage) -> RenderableType:
    status = stage.status
    table = Table(_since(status), *(Column(name, justify="right") for name in ("calls", *_FIGURES)), box=None)
    if status is None:
        return table
    for version, health in status.health.items():
        figures = [shown(metric, getattr(health, metric)) for metric in _FIGURES]
        table.add_row(version, f"{health.total_calls:,}", *figures)
    if status.last is not None:
        said = f"gate at {status.last['at']:%H:%M}: {status.last['verdict']}, {status.last['details']['why']}"
        return Group(table, Text(said, "dim"))
    return table


def _since(status: Status | None) -> str:
    """What the figures were counted from."""
    rollout = status.rollout if status else None
    runs = rollout is not None and rollout.finished_at is None
    return f"since {rollout.judged_from:%a %H:%M}" if rollout is not None and runs else "last 24 h"


def heard_table(heard: Sequence[dict[str, Any]]) -> Table:
    """What callers heard."""
    right = [Column(name, justify="right") for name in ("calls", "tenants")]
    table = Table("answered by", "how the call ended", *right, title="What callers heard", title_justify="left")
    for each in heard:
        table.add_row(each["version"], each["ended"], f"{each['calls']:,}", f"{each['tenants']:,}")
    return table


def claims_text(checked: Sequence[Checked]) -> Text:
    """Each claim on a line, with what was found."""
    text = Text()
    for each in checked:
        text.append("✓ " if each.holds else "✗ ", "green" if each.holds else "bold red")
        text.append(f"{each.sentence}: ")
        text.append(f"{each.found}\n", "dim" if each.holds else "red")
    return text
