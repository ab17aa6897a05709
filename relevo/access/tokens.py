"""API tokens: drawn at random, shown once, kept only as fingerprints.

A token reads ``relevo_<id>_<secret>``: the prefix is for secret scanners, the id for people and the audit log, and
the secret has 192 bits of chance. That is why a plain SHA-256 is enough: there is nothing to guess from.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from relevo.access.roles import Role
from relevo.clock import Clock
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import UnknownName, UsageError, nearest

_WRITTEN = re.compile(r"relevo_([0-9a-f]{10})_([0-9a-f]{48})")
_NAME_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is listed; never its secret."""

    id: str
    role: str
    name: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None  # None: never
    revoked_at: datetime | None  # None: it is not
    last_used_at: datetime | None  # to the minute; None: never used


@dataclass(frozen=True, slots=True)
class Created:
    """A new token. ``secret`` is the whole of it, and nobody can show it again."""

    id: str
    secret: str
    expires_at: datetime | None


def parts(written: str) -> tuple[str, bytes] | None:
    """Id and fingerprint of a token as it was presented; None for what cannot be one."""
    match = _WRITTEN.fullmatch(written)
    return (match[1], hashlib.sha256(match[2].encode()).digest()) if match else None


async def create(
    database: Database,
    granted: Role,
    *,
    name: str | None,
    expires_at: datetime | None,
    clock: Clock,
    actor: str,
    reason: str | None,
) -> Created:
    """A new token. Raises UsageError for an expiry that has passed or a name that cannot be stored."""
    now = clock()
    if expires_at is not None and expires_at <= now:
        raise UsageError(f"the expiry {expires_at:%Y-%m-%d %H:%M} UTC has passed", fix="name a later moment")
    if name is not None and (not name.strip() or len(name) > _NAME_LONGEST or not name.isprintable()):
        raise UsageError(f"a token's name has 1 to {_NAME_LONGEST} printable characters", fix="shorten it")
    token_id, secret = secrets.token_hex(5), secrets.token_hex(24)
    values = {
        "id": token_id,
        "secret_hash": hashlib.sha256(secret.encode()).digest(),
        "role": granted.label,
        "name": name,
        "now": now,
        "actor": actor,
        "expires_at": expires_at,
    }
    told = {"role": granted.label, "name": name, "expires_at": expires_at.isoformat() if expires_at else None}
    async with database.transaction() as connection:
        await connection.execute(statement("access", "create_token"), values)
        await _record(connection, "token.create", token_id, actor, reason, told)
    return Created(token_id, f"relevo_{token_id}_{secret}", expires_at)


async def listed(database: Database) -> list[Token]:
    """All tokens, newest first, revoked ones too."""
    async with database.transaction(read_only=True) as connection:
        return [Token(**row) for row in await every(connection, statement("access", "tokens"))]


async def revoke(database: Database, named: str, *, clock: Clock, actor: str, reason: str | None) -> tuple[Token, bool]:
    """The token as it was, and whether it was this that ended it; False: it was revoked before.

    ``named`` is its id, or the token itself where that is all one has. Raises UnknownName.
    """
    written = parts(named)
    token_id = written[0] if written else named
    async with database.transaction() as connection:
        row = await first(connection, statement("access", "lock_token"), {"id": token_id})
        if row is None:
            raise await _unknown(connection, token_id)
        found = Token(**row)
        if found.revoked_at is not None:
            return found, False
        await connection.execute(statement("access", "revoke_token"), {"id": token_id, "now": clock()})
        told = {"role": found.role, "name": found.name}
        await _record(connection, "token.revoke", token_id, actor, reason, told)
    return found, True


async def _unknown(connection: Connection, named: str) -> UnknownName:
    """Says nothing back that may be the secret itself, mistyped."""
    if len(named) > 20:
        return UnknownName("there is no such token", fix="see: relevo tokens list")
    known = [row["id"] for row in await every(connection, statement("access", "tokens"))]
    return UnknownName(f"there is no token {named!r}.{nearest(named, known)}", fix="see: relevo tokens list")


async def _record(
    connection: Connection, action: str, subject: str, actor: str, reason: str | None, details: dict[str, str | None]
) -> None:
    await connection.execute(
        statement("access", "audit"),
        {"actor": actor, "action": action, "subject": subject, "reason": reason, "details": Jsonb(details)},
    )
