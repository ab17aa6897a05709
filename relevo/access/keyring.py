"""The tokens that are good at this moment, in memory: a request costs no query, a revoked token lasts a second.

The whole table is read once a second. That also tells whether the database is there. While it is gone, the tokens
known last stay good: evaluation goes on, and nobody could revoke or write anything then anyhow.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import errors
from psycopg.rows import DictRow

from relevo.access.roles import LABELS, Role
from relevo.access.tokens import parts
from relevo.clock import Clock
from relevo.db.pool import Database, every
from relevo.db.statements import statement
from relevo.errors import DatabaseUnreachable, RelevoError, SchemaMissing

REFRESH_EVERY_S = 1.0
_AGAIN_AFTER_S = 0.2  # an unknown token may be new: look, but not more often than this
_WITHIN_S = 5.0
_NOTE_USE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who presented a token, or is vouched for by an identity provider."""

    id: str  # of the token; of a person, the one that the provider never gives to anybody else ("sub")
    name: str | None
    role: Role
    issuer: str | None = None  # the provider; None: it was a token

    @property
    def actor(self) -> str:
        """As the audit log names them."""
        return f"{'person' if self.issuer else 'token'} {self.id}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, slots=True)
class _Key:
    caller: Caller
    fingerprint: bytes
    expires_at: datetime | None


class Keyring:
    """Looks tokens up. ``keep_fresh`` must be running."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._keys: dict[str, _Key] | None = None  # None: never read
        self._refreshing = asyncio.Lock()
        self._read_at_s = float("-inf")  # of the loop's clock, as below
        self._noted_s: dict[str, float] = {}
        self._used: set[str] = set()
        self.failure: RelevoError | None = DatabaseUnreachable(
            "the database has not been read yet", fix="wait a moment"
        )
        """Why the last reading failed; None: it did not."""

    @property
    def known(self) -> bool:
        """Whether the tokens have been read at least once."""
        return self._keys is not None

    async def caller(self, presented: str) -> Caller | None:
        """Who presents this token; None for a wrong, revoked or expired one.

        Raises the failure (DatabaseUnreachable, SchemaMissing, …) while no token has ever been read.
        """
        written = parts(presented)
        if written is None:
            return None
        token_id, fingerprint = written
        if self._keys is None or token_id not in self._keys:
            await self._look_again()
        if self._keys is None:
            raise self.failure or DatabaseUnreachable("no token has been read yet", fix="wait a moment")
        key = self._keys.get(token_id)
        if key is None or not hmac.compare_digest(key.fingerprint, fingerprint):
            return None
        if key.expires_at is not None and key.expires_at <= self._clock():
            return None
        self._used.add(token_id)
        return key.caller

    async def keep_fresh(self) -> None:
        """Read the tokens once a second, and tell the database now and then which are in use. Never returns."""
        while True:
            await self.refresh()
            with contextlib.suppress(RelevoError, psycopg.Error, TimeoutError):
                await self.note_use()
            await asyncio.sleep(REFRESH_EVERY_S)

    async def refresh(self) -> None:
        """Read the tokens. A failure is kept in ``failure``, and what was known before stays known."""
        async with self._refreshing:
            try:
                async with asyncio.timeout(_WITHIN_S):
                    rows = await self._read()
            except (RelevoError, psycopg.Error, TimeoutError) as error:
                self.failure = _named(error, self._database.place)
            else:
                self._keys = {row["id"]: _key(row) for row in rows}
                self.failure = None
            self._read_at_s = asyncio.get_running_loop().time()

    async def note_use(self) -> None:
        """Store when tokens were last used, each once a minute at most."""
        now_s = asyncio.get_running_loop().time()
        due = {each for each in self._used if now_s - self._noted_s.get(each, float("-inf")) >= _NOTE_USE_EVERY_S}
        if not due or self.failure is not None:
            return
        async with asyncio.timeout(_WITHIN_S), self._database.transaction(durable=False) as connection:
            await connection.execute(statement("access", "note_use"), {"ids": sorted(due), "now": self._clock()})
        self._noted_s |= dict.fromkeys(due, now_s)
        self._used -= due

    async def _look_again(self) -> None:
        asked_s = asyncio.get_running_loop().time()
        gone = self._keys is not None and self.failure is not None  # then strangers are not worth waiting for
        if gone or asked_s - self._read_at_s < _AGAIN_AFTER_S:
            return
        async with self._refreshing:
            pass  # somebody may be reading just now, and what they find is as good
        if self._read_at_s < asked_s:
            await self.refresh()

    async def _read(self) -> list[DictRow]:
        async with self._database.transaction(read_only=True) as connection:
            return await every(connection, statement("access", "keys"))


def _key(row: DictRow) -> _Key:
    return _Key(Caller(row["id"], row["name"], LABELS[row["role"]]), row["secret_hash"], row["expires_at"])


def _named(error: Exception, place: str) -> RelevoError:
    if isinstance(error, RelevoError):
        return error
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return SchemaMissing(f"Relevo's schema is not applied at {place}", fix="run: relevo db up")
    if isinstance(error, TimeoutError):
        return DatabaseUnreachable(f"{place} does not answer within {_WITHIN_S:g} s", fix="check the database")
    return DatabaseUnreachable(f"{place}: {type(error).__name__}", fix="see the database's log")
