"""What the transform makes of one prompt, and which words decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relevo.db import migrations
from relevo.db.pool import Database, every, one
from relevo.db.statements import statement
from relevo.errors import UnknownName, nearest


@dataclass(frozen=True, slots=True)
class Explanation:
    """The inferred fields of a prompt, and what speaks for them."""

    assistant_type_id: str
    enabled_capabilities: list[str]
    special_instructions: str | None
    truncated: bool
    low_confidence: bool
    uncovered: list[dict[str, Any]]
    """Passages that v2 would not carry: ``place`` (code points, from 1) and ``text``."""
    provenance: dict[str, Any]


async def explain(database: Database, *, vertical: str, prompt: str) -> Explanation:
    """Run the transform on a prompt that need not be in the database.

    Raises UnknownName for a vertical that has neither rules nor a type in the catalogue, SchemaMissing before
    ``relevo db up``.
    """
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        known = [row["vertical"] for row in await every(connection, statement("migration", "verticals_in_catalogue"))]
        if vertical not in known:
            raise UnknownName(
                f"there is no vertical {vertical!r}.{nearest(vertical, known)}",
                fix=f"one of: {', '.join(known)}",
            )
        row = await one(connection, statement("migration", "explain"), {"prompt": prompt, "vertical": vertical})
    return Explanation(**row)
