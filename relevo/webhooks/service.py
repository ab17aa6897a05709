"""The router, put together: its routes, and the work that goes on beside them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from relevo.clock import Clock
from relevo.db.pool import Database
from relevo.flags.store import Flags
from relevo.metrics.record import Version
from relevo.settings import Settings
from relevo.webhooks import routes as addresses
from relevo.webhooks.acting import BackEnd
from relevo.webhooks.asking import Asking
from relevo.webhooks.authentication import Authentication, Signing
from relevo.webhooks.breaking import Breakers
from relevo.webhooks.calls import Calls
from relevo.webhooks.handlers import upstream
from relevo.webhooks.handlers.upstream import Upstream
from relevo.webhooks.known import HEARD_AT_FIRST, Known
from relevo.webhooks.reconciling import keep_reconciling
from relevo.webhooks.router import Router
from relevo.webhooks.shadow import Shadow
from relevo.webhooks.unplaced import Unplaced
from relevo.webhooks.vapi import Vapi


@dataclass(frozen=True, slots=True)
class Webhook:
    """What a server needs of it."""

    endpoints: dict[str, addresses.Webhook]  # by their paths
    jobs: list[Callable[[], Awaitable[None]]]
    known: Known
    unplaced: Unplaced


def authentication(settings: Settings) -> Authentication:
    """Who is let in, as the settings say."""
    signing = Signing(
        secrets=tuple(settings.vapi_hmac_secret.split()),
        algorithm=settings.vapi_hmac_algorithm,
        headers=tuple(settings.vapi_hmac_header.lower().split()),
        timestamp_header=settings.vapi_hmac_timestamp_header.lower(),
        signs_time=settings.vapi_hmac_signs == "timestamp.body",
        prefix=settings.vapi_hmac_prefix,
    )
    return Authentication(
        secrets=tuple(settings.vapi_secret.split()),
        bearers=tuple(settings.vapi_bearer.split()),
        signing=signing,
        none=settings.webhook_auth == "none",
    )


@asynccontextmanager
async def webhook(database: Database, flags: Flags, settings: Settings, clock: Clock) -> AsyncIterator[Webhook]:
    """The router for the length of the block, which ends when what it was writing is written.

    Raises ConfigurationError for an upstream that is no URL.
    """
    known = Known(database, clock)
    calls, unplaced = Calls(database, known, clock), Unplaced(database, clock)
    breakers = Breakers(database, clock, holder=f"{socket.gethostname()}:{os.getpid()}")
    async with upstream.session() as session:
        urls: dict[Version, str | None] = {"v1": settings.v1_upstream, "v2": settings.v2_upstream}
        upstreams = {version: Upstream(session, url) for version, url in urls.items() if url}
        asking = Asking(known, calls, flags, breakers, unplaced, clock, upstreams)
        share = settings.webhook_shadow_share
        shadow = Shadow(database, known, asking, share) if share > 0 else None
        back_end = BackEnd(database, clock)
        router = Router(authentication(settings), known, calls, asking, back_end, breakers, clock, upstreams, shadow)
        served = addresses.endpoints(
            router,
            public_url=settings.public_url,
            credential_id=settings.vapi_credential_id,
            assistant=settings.assistant,
        )
        await known.refresh(hear_at_most=HEARD_AT_FIRST)
        try:
            key = settings.vapi_api_key
            vapi = Vapi(session, settings.vapi_api_url, key) if key else None
            reconciling = partial(keep_reconciling, database, vapi, clock)
            yield Webhook(served, [known.keep_fresh, breakers.keep_fresh, reconciling], known, unplaced)
        finally:
            if shadow is not None:
                await shadow.finish()
            await unplaced.finish()
            await calls.finish()
            await breakers.finish()
            await known.finish()
