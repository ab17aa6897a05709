"""Notices to clients: who gets one, who does not and why. Each client gets each notice once, ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from psycopg.types.json import Jsonb

from relevo.comms.email import recipient_of
from relevo.comms.notices import Notice
from relevo.db.pool import Connection, every, one
from relevo.db.statements import statement
from relevo.errors import Refused, UnknownName, UsageError, nearest

MEANT_FOR: Mapping[str, bool] = MappingProxyType(
    {"client_before": False, "client_complete": True, "client_returned": False}
)
"""Whether a notice is for clients who are on v2 now, or on v1."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and whether a notice goes to them."""

    tenant_id: str
    name: str | None
    vertical: str | None
    time_zone: str | None
    email: str | None
    why_not: str | None  # why they do not get it; None: they do


@dataclass(frozen=True, slots=True)
class Sending:
    """What a notice's sending comes to, or would."""

    notice: str
    to: tuple[Client, ...]
    left_out: tuple[Client, ...]


async def plan(connection: Connection, notice: Notice, tenants: Iterable[str] | None) -> Sending:
    """Who would get a notice; None: every client with an active configuration.

    Raises UsageError for a notice that is not for clients, UnknownName for a tenant that does not exist, Refused where
    Relevo does not know yet where the clients are.
    """
    if notice.audience != "client":
        raise UsageError(f"{notice.name} is for the team, and sent by what happens", fix="name a notice for clients")
    if not (await one(connection, statement("comms", "mapped")))["mapped"]:
        raise Refused("Relevo does not know yet where v1 keeps its clients", fix="run: relevo mirror install")
    named = None if tenants is None else list(dict.fromkeys(tenants))
    found = await every(connection, statement("comms", "clients"), {"notice": notice.name, "tenants": named})
    if strangers := sorted(set(named or ()) - {row["tenant_id"] for row in found}):
        known = [row["id"] for row in await every(connection, statement("flags", "known"))]
        raise UnknownName(
            f"there is no tenant {strangers[0]!r}.{nearest(strangers[0], known)}", fix="nothing was sent; correct it"
        )
    clients = [_client(notice, row) for row in found]
    return Sending(
        notice.name,
        tuple(client for client in clients if client.why_not is None),
        tuple(client for client in clients if client.why_not is not None),
    )


async def send(
    connection: Connection, planned: Sending, at: datetime | None, now: datetime, *, actor: str, reason: str | None
) -> list[str]:
    """Write the planned messages in the transaction on this connection; returns to which tenants. ``at``: the moment
    the text speaks of; None: it names none. Whom somebody else has told meanwhile is not told again."""
    written = [
        {"tenant_id": client.tenant_id, "recipient": client.email, "variables": variables_of(client, at)}
        for client in planned.to
    ]
    values = {"notice": planned.notice, "clients": Jsonb(written), "now": now, "actor": actor, "reason": reason}
    return [row["tenant_id"] for row in await every(connection, statement("comms", "tell_clients"), values)]


def variables_of(client: Client, at: datetime | None) -> dict[str, Any]:
    """What a client's text is filled with."""
    return {
        "client_name": client.name or "su negocio",
        "vertical": client.vertical,
        "time_zone": client.time_zone,
        "at": at.isoformat() if at else None,
    }


def _client(notice: Notice, row: Mapping[str, Any]) -> Client:
    names = ("tenant_id", "name", "vertical", "time_zone", "email")
    return Client(**{name: row[name] for name in names}, why_not=_why_not(notice, row))


def _why_not(notice: Notice, row: Mapping[str, Any]) -> str | None:
    if row["told"] in {"sent", "waiting"}:
        return "was told already" if row["told"] == "sent" else "is being told"
    if row["email"] is None:
        return "has no e-mail address"
    try:
        recipient_of(row["email"])
    except ValueError as error:
        return f"has an address that is none: {error}"
    if row["on_v2"] != MEANT_FOR[notice.name]:
        return "is on v2" if row["on_v2"] else "is on v1"
    return None
