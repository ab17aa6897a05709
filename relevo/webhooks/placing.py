"""What the router has to say of one tenant: its numbers' bindings, its calls that are not over, its last fallback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relevo.db.pool import Connection, one
from relevo.db.statements import statement


@dataclass(frozen=True, slots=True)
class TenantCalls:
    """See the module."""

    numbers: list[dict[str, Any]]
    """As last read from Vapi: id, number, bound, adopted_at, seen_at; empty: never read, or none is theirs."""
    open_calls: list[dict[str, Any]]
    """The newest twenty: call_id, version, served_version, decided_by, decided_at, status."""
    last_fallback: dict[str, Any] | None  # call_id, at, why, version, served_version


async def calls_of(connection: Connection, tenant_id: str) -> TenantCalls:
    """All that, of a tenant by its id, which is a UUID."""
    return TenantCalls(**await one(connection, statement("router", "tenant_calls"), {"tenant_id": tenant_id}))
