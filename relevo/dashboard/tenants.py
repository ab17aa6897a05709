"""The tenants: all of them a page at a time, and everything about one, with its way to v2 and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.dashboard.calls import asking
from relevo.dashboard.directory import Wanted, page
from relevo.dashboard.house import Visit, to
from relevo.dashboard.places import Place
from relevo.db.pool import Asked, every
from relevo.db.statements import statement
from relevo.errors import UnknownName, UsageError, nearest
from relevo.migration import states
from relevo.migration.states import State, Why
from relevo.tenants import answer as answering
from relevo.tenants.answer import Answers

PAGE = 50
_LAST_PAGE = 10_000
_VOLUME_OF = timedelta(hours=24)
_CALLS = 10
_CALLS_OF = timedelta(days=30)

STATES: tuple[str, ...] = get_args(State)
VERSIONS = {"v1": False, "v2": True}


@dataclass(frozen=True, slots=True)
class Compared:
    """One field of a configuration on both sides."""

    name: str
    v1: str | None
    v2: str | None
    derived: bool  # v2 makes its own; the two need not be equal

    @property
    def differs(self) -> bool:
        """Whether they say different things; where v1 says nothing, v2's default is none."""
        return not self.derived and bool(self.v1) and self.v1 != self.v2


async def show_all(visit: Visit) -> Response:
    """A page of tenants."""
    state, version, word = visit.asked("state"), visit.asked("version"), visit.asked("q")[:200]
    _known("state", state, STATES)
    _known("version", version, VERSIONS)
    number = _page_number(visit.asked("page", "1"))
    wanted = Wanted(state or None, VERSIONS.get(version), word or None)
    found = await page(visit.house, wanted, most=PAGE, skip=(number - 1) * PAGE)
    house = visit.house
    rows, volumes = await house.database.together(
        states.asking_tenants(house.mapping, found.ids, found.configs),
        _asking_volumes([str(each) for each in found.ids], visit.now),
    )
    place = {tenant_id: number for number, tenant_id in enumerate(found.ids)}
    tenants = sorted(states.tenants_of(rows, found.flag), key=lambda each: place[each.tenant_id])
    return visit.page(
        "tenants.html",
        tenants=tenants,
        volumes=_sums(volumes),
        many=found.many,
        listed_at=found.at,
        number=number,
        pages=max(1, -(-found.many // PAGE)),
        size=PAGE,
        chosen_state=state,
        chosen_version=version,
        word=word,
        states=STATES,
        versions=tuple(VERSIONS),
    )


def _asking_volumes(ids: list[str], now: datetime) -> Asked:
    since = (now - _VOLUME_OF).replace(minute=0, second=0, microsecond=0)
    return statement("dashboard", "volumes"), {"ids": ids, "since": since}


def _sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Calls and errors of both versions together, by tenant."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        calls, errors = found.get(row["tenant_id"], (0, 0))
        found[row["tenant_id"]] = calls + row["calls"], errors + row["errors"]
    return found


async def show(visit: Visit) -> Response:
    """Everything about one tenant."""
    why = await _why(visit)
    house = visit.house
    told = await _answers(visit, why)
    tenant_id = str(why.tenant.tenant_id)
    kinds: dict[str, Any] = {"versions": list(VERSIONS), "outcome": None, "fault": None}
    origins, calls, volumes = await house.database.together(
        (statement("dashboard", "origins"), {"tenant_id": tenant_id}),
        asking(tenant_id, visit.now - _CALLS_OF, None, "", _CALLS, **kinds),
        _asking_volumes([tenant_id], visit.now),
    )
    return visit.page(
        "tenant.html",
        why=why,
        tenant=why.tenant,
        configs={config["config_id"]: config for config in why.configs},
        answers=[(each, _compared(each)) for each in told],
        origins={row["config_id"]: row for row in origins},
        volumes={row["version"]: (row["calls"], row["errors"]) for row in volumes},
        calls=calls,
    )


def _compared(each: Answers) -> list[Compared]:
    """The configuration of v1 beside that of v2."""
    v1, v2 = each.v1, each.v2
    speed = f"{v2.voice_speed.normalize():f}" if v2 else None
    rows: tuple[tuple[str, str | None, str | None, bool], ...] = (
        ("Assistant name", v1.assistant_name if v1 else None, v2.assistant_name if v2 else None, True),
        ("Greeting", v1.first_message if v1 else None, v2.first_message if v2 else None, True),
        ("Voice", v1.voice_id if v1 else None, v2.voice_id if v2 else None, False),
        ("Voice speed", None, speed, True),
        ("Type", None, v2.assistant_type_id if v2 else None, True),
        ("Personality", None, v2.personality_type if v2 else None, True),
        ("Capabilities", None, ", ".join(v2.enabled_capabilities) if v2 else None, True),
        ("Template", None, v2.template_version if v2 else None, True),
    )
    return [Compared(*row) for row in rows]


async def ask_move(visit: Visit) -> Response:
    """What sending a tenant to v2, or back, would change for its callers."""
    why = await _why(visit)
    version = _version(visit.request.path_params["version"])
    house = visit.house
    told = await _answers(visit, why)
    async with house.database.transaction(read_only=True) as connection:
        wanted = {"tenants": [str(why.tenant.tenant_id)]}
        unverified = await every(connection, statement("flags", "unverified"), wanted)
    active = [each for each in told if each.is_active]
    return visit.page(
        "confirm_move.html",
        tenant=why.tenant,
        flag=why.flag_row,
        version=version,
        answers=active or told,
        unverified=unverified[0]["why"] if unverified else None,
    )


async def move(visit: Visit) -> Response:
    """Send a tenant to v2, or back to v1. Unverified tenants are refused."""
    tenant = (await _why(visit)).tenant
    reason = (await visit.form()).get("reason") or None
    change = (
        visit.house.flags.enable
        if _version(visit.request.path_params["version"]) == "v2"
        else (visit.house.flags.disable)
    )
    await change([str(tenant.tenant_id)], actor=visit.caller.actor, reason=reason)
    return to(f"/tenants/{tenant.tenant_id}")


async def _answers(visit: Visit, why: Why) -> list[Answers]:
    known = [config["config_id"] for config in why.configs]
    fill = visit.house.mapping.fill_answers()
    return await answering.answers(visit.house.database, why.tenant.tenant_id, fill, now=visit.now, config_ids=known)


async def _why(visit: Visit) -> Why:
    written = visit.request.path_params["tenant"]
    fill = {name: rows for name, rows in visit.house.mapping.fill().items() if name != "calls"}
    found = await answering.tenant_of(visit.house.database, written, fill)
    return await states.why(visit.house.database, visit.house.mapping, found.id)


def _version(written: str) -> str:
    _known("version", written, VERSIONS)
    return written


def _known(kind: str, written: str, known: Any) -> None:
    if written and written not in known:
        raise UnknownName(
            f"there is no {kind} {written[:40]!r}.{nearest(written, known)}", fix=f"one of {', '.join(known)}"
        )


def _page_number(written: str) -> int:
    if not (written.isascii() and written.isdigit() and 1 <= int(written[:9]) <= _LAST_PAGE):
        raise UsageError(f"there is no page {written[:20]!r}", fix=f"pages are numbered from 1 to {_LAST_PAGE:,}")
    return int(written)


PLACES = (
    Place("GET", "/tenants", Role.VIEWER, show_all),
    Place("GET", "/tenants/{tenant}", Role.VIEWER, show),
    Place("GET", "/tenants/{tenant}/to/{version}", Role.OPERATOR, ask_move),
    Place("POST", "/tenants/{tenant}/to/{version}", Role.OPERATOR, move),
)
