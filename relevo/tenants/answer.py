"""What v1 and v2 would say to a caller of one tenant, before anybody is enabled. Reads, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import sql

from relevo.db import migrations
from relevo.db.pool import Connection, Database, every
from relevo.db.statements import statement
from relevo.errors import UnknownName, nearest

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

Fill = Mapping[str, sql.Composable]
"""v1 through the source mapping: ``configurations`` and ``tenants``; for the answers also ``tenants_table``, and of its
columns ``tenant_id`` and ``time_zone``."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One business."""

    id: UUID
    name: str | None


@dataclass(frozen=True, slots=True)
class SaidByV1:
    """What the v1 row holds, as it is."""

    assistant_name: str | None
    first_message: str | None
    voice_id: str | None
    system_prompt: str | None


@dataclass(frozen=True, slots=True)
class SaidByV2:
    """What the template makes of the v2 row."""

    assistant_name: str
    first_message: str
    voice_id: str
    voice_speed: Decimal
    assistant_type_id: str
    enabled_capabilities: list[str]
    personality_type: str
    system_prompt: str  # as stored and compared; without what a call adds
    added_at_call: str  # today's date and the hour, as of now
    template_version: str  # which spoke; another than the row names where that one is unknown
    unknown: list[str]  # what the row names and the templates do not know


@dataclass(frozen=True, slots=True)
class Answers:
    """One configuration, both ways."""

    config_id: UUID
    is_active: bool | None
    v1: SaidByV1 | None  # None: there is no v1 row
    v2: SaidByV2 | None  # None: there is no v2 row; ``v2_missing`` says why
    v2_missing: str | None
    not_carried: list[dict[str, Any]]
    """What v1 says and v2 would not: ``place`` in v1's prompt (code points, from 1) and ``text``."""
    retold: list[dict[str, Any]]
    """Sections of v1's prompt that v2 tells in words of its own: ``place``, ``text``, and the field it is
    ``carried_by``. What is particular in them, as an opening hour, v2 knows only from its tools."""


async def tenant_of(database: Database, word: str, fill: Fill) -> Tenant:
    """The tenant that a word means: an id, the beginning of one, or a name whatever its case and accents.

    Raises UnknownName, with the nearest names, for none and for several; SchemaMissing.
    """
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        mapped = {name: fill[name] for name in ("configurations", "tenants")}
        if _UUID.fullmatch(word.strip()):
            by_id = await every(connection, statement("tenants", "tenant_by_id", **mapped), {"id": UUID(word.strip())})
            if by_id:
                return Tenant(by_id[0]["id"], by_id[0]["name"])
        found = await every(connection, statement("tenants", "tenants_like", **mapped), {"word": word.strip()})
        if not found or not word.strip():
            raise await _unknown(connection, word, fill)
    if len(found) > 1:
        several = ", ".join(f"{row['id']} ({row['name']})" for row in found[:10])
        raise UnknownName(f"{word!r} may be any of several tenants: {several}", fix="name one by its id")
    return Tenant(found[0]["id"], found[0]["name"])


async def answers(
    database: Database, tenant_id: UUID, fill: Fill, *, now: datetime, config_ids: Sequence[UUID] | None = None
) -> list[Answers]:
    """Both answers of each configuration, active ones first; empty for a tenant without any. ``config_ids``: theirs,
    which are then found by key in v1; None: looked for."""
    asked = {"tenant_id": tenant_id, "now": now, "config_ids": None if config_ids is None else list(config_ids)}
    async with database.transaction(read_only=True, snapshot=True) as connection:
        rows = await every(connection, statement("tenants", "answers", **fill), asked)
    return [_answers(row) for row in rows]


def _answers(row: dict[str, Any]) -> Answers:
    said_by_v1 = {name: row[f"v1_{name}"] for name in SaidByV1.__slots__}
    said_by_v2 = {name: row[name] for name in SaidByV2.__slots__}
    return Answers(
        config_id=row["config_id"],
        is_active=row["is_active"],
        v1=SaidByV1(**said_by_v1) if row["in_v1"] else None,
        v2=SaidByV2(**said_by_v2) if row["in_v2"] else None,
        v2_missing=None if row["in_v2"] else _why_missing(row["set_aside_because"]),
        not_carried=row["not_carried"],
        retold=row["retold"],
    )


def _why_missing(set_aside_because: str | None) -> str:
    if set_aside_because is None:
        return "it has not been moved yet; run: relevo migrate"
    return f"it is set aside: {set_aside_because}; correct it and run: relevo quarantine retry"


async def _unknown(connection: Connection, word: str, fill: Fill) -> UnknownName:
    rows = await every(connection, statement("tenants", "tenant_names", tenants=fill["tenants"]))
    known = [row["name"] for row in rows if row["name"]] + [row["id"] for row in rows]
    return UnknownName(f"there is no tenant {word!r}.{nearest(word, known)}", fix="name it by its id or its name")
