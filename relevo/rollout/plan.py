"""The plan of a rollout: its phases, what each asks for, and when. Pure values; read from TOML.

The specification's five phases (section 3.1) are ``DEFAULT``; its Go and No-Go (section 3.2) are ``LIMITS``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from relevo.errors import ConfigurationError, nearest

Metric = Literal["error_rate", "p95_latency_ms", "failed_call_rate", "breaker_opens", "complaints"]
Rule = Literal["named", "lowest_volume", "mixed_volumes", "with_high_volume", "all"]
Who = Literal["manual", "automatic"]

METRICS: tuple[Metric, ...] = ("error_rate", "p95_latency_ms", "failed_call_rate", "breaker_opens", "complaints")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LARGEST_LIST = 20_000
"""Tenants that the flag's list may hold; a larger phase has to be a percentage."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Go and No-Go of one metric. Rates are 0..1, latencies in ms. Counts go up to ``go`` itself; the others must be
    below it. ``relative``: both are this many times v1's own figure instead."""

    go: float
    no_go: float
    relative: float | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase. All of ``cohort`` but named and all take tenants until ``percent`` of the active ones are on v2."""

    name: str
    cohort: Rule
    percent: float  # 0..100 of active tenants; of the named rule only what the plan calls it
    min_hold: timedelta
    max_hold: timedelta
    every: timedelta  # between evaluations that can promote; guardrails look at each tick
    min_calls: int  # on v2 in this phase, before it can pass
    criteria: Mapping[Metric, float] = field(default_factory=lambda: MappingProxyType({}))
    """What each metric must be below to pass; a count must not exceed it."""
    evidence: bool = False  # to pass, upper bounds below No-Go too, on all that was gathered so far
    stable: bool = False  # to pass, the later half of the phase not worse than the earlier one


@dataclass(frozen=True, slots=True)
class Freeze:
    """A weekly time in which nobody joins. Local time of whoever would, or the plan's where theirs is not known; it may
    pass midnight."""

    days: frozenset[str]  # on which it begins
    begins: time
    lasts: timedelta


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole rollout."""

    phases: tuple[Phase, ...]
    limits: Mapping[Metric, Limit]
    promotion: Who = "manual"
    rollback: Who = "automatic"
    time_zone: str = "America/Mexico_City"
    freezes: tuple[Freeze, ...] = ()
    named: tuple[str, ...] = ()  # the canary's tenants

    def index(self, name: str) -> int:
        """The place of a phase. Raises ConfigurationError, with the nearest, for one that does not exist."""
        names = [phase.name for phase in self.phases]
        if name not in names:
            raise ConfigurationError(
                f"there is no phase {name!r}.{nearest(name, names)}", fix=f"one of: {', '.join(names)}"
            )
        return names.index(name)


def target(percent: float, active: int) -> int:
    """⌈p·N⌉, exactly as people write the percentage: 10 % of 90 is 9, and of 91 is 10."""
    return -int(-Fraction(str(percent)) * active // 100)


def frozen_until(plan: Plan, now: datetime, zones: Iterable[str | None] = ()) -> datetime | None:
    """When nobody may join until; None when now is fine. ``zones``: of those who would join; a freeze is over when it
    is over for all of them. None, or a zone that nobody knows, is the plan's own."""
    ends = [now]
    for zone in {_known_zone(each) or plan.time_zone for each in zones} or {plan.time_zone}:
        local = now.astimezone(ZoneInfo(zone))
        for freeze in plan.freezes:
            for back in range(freeze.lasts.days + 2):
                day = local.date() - timedelta(days=back)
                begin = datetime.combine(day, freeze.begins, local.tzinfo)
                if DAYS[day.weekday()] in freeze.days and begin <= local < begin + freeze.lasts:
                    ends.append((begin + freeze.lasts).astimezone(now.tzinfo))
    return max(ends) if max(ends) > now else None


def _known_zone(name: str | None) -> str | None:
    try:
        return ZoneInfo((name or "").strip()).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


_H = timedelta(hours=1)
LIMITS: Mapping[Metric, Limit] = MappingProxyType(
    {
        "error_rate": Limit(0.02, 0.05),
        "p95_latency_ms": Limit(800, 1200),
        "failed_call_rate": Limit(0.03, 0.10),
        "breaker_opens": Limit(0, 2),
        "complaints": Limit(0, 3),
    }
)
_GO: Mapping[Metric, float] = MappingProxyType({name: limit.go for name, limit in LIMITS.items()})
_FINE: Mapping[Metric, float] = MappingProxyType({"error_rate": 0.02, "p95_latency_ms": 800})
DEFAULT = Plan(
    phases=(
        Phase("canary", "named", 5, 4 * _H, 8 * _H, _H / 4, 5),
        Phase("early_adopters", "lowest_volume", 10, 24 * _H, 48 * _H, _H, 20, MappingProxyType({"error_rate": 0.01})),
        Phase("expansion", "mixed_volumes", 25, 24 * _H, 72 * _H, 2 * _H, 100, _FINE, evidence=True),
        Phase("majority", "with_high_volume", 50, 24 * _H, 48 * _H, 4 * _H, 200, _GO, evidence=True, stable=True),
        Phase("complete", "all", 100, 24 * _H, 168 * _H, 4 * _H, 200, _GO, evidence=True),
    ),
    limits=LIMITS,
)


def written(plan: Plan) -> str:
    """The plan as TOML with nothing left to defaults; ``parse`` gives the same plan again."""
    lines = [f"{key} = {json.dumps(getattr(plan, key))}" for key in ("promotion", "rollback", "time_zone")]
    lines.append(f"canary = {json.dumps(plan.named)}")
    for metric, limit in plan.limits.items():
        lines += [f"[limits.{metric}]", f"go = {limit.go}", f"no_go = {limit.no_go}"]
        lines += [f"relative_to_v1 = {limit.relative}"] if limit.relative is not None else []
    for freeze in plan.freezes:
        days = [day for day in DAYS if day in freeze.days]
        lines += ["[[freeze]]", f"days = {json.dumps(days)}", f"begins = {freeze.begins.isoformat()}"]
        lines.append(f"lasts = {_minutes(freeze.lasts)}")
    for phase in plan.phases:
        lines += ["[[phase]]", f"name = {json.dumps(phase.name)}", f"cohort = {json.dumps(phase.cohort)}"]
        lines += [f"{key} = {_minutes(getattr(phase, key))}" for key in ("min_hold", "max_hold", "every")]
        lines += [f"percent = {phase.percent}", f"min_calls = {phase.min_calls}"]
        lines += [f"{key} = {json.dumps(getattr(phase, key))}" for key in ("evidence", "stable")]
        lines.append(f"criteria = {{{', '.join(f'{metric} = {value}' for metric, value in phase.criteria.items())}}}")
    return "\n".join(lines) + "\n"


def _minutes(length: timedelta) -> str:
    return f'"{length // timedelta(minutes=1)}m"'


# Reading --------------------------------------------------------------------------------------------------------------

_UNITS = {"m": timedelta(minutes=1), "h": _H, "d": 24 * _H}


@lru_cache(maxsize=8)  # a running rollout's is asked for at each look
def parse(text: str) -> Plan:
    """The plan that a TOML file says, the default where it says nothing. A list of phases replaces the default's.

    Raises ConfigurationError that names the key, what is wrong with it, and what may stand there.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the plan is no TOML: {error}", fix="see docs/rollout.md for an example") from error
    _known("the plan", table, ("promotion", "rollback", "time_zone", "canary", "limits", "phase", "freeze"))
    phases = tuple(_phase(number, each) for number, each in enumerate(_tables("phase", table.get("phase", []))))
    plan = Plan(
        phases or DEFAULT.phases,
        _limits(table.get("limits", {})),
        _one_of("promotion", table.get("promotion", DEFAULT.promotion), ("manual", "automatic")),
        _one_of("rollback", table.get("rollback", DEFAULT.rollback), ("manual", "automatic")),
        _zone(table.get("time_zone", DEFAULT.time_zone)),
        tuple(_freeze(number, each) for number, each in enumerate(_tables("freeze", table.get("freeze", [])))),
        _names(table.get("canary", [])),
    )
    _in_order(plan.phases)
    return plan


def _in_order(phases: tuple[Phase, ...]) -> None:
    """What no single phase can know."""
    names = [phase.name for phase in phases]
    for before, phase in zip((None, *phases), phases, strict=False):
        where = f"phase {phase.name!r}"
        if names.count(phase.name) > 1:
            raise _wrong(where, "stands twice", "give each phase a name of its own")
        if before and phase.percent <= before.percent:
            raise _wrong(f"{where}: percent", f"{phase.percent:g} is no more than before", "cohorts only grow")
        if before and phase.cohort == "named":
            raise _wrong(f"{where}: cohort", "only the first phase can be named", "choose another rule")
        if before and before.cohort == "all":
            raise _wrong(where, "comes after everybody is on v2", "put it before the phase of all")
    if phases[-1].cohort != "all" or phases[-1].percent != 100:
        raise _wrong(
            f"phase {phases[-1].name!r}", "is the last one, and not everybody", 'end with cohort = "all", percent = 100'
        )


def _phase(number: int, table: Mapping[str, Any]) -> Phase:
    name = table.get("name")
    where = f"phase {number + 1}" if not isinstance(name, str) else f"phase {name!r}"
    fields = tuple(Phase.__dataclass_fields__)
    _known(where, table, fields)
    for needed in ("name", "cohort", "percent", "min_hold", "max_hold", "every", "min_calls"):
        if needed not in table:
            raise _wrong(where, f"lacks {needed}", f"it needs {', '.join(fields[:7])}")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise _wrong(f"{where}: name", f"is {name!r}", "write small letters, digits and _, at most 40")
    least, most, every = (_duration(f"{where}: {key}", table[key]) for key in ("min_hold", "max_hold", "every"))
    if most < least:
        raise _wrong(f"{where}: max_hold", "is less than min_hold", "give at least as much")
    if not every:
        raise _wrong(f"{where}: every", "is nothing", "give at least 1m")
    return Phase(
        name,
        _one_of(f"{where}: cohort", table["cohort"], get_args(Rule)),
        _number(f"{where}: percent", table["percent"], lambda value: 0 < value <= 100, "more than 0, at most 100"),
        least,
        most,
        every,
        int(
            _number(f"{where}: min_calls", table["min_calls"], lambda calls: calls >= 1 and calls % 1 == 0, "1 or more")
        ),
        _criteria(f"{where}: criteria", table.get("criteria", {})),
        _flag(f"{where}: evidence", table.get("evidence", False)),
        _flag(f"{where}: stable", table.get("stable", False)),
    )


def _criteria(where: str, table: Any) -> Mapping[Metric, float]:
    _known(where, table, METRICS)
    return MappingProxyType({name: _figure(f"{where}.{name}", name, table[name]) for name in METRICS if name in table})


def _limits(table: Any) -> Mapping[Metric, Limit]:
    _known("limits", table, METRICS)
    return MappingProxyType({name: _limit(name, table.get(name, {})) for name in METRICS})


def _limit(name: Metric, table: Any) -> Limit:
    where, usual = f"limits.{name}", LIMITS[name]
    _known(where, table, ("go", "no_go", "relative_to_v1"))
    relative = table.get("relative_to_v1")
    if relative is not None:
        if name in ("breaker_opens", "complaints"):
            raise _wrong(f"{where}.relative_to_v1", "is for rates and latency", "give go and no_go")
        relative = _number(f"{where}.relative_to_v1", relative, lambda value: value >= 1, "1 or more, as in 1.1")
    go, no_go = (_figure(f"{where}.{key}", name, table.get(key, getattr(usual, key))) for key in ("go", "no_go"))
    if no_go < go:
        raise _wrong(where, f"no_go {no_go:g} is below go {go:g}", "No-Go is the worse of the two")
    return Limit(go, no_go, relative)


def _figure(where: str, name: Metric, value: Any) -> float:
    if name.endswith("rate"):
        return _number(where, value, lambda rate: 0 < rate < 1, "a share between 0 and 1: 2 % is 0.02")
    return _number(where, value, lambda number: number >= 0, "0 or more")


def _freeze(number: int, table: Mapping[str, Any]) -> Freeze:
    where = f"freeze {number + 1}"
    _known(where, table, ("days", "begins", "lasts"))
    days = table.get("days", list(DAYS))
    if not isinstance(days, list) or not days:
        raise _wrong(f"{where}: days", f"is {days!r}", "a list of days, as in ['friday']")
    for day in days:
        _one_of(f"{where}: days", day, DAYS)
    begins = table.get("begins", time(0))
    if not isinstance(begins, time):
        raise _wrong(f"{where}: begins", f"is {begins!r}", "a time without quotes, as in 18:00:00")
    return Freeze(frozenset(days), begins, _duration(f"{where}: lasts", table.get("lasts", "1d")))


def _zone(value: Any) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError):
        raise _wrong("time_zone", f"{value!r} is unknown", "as in America/Mexico_City") from None
    return str(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise _wrong("canary", "is no list of tenant ids", 'as in canary = ["0f8b…", "31aa…"]')
    return tuple(dict.fromkeys(value))


def _duration(where: str, value: Any) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([mhd])", value) if isinstance(value, str) else None
    if found is None:
        raise _wrong(where, f"is {value!r}", "a number and a unit: 30m, 4h, 2d")
    return int(found[1]) * _UNITS[found[2]]


def _number(where: str, value: Any, fits: Callable[[float], bool], wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
        raise _wrong(where, f"is {value!r}", wanted)
    return value


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, f"is {value!r}", "true or false")
    return value


def _one_of(where: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise _wrong(where, f"is {value!r}.{nearest(str(value), known)}", f"one of: {', '.join(known)}")
    return value


def _tables(where: str, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _wrong(where, "is no list of tables", f"write [[{where}]]")
    return value


def _known(where: str, table: Any, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise _wrong(where, f"is {table!r}", "write a table")
    for key in table:
        if key not in known:
            raise _wrong(where, f"has no {key!r}.{nearest(key, known)}", f"it has: {', '.join(known)}")


def _wrong(where: str, what: str, fix: str) -> ConfigurationError:
    return ConfigurationError(f"{where} {what}", fix=fix)
