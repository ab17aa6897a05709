"""Whether this process should be sent work: what a load balancer asks, and why it is told no.

Without its database a process answers by what it knew last, and so stays ready: taken out of service, it would
answer nobody. It is not ready before it has seen the flag and the tokens, and no longer once it is about to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relevo.access.keyring import Keyring
from relevo.clock import Clock
from relevo.flags.store import Flags


@dataclass(slots=True)
class Readiness:
    """Looks at the parts, all in memory: being asked costs nothing, so that nobody can ask too often."""

    keyring: Keyring
    flags: Flags
    clock: Clock
    draining: bool = False
    """About to stop: nothing new should come."""

    def look(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and everything that leads to it."""
        state, failure = self.flags.state, self.keyring.failure
        against = []
        if self.draining:
            against.append("stopping: nothing new should come")
        if not state.ready:
            against.append(f"the flag has not been seen yet: {state.why or 'wait a moment'}")
        if not self.keyring.known:
            against.append("the tokens have not been read yet")
        reasons = [f"{failure} — {failure.fix}"] if failure is not None else []
        if state.stale_since is not None:
            reasons.append(f"the flag is stale since {state.stale_since:%Y-%m-%dT%H:%M:%SZ}: {state.why}")
        stale_s = None if state.stale_since is None else (self.clock() - state.stale_since).total_seconds()
        ready = not against
        return ready, {
            "ready": ready,
            "status": "not ready" if against else "stale" if reasons else "ready",
            "reasons": [*against, *reasons],
            "draining": self.draining,
            "database": {"ok": failure is None, "why": str(failure) if failure else None},
            "flag": {
                "seen": state.ready,
                "version": state.version,
                "stale_since": state.stale_since,
                "stale_seconds": stale_s,
                "notified_by": state.mode,
                "why": state.why,
            },
        }
