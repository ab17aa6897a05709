"""Connections to PostgreSQL: one pool, short transactions, nothing that a transaction pooler cannot carry.

No session settings, no session locks, no prepared statements but where there is no pooler: what a transaction needs it
sets for itself.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from relevo.db.statements import statement
from relevo.db.wire import Values, Wire
from relevo.errors import (
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnreachable,
    DiskFull,
    MissingPrivilege,
    Refused,
    RelevoError,
)

OLDEST_SERVER = 15
LOCK_TIMEOUT = "2s"
_RULE_OF_OURS = "RV001"  # raised by functions of schema relevo
_LOOKS = 5  # at which server process answers, until a pooler is taken to keep to it

# A server that is gone without a word, as after a failover: a connection to it is given up in a quarter of a minute,
# not when the kernel would, in a quarter of an hour or never. libpq ignores them on a Unix socket.
_LIMITS = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000}

Connection = AsyncConnection[DictRow]
Asked = tuple[sql.Composed, Mapping[str, Any]]
"""A statement and its values."""

# What the pool says of each broken connection goes to whoever has set up logging; for a person our one error is enough.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# What text output, and so every checksum, would otherwise take from the session; and a killed client must
# not leave its statement running and its locks held.
_ALWAYS = """
    SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres';
    SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL search_path = '';
    SET LOCAL client_connection_check_interval = '2s';
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
"""


class Database:
    """A pool of connections to one database. Open it with ``async with``.

    ``wait_s``: how long a transaction waits for a connection. ``must_answer`` False: a server that is not there yet
    is no fault when opening; each transaction then finds out for itself.
    """

    def __init__(self, url: str, *, size: int = 24, wait_s: float = 30, must_answer: bool = True) -> None:
        self.url = url
        self._wait_s = wait_s
        self._must_answer = must_answer
        self._wires: list[Wire] = []  # those that nobody uses
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={
                "row_factory": dict_row,
                "prepare_threshold": None,
                "application_name": "relevo",
                "autocommit": True,  # a transaction is begun by whoever wants one
                **limits(url),
            },
            min_size=0,
            max_size=size,
            timeout=wait_s,
            reconnect_timeout=wait_s,  # attempts that nobody waits for any more would come ever further apart
            open=False,
        )

    async def __aenter__(self) -> Database:
        if self._must_answer:
            await self._probe()
        await self._pool.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        while self._wires:
            await self._wires.pop().close()
        await self._pool.close()

    @property
    def place(self) -> str:
        """Where the database is, without the password: fit for messages."""
        return describe(self.url)

    @asynccontextmanager
    async def transaction(
        self, *, read_only: bool = False, snapshot: bool = False, durable: bool = True, patient: bool = False
    ) -> AsyncIterator[Connection]:
        """One transaction, on one connection, committed at the end of the block; psycopg.Rollback takes it back.

        ``snapshot``: every statement sees the same moment. ``durable`` False: the commit does not wait for the
        disk; only for work that a crash may undo as a whole, because a cursor committed with it starts it again.
        ``patient``: a lock that others hold is waited for but briefly; see relevo.db.patience.
        """
        opening = "BEGIN"
        opening += " ISOLATION LEVEL REPEATABLE READ" if snapshot else ""
        opening += " READ ONLY;" if read_only else ";"
        opening += _ALWAYS
        opening += "" if durable else "SET LOCAL synchronous_commit = off;"
        opening += f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';" if patient else ""
        async with self._connection() as connection:  # which rolls back whatever is not committed
            await connection.execute(opening.encode())
            try:
                yield connection
            except psycopg.Rollback:
                await connection.rollback()
            else:
                await connection.commit()

    async def alone(self, query: sql.Composed, params: Mapping[str, Any]) -> list[DictRow]:
        """All rows of one statement that is a transaction of its own: one round trip, where a transaction takes four.

        Its values travel as literals, because only the simple protocol takes what goes before it along.
        """
        async with self._connection() as connection, AsyncClientCursor(connection) as cursor:
            await cursor.execute(sql.SQL(_ALWAYS) + query, params)
            while cursor.nextset():
                pass
            return await cursor.fetchall()

    async def brief(self, query: str, *values: str) -> list[Values]:
        """All rows, as text, of one statement that is a transaction of its own, is done at once, and gives the same
        whatever the session is set to: JSON and plain text, whose names are qualified. It sets nothing, which costs
        more than it, and its values go to its $1, $2, … on a connection that is kept for such."""
        with self._failures_named():
            wire = await self._wire()
            try:
                return await wire.ask(query.encode(), *values)
            finally:
                if wire.broken:
                    await wire.close()
                else:
                    self._wires.append(wire)

    async def _wire(self) -> Wire:
        """One that nobody uses and whose server has not hung up; else a new one."""
        while self._wires:
            wire = self._wires.pop()
            if not wire.broken:
                return wire
            await wire.close()
        connection = await self._connect()
        try:
            return Wire(connection, direct=await _is_direct(connection))
        except BaseException:
            await connection.close()
            raise

    async def together(self, *asked: Asked) -> list[list[DictRow]]:
        """The rows of some statements that only read and see one moment, in one round trip; like ``alone``."""
        async with self._connection() as connection, AsyncClientCursor(connection, row_factory=dict_row) as cursor:
            parts = [sql.SQL(cursor.mogrify(query, params)) for query, params in asked]
            opening = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;") + sql.SQL(_ALWAYS)
            try:
                await cursor.execute(opening + sql.SQL(";\n").join(parts) + sql.SQL("; COMMIT"))
            except psycopg.Error:
                await connection.rollback()
                raise
            found = []
            more: bool | None = True
            while more:
                if cursor.description is not None:
                    found.append(await cursor.fetchall())
                more = cursor.nextset()
            return found

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """One of the pool's connections."""
        with self._failures_named():
            async with self._pool.connection() as connection:
                yield connection

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """The database's failures leave as ours where better words are known."""
        try:
            yield
        except PoolTimeout as error:
            raise DatabaseUnreachable(
                f"no connection to {self.place} within {self._wait_s:g} s", fix="check that the database is up"
            ) from error
        except psycopg.Error as error:
            named = _named(error, self.place)
            if named is None:
                raise
            raise named from error

    async def pooling(self) -> Literal["none", "session", "transaction"]:
        """What stands between us and the server, found out from which server process answers.

        Behind one that pools transactions, two connections of ours that are both open are answered by the same process;
        or, while others keep it busy, each by several.
        """
        async with await self._connect() as one_connection, await self._connect() as another:
            if await _is_direct(one_connection):
                return "none"
            seen = [{await _backend(each) for _ in range(_LOOKS)} for each in (one_connection, another)]
            return "session" if len(seen[0] | seen[1]) == 2 == len(seen[0]) + len(seen[1]) else "transaction"

    async def identity(self) -> str:
        """Which database this is: the same through every way to it, and no other's."""
        async with await self._connect() as connection:
            row = await (await connection.execute(statement("db", "which_database"))).fetchone()
            return str(row[0]) if row else ""

    async def _connect(self) -> AsyncConnection[tuple[Any, ...]]:
        """A connection of its own, outside the pool."""
        return await psycopg.AsyncConnection.connect(
            self.url,
            autocommit=True,
            connect_timeout=10,
            prepare_threshold=None,
            application_name="relevo",
            **limits(self.url),
        )

    async def _probe(self) -> None:
        """Fail fast, with the cause in one line; a pool would only retry in silence."""
        place = self.place
        try:
            async with await self._connect() as connection:
                version = connection.info.server_version // 10_000
        except psycopg.Error as error:
            if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
                raise _unreadable_url() from error
            raise _named(error, place) or error from error
        if version < OLDEST_SERVER:
            raise Refused(
                f"{place} runs PostgreSQL {version}; Relevo needs {OLDEST_SERVER} or newer",
                fix="upgrade the server",
            )


def limits(url: str) -> dict[str, Any]:
    """How long a connection outlives a server that is silent, for every connection of ours: keywords for libpq, without
    those that the connection string sets itself. keepalives_* in seconds, tcp_user_timeout in milliseconds."""
    try:
        own = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return {}  # whoever connects by it is told so
    return {name: value for name, value in _LIMITS.items() if name not in own}


def describe(url: str) -> str:
    """Host, port and database of a connection string; nothing secret.

    Raises ConfigurationError, without its words, for one that cannot be read: they may be the password's.
    """
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError:
        raise _unreadable_url() from None
    host, port, database = parts.get("host", "local socket"), parts.get("port", "5432"), parts.get("dbname", "")
    if "@" in host + database or not port.replace(",", "").isdigit():  # where an unescaped password ends up
        raise _unreadable_url()
    return f"{host}:{port}/{database}"


def _named(error: psycopg.Error, place: str) -> RelevoError | None:
    """The error as one of ours, or None when nothing better can be said than PostgreSQL did."""
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, errors.InvalidPassword | errors.InvalidAuthorizationSpecification):
        return DatabaseRefused(f"{place} refuses the password or role", fix="check the user and password in the URL")
    if isinstance(error, errors.InvalidCatalogName):
        return DatabaseRefused(f"there is no such database at {place}", fix="check the name at the end of the URL")
    if isinstance(error, errors.DiskFull):
        return DiskFull(f"{place}: {first_line}", fix="free space on the database's disk, then run the command again")
    if isinstance(error, errors.InsufficientPrivilege):
        return MissingPrivilege(
            f"the role may not do this at {place}: {first_line}",
            fix="connect as the owner, or grant the right",
        )
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return _connection_lost(first_line, place)
    if error.sqlstate == _RULE_OF_OURS:
        return Refused(first_line, fix=error.diag.message_hint or "see: relevo status")
    if isinstance(error, errors.AdminShutdown | errors.CrashShutdown | errors.CannotConnectNow):
        return DatabaseUnreachable(f"{place} is shutting down or starting", fix="run the command again in a moment")
    return None


def _unreadable_url() -> ConfigurationError:
    return ConfigurationError(
        "the database URL cannot be read",
        fix="write it as postgresql://user:password@host:5432/database, and @ : / in the password as %40 %3A %2F",
    )


def _connection_lost(message: str, place: str) -> RelevoError:
    """psycopg gives failed log-ins no code of their own; only the server's words tell them apart."""
    if "password authentication failed" in message or "no password supplied" in message:
        return DatabaseRefused(f"{place} refuses the password or role", fix="check the user and password in the URL")
    if "does not exist" in message:
        return DatabaseRefused(f"{place}: {_server_words(message)}", fix="check the role and database in the URL")
    return DatabaseUnreachable(
        f"{place} does not answer: {_server_words(message)}", fix="check host, port and that the server is up"
    )


def _server_words(message: str) -> str:
    return message.rsplit("FATAL:", 1)[-1].removeprefix("connection failed: ").strip()


async def _is_direct(connection: AsyncConnection[tuple[Any, ...]]) -> bool:
    """Whether no pooler stands between: one hands out process numbers of its own."""
    return await _backend(connection) == connection.info.backend_pid


async def _backend(connection: AsyncConnection[tuple[Any, ...]]) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return int(row[0]) if row else 0


async def every(connection: Connection, query: sql.Composed, params: Mapping[str, Any] | None = None) -> list[DictRow]:
    """All rows of a statement."""
    return await (await connection.execute(query, params or {})).fetchall()


async def first(connection: Connection, query: sql.Composed, params: Mapping[str, Any] | None = None) -> DictRow | None:
    """The first row of a statement; None when there is none."""
    return await (await connection.execute(query, params or {})).fetchone()


async def one(connection: Connection, query: sql.Composed, params: Mapping[str, Any] | None = None) -> DictRow:
    """The row of a statement that always has one. Raises LookupError when the statement is not of that kind."""
    row = await first(connection, query, params)
    if row is None:
        raise LookupError("a statement that always has a row had none")
    return row
