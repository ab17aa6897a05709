"""What can be done from the overview: each action asks on a page of its own first, then is done."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.alerts.incidents import acknowledge
from relevo.dashboard import judging, steering, wheel
from relevo.dashboard.house import Visit, to
from relevo.dashboard.places import Place
from relevo.dashboard.steering import STEPS, Step
from relevo.dashboard.wheel import ACTIONS, Action, Offer
from relevo.errors import Refused, UnknownName, UsageError, nearest
from relevo.metrics.reading import health
from relevo.metrics.window import Window
from relevo.rollout import operating
from relevo.rollout.gate import Evaluation
from relevo.rollout.moving import Rollout
from relevo.rollout.plan import frozen_until

DONE = ("extend", "rollback", *ACTIONS)


@dataclass(frozen=True, slots=True)
class Gated:
    """What the gate says of going on, right now."""

    rollout: Rollout
    said: Evaluation
    offer: Offer


async def ask_extend(visit: Visit) -> Response:
    """What extending would change, and for whom."""
    return await _ask(visit, Step("extend", _points(visit.asked("points"))), "/extend")


async def extend(visit: Visit) -> Response:
    """Put more tenants on v2."""
    sent = await visit.form()
    await _take(visit, Step("extend", _points(sent.get("points", ""))))
    return to("/?done=extend")


async def ask_roll_back(visit: Visit) -> Response:
    """What the total rollback would change, and for whom."""
    return await _ask(visit, Step("roll_back"), "/rollback")


async def roll_back(visit: Visit) -> Response:
    """Everybody back on v1."""
    entry = await _take(visit, Step("roll_back"))
    return to(f"/?done=rollback&entry={entry}")


async def ask_rollout(visit: Visit) -> Response:
    """What an action on the rollout would change, and for whom."""
    action = _action(visit)
    gated = await _gated(visit, action)
    step = Step(action, forced=gated is not None and gated.offer.forced)
    return await _ask(visit, step, f"/rollout/{action}", gated)


async def act(visit: Visit) -> Response:
    """Take an action on the rollout."""
    action = _action(visit)
    sent = await visit.form()
    forced = sent.get("forced") == "yes"
    if forced and not sent.get("reason"):
        raise UsageError("going over the gate needs a reason", fix="go back and say why; it goes to the audit log")
    await _take(visit, Step(action, forced=forced))
    return to(f"/?done={action}")


async def ack(visit: Visit) -> Response:
    """Say that somebody is at an incident."""
    written = (await visit.form()).get("incident", "")
    if not (written.isascii() and written.isdigit() and len(written) < 19):
        raise UnknownName("there is no such incident", fix="go back to the overview")
    async with visit.house.database.transaction() as connection:
        await acknowledge(connection, int(written), visit.now, actor=visit.caller.actor, reason=None)
    return to("/#alerts")


async def _gated(visit: Visit, action: Action) -> Gated | None:
    """The gate's word on an action; None where the gate has no say. Raises Refused where it cannot be taken."""
    rollout = await steering.newest(visit.house)
    if rollout is None or rollout.finished_at is not None:
        raise Refused("no rollout runs", fix="start one: relevo rollout start --canary a,b")
    frozen = frozen_until(rollout.plan, visit.now) is not None
    if action in ("promote", "skip"):
        rollout, said = await operating.evaluate(visit.house.database, visit.now)
        found = wheel.offer(action, rollout, said.verdict, frozen=frozen)
        if found is not None and found.refused is None:
            return Gated(rollout, said, found)
        if found is not None:
            raise Refused(f"not offered: {found.refused} ({said.why})", fix="see the gate's figures on the overview")
    elif wheel.offer(action, rollout, None, frozen=frozen) is not None:
        return None
    raise Refused(
        f"a rollout that is {rollout.standing.state} has nothing to {action}", fix="see where it is on the overview"
    )


async def _ask(visit: Visit, step: Step, address: str, gated: Gated | None = None) -> Response:
    found = await steering.outlook(visit.house, step)
    limits = judging.in_force(found.rollout.plan.limits if found.rollout else None)
    async with visit.house.database.transaction(read_only=True) as connection:
        v2 = (await health(connection, Window.last(judging.USUAL, visit.now)))["v2"]
    verdict = judging.verdict(v2, limits)
    return visit.page("confirm_step.html", step=step, found=found, verdict=verdict, address=address, gated=gated)


async def _take(visit: Visit, step: Step) -> int | None:
    sent = await visit.form()
    actor, reason = visit.caller.actor, sent.get("reason") or None
    return await steering.take(visit.house, step, seen=sent.get("seen", ""), actor=actor, reason=reason)


def _action(visit: Visit) -> Action:
    written = visit.request.path_params["action"]
    found = next((each for each in ACTIONS if each == written), None)
    if found is None:
        raise UnknownName(
            f"there is no action {written[:40]!r}.{nearest(written, ACTIONS)}", fix=f"one of {', '.join(ACTIONS)}"
        )
    return found


def _points(written: str) -> int:
    if written not in map(str, STEPS):
        raise UsageError(f"a step has {' or '.join(map(str, STEPS))} points", fix="go back to the overview")
    return int(written)


PLACES = (
    Place("GET", "/extend", Role.OPERATOR, ask_extend),
    Place("POST", "/extend", Role.OPERATOR, extend),
    Place("GET", "/rollback", Role.OPERATOR, ask_roll_back),
    Place("POST", "/rollback", Role.OPERATOR, roll_back),
    Place("GET", "/rollout/{action}", Role.OPERATOR, ask_rollout),
    Place("POST", "/rollout/{action}", Role.OPERATOR, act),
    Place("POST", "/alerts/ack", Role.OPERATOR, ack),
)
