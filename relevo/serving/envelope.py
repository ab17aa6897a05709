"""What goes around each request: its id, its time limit, the size of its body, its log line, its headers.

Plain ASGI, outermost of what is ours. Whatever goes wrong inside, an answer leaves here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relevo.serving import problems
from relevo.serving.problems import problem
from relevo.serving.told import HUNG_UP, Told, fault_of

LONGEST_BODY = 1 << 20
LONGEST_MESSAGE = 8 << 20  # of Vapi: a report carries the whole conversation, several times over
LONGEST_HEAD = 1 << 16  # of a request: its first line and headers
HEAD_WITHIN_S = 10.0  # of a connection's beginning, or of its first byte
ANSWERED_WITHIN_S = 30.0  # until the answer begins; a stream may go on for as long as it likes
TOO_LONG_A_HEAD = 431, f"the headers are more than {LONGEST_HEAD >> 10} KiB"
# What a request is answered that takes too long, by whether all of it had come.
LATE = {False: (408, "the request did not come to its end"), True: (503, "this took too long")}

# Of every answer. uvicorn adds them, so that what it answers by itself, to a request that is no HTTP, has them too.
SECURITY_HEADERS = [
    (
        "content-security-policy",
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
]
NOT_KEPT = (b"cache-control", b"no-store")
HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class Envelope:
    """Middleware: see the module."""

    def __init__(
        self, app: ASGIApp, *, told: Told, templates: Mapping[Any, str], longest: Mapping[str, int] | None = None
    ) -> None:
        """``templates``: the path of each plain route by its endpoint, because only FastAPI's own leave theirs.
        ``longest``: bytes of a body by the path, where more than of others is taken."""
        self._app, self._longest = app, longest or {}
        self._told = told
        self._templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._longest.get(scope["path"], LONGEST_BODY), self._told.new_id())
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        try:
            await exchange.run(self._app)
        finally:
            status, taken_s = exchange.status or HUNG_UP, now_s() - began_s
            self._told.tell(exchange.id, scope["method"], self._template(scope), status, taken_s, exchange.fault)

    def _template(self, scope: Scope) -> str:
        """The route that answered, as it is written, without the values in it: they may be anybody's names."""
        path = getattr(scope.get("route"), "path", None) or self._templates.get(scope.get("endpoint", self))
        return path or "unmatched"


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, longest: int, request_id: str) -> None:
        self.id = request_id
        self.status: int | None = None  # None: nothing has been answered yet
        self.fault: dict[str, Any] = {}
        self._scope, self._receive, self._send, self._longest = scope, receive, send, longest
        self._read = 0
        self._whole = False  # the body has come to its end
        self._limit: asyncio.Timeout | None = None
        scope.setdefault("state", {})["request_id"] = self.id

    async def run(self, app: ASGIApp) -> None:
        """Hand the request on, and see to it that there is an answer."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S) as self._limit:
                await app(self._scope, self.receive, self.send)
        except TimeoutError as error:
            await self._instead(error, *LATE[self._whole])
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except HTTPException as error:  # a body too large, that nothing inside made an answer of
            await self._instead(None, error.status_code, error.detail)
        except Exception as error:  # the last one to catch it, or the connection would just break
            await self._instead(error, *problems.BROKEN)

    async def receive(self) -> Message:
        """The next part of the body. Raises HTTPException when it is too large, whatever its headers promised."""
        if self._read == 0 and _promised(self._scope) > self._longest:
            raise HTTPException(413, f"a body has {self._longest:,} bytes at most")
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._read > self._longest:
                raise HTTPException(413, f"a body has {self._longest:,} bytes at most")
        return message

    async def send(self, message: Message) -> None:
        """Part of the answer; its beginning gets our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._limit is not None:
                self._limit.reschedule(None)
            headers = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            if not any(name.lower() == NOT_KEPT[0] for name, _ in headers):
                headers.append(NOT_KEPT)
            if self._scope["scheme"] == "https":
                headers.append(HTTPS_ONLY)
            message["headers"] = headers
        await self._send(message)

    async def _instead(self, error: Exception | None, status: int, what: str) -> None:
        self._limit = None  # it has ended
        if error is not None and status != 408:
            self.fault = fault_of(error)
        if self.status is not None:  # too late for another answer; breaking off tells that it is not whole
            raise ConnectionAbortedError("the answer broke off") from None
        close = {"connection": "close"} if status == 408 else None  # the rest of it is not waited for
        answer = problem(self._scope["path"], status, what, headers=close)
        with contextlib.suppress(OSError):
            await answer(self._scope, self._receive, self.send)


def _promised(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
