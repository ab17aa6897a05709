"""``relevo serve``: the parts, put together and run."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Annotated

import structlog
from cyclopts import Parameter

from relevo import __version__
from relevo.access.door import Door
from relevo.access.keyring import Keyring
from relevo.access.provider import Provider
from relevo.access.terms import terms_of
from relevo.alerts import watching
from relevo.cleanup import forgetting
from relevo.cleanup.forgetting import keep_forgetting
from relevo.cli import recording
from relevo.cli.frame import ORDINARY, Common, WholeNumber
from relevo.clock import Clock, system_clock
from relevo.comms import following
from relevo.comms.channels import channels, texts_of
from relevo.comms.delivery import LOOKS_EVERY_S, Delivery
from relevo.comms.following import Following
from relevo.comms.outcome import Channel
from relevo.dashboard.house import House
from relevo.dashboard.remembering import Remembered
from relevo.dashboard.rooms import open_rooms
from relevo.db.embedded import EmbeddedServer
from relevo.db.pool import Database, describe
from relevo.flags import ofrep
from relevo.flags.store import Flags
from relevo.metrics.folding import keep_folding
from relevo.migration import keeping
from relevo.migration.mapping import SourceMapping
from relevo.report import ticking
from relevo.rollout.controller import TICK_S, Ticked, keep_ticking
from relevo.serving import complaints_api, flag_api, health, logged, logs, server
from relevo.serving.app import Application, create_app
from relevo.serving.background import Job, Pace
from relevo.serving.measures import Measures
from relevo.serving.readiness import Readiness
from relevo.settings import Settings
from relevo.webhooks.service import webhook

_WAITS_FOR_DATABASE_S = 3.0
_USUAL = Pace()


async def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[WholeNumber, Parameter(help="Port; 0 picks a free one, which the first line tells.")] = 8080,
    common: Common = ORDINARY,
) -> None:
    """Answer over HTTP until stopped: Vapi's webhook, flag evaluation (OFREP), the flags API, the dashboard, health
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
    channels(in_force, texts_of(in_force), system_clock)  # what cannot be used is said before anything is done
    terms_of(in_force)
    listening = server.listen(host, port)
    errors = logs.configure()
    async with (
        _database(common) as database,
        assembled(database, in_force, mapping, errors=errors) as (app, readiness),
    ):
        announce = partial(_announce, common)
        await server.serve(app, listening, readiness, trusted_proxies=trusted, announce=announce)


@asynccontextmanager
async def assembled(
    database: Database,
    in_force: Settings,
    mapping: SourceMapping,
    clock: Clock = system_clock,
    pace: Pace = _USUAL,
    errors: logs.Errors | None = None,
) -> AsyncIterator[tuple[Application, Readiness]]:
    """The application with all that goes on beside it, on an open database. ``clock`` is that of calls and of the
    rollout; people are signed in, and keys expire, by the real one. ``errors``: what was logged, to be kept."""
    outgoing = channels(in_force, texts_of(in_force), clock)
    async with (
        Flags(database, direct_url=in_force.direct_url) as flags,
        webhook(database, flags, in_force, clock) as router,
    ):
        keyring = Keyring(database, system_clock)
        await keyring.refresh()
        readiness, door, measures = Readiness(keyring, flags, system_clock), Door(keyring), Measures(__version__)
        measures.watch_flag(flags, system_clock)
        measures.watch_unplaced(lambda: router.unplaced.count)
        remembered = Remembered(clock)
        provider = Provider(terms) if (terms := terms_of(in_force)) else None
        told = database, flags, door, mapping, clock, __version__
        house = House(*told, lambda: readiness.draining, remembered, provider)
        pages, pulse = open_rooms(house)
        app = create_app(
            __version__,
            measures,
            direct=router.endpoints,
            routes=[*ofrep.routes(flags, door), *health.routes(readiness, measures), *pages],
            routers=flag_api.routers(flags, door) + complaints_api.routers(database, mapping.fill(), door, clock),
            jobs=[
                keyring.keep_fresh,
                pulse,
                *router.jobs,
                *_upkeep(database, mapping, in_force, clock, pace),
                *_deliveries(database, outgoing, clock, pace),
                *([partial(logged.keep_keeping, database, errors, clock)] if errors is not None else []),
            ],
        )
        yield app, readiness


def _announce(common: Common, address: str) -> None:
    """The one line that says where."""
    told = {"address": address, "pid": os.getpid(), "version": __version__}
    print(json.dumps(told) if common.json else f"relevo serves at {address}", flush=True)


def _upkeep(database: Database, mapping: SourceMapping, in_force: Settings, clock: Clock, pace: Pace) -> list[Job]:
    """What goes on by itself: dual write is mended, data verified, calls added up, the rollout and v2 watched."""
    told = partial(Following(database, clock).keep_following, every_s=pace.clients_s or following.EVERY_S)
    return [
        partial(keeping.keep_repaired, database, clock),
        partial(keeping.keep_verified, database, mapping, clock),
        partial(recording.install, database, mapping, in_force),
        partial(keep_folding, database, clock),
        partial(keep_ticking, database, clock, told=_tell, every_s=pace.rollout_s or TICK_S),
        partial(watching.keep_watching, database, clock, every_s=pace.alerts_s or watching.EVERY_S),
        partial(ticking.keep_reminding, database, clock),
        *([told] if in_force.notify_clients else []),
        *([partial(keep_forgetting, database, kept, clock)] if (kept := _kept(in_force)) else []),
    ]


def _kept(in_force: Settings) -> dict[str, timedelta]:
    """How long what is not kept for good is kept, by kind."""
    days = {kind: getattr(in_force, f"keep_{kind}_days") for kind in forgetting.KINDS}
    return {kind: timedelta(days=many) for kind, many in days.items() if many is not None}


def _deliveries(database: Database, outgoing: list[Channel], clock: Clock, pace: Pace) -> list[Job]:
    """What carries out what is to be told, one job per channel that is configured."""
    every_s = pace.deliveries_s or LOOKS_EVERY_S
    return [
        partial(Delivery(database, channel, clock, random.random).keep_delivering, every_s=every_s)
        for channel in outgoing
    ]


def _tell(ticked: Ticked) -> None:
    """A line in the log for whatever the rollout's controller did."""
    if ticked.move is not None:
        # Why is in the history of the rollout: it may name tenants, and no log does.
        moved = {"event": ticked.move.event, "phase": ticked.rollout.phase.name}
        structlog.get_logger().info("rollout moved", rollout=ticked.rollout.id, move=moved)


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
