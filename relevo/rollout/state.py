"""The states of a rollout and every arrow between them, as a table. Pure.

What is asked (the phase, its cohort, the flag's version) and what is reached (every process answers by it) are
different things: Pending is the time in between. relevo/sql/0017_rollout.sql holds the same arrows, and refuses others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from relevo.rollout.gate import Evaluation

State = Literal["Pending", "Progressing", "Paused", "Degraded", "Healthy", "RolledBack", "Complete"]
Cause = Literal["operator", "flag", "max_hold", "rollback", "undo"]
Event = Literal[
    "reach", "pass", "relapse", "degrade", "heal", "promote", "force", "finish", "pause", "overrule", "expire",
    "resume", "single_out", "shrink", "roll_back", "abort", "undo",
]  # fmt: skip

OPEN: tuple[State, ...] = ("Pending", "Progressing", "Healthy", "Degraded", "Paused")
ENDED: tuple[State, ...] = ("RolledBack", "Complete")


@dataclass(frozen=True, slots=True)
class Arrow:
    """One way from one state to another."""

    source: State
    event: Event
    target: State
    sentence: str


def _from(sources: tuple[State, ...], event: Event, target: State, sentence: str) -> tuple[Arrow, ...]:
    return tuple(Arrow(source, event, target, sentence) for source in sources)


_RUNNING: tuple[State, ...] = ("Pending", "Progressing", "Healthy", "Degraded")
ARROWS: tuple[Arrow, ...] = (
    *_from(("Pending",), "reach", "Progressing", "every process answers by the phase's cohort"),
    *_from(("Progressing",), "pass", "Healthy", "the gate passes and the shortest hold is over"),
    *_from(("Healthy",), "relapse", "Progressing", "the gate does not pass any more"),
    *_from(("Progressing", "Healthy"), "degrade", "Degraded", "v2 fails and is not shown to be worse than v1"),
    *_from(("Degraded",), "heal", "Progressing", "the guardrail holds again"),
    *_from(("Healthy",), "promote", "Pending", "the next phase's tenants join"),
    *_from(
        ("Progressing", "Healthy", "Paused"),
        "force",
        "Pending",
        "a human takes the next phase with the numbers in front of them",
    ),
    *_from(("Healthy",), "finish", "Complete", "everybody is on v2 and the last gate passes"),
    *_from(("Progressing", "Paused"), "finish", "Complete", "a human ends the last phase"),
    *_from(_RUNNING, "pause", "Paused", "a human pauses"),
    *_from(OPEN, "overrule", "Paused", "a human changed the flag"),
    *_from(("Progressing",), "expire", "Paused", "the longest hold is over without a pass"),
    *_from(("Paused",), "resume", "Pending", "a human resumes, with the cohort as it is now"),
    *_from(("Pending", "Progressing", "Healthy", "Degraded"), "single_out", "Pending", "one tenant goes back to v1"),
    *_from(("Paused",), "single_out", "Paused", "one tenant goes back to v1"),
    *_from(OPEN, "shrink", "Paused", "the last to join go back to v1"),
    *_from(OPEN, "roll_back", "RolledBack", "everybody goes back to v1"),
    *_from(OPEN, "abort", "RolledBack", "a human ends it, and everybody goes back to v1"),
    *_from(("RolledBack",), "undo", "Paused", "a human undoes the way back"),
)
TRANSITIONS: dict[tuple[State, Event], Arrow] = {(arrow.source, arrow.event): arrow for arrow in ARROWS}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rollout is."""

    state: State
    phase: int  # asked for
    phases: int
    flag_version: int  # that the phase asked for; the flag's own is another where somebody changed it
    hold_until: datetime | None = None  # the shortest hold; None until the phase is reached
    expires_at: datetime | None = None  # the longest
    due_at: datetime | None = None  # the next evaluation that can promote
    paused_at: datetime | None = None
    cause: Cause | None = None  # of the pause
    automatic_promotion: bool = False
    automatic_rollback: bool = True

    @property
    def is_last(self) -> bool:
        """Whether no phase comes after."""
        return self.phase == self.phases - 1

    @property
    def obeys_a_human(self) -> bool:
        """A human decided who is on v2; the controller then only tells."""
        return self.state == "Paused" and self.cause in ("flag", "undo")


@dataclass(frozen=True, slots=True)
class Move:
    """What is to happen, and why."""

    event: Event
    why: str
    tenant: str | None = None  # single_out: who
    phase: int | None = None  # promote, shrink: to which one


def may(state: State, event: Event) -> bool:
    """Whether there is such an arrow."""
    return (state, event) in TRANSITIONS


def after(state: State, event: Event) -> State:
    """Where an arrow leads. Raises KeyError where there is none."""
    return TRANSITIONS[state, event].target


def decide(
    standing: Standing,
    said: Evaluation,
    now: datetime,
    *,
    reached: bool,
    frozen_until: datetime | None = None,
    back_to: int | None = None,
) -> Move | None:
    """What the controller does at a tick; None: nothing. Guardrails first, then what time brings, then promotion.

    ``reached``: every process answers by the version asked for. ``back_to``: the last phase before with fewer tenants
    than are on v2, and any; None where there is none.
    """
    if standing.state in ENDED:
        return None
    if (back := _back(standing, said, back_to)) is not None:
        return back
    if standing.state == "Paused":
        return None
    if standing.state == "Pending":
        return Move("reach", "every process answers by it") if reached else None
    if standing.state == "Degraded":
        return Move("heal", said.why) if said.verdict in ("pass", "inconclusive") else None
    return _on(standing, said, now, frozen_until)


def _back(standing: Standing, said: Evaluation, back_to: int | None) -> Move | None:
    """Backwards, or somebody is told."""
    if said.verdict != "fail" or standing.obeys_a_human:
        return None
    if said.level is not None and standing.automatic_rollback:
        if said.level == 2 and back_to is not None:
            return Move("shrink", said.why, phase=back_to)
        # Level 2 with nobody to be fewer than those on v2 is level 3.
        return Move("single_out" if said.level == 1 else "roll_back", said.why, said.tenant)
    return Move("degrade", said.why) if may(standing.state, "degrade") else None


def _on(standing: Standing, said: Evaluation, now: datetime, frozen_until: datetime | None) -> Move | None:
    """Forwards: Progressing and Healthy."""
    passes = said.verdict == "pass"
    held = standing.hold_until is not None and now >= standing.hold_until
    if standing.state == "Healthy":
        if not passes:
            return Move("relapse", said.why)
        if standing.is_last:
            return Move("finish", said.why)
        if standing.automatic_promotion and frozen_until is None:
            return Move("promote", said.why, phase=standing.phase + 1)
        return None
    expired = standing.expires_at is not None and now >= standing.expires_at
    due = standing.due_at is None or now >= standing.due_at
    if passes and held and (due or expired):
        return Move("pass", said.why)
    if expired:
        return Move("expire", f"at the longest hold: {said.why}")
    return None


def within(standing: Standing, now: datetime, least: timedelta, most: timedelta, every: timedelta) -> Standing:
    """The same with no timer further away than its own length: a clock that ran ahead, and was set right, has set them
    too far."""

    def at_most(moment: datetime | None, length: timedelta) -> datetime | None:
        return None if moment is None else min(moment, now + length)

    if standing.state == "Paused":
        return standing  # its timers stand still, and begin from when it was paused
    return replace(
        standing,
        hold_until=at_most(standing.hold_until, least),
        expires_at=at_most(standing.expires_at, most),
        due_at=at_most(standing.due_at, every),
    )


def shifted(standing: Standing, now: datetime) -> Standing:
    """The same with its timers moved on by the length of the pause: a pause costs no time."""
    if standing.paused_at is None:
        return standing
    by = max(now - standing.paused_at, timedelta(0))

    def later(moment: datetime | None) -> datetime | None:
        return None if moment is None else moment + by

    return replace(
        standing,
        hold_until=later(standing.hold_until),
        expires_at=later(standing.expires_at),
        due_at=later(standing.due_at),
        paused_at=None,
        cause=None,
    )
