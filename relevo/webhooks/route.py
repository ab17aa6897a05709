"""Which version a call belongs to. Decided once, at its first message. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relevo.flags.evaluate import Evaluation
from relevo.metrics.record import Pin, Version
from relevo.webhooks.identify import Found


@dataclass(frozen=True, slots=True)
class Decision:
    """Who should answer, and why."""

    version: Version
    by: str  # in a word or two, as relevo.calls keeps it
    flag_version: int | None


def when_asked(found: Found, flag: Evaluation | None) -> Decision:
    """Vapi asks who answers: the flag's row alone decides. Whoever cannot be told from others, or is switched off, is
    v1's: nothing new is tried on them."""
    if found.entry is None or flag is None:
        return Decision("v1", "unknown tenant", None)
    if not found.entry.active:
        return Decision("v1", "not active", flag.flag_version)
    return Decision("v2" if flag.value else "v1", "flag", flag.flag_version)


def when_unasked(found: Found) -> Decision:
    """The first that we hear of a call is something else: it has an assistant stored at Vapi, which is v1's unless only
    v2 knows it. The flag changed nothing of what the caller hears, so it is not asked."""
    if found.only_v2_has_it:
        return Decision("v2", "binding", None)
    return Decision("v1", "unasked", None)


def pinned(
    call_id: str, found: Found, decision: Decision, now: datetime, *, asked: bool, served: Version | None = None
) -> Pin:
    """The decision as a pin of its call. ``served`` None: the version decided for."""
    return Pin(
        call_id=call_id,
        tenant_id=found.entry.tenant_id if found.entry else None,
        version=decision.version,
        served_version=served or decision.version,
        decided_at=now,
        decided_by=decision.by,
        asked=asked,
        flag_version=decision.flag_version,
    )
