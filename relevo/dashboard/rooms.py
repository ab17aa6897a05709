"""The dashboard, put together: its places as routes, and the job that keeps open pages up to date."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.routing import BaseRoute, Route

from relevo.dashboard import (
    acting,
    assets,
    calls,
    in_force,
    mending,
    overview,
    records,
    signing_in,
    tenants,
    through_provider,
)
from relevo.dashboard.house import House
from relevo.dashboard.live import Pulse
from relevo.dashboard.places import Place, route


def open_rooms(house: House) -> tuple[list[BaseRoute], Callable[[], Awaitable[None]]]:
    """The routes, and the job to run beside them."""
    pulse = Pulse(house)
    routes: list[BaseRoute] = [route(place, house) for place in places(pulse)]
    return [*routes, Route("/static/{name}", assets.answer)], pulse.beat


def places(pulse: Pulse) -> tuple[Place, ...]:
    """Every place there is, with the role it needs."""
    return (
        *overview.PLACES,
        *acting.PLACES,
        *tenants.PLACES,
        *records.PLACES,
        *calls.PLACES,
        *mending.PLACES,
        *in_force.PLACES,
        *signing_in.PLACES,
        *through_provider.PLACES,
        *pulse.places,
    )
