"""What is in force: the plan and its limits, when alerts go off, this process, and who is signed in."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from relevo.access import sessions
from relevo.access.roles import Role
from relevo.alerts.thresholds import RULES, Rule
from relevo.dashboard import judging, wording
from relevo.dashboard.house import Visit
from relevo.dashboard.places import Place
from relevo.dashboard.strip import LABELS
from relevo.rollout.gate import shown
from relevo.rollout.moving import open_rollout
from relevo.rollout.plan import DEFAULT, Phase


async def settings(visit: Visit) -> Response:
    """Plan, limits, alerts, flag readers, and who is signed in."""
    signed_in = await sessions.listed(visit.house.database, visit.house.wall()) if visit.may(Role.ADMIN) else []
    async with visit.house.database.transaction(read_only=True) as connection:
        rollout = await open_rollout(connection)
    plan = rollout.plan if rollout else DEFAULT
    return visit.page(
        "settings.html",
        rollout=rollout,
        plan=plan,
        hours=_hours,
        asks=_asks,
        limits=[limit for limit in judging.in_force(plan.limits) if limit.go is not None],
        alerts=[_alert(rule) for rule in RULES],
        flag_state=visit.house.flags.state,
        version=visit.house.version,
        place=visit.house.database.place,
        sources=visit.house.mapping.sources,
        sessions=signed_in,
    )


def _hours(length: timedelta) -> str:
    """4 h, or 15 min."""
    hours = length / timedelta(hours=1)
    return f"{hours:g}{wording.UNBROKEN}h" if hours >= 1 else f"{60 * hours:g}{wording.UNBROKEN}min"


def _asks(phase: Phase) -> list[tuple[str, str]]:
    """What a phase asks for beside its calls: each metric's name, and what it must be below; a count, at most."""
    found = []
    for metric, value in phase.criteria.items():
        sign = "≤" if judging.BY_NAME[metric].counted else "<"
        found.append((LABELS[metric], f"{sign} {shown(metric, value)}"))
    return found


def _alert(rule: Rule) -> tuple[str, str, str]:
    """A rule's figure, and from when on it warns and pages."""
    limit = judging.BY_NAME[rule.figure]
    written = [limit.written(value) for value in (rule.warning, rule.critical)]
    sign = ">" if rule.strictly else "≥"
    return limit.label, f"{sign} {written[0]}", f"{sign} {written[1]}"


PLACES = (Place("GET", "/settings", Role.VIEWER, settings),)
