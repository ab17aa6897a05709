"""Sessions of people who signed in: opaque, kept as fingerprints. One that began with a token ends with it, too.

The cookie holds 256 bits of chance and nothing else, so a plain SHA-256 is enough, as for tokens.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from relevo.access.keyring import Caller
from relevo.access.refusals import refused
from relevo.access.roles import LABELS
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import NoRole, RelevoError

LASTS = timedelta(hours=12)
"""A shift, and a little; whoever stays longer signs in again."""
_REMEMBERED = timedelta(days=30)  # after its expiry; the audit log has it for good


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in."""

    id: str
    caller: Caller
    began_at: datetime
    expires_at: datetime


async def begin(database: Database, caller: Caller, now: datetime, *, sign_in: bytes | None = None) -> str:
    """Sign somebody in; returns the secret for their cookie, which nobody can show again.

    ``sign_in``: the fingerprint of what a person of an identity provider began with. Raises SignInFailed where that
    has begun a session before.
    """
    secret, session_id = secrets.token_urlsafe(32), secrets.token_hex(5)
    person = caller.issuer is not None
    values = {
        "fingerprint": _fingerprint(secret),
        "id": session_id,
        "token_id": None if person else caller.id,
        "issuer": caller.issuer,
        "subject": caller.id if person else None,
        "name": caller.name if person else None,
        "role": caller.role.label if person else None,
        "sign_in": sign_in,
        "now": now,
        "expires_at": now + LASTS,
    }
    told = {"role": caller.role.label} | ({"issuer": caller.issuer} if caller.issuer else {})
    async with database.transaction() as connection:
        await connection.execute(statement("sessions", "forget_sessions"), {"before": now - _REMEMBERED})
        if await first(connection, statement("sessions", "begin_session"), values) is None:
            raise refused("spent")
        await _record(connection, "session.begin", session_id, caller.actor, told)
    return secret


async def refuse(database: Database, issuer: str, error: RelevoError) -> None:
    """Record that somebody came from an identity provider and was not let in."""
    actor = error.who if isinstance(error, NoRole) else "unknown"
    async with database.transaction() as connection:
        await _record(connection, "session.refuse", None, actor, {"issuer": issuer, "why": f"{error.code}: {error}"})


async def of(database: Database, secret: str, now: datetime) -> Session | None:
    """Whose cookie that is; None where the session is unknown, over, or its token is good no more."""
    wanted = {"fingerprint": _fingerprint(secret), "now": now}
    rows = await database.alone(statement("sessions", "session"), wanted)
    return _session(rows[0]) if rows else None


async def listed(database: Database, now: datetime) -> list[Session]:
    """Who is signed in at this moment, the newest first; 200 at most."""
    async with database.transaction(read_only=True) as connection:
        return [_session(row) for row in await every(connection, statement("sessions", "sessions"), {"now": now})]


async def end(database: Database, session_id: str, now: datetime, *, actor: str, reason: str | None = None) -> bool:
    """End a session; False where there is none of that id that goes on."""
    async with database.transaction() as connection:
        row = await first(connection, statement("sessions", "end_session"), {"id": session_id, "now": now})
        if row is not None:
            of = {name: value for name, value in row.items() if value is not None}
            await _record(connection, "session.end", session_id, actor, of, reason)
    return row is not None


def _fingerprint(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _session(row: DictRow) -> Session:
    caller = Caller(row["caller_id"], row["name"], LABELS[row["role"]], row["issuer"])
    return Session(row["id"], caller, row["began_at"], row["expires_at"])


async def _record(
    connection: Connection,
    action: str,
    subject: str | None,
    actor: str,
    details: Mapping[str, str],
    reason: str | None = None,
) -> None:
    values = {"actor": actor, "action": action, "subject": subject, "reason": reason, "details": Jsonb(dict(details))}
    await connection.execute(statement("access", "audit"), values)
