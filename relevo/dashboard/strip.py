"""Where a rollout is, as the overview shows it: its phases with holds and times, and what the gate said last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from relevo.dashboard import wheel
from relevo.dashboard.wheel import Offer
from relevo.db.pool import Asked
from relevo.db.statements import statement
from relevo.rollout.gate import shown
from relevo.rollout.moving import Rollout, rollout_of
from relevo.rollout.plan import Phase, frozen_until

Part = Literal["over", "now", "to come"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """One phase of the strip."""

    number: int  # from 1
    phase: Phase
    tenants: int  # on v2 in it, as planned
    part: Part
    asked_at: datetime | None
    reached_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric as the gate saw it."""

    label: str
    value: str
    limits: str
    counts: str  # bad of all
    interval: str
    v1: str
    grade: str  # go, between, no_go, unknown
    worst_tenant: str | None


@dataclass(frozen=True, slots=True)
class Said:
    """The gate's last word; it holds until there is another."""

    verdict: Any  # pass, fail, inconclusive, error
    level: int | None
    why: str
    at: datetime
    rows: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """The newest rollout."""

    rollout: Rollout
    stretches: tuple[Stretch, ...]
    said: Said | None
    offers: list[Offer]
    frozen_until: datetime | None
    readers: int
    behind: int  # processes that answer by an older version than was asked for

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.rollout.finished_at is None


ASKING: tuple[Asked, ...] = tuple(
    (statement("dashboard", f"newest_{name}"), {}) for name in ("rollout", "phases", "evaluation", "readers")
)
"""What is asked for it."""


def strip(answers: Sequence[Sequence[Mapping[str, Any]]], now: datetime) -> Strip | None:
    """The newest rollout, running or not, of the answers to ASKING; None where there never was one."""
    found, phases, evaluations, readers = answers
    if not found:
        return None
    rollout = rollout_of(found[0])
    last = evaluations[0] if evaluations else None
    said = None if last is None or last["phase"] != rollout.standing.phase else _said(last)
    until = frozen_until(rollout.plan, now)
    offers = wheel.offers(rollout, said.verdict if said else None, frozen=until is not None)
    versions = [row["version"] for row in readers]
    behind = sum(version < rollout.standing.flag_version for version in versions)
    return Strip(rollout, _stretches(rollout, phases), said, offers, until, len(versions), behind)


def _stretches(rollout: Rollout, rows: Sequence[Mapping[str, Any]]) -> tuple[Stretch, ...]:
    found = []
    for row, phase in zip(rows, rollout.plan.phases, strict=True):
        number = row["ordinal"]
        part: Part = "over" if number < rollout.standing.phase or rollout.finished_at else "to come"
        if number == rollout.standing.phase and not rollout.finished_at:
            part = "now"
        if row["asked_at"] is None:
            part = "to come"
        times = (row["asked_at"], row["reached_at"], row["ended_at"])
        found.append(Stretch(number + 1, phase, row["tenants"], part, *times))
    return tuple(found)


LABELS = {
    "error_rate": "Error rate",
    "p95_latency_ms": "p95 latency",
    "failed_call_rate": "Failed calls",
    "breaker_opens": "Circuit breaker openings",
    "complaints": "Complaints",
}


def _said(row: Mapping[str, Any]) -> Said:
    details = row["details"]
    rows = tuple(_compared(each) for each in details["findings"])
    return Said(row["verdict"], row["level"], details["why"], row["at"], rows)


def _compared(found: Mapping[str, Any]) -> Compared:
    metric = found["metric"]
    low_high = found["interval"]
    return Compared(
        LABELS[metric],
        shown(metric, found["value"]),
        f"Go {shown(metric, found['go'])} · No-Go {shown(metric, found['no_go'])}",
        f"{found['bad']:,} / {found['of']:,}" if found["of"] else "",
        f"{100 * low_high[0]:.2f}–{100 * low_high[1]:.2f} %" if low_high else "",
        shown(metric, found["v1"]),
        found["grade"],
        found["worst_tenant"],
    )
