"""The lane of the messages that come most: taken whole from the connection, answered in one write.

What uvicorn and ASGI do around a request costs more than most of our answers do. So a plain request to a route that has
a lane goes by here: POST, HTTP/1.1, a body whose length is told and not too much, nothing else under way on its
connection. Everything else, and whatever is bent, goes through the application, which gives the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import psycopg
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from relevo.errors import RelevoError, Unauthorized
from relevo.serving import envelope, problems
from relevo.serving.envelope import HTTPS_ONLY, LATE, LONGEST_MESSAGE, NOT_KEPT, TOO_LONG_A_HEAD
from relevo.serving.told import HUNG_UP, Told, fault_of
from relevo.webhooks.handlers.upstream import Reply

LOOKS_EVERY_S = 1.0
"""How often a connection looks whether somebody takes too long: a timer for each request would cost more than it."""

Headers = Sequence[tuple[bytes, bytes]]


class Endpoint(Protocol):
    """What a lane leads to; an ASGI application, too, that answers the same."""

    def admit(self, named: Mapping[str, str], query: bytes) -> None:
        """Raises Unauthorized for whoever is not let in, before the body is read."""

    async def answer(self, scheme: str, headers: Headers, named: Mapping[str, str], query: bytes, body: bytes) -> Reply:
        """The answer to a whole request. ``named``: the headers by their names in lower case. Raises errors of ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same, as ASGI has it."""


class Lanes:
    """All of a server, by their raw paths."""

    def __init__(self, endpoints: Mapping[bytes, Endpoint], told: Told) -> None:
        self.endpoints, self.told = endpoints, told
        self._common: list[tuple[bytes, bytes]] = []
        self._written = b""

    def common(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The headers of every answer, written out: uvicorn makes a new list of them every second."""
        if headers is not self._common:
            self._common, self._written = headers, _written([*headers, NOT_KEPT])
        return self._written


class Connection(HttpToolsProtocol):
    """One connection: uvicorn's, with the lanes beside."""

    def __init__(self, *args: Any, lanes: Lanes, **more: Any) -> None:
        super().__init__(*args, **more)
        self.lanes = lanes
        self._by_proxy = False
        self._turn: _Turn | None = None  # the last one
        self._looking: asyncio.TimerHandle | None = None
        self._head_since_s: float | None = self.loop.time()  # since when one is waited for, or comes; None: neither
        self._head_bytes = 0  # that came and were not all of it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Somebody is there."""
        super().connection_made(transport)
        proxies = self.app if isinstance(self.app, ProxyHeadersMiddleware) else None
        self._by_proxy = proxies is not None and self.client is not None and self.client[0] in proxies.trusted_hosts
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Something came. A head that takes no end is refused: nobody has said yet who they are."""
        since_s = self._head_since_s
        super().data_received(data)
        if since_s is None or self._head_since_s != since_s:
            return
        self._head_bytes += len(data)
        if self._head_bytes > envelope.LONGEST_HEAD and not self.transport.is_closing():
            self.logger.warning("A request's head is too long.")
            status, headers, body = _parts(problems.problem("", *TOO_LONG_A_HEAD))
            common = self.lanes.common(self.server_state.default_headers)
            own = _written([*headers, (b"connection", b"close")])
            self.transport.write(b"".join((STATUS_LINE[status], common, own, b"\r\n", body)))
            self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._head_since_s, self._head_bytes = self.loop.time(), 0
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is."""
        super().connection_lost(exc)
        if self._looking is not None:
            self._looking.cancel()
        if self._turn is not None:
            self._turn.left()

    def on_headers_complete(self) -> None:
        """Which way a request goes."""
        self._head_since_s = None
        turn = self._by_lane()
        if turn is None:
            super().on_headers_complete()
            return
        self.cycle = self._turn = turn  # type: ignore[assignment]  # it has all that uvicorn asks of one
        self._watch()

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        if isinstance(self.cycle, _Turn):
            self.cycle.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of the body."""
        if isinstance(self.cycle, _Turn):
            self.cycle.begin()
        else:
            super().on_message_complete()

    def _watch(self) -> None:
        if self._looking is None:
            self._looking = self.loop.call_later(LOOKS_EVERY_S, self._look)

    def _look(self) -> None:
        turn, self._looking = self._turn, None
        if self.transport.is_closing():
            return
        if turn is not None and not turn.response_complete:
            if self.loop.time() - turn.began_s >= envelope.ANSWERED_WITHIN_S:
                turn.late()
        elif self.cycle is None or self.cycle.response_complete:
            if self._head_since_s is not None:
                since_s, longest_s = self._head_since_s, envelope.HEAD_WITHIN_S
            elif turn is not None and isinstance(self.cycle, _Turn):
                since_s, longest_s = turn.ended_s, float(self.timeout_keep_alive)
            else:
                return  # uvicorn's own watch is over what it has answered
            if self.loop.time() - since_s >= longest_s:
                self.transport.close()
                return
        elif self._head_since_s is None:
            return  # uvicorn's, under way
        self._watch()

    def over(self) -> None:
        """A turn has come to its end; the next is whoever waits."""
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def _by_lane(self) -> _Turn | None:
        """A request that may go by a lane; None: it goes through the application."""
        path, _, query = self.url.partition(b"?")
        endpoint = self.lanes.endpoints.get(path)
        if endpoint is None or not (self.cycle is None or self.cycle.response_complete):
            return None
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return None
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}
        length = named.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_MESSAGE or self.expect_100_continue or b"#" in query:
            return None
        try:
            endpoint.admit(named, query)
        except Unauthorized:
            return None
        said = named.get("x-forwarded-proto", "").strip() if self._by_proxy else ""
        scheme = said if said in ("http", "https") else self.scheme or "http"
        return _Turn(self, endpoint, path.decode(), scheme, named, query)


class _Nobody:
    """Who waits for the messages of uvicorn's cycle."""

    def set(self) -> None:
        """Nothing to be done."""


class _Turn:
    """One request and its answer."""

    message_event = _Nobody()

    def __init__(
        self,
        connection: Connection,
        endpoint: Endpoint,
        path: str,
        scheme: str,
        named: Mapping[str, str],
        query: bytes,
    ) -> None:
        self.body = bytearray()
        self.response_complete = self.disconnected = False
        self.keep_alive = connection.parser.should_keep_alive()
        self._connection, self._endpoint, self._path, self._scheme = connection, endpoint, path, scheme
        self._headers, self._named, self._query = connection.headers, named, query
        self._id = connection.lanes.told.new_id()
        self.began_s = self.ended_s = connection.loop.time()
        self._task: asyncio.Task[None] | None = None  # None: the body has not come to its end
        self._is_late = False

    def begin(self) -> None:
        """The body has come to its end."""
        if self.response_complete:  # it came too late
            return
        self._task = task = self._connection.loop.create_task(self._run())
        self._connection.tasks.add(task)
        task.add_done_callback(self._connection.tasks.discard)

    def left(self) -> None:
        """They hung up."""
        if self._task is None and not self.response_complete:
            self._tell(HUNG_UP)

    def late(self) -> None:
        """It has taken too long."""
        self._is_late = True
        if self._task is not None:
            self._task.cancel()
            return
        self.keep_alive = False  # the rest of it is not waited for
        answer = _parts(problems.problem(self._path, *LATE[False]))
        self._write(*answer)
        self._tell(answer[0])

    async def _run(self) -> None:
        fault: Mapping[str, Any] = {}
        try:
            reply = await self._endpoint.answer(self._scheme, self._headers, self._named, self._query, bytes(self.body))
            answer = reply.status, _described(reply), reply.body
        except (RelevoError, psycopg.OperationalError, HTTPException) as error:
            answer = _parts(problems.of_any(self._path, error))
        except asyncio.CancelledError as error:
            if not self._is_late:
                raise
            fault, answer = fault_of(error), _parts(problems.problem(self._path, *LATE[True]))
        except Exception as error:  # the last one to catch it, or the connection would just break
            fault, answer = fault_of(error), _parts(problems.problem(self._path, *problems.BROKEN))
        if self._connection.flow.write_paused and not self.disconnected:
            await self._connection.flow.drain()
        self._write(*answer)
        self._tell(answer[0], fault)

    def _write(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer, and make way for what comes next on the connection."""
        connection = self._connection
        self.response_complete = True
        if connection.transport.is_closing():
            return
        own = [*headers, (b"x-request-id", self._id.encode())]
        if self._scheme == "https":
            own.append(HTTPS_ONLY)
        if not self.keep_alive:
            own.append((b"connection", b"close"))
        common = connection.lanes.common(connection.server_state.default_headers)
        connection.transport.write(b"".join((STATUS_LINE[status], common, _written(own), b"\r\n", body)))
        if not self.keep_alive:
            connection.transport.close()
        connection.over()

    def _tell(self, status: int, fault: Mapping[str, Any] | None = None) -> None:
        self.ended_s = self._connection.loop.time()
        self._connection.lanes.told.tell(self._id, "POST", self._path, status, self.ended_s - self.began_s, fault or {})


def _described(reply: Reply) -> Headers:
    kind = reply.content_type if reply.content_type.isprintable() else "application/octet-stream"
    return [(b"content-type", kind.encode("latin-1", "replace")), (b"content-length", b"%d" % len(reply.body))]


def _parts(response: Response) -> tuple[int, Headers, bytes]:
    return response.status_code, response.raw_headers, bytes(response.body)


def _written(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
