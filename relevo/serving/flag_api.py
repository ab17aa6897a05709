"""/api/v1/flags: the flag, read and changed over HTTP by the same rules as from Python."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt

from relevo.access.door import Door
from relevo.access.keyring import Caller
from relevo.access.roles import Role
from relevo.errors import UnknownName, nearest
from relevo.flags.evaluate import Flag
from relevo.flags.store import Change, Flags
from relevo.serving.guarded import caller, guarded

PREFIX = "/api/v1/flags/{name}"
MOST_TENANTS = 20_000  # as many as a list of the flag is made for


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds the character NUL, which cannot be stored")
    return text


Text = Annotated[str, Field(max_length=1_000), AfterValidator(_storable)]
Who = Annotated[Caller, Depends(caller)]


class Reason(BaseModel):
    """Why, for the audit log."""

    model_config = ConfigDict(extra="forbid")

    reason: Text | None = None


class Percentage(Reason):
    """Share of the tenants on v2, 0 to 100."""

    percentage: StrictInt


class Tenants(Reason):
    """Tenants to put on a list."""

    tenants: Annotated[list[Text], Field(min_length=1, max_length=MOST_TENANTS)]


class EnabledTenants(Tenants):
    """Tenants to put on v2; ``force`` those too that are not verified."""

    force: StrictBool = False


def routers(flags: Flags, door: Door) -> list[APIRouter]:
    """Reading for viewers, writing for operators."""
    return [_reading(flags, door), _writing(flags, door)]


def _reading(flags: Flags, door: Door) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["flags"], route_class=guarded(door, Role.VIEWER))

    @router.get("")
    async def flag(name: str) -> dict[str, Any]:
        """The flag's row, as the database has it now."""
        _known(flags, name)
        return _flag(await flags.get())

    return router


def _writing(flags: Flags, door: Door) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["flags"], route_class=guarded(door, Role.OPERATOR))

    @router.post("/set-percentage")
    async def set_percentage(name: str, asked: Percentage, who: Who) -> dict[str, Any]:
        """Put a share of the tenants on v2. Unverified ones that the share would choose are disabled, and named."""
        _known(flags, name)
        return _change(await flags.set_percentage(asked.percentage, actor=who.actor, reason=asked.reason))

    @router.post("/enable")
    async def enable(name: str, asked: EnabledTenants, who: Who) -> dict[str, Any]:
        """Put tenants on v2. Refused (409) for unverified ones, unless forced."""
        _known(flags, name)
        return _change(await flags.enable(asked.tenants, actor=who.actor, reason=asked.reason, force=asked.force))

    @router.post("/disable")
    async def disable(name: str, asked: Tenants, who: Who) -> dict[str, Any]:
        """Put tenants back on v1."""
        _known(flags, name)
        return _change(await flags.disable(asked.tenants, actor=who.actor, reason=asked.reason))

    @router.post("/on")
    async def on(name: str, who: Who, asked: Reason | None = None) -> dict[str, Any]:
        """Let lists and percentage count."""
        _known(flags, name)
        return _change(await flags.on(actor=who.actor, reason=asked.reason if asked else None))

    @router.post("/off")
    async def off(name: str, who: Who, asked: Reason | None = None) -> dict[str, Any]:
        """Everybody on v1; lists and percentage are kept."""
        _known(flags, name)
        return _change(await flags.off(actor=who.actor, reason=asked.reason if asked else None))

    return router


def _known(flags: Flags, name: str) -> None:
    if name != flags.flag.name:
        told = name if len(name) <= 100 else f"{name[:100]}…"
        raise UnknownName(f"there is no flag {told!r}.{nearest(told, [flags.flag.name])}", fix=f"use {flags.flag.name}")


def _flag(flag: Flag) -> dict[str, Any]:
    return {
        "name": flag.name,
        "enabled": flag.enabled,
        "percentage": flag.percentage,
        "enabled_tenants": sorted(flag.enabled_tenants),
        "disabled_tenants": sorted(flag.disabled_tenants),
        "version": flag.version,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "before": _flag(change.before),
        "flag": _flag(change.flag),
        "unverified": [asdict(each) for each in change.unverified],
    }
