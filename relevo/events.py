"""What a step says while it works. A step emits; sinks (progress bar, log, dashboard) subscribe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of a longer job begins."""

    number: int  # 1-based
    of: int
    title: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the current step is. ``total`` None means nobody knows."""

    done: int
    total: int | None
    unit: str  # plural noun: "configurations", "calls"


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should read, that changes nothing in the course of the job."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The current step is done; ``summary`` is one line."""

    summary: str


Event = StepStarted | Progress | Note | StepFinished
Sink = Callable[[Event], None]


def silent(_event: Event) -> None:
    """The sink for callers that do not listen."""
