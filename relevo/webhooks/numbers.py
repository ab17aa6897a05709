"""Which numbers ask us. Vapi asks only for a number that is bound to no assistant, squad or workflow: on a bound one
the flag changes nothing of what the caller hears.

Adopting unbinds; what it changed is stored before it is changed, so that releasing puts it back, also after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relevo.clock import Clock
from relevo.db.pool import Database, every
from relevo.db.statements import statement
from relevo.errors import RelevoError, UnknownName
from relevo.webhooks.vapi import Vapi

_BINDINGS = ("assistantId", "squadId", "workflowId")
_CHANGED = (*_BINDINGS, "fallbackDestination", "server")


@dataclass(frozen=True, slots=True)
class Number:
    """A number at Vapi, as it was last seen."""

    id: str
    number: str | None
    name: str | None
    assistant_id: str | None
    squad_id: str | None
    workflow_id: str | None
    fallback: dict[str, Any] | None  # where Vapi transfers when nobody answers assistant-request in time
    server: dict[str, Any] | None
    bound: bool  # to something, so that it never asks us
    seen_at: datetime
    adopted_at: datetime | None
    adopted_by: str | None
    before: dict[str, Any] | None  # what releasing puts back
    tenants: tuple[str, ...]  # whose configurations name it
    human_line: str | None  # where a person of the one tenant answers, by the platform's own table


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of adopting or releasing one number; ``failure`` None: it was done."""

    number: Number
    failure: RelevoError | None = None


async def read(database: Database, vapi: Vapi, clock: Clock) -> list[Number]:
    """The numbers as they are at Vapi now, remembered. Raises VapiUnreachable, VapiRefused."""
    found, now = await vapi.numbers(), clock()
    async with database.transaction() as connection:
        for each in found:
            await connection.execute(statement("router", "see_number"), {**_seen(each), "now": now})
        await connection.execute(statement("router", "forget_numbers"), {"before": now})
    return await remembered(database)


async def remembered(database: Database) -> list[Number]:
    """The numbers as they were last read."""
    async with database.transaction(read_only=True) as connection:
        rows = await every(connection, statement("router", "numbers"))
    return [Number(**{**row, "tenants": tuple(row["tenants"])}) for row in rows]


async def adopt(
    database: Database,
    vapi: Vapi,
    clock: Clock,
    *,
    tenants: Collection[str] | None,
    webhook: str | None,
    transfer_to: str | None,
    actor: str,
    reason: str | None,
) -> list[Changed]:
    """Unbind the numbers of tenants (None: of all), so that they ask us. ``webhook``: the URL they should ask; None
    leaves what they have. ``transfer_to``: their fallback; None leaves it, and where there is none takes the business's
    own line to a person. Numbers of nobody are left alone.

    Raises UnknownName for a tenant without a number, VapiUnreachable, VapiRefused.
    """
    done = []
    for number in _of(await read(database, vapi, clock), tenants):
        change: dict[str, Any] = dict.fromkeys(_BINDINGS)
        line = transfer_to or (number.human_line if number.fallback is None else None)
        if line is not None:
            change["fallbackDestination"] = {"type": "number", "number": line}
        if webhook is not None:
            change["server"] = {**(number.server or {}), "url": webhook}
        if not number.bound and number.adopted_at is not None:
            continue
        was = {
            "assistantId": number.assistant_id,
            "squadId": number.squad_id,
            "workflowId": number.workflow_id,
            "fallbackDestination": number.fallback,
            "server": number.server,
        }
        before = {name: was[name] for name in _CHANGED if name in change}
        kept = {"id": number.id, "now": clock(), "actor": actor, "reason": reason, "before": json.dumps(before)}
        async with database.transaction() as connection:
            await connection.execute(statement("router", "adopt"), kept)
        done.append(await _change(database, vapi, clock, number, change))
        if done[-1].failure is not None and number.adopted_at is None:
            await _forget(database, number, actor, f"not done: {done[-1].failure}")
    return done


async def release(
    database: Database, vapi: Vapi, clock: Clock, *, tenants: Collection[str] | None, actor: str, reason: str | None
) -> list[Changed]:
    """Put back what adopting changed. Raises UnknownName, VapiUnreachable, VapiRefused."""
    done = []
    for number in _of(await read(database, vapi, clock), tenants):
        if number.before is not None:
            done.append(await _change(database, vapi, clock, number, number.before))
            if done[-1].failure is None:
                await _forget(database, number, actor, reason)
    return done


async def _change(database: Database, vapi: Vapi, clock: Clock, number: Number, change: dict[str, Any]) -> Changed:
    try:
        now = await vapi.change_number(number.id, change)
    except RelevoError as failure:
        return Changed(number, failure)
    async with database.transaction() as connection:
        await connection.execute(statement("router", "see_number"), {**_seen({"id": number.id, **now}), "now": clock()})
    return Changed(number)


async def _forget(database: Database, number: Number, actor: str, reason: str | None) -> None:
    async with database.transaction() as connection:
        given = {"id": number.id, "actor": actor, "reason": reason}
        await connection.execute(statement("router", "release_number"), given)


def is_bound(number: dict[str, Any]) -> bool:
    """Whether a number as Vapi describes it never asks us."""
    return any(number.get(name) for name in _BINDINGS)


def _of(numbers: list[Number], tenants: Collection[str] | None) -> list[Number]:
    """The numbers of some tenants; of all, those that are anybody's."""
    if tenants is None:
        return [number for number in numbers if number.tenants]
    for tenant in tenants:
        if not any(tenant in number.tenants for number in numbers):
            raise UnknownName(
                f"no number at Vapi belongs to tenant {tenant}", fix="see its phone_number_id: relevo why, vapi numbers"
            )
    return [number for number in numbers if set(number.tenants) & set(tenants)]


def _seen(number: dict[str, Any]) -> dict[str, Any]:
    def text(name: str) -> str | None:
        value = number.get(name)
        return value if isinstance(value, str) and value else None

    def stored(name: str) -> str | None:
        value = number.get(name)
        return json.dumps(value) if isinstance(value, dict) else None

    return {
        "id": number["id"],
        "number": text("number"),
        "name": text("name"),
        "assistant_id": text("assistantId"),
        "squad_id": text("squadId"),
        "workflow_id": text("workflowId"),
        "fallback": stored("fallbackDestination"),
        "server": stored("server"),
    }
