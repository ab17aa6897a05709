"""Who joins v2 in which phase: exact counts, verified tenants only, one order for the whole rollout.

The order is kept: growing takes the next of it, shrinking gives back the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from relevo.errors import Refused, UnknownName, nearest
from relevo.flags.evaluate import percentile
from relevo.rollout import plan as plans
from relevo.rollout.plan import Plan, Rule, target

CANARY = (2, 3)
"""How many tenants a named phase has, at least and at most (section 3.1)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An active tenant."""

    tenant_id: str
    name: str | None
    vertical: str | None
    calls_per_day: float  # on average
    unverified: str | None = None  # why it may not live on v2; None: it may


@dataclass(frozen=True, slots=True)
class Joined:
    """A tenant and its place in the rollout."""

    tenant: Candidate
    phase: int
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a phase comes to."""

    name: str
    wanted: int  # tenants on v2 in all, as the plan says; more than the flag's list holds are a share by hash
    tenants: int  # tenants on v2 in all
    joining: tuple[Joined, ...]
    calls_per_day: float  # of all tenants on v2 in it


@dataclass(frozen=True, slots=True)
class Line:
    """The whole order."""

    steps: tuple[Step, ...]
    active: int
    left_out: tuple[Candidate, ...]  # not verified

    @property
    def order(self) -> tuple[Joined, ...]:
        """Everybody who joins, first to last."""
        return tuple(each for step in self.steps for each in step.joining)


def line_up(plan: Plan, active: Iterable[Candidate], *, unnamed: bool = False) -> Line:
    """Put the active tenants in the order in which they join.

    ``unnamed``: the canary's tenants are still to be named; stand-ins of the lowest volume are taken. Raises Refused
    for a canary that is not named, too small, too large or not verified, and UnknownName for a stranger.
    """
    everybody = sorted(active, key=_quietest)
    waiting = [each for each in everybody if each.unverified is None]
    steps: list[Step] = []
    on_v2: list[Candidate] = []
    for number, phase in enumerate(plan.phases):
        wanted = target(phase.percent, len(everybody))
        if phase.cohort == "named":
            chosen = [(each, "to be named") for each in waiting[: CANARY[0]]] if unnamed and not plan.named else [
                (each, "named") for each in _named(plan.named, everybody)
            ]  # fmt: skip
            wanted = len(chosen)
        elif wanted > plans.LARGEST_LIST:
            chosen = _by_share(waiting, ceil(phase.percent))
        else:
            chosen = _RULES[phase.cohort](waiting, max(0, min(wanted - len(on_v2), len(waiting))))
        taken = {each.tenant_id for each, _ in chosen}
        waiting = [each for each in waiting if each.tenant_id not in taken]
        on_v2 += [each for each, _ in chosen]
        joining = tuple(Joined(each, number, why) for each, why in chosen)
        volume = sum(each.calls_per_day for each in on_v2)
        steps.append(Step(phase.name, max(wanted, len(on_v2) if number else 0), len(on_v2), joining, volume))
    return Line(tuple(steps), len(everybody), tuple(each for each in everybody if each.unverified is not None))


def with_canary(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with these tenants as its canary."""
    return replace(plan, named=tuple(dict.fromkeys(names))) if names else plan


_Chosen = list[tuple[Candidate, str]]


def _named(names: Sequence[str], everybody: Sequence[Candidate]) -> list[Candidate]:
    known = {each.tenant_id: each for each in everybody}
    least, most = CANARY
    if not least <= len(names) <= most:
        raise Refused(
            f"the canary is {least} to {most} tenants by name, and {len(names) or 'none'} given",
            fix="name them: relevo rollout start --canary a,b",
        )
    for name in names:
        if name not in known:
            raise UnknownName(
                f"there is no active tenant {name!r}.{nearest(name, known)}", fix="nothing was started; name another"
            )
        if (why := known[name].unverified) is not None:
            raise Refused(f"{name} cannot be a canary: {why}", fix="run: relevo verify; or name another")
    return [known[name] for name in names]


def _lowest(waiting: Sequence[Candidate], many: int) -> _Chosen:
    return [(each, f"low volume: {each.calls_per_day:.1f} calls a day") for each in waiting[:many]]


def _mixed(waiting: Sequence[Candidate], many: int) -> _Chosen:
    """Evenly through the verticals one after the other, each by volume, up and down in turn: each vertical gets its
    share, rounded up or down, and each volume its turn."""
    verticals = sorted({each.vertical or "" for each in waiting})
    lined: list[Candidate] = []
    for number, vertical in enumerate(verticals):
        own = [each for each in waiting if (each.vertical or "") == vertical]
        lined += own if number % 2 == 0 else own[::-1]
    picked = [lined[(2 * turn + 1) * len(lined) // (2 * many)] for turn in range(many)]
    return [(each, f"mixed volumes: {each.vertical}, {each.calls_per_day:.1f} calls a day") for each in picked]


def _with_high(waiting: Sequence[Candidate], many: int) -> _Chosen:
    """Half of the places to those with the most calls; the rest mixed."""
    busiest = sorted(waiting, key=lambda each: (-each.calls_per_day, each.tenant_id))[: ceil(many / 2)]
    high_up = {each.tenant_id for each in busiest}
    rest = [each for each in waiting if each.tenant_id not in high_up]
    high = [(each, f"high volume: {each.calls_per_day:.1f} calls a day") for each in busiest]
    return high + _mixed(rest, many - len(busiest))


def _by_share(waiting: Sequence[Candidate], percentage: int) -> _Chosen:
    """Whom the flag's percentage selects, whatever the rule: more than its list can hold."""
    own = ((each, percentile(each.tenant_id)) for each in waiting)
    return [(each, f"share: percentile {place} is below {percentage}") for each, place in own if place < percentage]


def _all(waiting: Sequence[Candidate], many: int) -> _Chosen:
    return [(each, "everybody") for each in waiting[:many]]


def _quietest(candidate: Candidate) -> tuple[float, str]:
    return candidate.calls_per_day, candidate.tenant_id


_RULES: dict[Rule, Callable[[Sequence[Candidate], int], _Chosen]] = {
    "lowest_volume": _lowest,
    "mixed_volumes": _mixed,
    "with_high_volume": _with_high,
    "all": _all,
}
