"""The shared state of the breakers, one per version and upstream. What to decide from it is not decided here.

Each function is one atomic statement; what a change tells is recorded and told on the channel ``relevo_breakers`` by
the database itself, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement

CHANNEL = "relevo_breakers"
State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """One breaker, as all processes share it."""

    version: str
    upstream: str  # "" is the built-in handler
    state: State
    forced: bool  # an operator decided; nothing but an operator changes it
    window_at: datetime  # when the present window began
    calls: int  # in it
    failures: int
    slow: int
    opened_at: datetime | None  # None: closed
    probe_at: datetime | None  # open: when a probe may go; half-open: when its answer is overdue
    probe_by: str | None  # half-open: whose probe is under way
    changed_by: str
    changed_why: str | None
    changed_at: datetime


async def breakers(connection: Connection) -> list[Breaker]:
    """All that there are; one appears when it is first observed or forced."""
    return [Breaker(**row) for row in await every(connection, statement("breaker", "breakers"))]


async def observe(
    connection: Connection,
    version: str,
    upstream: str,
    now: datetime,
    *,
    window: timedelta,
    calls: int,
    failures: int,
    slow: int,
) -> Breaker:
    """Add what this process has seen to the shared window; returns the breaker as it is then."""
    seen: dict[str, Any] = {"window": window, "calls": calls, "failures": failures, "slow": slow}
    named = {"version": version, "upstream": upstream, "now": now}
    return Breaker(**await one(connection, statement("breaker", "observe"), named | seen))


async def change(
    connection: Connection,
    seen: Breaker,
    to_state: State,
    now: datetime,
    *,
    holder: str,
    why: str,
    probe_at: datetime | None = None,
) -> Breaker | None:
    """Close or open a breaker that is in the state it was seen in; ``probe_at``: when an open one may be probed.
    None where somebody else changed it first, or where it is forced: nothing was done."""
    named = {"version": seen.version, "upstream": seen.upstream, "from_state": seen.state, "to_state": to_state}
    how = {"now": now, "holder": holder, "why": why, "probe_at": probe_at}
    row = await first(connection, statement("breaker", "change"), named | how)
    return Breaker(**row) if row else None


async def probe(
    connection: Connection, seen: Breaker, now: datetime, *, holder: str, overdue_at: datetime
) -> Breaker | None:
    """Take the one probe of an open breaker, until ``overdue_at``; None where it is not time, or another has it."""
    named = {"version": seen.version, "upstream": seen.upstream, "now": now, "holder": holder}
    row = await first(connection, statement("breaker", "probe"), named | {"overdue_at": overdue_at})
    return Breaker(**row) if row else None


async def force(
    connection: Connection,
    version: str,
    upstream: str,
    state: Literal["closed", "open"],
    now: datetime,
    *,
    actor: str,
    reason: str | None,
) -> Breaker:
    """Keep a breaker in a state, whatever happens, until it is released."""
    named = {"version": version, "upstream": upstream, "state": state, "now": now, "actor": actor, "reason": reason}
    return Breaker(**await one(connection, statement("breaker", "force"), named))


async def release(
    connection: Connection, version: str, upstream: str, now: datetime, *, actor: str, reason: str | None
) -> Breaker | None:
    """Let a forced breaker decide by itself again; None where it is not forced."""
    named = {"version": version, "upstream": upstream, "now": now, "actor": actor, "reason": reason}
    row = await first(connection, statement("breaker", "release"), named)
    return Breaker(**row) if row else None
