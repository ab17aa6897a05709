"""Where each tenant stands on its way to v2, and why: derived from what is in the database, stored nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from relevo.db import migrations
from relevo.db.pool import Asked, Connection, Database, every, first
from relevo.db.statements import statement
from relevo.flags.evaluate import VOICE_AGENT_V2, Evaluation, Flag, evaluate, unseen
from relevo.flags.writing import flag_of
from relevo.migration.mapping import SourceMapping

State = Literal["unconfigured", "pending", "quarantined", "drifted", "waiting", "copied", "verified", "live"]

# The first that applies is the state. Each: which, when, and the reason in words.
_Rule = tuple[State, Callable[[Mapping[str, Any]], bool], str]
_RULES: tuple[_Rule, ...] = (
    ("unconfigured", lambda f: f["configs"] == 0, "it has no configuration"),
    ("quarantined", lambda f: f["quarantined"] > 0, "{quarantined} of {configs} set aside: {quarantined_because}"),
    ("pending", lambda f: f["absent"] > 0, "{absent} of {configs} not on v2 yet"),
    (
        "drifted",
        lambda f: f["drifted"] > 0,
        "{drifted} of {configs} differ from what v1 says",
    ),
    ("waiting", lambda f: f["waiting"] > 0, "{waiting} of {configs} have writes that wait for repair"),
    ("copied", lambda f: f["unverified"] > 0, "{unverified} of {configs} never verified"),
)
# Worth knowing, whatever the state.
_NOTES: tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...] = (
    (lambda f: f["clashing"] > 0, "{clashing} with a field that both sides wrote: relevo mirror status"),
    (lambda f: f["edited"] > 0, "{edited} edited on v2: what v1 would not carry"),
    (lambda f: f["without_v1"] > 0, "{without_v1} without a row on v1: going back would leave it without an answer"),
    (lambda f: f["to_review"] > 0, "{to_review} to review: relevo review"),
    (lambda f: f["configs"] > 0 and f["active"] == 0, "none of its configurations is active"),
    (lambda f: not f["known"], "no such business in v1"),
)
_DANGER = "it is on v2 all the same"
WORDS = (_DANGER, *(words for _, _, words in _RULES), *(words for _, words in _NOTES))
"""What the reasons are written from, so that they can be told in another language."""


@dataclass(frozen=True, slots=True)
class TenantState:
    """One tenant and where it stands."""

    tenant_id: UUID
    name: str | None
    vertical: str | None
    state: State
    reasons: tuple[str, ...]  # why it is not further on, then what else is worth knowing
    version: Literal["v1", "v2"]  # by the flag's row
    configs: int
    active: int


@dataclass(frozen=True, slots=True)
class Why:
    """Everything about one tenant."""

    tenant: TenantState
    flag: Evaluation
    flag_row: Flag
    configs: list[dict[str, Any]]


def state_of(fact: Mapping[str, Any], evaluation: Evaluation) -> tuple[State, tuple[str, ...]]:
    """The state that follows from the facts of one tenant, and why."""
    reached = [(state, words.format(**fact)) for state, applies, words in _RULES if applies(fact)]
    notes = [words.format(**fact) for applies, words in _NOTES if applies(fact)]
    if reached:
        danger = [_DANGER] if evaluation.value else []
        return reached[0][0], (*danger, *(words for _, words in reached), *notes)
    return ("live" if evaluation.value else "verified"), tuple(notes)


async def all_tenants(database: Database, mapping: SourceMapping) -> list[TenantState]:
    """Every tenant, by id."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        return tenants_of(await every(connection, *asking_tenants(mapping, None)), await _flag(connection))


def asking_tenants(
    mapping: SourceMapping, tenant_ids: Sequence[UUID] | None, config_ids: Sequence[UUID] | None = None
) -> Asked:
    """What asks for these tenants; None: all. ``config_ids``: their configurations in v1, which are then found by key;
    None: looked for."""
    wanted = {
        "tenant_ids": None if tenant_ids is None else list(tenant_ids),
        "config_ids": None if config_ids is None else list(config_ids),
    }
    return statement("states", "tenants", **mapping.fill()), wanted


def tenants_of(rows: Sequence[Mapping[str, Any]], flag: Flag) -> list[TenantState]:
    """The tenants of the rows that came, by a flag."""
    return [_tenant(row, evaluate(flag, str(row["tenant_id"]))) for row in rows]


async def why(database: Database, mapping: SourceMapping, tenant_id: UUID) -> Why:
    """Everything about one tenant that exists."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        flag = await _flag(connection)
        configs = await every(connection, statement("states", "configs", **mapping.fill()), {"tenant_id": tenant_id})
        known = [config["config_id"] for config in configs]
        (tenant,) = tenants_of(await every(connection, *asking_tenants(mapping, [tenant_id], known)), flag)
    return Why(tenant, evaluate(flag, str(tenant_id)), flag, configs)


def _tenant(row: Mapping[str, Any], evaluation: Evaluation) -> TenantState:
    state, reasons = state_of(row, evaluation)
    return TenantState(
        row["tenant_id"],
        row["name"],
        row["vertical"],
        state,
        reasons,
        evaluation.variant,
        row["configs"],
        row["active"],
    )


async def _flag(connection: Connection) -> Flag:
    row = await first(connection, statement("flags", "flag"), {"name": VOICE_AGENT_V2})
    return unseen() if row is None else flag_of(row)
