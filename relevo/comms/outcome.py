"""What became of an attempt to deliver a message. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from relevo.comms.message import Message


@dataclass(frozen=True, slots=True)
class Delivered:
    """The other side took it."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """It may go later. ``everybody``: the fault is the channel's, not this message's, so others need not try either."""

    why: str
    after_s: float | None = None  # the other side asks to be left alone for so long; None: it says nothing
    everybody: bool = True


@dataclass(frozen=True, slots=True)
class Never:
    """The other side will never take this message."""

    why: str


Outcome = Delivered | NotNow | Never


class Channel(Protocol):
    """A way to the outside."""

    name: str  # slack, pagerduty, email
    at_once: int  # how many messages may be on their way at a time

    async def send(self, message: Message) -> Outcome:
        """Try once, within a bounded time. Whatever goes wrong on the wire is an outcome, not an exception."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
