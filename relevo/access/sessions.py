"""Sessions of people who signed in with a token: opaque, kept as fingerprints, and at an end when their token is.

The cookie holds 256 bits of chance and nothing else, so a plain SHA-256 is enough, as for tokens.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from relevo.access.keyring import Caller
from relevo.access.roles import LABELS
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement

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


async def begin(database: Database, caller: Caller, now: datetime) -> str:
    """Sign somebody in; returns the secret for their cookie, which nobody can show again."""
    secret, session_id = secrets.token_urlsafe(32), secrets.token_hex(5)
    values = {
        "fingerprint": _fingerprint(secret),
        "id": session_id,
        "token_id": caller.token_id,
        "now": now,
        "expires_at": now + LASTS,
    }
    async with database.transaction() as connection:
        await connection.execute(statement("sessions", "forget_sessions"), {"before": now - _REMEMBERED})
        await connection.execute(statement("sessions", "begin_session"), values)
        await _record(connection, "session.begin", session_id, caller, {"role": caller.role.label})
    return secret


async def of(database: Database, secret: str, now: datetime) -> Session | None:
    """Whose cookie that is; None where the session is unknown, over, or its token is good no more."""
    wanted = {"fingerprint": _fingerprint(secret), "now": now}
    rows = await database.alone(statement("sessions", "session"), wanted)
    return _session(rows[0]) if rows else None


async def listed(database: Database, now: datetime) -> list[Session]:
    """Who is signed in at this moment, the newest first; 200 at most."""
    async with database.transaction(read_only=True) as connection:
        return [_session(row) for row in await every(connection, statement("sessions", "sessions"), {"now": now})]


async def end(database: Database, session_id: str, by: Caller, now: datetime) -> bool:
    """End a session; False where there is none of that id that goes on."""
    async with database.transaction() as connection:
        row = await first(connection, statement("sessions", "end_session"), {"id": session_id, "now": now})
        if row is not None:
            await _record(connection, "session.end", session_id, by, {"token_id": row["token_id"]})
    return row is not None


def _fingerprint(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _session(row: DictRow) -> Session:
    caller = Caller(row["token_id"], row["name"], LABELS[row["role"]])
    return Session(row["id"], caller, row["began_at"], row["expires_at"])


async def _record(connection: Connection, action: str, subject: str, caller: Caller, details: dict[str, str]) -> None:
    values = {"actor": caller.actor, "action": action, "subject": subject, "reason": None, "details": Jsonb(details)}
    await connection.execute(statement("access", "audit"), values)
