"""Decisions of people that win over inference: read from a file, checked whole, kept in the database.

The file is TOML (or JSON of the same shape): a table per configuration, or per tenant, by its id.

    ["0f8b2a9e-6c1d-4e57-9a35-3d2f1c7b8e90"]
    assistant_type_id = "rest_complete"
    enabled_capabilities = ["reservations", "orders"]
    special_instructions = "No aceptar perros."   # "" for none
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from relevo.db.pool import Connection, Database, every
from relevo.db.statements import statement
from relevo.errors import ConfigurationError, UnknownName, nearest
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import Work, audit

FIELDS = ("assistant_type_id", "enabled_capabilities", "special_instructions")
_LONGEST_INSTRUCTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Override:
    """What somebody decided for one configuration."""

    config_id: UUID
    decided: Mapping[str, Any]  # field -> value; special_instructions None: none


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The file's tables by id. Raises ConfigurationError for a file that is not of this shape."""
    try:
        text = file.read_text(encoding="utf-8")
        tables = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", fix="name an existing file") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}", fix="correct that line") from error
    if not isinstance(tables, dict) or not all(isinstance(table, dict) and table for table in tables.values()):
        raise ConfigurationError(
            f"{file} is not a table of overrides per id", fix='write ["ID"] and below it assistant_type_id = "…"'
        )
    return tables


async def check(database: Database, mapping: SourceMapping, tables: dict[str, dict[str, Any]]) -> list[Override]:
    """The overrides of a file, one per configuration. All is checked before anything is written.

    Raises UnknownName for an id, field, type or capability that does not exist, ConfigurationError for a value of the
    wrong kind.
    """
    async with database.transaction(read_only=True) as connection:
        query = statement("migration", "override_targets", **mapping.fill())
        targets = await every(connection, query, {"ids": list(tables)})
        (names,) = await every(connection, statement("migration", "override_names"))
    overrides = []
    for key, table in tables.items():
        configs = [row["config_id"] for row in targets if row["key"] == key.lower()]
        if not configs:
            raise UnknownName(f"overrides: {key} is neither a configuration nor a tenant", fix="correct the id")
        decided = {name: _value(key, name, written, names) for name, written in table.items()}
        overrides += [Override(config_id, decided) for config_id in configs]
    return overrides


async def store(
    connection: Connection, overrides: Iterable[Override], *, run_id: UUID, actor: str, reason: str | None
) -> None:
    """Keep the decisions, and what they replace, so that an undone run takes them back."""
    many = 0
    for override in overrides:
        many += 1
        await connection.execute(
            statement("migration", "store_override"),
            {
                "config_id": override.config_id,
                "run_id": run_id,
                "fields": list(override.decided),
                **{name: override.decided.get(name) for name in FIELDS},
                "actor": actor,
                "reason": reason,
            },
        )
    if many:
        details = {"configurations": many}
        await audit(connection, actor=actor, action="overrides.store", subject=run_id, reason=reason, details=details)


async def apply(connection: Connection, work: Work) -> None:
    """Let the run's decisions take effect on rows that v2 already has."""
    run_id = {"run_id": work.run.id}
    await connection.execute(statement("migration", "apply_overrides"), run_id)
    await connection.execute(statement("migration", "note_overrides"), run_id)


def _value(key: str, name: str, written: object, names: Mapping[str, list[str]]) -> Any:
    where = f"overrides: {key}: {name}"
    match name:
        case "assistant_type_id":
            return _one_of(where, written, names["types"])
        case "enabled_capabilities":
            if not isinstance(written, list) or not written:
                raise ConfigurationError(f"{where} is not a list of capabilities", fix='write ["reservations"]')
            return [_one_of(where, each, names["capabilities"]) for each in written]
        case "special_instructions":
            if not isinstance(written, str) or len(written) > _LONGEST_INSTRUCTIONS:
                raise ConfigurationError(
                    f"{where} is not a text of at most 1,000 characters", fix="shorten it, or write it in quotes"
                )
            return written or None
        case _:
            raise UnknownName(
                f"overrides: {key} has no field {name!r}.{nearest(name, FIELDS)}", fix=f"one of: {', '.join(FIELDS)}"
            )


def _one_of(where: str, written: object, known: list[str]) -> str:
    if not isinstance(written, str) or written not in known:
        raise UnknownName(
            f"{where}: there is no {written!r}.{nearest(str(written), known)}", fix=f"one of: {', '.join(known)}"
        )
    return written
