"""Other people's servers as the tests need them: they speak HTTP on the loopback, and do as they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """What a stand-in was sent."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    connection: int  # which of its connections

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a stand-in answers."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


Answering = Callable[[Request], Reply]


class StandIn:
    """A server that remembers what it was sent. ``answering`` may be replaced at any time."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.received: list[Request] = []
        self.hanging = threading.Event()  # set: nothing is answered until it is cleared
        self.let_go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def hang(self) -> None:
        """Answer nobody any more."""
        self.let_go.clear()
        self.hanging.set()

    def go_on(self) -> None:
        """Answer again, those that waited too."""
        self.hanging.clear()
        self.let_go.set()

    def of_type(self, kind: str) -> list[Request]:
        """The messages of Vapi of one type among what was received."""
        return [each for each in self.received if each.json["message"]["type"] == kind]

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        """Serve for the length of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.go_on()
            self._server.shutdown()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length), self.client_address[1])
                stand_in.received.append(request)
                if stand_in.hanging.is_set():
                    stand_in.let_go.wait(30)
                reply = stand_in.answering(request)
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                try:
                    self.send_response(reply.status)
                    for name, value in {"content-type": "application/json", **reply.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked has gone

            do_GET = do_POST = do_PATCH = _answer

            def log_message(self, *_args: Any) -> None:
                """Says nothing."""

        return Handler


@contextmanager
def stand_in(answering: Answering | None = None) -> Iterator[StandIn]:
    """A running stand-in; without further word it answers everything with an empty object."""
    with StandIn(answering or (lambda _request: Reply())).running() as running:
        yield running
