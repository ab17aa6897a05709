"""Shadow mode: of some calls that v1 answered, v2 is asked too, afterwards and for nothing but the record.

Whether it would have answered, how fast, and in what it differs. v1's answer is out by then; v2 is asked nothing but
who answers, which has no effects: neither on its breaker, for the tenant may not have been moved yet.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import structlog
from pydantic_core import from_json

from relevo.db.pool import Database
from relevo.metrics import record
from relevo.metrics.record import Pin
from relevo.webhooks.answers import Template
from relevo.webhooks.asking import V2_WITHIN_S, Asked, Asking
from relevo.webhooks.calls import UNAVAILABLE
from relevo.webhooks.handlers.upstream import HandlerFailed
from relevo.webhooks.known import Known

_MOST_AT_ONCE = 20

_log = structlog.get_logger()


class Shadow:
    """See the module. ``share`` 0..1 of the calls, chosen by their ids."""

    def __init__(self, database: Database, known: Known, asking: Asking, share: float) -> None:
        self._database, self._known, self._asking, self._share = database, known, asking, share
        self._watching: set[asyncio.Task[None]] = set()

    def watch(self, asked: Asked, pin: Pin, told: bytes) -> None:
        """Ask v2 beside everything else; nothing when it is not this call's turn, or too many are under way."""
        if chosen(pin.call_id, self._share) and len(self._watching) < _MOST_AT_ONCE:
            task = asyncio.create_task(self._watch(asked, pin, told))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)

    async def finish(self) -> None:
        """Wait for what is under way."""
        while self._watching:
            await asyncio.wait(self._watching)

    async def _watch(self, asked: Asked, pin: Pin, told: bytes) -> None:
        entry = self._known.of_tenant(pin.tenant_id)
        if entry is None:
            return
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        seen: dict[str, Any]
        try:
            answer = await self._asking.look(asked, entry, "v2", V2_WITHIN_S)
        except HandlerFailed as failure:
            seen = {"answered": False, "why": str(failure)}
        else:
            whole = from_json(answer.unpinned) if isinstance(answer, Template) else answer
            seen = {"answered": True, "differs": differing(from_json(told), whole)}
        seen["ms"] = round((loop.time() - began_s) * 1000, 2)
        try:
            async with self._database.transaction() as connection:
                await record.record_shadow(connection, pin.call_id, seen)
        except UNAVAILABLE as error:
            _log.warning("shadow not stored", call_id=pin.call_id, error=type(error).__name__)


def chosen(call_id: str, share: float) -> bool:
    """Whether a call is among the share; the same for each call wherever it is asked."""
    return int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:4]) < share * 2**32


def differing(one: Any, other: Any) -> list[str]:
    """In which parts two answers differ, by their paths in alphabetical order; the server and what only people read are
    left out."""
    first, second = _leaves(one), _leaves(other)
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if path.endswith(("server", "metadata", "assistantOverrides")):
        return {}
    if isinstance(value, dict) and value:
        return {
            deeper: leaf
            for key, each in value.items()
            for deeper, leaf in _leaves(each, f"{path}.{key}".strip(".")).items()
        }
    return {path: value}
