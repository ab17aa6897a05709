"""What becomes of an incident at a look: pure. One per cause; told when it opens, worsens, and is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from relevo.alerts.thresholds import Judgement, Severity

Step = Literal["nothing", "open", "worsen", "go_on", "calm", "resolve"]

QUIET_FOR = timedelta(minutes=10)
"""Healthy for so long, at every look, and it is over: what swings about a threshold opens once."""
SILENT_FOR = timedelta(hours=1)
"""Without enough calls to tell for so long, and it is over, too: nobody is on v2 any more, or nobody calls."""


@dataclass(frozen=True, slots=True)
class Open:
    """An incident that is not over."""

    severity: Severity
    quiet_since: datetime | None  # None: the last look found something wrong


def step(known: Open | None, judgement: Judgement, now: datetime, shown: Judgement | None = None) -> Step:
    """What to do. ``shown``: how grave it is beyond chance; None: as judged. Only that opens and worsens; but what is
    open is over only when it is judged healthy. Severity only rises while it lasts; no data neither opens nor heals at
    once."""
    wrong = judgement in ("warning", "critical")
    beyond_chance = shown or judgement
    if known is None:
        return "open" if beyond_chance in ("warning", "critical") else "nothing"
    if beyond_chance == "critical" and known.severity == "warning":
        return "worsen"
    if wrong:
        return "go_on"
    if known.quiet_since is None:
        return "calm"
    enough = QUIET_FOR if judgement == "healthy" else SILENT_FOR
    return "resolve" if now - known.quiet_since >= enough else "nothing"
