"""What a person may do with a rollout, and when: a table of actions over its states and the gate's last word. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from relevo.rollout.gate import Verdict
from relevo.rollout.moving import Rollout
from relevo.rollout.state import Event, may

Action = Literal["promote", "skip", "pause", "resume", "abort"]
ACTIONS: tuple[Action, ...] = get_args(Action)

# Why nobody can promote, by what the gate says or by the state.
REFUSALS = {
    "fail": "the gate fails",
    "error": "the gate could not measure",
    "Pending": "not every process answers by the present phase yet",
    "Degraded": "v2 fails, and v1 with it",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """An action as it is offered."""

    action: Action
    label: str
    refused: str | None  # why it cannot be taken; None: it can
    forced: bool = False  # only over the gate, a hold or a freeze, by somebody who says why


@dataclass(frozen=True, slots=True)
class _Rule:
    action: Action
    label: str
    shown: Callable[[Rollout], bool]  # whether it makes sense at all where the rollout is


def _arrow(event: Event) -> Callable[[Rollout], bool]:
    return lambda rollout: may(rollout.standing.state, event)


_RULES = (
    _Rule("promote", "Promote", lambda _rollout: True),
    _Rule("skip", "Skip the next phase", lambda rollout: rollout.standing.phase + 2 < rollout.standing.phases),
    _Rule("pause", "Pause", _arrow("pause")),
    _Rule("resume", "Resume", _arrow("resume")),
    _Rule("abort", "Abort", _arrow("abort")),
)
LABELS = (*(rule.label for rule in _RULES), "Complete")


def offers(rollout: Rollout, verdict: Verdict | None, *, frozen: bool) -> list[Offer]:
    """What can be done now, in order; nothing with one that has ended. ``verdict``: the gate's last one; None where it
    never spoke."""
    if rollout.finished_at is not None:
        return []
    return [_offer(rule, rollout, verdict, frozen) for rule in _RULES if rule.shown(rollout)]


def offer(action: Action, rollout: Rollout, verdict: Verdict | None, *, frozen: bool) -> Offer | None:
    """One of them; None where there is nothing of the kind to do."""
    return next((each for each in offers(rollout, verdict, frozen=frozen) if each.action == action), None)


def event(action: Action, rollout: Rollout, *, forced: bool) -> Event:
    """The arrow that an action takes."""
    if action == "pause" or action == "resume" or action == "abort":
        return action
    return "finish" if rollout.standing.is_last else "force" if forced else "promote"


def _offer(rule: _Rule, rollout: Rollout, verdict: Verdict | None, frozen: bool) -> Offer:
    if rule.action not in ("promote", "skip"):
        return Offer(rule.action, rule.label, None)
    label = "Complete" if rollout.standing.is_last else rule.label
    ready = rollout.standing.state == "Healthy" and verdict == "pass" and not frozen
    refused = REFUSALS.get(verdict or "")
    if refused is None and not may(rollout.standing.state, event(rule.action, rollout, forced=not ready)):
        refused = REFUSALS[rollout.standing.state]
    return Offer(rule.action, label, refused, forced=not ready)
