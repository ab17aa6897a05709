"""The time of day, as something that is handed in: a rehearsal hands in a faster one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


class CompressedClock:
    """A clock that runs ``times`` as fast as the real one, from the moment that it is made and told to begin at.

    What takes real time goes on doing so: the network, a timeout, a lease, the pause before something is sent again.
    """

    def __init__(self, begins: datetime, times: float) -> None:
        self._since, self._since_s = begins, time.monotonic()
        self.times = times

    def __call__(self) -> datetime:
        """The present moment by this clock."""
        return self._since + timedelta(seconds=(time.monotonic() - self._since_s) * self.times)

    def run(self, times: float) -> None:
        """Go on at another pace from now on."""
        self._since, self._since_s = self(), time.monotonic()
        self.times = times

    def real_s(self, length_s: float) -> float:
        """How many real seconds so many of this clock's take, at its present pace."""
        return length_s / self.times
