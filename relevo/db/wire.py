"""A connection that is kept, for one statement at a time whose answer somebody waits for on the telephone.

It speaks through libpq itself: what a pool, a cursor and the adaptation of types take of one statement is more than
half a millisecond where nothing else goes on, and all of it before the caller hears anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import errors
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

Values = tuple[bytes | None, ...]
_GIVEN_UP_S = 5.0  # that the server has to hear that nobody waits any more
# Of a statement that was made ready and is not what it was, as when an upgrade changed what it gives.
_STALE = (errors.FeatureNotSupported, errors.InvalidSqlStatementName)
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class Wire:
    """A connection of its own. Its user sees to it that nobody else asks while a statement is under way."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, direct: bool) -> None:
        """``direct``: it leads to one server process for good, with no pooler between, so that this one may keep
        statements ready: to read and to plan one takes it as long as many a statement itself."""
        self._connection, self._libpq = connection, connection.pgconn
        self._direct = direct
        self._ready: dict[bytes, bytes] = {}  # the names of statements that are kept ready
        self._loop, self._socket = asyncio.get_running_loop(), connection.pgconn.socket
        self._answer: asyncio.Future[list[PGresult]] | None = None
        self._results: list[PGresult] = []
        self._sending = False
        self._watched = True
        self._loop.add_reader(self._socket, self._read)

    @property
    def broken(self) -> bool:
        """Whether it can be asked no more: the server hung up, or an answer was not waited for."""
        return self._connection.closed

    async def ask(self, query: bytes, *values: str) -> list[Values]:
        """The rows of one statement with positional parameters, as text, in a transaction of its own.

        Raises what the server raised. Whoever is cancelled meanwhile takes the connection with them, and the statement
        if the server hears of it.
        """
        encoded = [value.encode() for value in values]
        try:
            if self._direct:
                if query not in self._ready:
                    name = b"relevo_%d" % len(self._ready)
                    await self._answered(partial(self._libpq.send_prepare, name, query))
                    self._ready[query] = name
                send = partial(self._libpq.send_query_prepared, self._ready[query], encoded)
            else:
                send = partial(self._libpq.send_query_params, query, encoded)
            result = await self._answered(send)
        except asyncio.CancelledError:
            await self._give_up()
            raise
        except _STALE:
            if not self._direct:
                raise
            self._direct = False
            return await self.ask(query, *values)
        columns = range(result.nfields)
        return [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]

    async def _answered(self, send: Callable[[], None]) -> PGresult:
        """What the server answers. Raises what it raised."""
        self._answer, self._results = self._loop.create_future(), []
        try:
            send()
            self._flush()
            (result,) = await self._answer
        finally:
            self._answer = None
        if result.status not in _DONE:
            raise error_from_result(result)
        return result

    async def close(self) -> None:
        """Hang up; as often as one likes."""
        self._forget()
        await self._connection.close()

    def _flush(self) -> None:
        """Send what the socket takes, and the rest when it takes more."""
        try:
            left = bool(self._libpq.flush())
        except psycopg.Error as error:
            self._lost(error)
            return
        if left and not self._sending:
            self._loop.add_writer(self._socket, self._flush)
        elif self._sending and not left:
            self._loop.remove_writer(self._socket)
        self._sending = left

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is None:
                    break
                self._results.append(result)
            else:
                return
        except psycopg.Error as error:
            self._lost(error)
            return
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._results)

    def _lost(self, error: psycopg.Error) -> None:
        self._forget()
        self._libpq.finish()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _forget(self) -> None:
        """Watch no more; once, for a number that is free may be another connection's by then."""
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    async def _give_up(self) -> None:
        self._forget()
        try:
            await self._connection.cancel_safe(timeout=_GIVEN_UP_S)
        except psycopg.Error:
            pass  # a server that does not hear this does not hear that we hang up either
        finally:
            self._libpq.finish()
