"""The flag in a process: always fresh, answered without I/O, and changed in single atomic statements.

::

    async with Flags(url) as flags:
        if flags.should_use_v2(tenant_id):
            ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from relevo.db.pool import Database
from relevo.flags.evaluate import VOICE_AGENT_V2, Evaluation, Flag, evaluate, unseen

Mode = Literal["listen", "poll"]


@dataclass(frozen=True, slots=True)
class State:
    """How well a process knows the flag."""

    ready: bool  # a row has been seen; until then everybody is on v1
    version: int  # of the row in force; 0: none was ever seen
    mode: Mode | None  # how changes arrive; None: not connected yet
    stale_since: datetime | None  # None: fresh. Else the last known row is served since the database went
    why: str | None  # of poll mode, or of being stale: one line for people


@dataclass(frozen=True, slots=True)
class Unverified:
    """A tenant that may not live on v2."""

    tenant_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a write made of the flag."""

    before: Flag
    flag: Flag  # afterwards; the same version as before when there was nothing to change
    unverified: tuple[Unverified, ...] = ()  # put on the disabled list (set_percentage), or enabled by force (enable)


class Flags:
    """The flag, read and written. Reading needs ``async with``; writing alone does not.

    ``database``: where the flag is: a connection string, an open Database (used, not closed), or None for the
    settings. ``direct_url``: a direct or session-mode connection for LISTEN, where the first goes through a
    transaction pooler.
    """

    def __init__(
        self,
        database: Database | str | None = None,
        *,
        direct_url: str | None = None,
        name: str = VOICE_AGENT_V2,
    ) -> None:
        self._database, self._direct_url = database, direct_url
        self._flag = unseen(name)

    async def __aenter__(self) -> Self:
        """Returns when the row was seen, or when the database does not answer (not ready: v1 for everybody)."""
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    @property
    def flag(self) -> Flag:
        """The row in force: the newest seen. Its version is 0 before any was seen."""
        return self._flag

    @property
    def state(self) -> State:
        """How well this process knows the flag."""
        raise NotImplementedError

    def should_use_v2(self, tenant_id: str) -> bool:
        """Whether a tenant is on v2. No I/O; from any thread."""
        return evaluate(self._flag, tenant_id).value

    def evaluate(self, tenant_id: str) -> Evaluation:
        """v1 or v2 for a tenant, and why. No I/O; from any thread."""
        return evaluate(self._flag, tenant_id)

    def subscribe(self, told: Callable[[State], None]) -> Callable[[], None]:
        """Call ``told`` after each change of version or of state, in the event loop; returns how to end that."""
        raise NotImplementedError

    def changes(self) -> AsyncIterator[State]:
        """The state now, and after each change; a slow reader misses what was in between, never the newest."""
        raise NotImplementedError

    async def get(self) -> Flag:
        """The row as the database has it now. Raises UnknownName where there is none."""
        raise NotImplementedError

    async def set_percentage(self, percentage: int, *, actor: str, reason: str | None = None) -> Change:
        """Share of tenants on v2, 0..100; hash-selected unverified tenants go to the disabled list, and are named."""
        raise NotImplementedError

    async def enable(
        self, tenants: Iterable[str], *, actor: str, reason: str | None = None, force: bool = False
    ) -> Change:
        """Put tenants on v2. Raises UnverifiedTenants, unless forced, and UnknownName for one that does not exist."""
        raise NotImplementedError

    async def disable(self, tenants: Iterable[str], *, actor: str, reason: str | None = None) -> Change:
        """Put tenants back on v1. Raises UnknownName for one that exists nowhere."""
        raise NotImplementedError

    async def on(self, *, actor: str, reason: str | None = None) -> Change:
        """Let lists and percentage count."""
        raise NotImplementedError

    async def off(self, *, actor: str, reason: str | None = None) -> Change:
        """Everybody on v1; lists and percentage are kept."""
        raise NotImplementedError
