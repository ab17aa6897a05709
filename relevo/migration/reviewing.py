"""What a person should look at before a tenant goes live, with the words that decided and what would be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from relevo.db.pool import Database, every, one
from relevo.db.statements import statement
from relevo.migration.mapping import SourceMapping
from relevo.migration.steps.copy import derive_from_batch
from relevo.migration.steps.verify import AS_MADE

_ROWS_AT_ONCE = 500

REASONS = {
    "low_confidence": "a keyword was met only inside another word, or in a phrase that means something else",
    "truncated": "the special instructions go on past 1,000 characters",
    "customised_name": "the assistant has a name of its own; v2 derives the name from the type",
    "customised_greeting": "the assistant has a greeting of its own; v2 derives the greeting from the template",
    "uncovered": "the prompt says things that v2 would not carry",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A piece of a prompt; ``keyword`` None: nothing decided here."""

    text: str
    keyword: str | None = None
    confident: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration to look at."""

    config_id: UUID
    business_id: UUID
    business_name: str | None
    vertical: str
    reasons: list[str]
    prompt: str
    assistant_name: str | None
    first_message: str | None
    assistant_type_id: str
    enabled_capabilities: list[str]
    special_instructions: str | None
    provenance: dict[str, Any]
    uncovered: list[dict[str, Any]]  # place (code points, from 1) and text

    @property
    def marked(self) -> list[Mark]:
        """The prompt in pieces, the deciding words apart."""
        return mark(self.prompt, self.provenance)


def mark(prompt: str, provenance: dict[str, Any]) -> list[Mark]:
    """Cut a prompt at the keywords that decided; the pieces put together are the prompt."""
    deciding = {
        reason["place"] - 1: reason
        for reason in (*provenance.get("assistant_type_id", ()), *provenance.get("enabled_capabilities", {}).values())
    }
    if heading := provenance.get("special_instructions"):
        deciding[heading["place"] - 1] = {**heading, "keyword": heading["heading"]}
    pieces: list[Mark] = []
    at = 0
    for start in sorted(deciding):
        if start < at:
            continue
        reason = deciding[start]
        end = start + len(reason["keyword"])
        pieces += [
            Mark(prompt[at:start]),
            Mark(prompt[start:end], reason["keyword"], reason["confidence"] == "high"),
        ]
        at = end
    return [piece for piece in (*pieces, Mark(prompt[at:])) if piece.text]


async def entries(
    database: Database, mapping: SourceMapping, *, tenant_ids: Sequence[UUID] | None, uncovered_too: bool = False
) -> AsyncIterator[Entry]:
    """Every configuration in scope with a reason to look at it, by id.

    ``uncovered_too``: also those whose only fault is that their prompt says things v2 would not carry, which is so of
    most prompts of free text.
    """
    query = statement("migration", "review_batch", derive=derive_from_batch(mapping, AS_MADE), **mapping.fill())
    scope = {"tenant_ids": list(tenant_ids) if tenant_ids is not None else None, "batch_size": _ROWS_AT_ONCE}
    after: UUID | None = None
    while True:
        async with database.transaction(read_only=True) as connection:
            batch = await every(connection, query, {**scope, "after": after})
            for row in batch:
                if row["defect"] is None and (row["review"] or uncovered_too):
                    passages = await one(connection, statement("migration", "uncovered"), row)
                    if row["review"] or passages["passages"]:
                        yield _entry(row, passages["passages"])
        if not batch:
            return
        after = batch[-1]["id"]


def _entry(row: dict[str, Any], uncovered: list[dict[str, Any]]) -> Entry:
    return Entry(
        config_id=row["id"],
        business_id=row["business_id"],
        business_name=row["business_name"],
        vertical=row["vertical"],
        reasons=[*row["review"], *(["uncovered"] if uncovered else [])],
        prompt=row["prompt"] or "",
        assistant_name=row["assistant_name"],
        first_message=row["first_message"],
        assistant_type_id=row["assistant_type_id"],
        enabled_capabilities=row["enabled_capabilities"],
        special_instructions=row["special_instructions"],
        provenance=row["provenance"],
        uncovered=uncovered,
    )
