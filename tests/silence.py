"""A way to a server that can fall silent, as a network does: nothing comes through, and nobody is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Wire:
    """``silent``: what is sent is swallowed, either way; connections are taken, and lead nowhere."""

    port: int = 0
    silent: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)  # somebody came while it was silent
    closed: int = 0  # connections, by either side
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Close all connections."""
        for each in self._open:
            each.transport.abort()

    async def carry(self, there: asyncio.StreamReader, back: asyncio.StreamWriter, port: int) -> None:
        """One connection, until one of its sides closes it."""
        if self.silent:
            self.arrived.set()
        self._open.add(back)
        try:
            far, on = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.wait(
                    [asyncio.ensure_future(self._pump(there, on)), asyncio.ensure_future(self._pump(far, back))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                on.transport.abort()
        finally:
            self._open.discard(back)
            self.closed += 1
            back.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while sent := await source.read(65_536):
                if not self.silent:
                    sink.write(sent)
                    await sink.drain()
        except OSError:
            pass  # as good as closed


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Wire]:
    """A wire to a port of this machine, for the length of the block."""
    wire = Wire()
    carrying: set[asyncio.Task[None]] = set()

    async def take(there: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        await wire.carry(there, back, port)
        carrying.discard(task)

    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    wire.port = listening.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listening.close()
        wire.cut()
        if carrying:
            await asyncio.wait(carrying)
