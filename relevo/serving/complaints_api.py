"""/api/v1/complaints: what users say went wrong, read and written down over HTTP by the same rules as by command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from relevo.access.door import Door
from relevo.access.roles import Role
from relevo.clock import Clock
from relevo.db.pool import Database
from relevo.metrics import complaints
from relevo.serving.flag_api import Reason, Text, Who
from relevo.serving.guarded import guarded
from relevo.tenants.answer import Fill, tenant_of

PREFIX = "/api/v1/complaints"
Many = Annotated[int, Query(ge=1, le=1_000)]
Number = Annotated[int, Path(ge=1, lt=2**63)]


class Said(Reason):
    """What somebody complains of, and which tenant's users do. ``version`` null: that of the tenant's last call."""

    tenant: Text
    text: Annotated[Text, Field(min_length=1, max_length=4_000, pattern=r"\S")]
    version: Literal["v1", "v2"] | None = None


def routers(database: Database, fill: Fill, door: Door, clock: Clock) -> list[APIRouter]:
    """Reading for viewers, writing for operators. ``fill``: v1's tables, as the mapping gives them."""
    return [_reading(database, door), _writing(database, fill, door, clock)]


def _reading(database: Database, door: Door) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["complaints"], route_class=guarded(door, Role.VIEWER))

    @router.get("")
    async def listed(
        dismissed: bool = False, most: Annotated[int, Query(ge=1, le=1_000)] = 100
    ) -> list[dict[str, Any]]:
        """Complaints, newest first; with ``dismissed`` also those that count no more."""
        async with database.transaction(read_only=True) as connection:
            found = await complaints.complaints(connection, dismissed=dismissed)
        return [asdict(each) for each in found[:most]]

    return router


def _writing(database: Database, fill: Fill, door: Door, clock: Clock) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["complaints"], route_class=guarded(door, Role.OPERATOR))

    @router.post("", status_code=201)
    async def add(said: Said, who: Who) -> dict[str, Any]:
        """Write a complaint down. It counts against the version that the users spoke with."""
        tenant = await tenant_of(database, said.tenant, fill)
        async with database.transaction() as connection:
            made = await complaints.add(
                connection,
                str(tenant.id),
                said.text.strip(),
                clock(),
                version=said.version,
                actor=who.actor,
                reason=said.reason,
            )
        return asdict(made)

    @router.post("/{complaint}/dismiss")
    async def dismiss(complaint: Number, who: Who, asked: Reason | None = None) -> dict[str, Any]:
        """Count a complaint no more: it was a mistake, or not about us."""
        async with database.transaction() as connection:
            gone = await complaints.dismiss(
                connection, complaint, clock(), actor=who.actor, reason=asked.reason if asked else None
            )
        return asdict(gone)

    return router
