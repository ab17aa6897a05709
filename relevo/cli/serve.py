"""``relevo serve``: the parts, put together and run."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from cyclopts import App, Parameter

from relevo import __version__
from relevo.access.door import Door
from relevo.access.keyring import Keyring
from relevo.cli.frame import ORDINARY, Common, WholeNumber
from relevo.clock import system_clock
from relevo.dashboard.house import House
from relevo.dashboard.rooms import open_rooms
from relevo.db.embedded import EmbeddedServer
from relevo.db.pool import Database, describe
from relevo.flags import ofrep
from relevo.flags.store import Flags
from relevo.migration import keeping
from relevo.serving import flag_api, health, logs, server
from relevo.serving.app import create_app
from relevo.serving.measures import Measures
from relevo.serving.readiness import Readiness

_WAITS_FOR_DATABASE_S = 3.0


def register(parent: App) -> None:
    """Hang this command under the main one."""
    parent.command(serve)


async def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[WholeNumber, Parameter(help="Port; 0 picks a free one, which the first line tells.")] = 8080,
    common: Common = ORDINARY,
) -> None:
    """Answer over HTTP until stopped: flag evaluation (OFREP), the flags API, the dashboard, health
    and metrics.

    Starts without its database, too, and answers from it as soon as it is there.

    Parameters
    ----------
    host
        Address to serve at; default: this machine alone.
    """
    in_force = common.settings()
    mapping = common.mapping()
    trusted = server.proxies(in_force.serve_trusted_proxies)
    listening = server.listen(host, port)
    logs.configure()
    async with _database(common) as database, Flags(database, direct_url=in_force.direct_url) as flags:
        keyring = Keyring(database, system_clock)
        await keyring.refresh()
        readiness, door, measures = Readiness(keyring, flags, system_clock), Door(keyring), Measures(__version__)
        measures.watch_flag(flags, system_clock)
        house = House(database, flags, door, mapping, system_clock, __version__, lambda: readiness.draining)
        pages, pulse = open_rooms(house)
        app = create_app(
            __version__,
            measures,
            routes=[*ofrep.routes(flags, door), *health.routes(readiness, measures), *pages],
            routers=flag_api.routers(flags, door),
            jobs=[
                keyring.keep_fresh,
                pulse,
                partial(keeping.keep_repaired, database, system_clock),
                partial(keeping.keep_verified, database, mapping, system_clock),
            ],
        )

        def announce(address: str) -> None:
            told = {"address": address, "pid": os.getpid(), "version": __version__}
            print(json.dumps(told) if common.json else f"relevo serves at {address}", flush=True)

        await server.serve(app, listening, readiness, trusted_proxies=trusted, announce=announce)


@asynccontextmanager
async def _database(common: Common) -> AsyncIterator[Database]:
    """The database, which need not be there yet; the embedded one is started."""
    url = common.settings().database_url
    if url is not None:
        describe(url)  # what cannot be read as a URL will never be there
        async with Database(url, wait_s=_WAITS_FOR_DATABASE_S, must_answer=False) as database:
            yield database
        return
    lease = await asyncio.to_thread(EmbeddedServer(common.settings().home).acquire)
    try:
        async with Database(lease.address.url, wait_s=_WAITS_FOR_DATABASE_S) as database:
            yield database
    finally:
        await asyncio.to_thread(lease.release)
