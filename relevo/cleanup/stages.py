"""The stages of the cleanup, and what each waits for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from relevo.errors import UnknownName, nearest
from relevo.report.checklist import ITEMS

KEPT_FOR = timedelta(days=28)
"""How long v1's table is kept after everybody came to v2."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class World:
    """What the stages look at."""

    now: datetime
    completed_at: datetime | None  # when everybody was on v2; None: they are not
    items_done: Collection[str]  # of the checklist
    stages: Collection[str]  # done
    for_all: bool  # the flag is on, for 100 %
    on_v1: Sequence[str]  # active tenants that the flag does not send to v2
    v1_calls: int  # decided for v1 in the last day
    waiting: int  # writes that dual write could not bring over, and conflicts
    open_run: str | None
    table_fault: str | None  # why v1's table cannot be renamed; None: it can
    needed_by: Sequence[str]  # views and keys of others that hang on it
    backups: int  # old enough to go


def _items(world: World, stages: Collection[str], but: Collection[str] = ()) -> list[str]:
    open_items = [
        item.name
        for item in ITEMS
        if item.stage in stages and item.name not in but and item.name not in world.items_done
    ]
    return [f"the checklist is not done: {_few(open_items)}; see: relevo checklist"] if open_items else []


def _before_flags(world: World) -> list[str]:
    found = [] if world.completed_at else ["no rollout is complete; see: relevo rollout status"]
    found += _items(world, {"day_1"}) if world.completed_at else []
    if not world.for_all:
        found.append("the flag is not on for 100 %; see: relevo flags show")
    if world.on_v1:
        found.append(f"{len(world.on_v1)} active tenants live on v1: {_few(world.on_v1)}; see: relevo why TENANT")
    if world.v1_calls:
        found.append(
            f"v1 answered {world.v1_calls:,} calls in the last day; numbers that never ask us? relevo vapi numbers"
        )
    return found


def _before_deprecate(world: World) -> list[str]:
    found = _done(world, "flags") + _items(world, {"day_1", "week_1"}, {"old_tables_marked"})
    if world.waiting:
        found.append(f"{world.waiting} writes wait or are in conflict; see: relevo mirror status")
    if world.open_run:
        found.append(f"run {world.open_run} is open; finish it: relevo migrate --resume {world.open_run}")
    return found + ([world.table_fault] if world.table_fault else [])


def _before_drop(world: World) -> list[str]:
    found = _done(world, "deprecate") + _items(world, {"day_1", "week_1"})
    found += [] if "v1_code_removed" in world.items_done else ["nobody signed v1_code_removed; see: relevo checklist"]
    if world.completed_at and world.now < world.completed_at + KEPT_FOR:
        found.append(f"v1 is kept until {world.completed_at + KEPT_FOR:%Y-%m-%d %H:%M} UTC, 28 days after the rollout")
    if world.needed_by:
        found.append(f"v1's table is needed by {_few(world.needed_by)}; drop or change these first")
    return found


def _before_backups(world: World) -> list[str]:
    found = _done(world, "drop")
    return found or ([] if world.backups else ["no backup is old enough to go; see: relevo backups list"])


def _done(world: World, stage: str) -> list[str]:
    return [] if stage in world.stages else [f"stage {stage} is not done; run: relevo cleanup --stage {stage}"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what it does, what it waits for, and whether it can be undone."""

    name: str
    means: str
    blockers: Callable[[World], list[str]]
    undone_before: str | None  # the stage that must not be done when it is undone; None: it cannot be undone


_ALL = (
    Stage("flags", "v1 answers nobody any more; the flag's row is history", _before_flags, "deprecate"),
    Stage("deprecate", "dual write ends; v1's table is renamed and takes no writes", _before_deprecate, "drop"),
    Stage("drop", "v1's table and the archive of its prompts go, once exported", _before_drop, None),
    Stage("backups", "old backups go", _before_backups, None),
)
STAGES: Mapping[str, Stage] = MappingProxyType({stage.name: stage for stage in _ALL})


def stage_of(name: str) -> Stage:
    """The stage of a name. Raises UnknownName with the nearest."""
    if name not in STAGES:
        raise UnknownName(f"there is no stage {name!r}.{nearest(name, STAGES)}", fix=f"one of: {', '.join(STAGES)}")
    return STAGES[name]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
