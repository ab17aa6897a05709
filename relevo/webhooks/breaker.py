"""When a handler is left alone for a while, and when it is tried again. Pure; the state is the database's, for all.

Closed: it is asked. Open: it is not asked, until a probe may go. Half-open: one probe is under way, and nobody else is
let through until it is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from relevo.metrics.breakers import Breaker


@dataclass(frozen=True, slots=True)
class Rules:
    """How much is too much. A call that takes ``slow_s`` or longer is as good as failed to somebody on the phone."""

    window: timedelta = timedelta(seconds=30)
    at_least: int = 10  # calls in the window, before anything is concluded
    failure_rate: float = 0.5  # 0..1
    slow_s: float = 2.0
    slow_rate: float = 0.8  # 0..1
    rests_for: timedelta = timedelta(seconds=10)  # open, before a probe goes
    probe_takes: timedelta = timedelta(seconds=10)  # a probe that is not heard of in this time is given up


RULES = Rules()
Passage = Literal["go", "probe", "stop"]


def passage(seen: Breaker | None, now: datetime) -> Passage:
    """Whether a call may go through: freely, as the one probe, or not. None: nobody has seen trouble yet."""
    if seen is None or seen.state == "closed":
        return "go"
    if seen.forced or seen.probe_at is None or seen.probe_at > now:
        return "stop"
    return "probe"


def trips(seen: Breaker, rules: Rules = RULES) -> str | None:
    """Why a closed breaker should open now, in words; None: it should not."""
    if seen.state != "closed" or seen.forced or seen.calls < rules.at_least:
        return None
    if seen.failures >= rules.failure_rate * seen.calls:
        return f"{seen.failures} of {seen.calls} failed"
    if seen.slow >= rules.slow_rate * seen.calls:
        return f"{seen.slow} of {seen.calls} took {rules.slow_s:g} s or longer"
    return None


def after_probe(
    succeeded: bool | None, now: datetime, rules: Rules = RULES
) -> tuple[Literal["closed", "open"], datetime | None]:
    """The state that a probe's answer leads to, and when an open one may be probed again. None: it told nothing of the
    handler, and the next call may be the probe in its place."""
    if succeeded is None:
        return ("open", now)
    return ("closed", None) if succeeded else ("open", now + rules.rests_for)
