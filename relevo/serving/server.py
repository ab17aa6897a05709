"""Runs the application: one process, one address, stopped without dropping what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import structlog
import uvicorn

from relevo.errors import ConfigurationError, PortTaken, UsageError
from relevo.serving.app import Application
from relevo.serving.envelope import SECURITY_HEADERS
from relevo.serving.lane import Connection
from relevo.serving.readiness import Readiness

DRAINS_FOR_S = 1.0  # not ready, and still answering: so that a load balancer has time to see it
FINISHES_WITHIN_S = 5  # requests under way get this long after that
KEPT_ALIVE_S = 5  # a connection that nobody uses
_BACKLOG = 2048
_ALLOCATIONS = 10_000  # between two collections; Python's 700 are a request or two

_log = structlog.get_logger()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises PortTaken, or UsageError for what is no port."""
    if not 0 <= port <= 65_535:
        raise UsageError(f"there is no port {port}", fix="--port takes 0 to 65535; 0 picks a free one")
    # asyncio switches off Nagle's algorithm only where the protocol is named; else each answer waits 40 ms for the
    # client's acknowledgement of its head.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            fix = "stop the program that has it, or name another with --port; 0 picks a free one"
            raise PortTaken(f"port {port} of {host} is in use", fix=fix) from error
        told = error.strerror or str(error)
        raise PortTaken(
            f"cannot serve at {host}:{port}: {told}", fix="name an address of this machine, and a port you may have"
        ) from error


def proxies(written: str) -> list[str]:
    """The addresses and networks of the setting trusted_proxies. Raises ConfigurationError."""
    trusted = [each.strip() for each in written.split(",") if each.strip()]
    for each in trusted:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise ConfigurationError(
                f"serve_trusted_proxies: {each!r} is no address or network",
                fix="write addresses or networks separated by commas, as 127.0.0.1,10.0.0.0/8",
            ) from error
    return trusted


async def serve(
    app: Application,
    listening: socket.socket,
    readiness: Readiness,
    *,
    trusted_proxies: list[str],
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT. ``announce`` gets the address once requests are answered."""
    await _Server(_config(app, trusted_proxies), readiness, announce).serve(sockets=[listening])


@contextlib.asynccontextmanager
async def beside(
    app: Application, listening: socket.socket, readiness: Readiness, *, trusted_proxies: list[str] | None = None
) -> AsyncIterator[str]:
    """Serve for the length of the block, in this process, and yield the address; signals stay whose they are."""
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = _Server(_config(app, trusted_proxies or []), readiness, announced.set_result, signals=False)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    ended: asyncio.Future[Any] = serving
    await asyncio.wait({ended, announced}, return_when=asyncio.FIRST_COMPLETED)
    if not announced.done():
        await serving  # which says why it did not start
        raise PortTaken("the server ended before it began", fix="see its log")
    try:
        yield announced.result()
    finally:
        readiness.draining = True  # so that streams end
        server.should_exit = True
        await serving


def _config(app: Application, trusted_proxies: list[str]) -> uvicorn.Config:
    return uvicorn.Config(
        app.asgi,
        loop="asyncio",
        http=partial(Connection, lanes=app.lanes),  # type: ignore[arg-type]  # which is called, and nothing else
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=SECURITY_HEADERS,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        timeout_keep_alive=KEPT_ALIVE_S,
        timeout_graceful_shutdown=FINISHES_WITHIN_S,
    )


class _Server(uvicorn.Server):
    """uvicorn, except that it says it is going before it goes, and then ends with status 0."""

    def __init__(
        self, config: uvicorn.Config, readiness: Readiness, announce: Callable[[str], None], *, signals: bool = True
    ) -> None:
        super().__init__(config)
        self._signals = signals
        self._readiness = readiness
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if sockets and not self.should_exit:
            _spare_what_stays()
            host, port = sockets[0].getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            _log.info("serving", address=address)
            self._announce(address)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        ours = (signal.SIGTERM, signal.SIGINT) if self._signals else ()
        for each in ours:
            loop.add_signal_handler(each, self._leave)
        try:
            yield
        finally:
            for each in ours:
                loop.remove_signal_handler(each)

    def _leave(self) -> None:
        """The first signal begins to drain, a second one ends that at once, a third one waits for nobody."""
        if not self._readiness.draining:
            _log.info("stopping")
            self._readiness.draining = True
            asyncio.get_running_loop().call_later(DRAINS_FOR_S, self._stop)
        else:
            self.force_exit = self.should_exit
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True


def _spare_what_stays() -> None:
    """Keep the collector from walking, every few requests, through all that was loaded to stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)
