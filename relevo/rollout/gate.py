"""The gate: whether a phase may go on, and whether somebody must go back. Pure: figures in, an evaluation out.

Guardrails come before the minimum sample, that before promotion. Going back is asked of evidence that stays true
however often one looks; going on, in the early phases, of the figures as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from relevo.rollout import statistics
from relevo.rollout.plan import METRICS, Limit, Metric, Phase
from relevo.rollout.reasons import REASONS
from relevo.rollout.sample import SLOW_SHARE, Pair, Sample
from relevo.rollout.statistics import Interval

Verdict = Literal["pass", "fail", "inconclusive", "error"]
Level = Literal[1, 2, 3]
Grade = Literal["go", "between", "no_go", "unknown"]

JUDGED_FROM = 20
"""Calls before anything but a critical error can fail: a betting mixture may fire on a single bad call."""
OTHERS_FROM = 10
"""Calls of the others before one tenant can be told from them."""
SINGLED_OUT_BY = 0.1
"""How unlikely one tenant's figures must be among the others', divided by how many tenants were looked at."""

HALF_BY_CHANCE = 0.001
"""How unlikely half of v2's calls must be to fail while v1's do not, were both alike."""

_RATES: tuple[Metric, ...] = ("error_rate", "failed_call_rate")
_SHARES: tuple[Metric, ...] = (*_RATES, "p95_latency_ms")
_COUNTS: tuple[Metric, ...] = ("breaker_opens", "complaints")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted. Windows begin when the present cohort was in force, never earlier."""

    phase: Pair  # since then
    hour: Pair  # the last 60 minutes of it
    strata: tuple[Pair, ...] = ()  # the phase, hour by hour: for comparing like with like
    gathered: Sample = field(default_factory=Sample)  # of those on v2 now, since the rollout began
    earlier: Sample = field(default_factory=Sample)  # v2 in the first half of the phase
    later: Sample = field(default_factory=Sample)  # and in the second
    phase_tenants: Mapping[str, Sample] = field(default_factory=lambda: MappingProxyType({}))
    hour_tenants: Mapping[str, Sample] = field(default_factory=lambda: MappingProxyType({}))
    history: Sample = field(default_factory=Sample)  # v1's own calls before: compared with where v1 has none now


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric of the phase, with everything that a person needs beside it."""

    metric: Metric
    value: float | None  # None: nothing was counted
    go: float
    no_go: float
    wanted: float | None  # what this phase asks for; None: nothing
    bad: int
    of: int
    interval: Interval | None  # of the rate, or of the share slower than ``go``; None for what is counted
    v1: float | None
    grade: Grade
    worst_tenant: str | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the gate says."""

    verdict: Verdict
    why: str
    level: Level | None = None  # how far to go back; None with a fail: v1 suffers as well, so page somebody
    tenant: str | None = None  # level 1: who
    rule: str | None = None  # the guardrail that spoke
    calls: int = 0
    findings: tuple[Finding, ...] = ()


def judge(phase: Phase, limits: Mapping[Metric, Limit], evidence: Evidence) -> Evaluation:
    """The verdict on a phase, and why."""
    found = tuple(_finding(metric, phase, limits[metric], evidence) for metric in METRICS)
    said = _guarded(limits, evidence) or _promotable(phase, limits, evidence, found)
    return replace(said, findings=found, calls=evidence.phase.v2.calls)


def unmeasured(told: str) -> Evaluation:
    """The verdict when the figures could not be read, and what was told of it: never a reason to go on."""
    return Evaluation("error", REASONS["unread"].format(told=told))


def against_v1(limits: Mapping[Metric, Limit], v1: Sample) -> Mapping[Metric, Limit]:
    """The limits with those relative to v1 worked out; where v1 has no figure they stay as they are."""

    def fixed(metric: Metric, limit: Limit) -> Limit:
        own = v1.value(metric)
        if limit.relative is None or not own:
            return limit
        allowed = own * limit.relative
        return Limit(allowed, allowed, limit.relative)

    return MappingProxyType({metric: fixed(metric, limit) for metric, limit in limits.items()})


def grade(metric: Metric, value: float | None, limit: Limit) -> Grade:
    """Where a figure stands in the table of section 3.2: rates and latency below Go, counts at most Go; above No-Go."""
    if value is None:
        return "unknown"
    if value > limit.no_go:
        return "no_go"
    fine = value <= limit.go if metric in _COUNTS else value < limit.go
    return "go" if fine else "between"


# Guardrails -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """One metric over one window."""

    metric: Metric
    limit: Limit
    pair: Pair
    strata: tuple[Pair, ...]

    @property
    def line(self) -> float:
        """What the rate is held against: Go, or the share of slow calls that a 95th percentile at Go allows."""
        return SLOW_SHARE if self.metric == "p95_latency_ms" else self.limit.go

    @property
    def is_above_go(self) -> bool:
        """Shown, not only seen."""
        bad, of = self.pair.v2.counts(self.metric, self.limit.go)
        return of >= JUDGED_FROM and 0 < self.line < 1 and statistics.is_above(bad, of, self.line)

    @property
    def is_no_go(self) -> bool:
        """The figure itself."""
        return grade(self.metric, self.pair.v2.value(self.metric), self.limit) == "no_go"

    @property
    def is_worse(self) -> bool:
        """Whether v2 is shown to be worse than v1."""
        return statistics.is_worse(each.stratum(self.metric, self.limit.go) for each in self.strata)

    @property
    def is_counted_more(self) -> bool:
        """For what is counted and no rate."""
        return (self.pair.v2.value(self.metric) or 0) > (self.pair.v1.value(self.metric) or 0)

    @property
    def is_half(self) -> bool:
        """The hard limit: half of at least so many calls."""
        errors, calls = self.pair.v2.counts(self.metric, self.limit.go)
        return calls >= JUDGED_FROM and 2 * errors >= calls

    @property
    def is_half_alone(self) -> bool:
        """v1 has less than half of v2's errors per call, and not by chance: one carrier's bad hour would show in both,
        and of few calls half may fail where a third do."""
        v1, v2 = self.pair
        if 2 * v1.errors * v2.calls >= v2.errors * max(v1.calls, 1):
            return False
        return not v1.calls or statistics.chance_of_more(v2.errors, v2.calls, v1.errors, v1.calls) <= HALF_BY_CHANCE


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A reason to go back."""

    name: str
    level: Level
    metrics: tuple[Metric, ...]
    trips: Callable[[Look], bool]
    alone: Callable[[Look], bool]  # whether v2 suffers and v1 does not; if not, nobody is moved
    words: str
    one_tenant: bool = True  # whether it may turn out to be one tenant's trouble


# The first that applies decides.
GUARDRAILS: tuple[Guardrail, ...] = (
    Guardrail(
        "critical_error",
        3,
        ("error_rate",),
        lambda look: look.pair.v2.critical > 0,
        lambda _look: True,
        "{critical} calls were not answered, or by two versions or tenants",
        one_tenant=False,
    ),
    Guardrail(
        "half_fails",
        3,
        ("error_rate",),
        lambda look: look.is_half,
        lambda look: look.is_half_alone,
        "half or more of the calls are errors: {bad} of {of}",
    ),
    Guardrail(
        "no_go",
        3,
        _RATES,
        lambda look: look.is_no_go and look.is_above_go,
        lambda look: look.is_worse,
        "{metric} {value} is above No-Go {no_go}, and shown above Go {go}: {bad} of {of}",
    ),
    Guardrail(
        "above_go",
        2,
        _SHARES,
        lambda look: look.is_above_go,
        lambda look: look.is_worse,
        "{metric} {value} is shown above Go {go}: {bad} of {of} calls",
    ),
    Guardrail(
        "counted_no_go",
        2,
        _COUNTS,
        lambda look: look.is_no_go,
        lambda look: look.is_counted_more,
        "{metric} {value} is above No-Go {no_go}",
    ),
)


def _guarded(limits: Mapping[Metric, Limit], evidence: Evidence) -> Evaluation | None:
    """The first guardrail that v2 alone has tripped; else one that both have; None when all hold."""
    shared: Evaluation | None = None
    for guardrail in GUARDRAILS:
        for window in ("phase", "hour"):
            for metric in guardrail.metrics:
                look = _look(window, metric, limits[metric], evidence)
                if not guardrail.trips(look):
                    continue
                why = REASONS[window].format(what=_told(guardrail.words, look))
                if not guardrail.alone(look):
                    why = REASONS["v1_too"].format(what=why)
                    shared = shared or Evaluation("fail", why, rule=guardrail.name)
                    continue
                tenants = evidence.phase_tenants if window == "phase" else evidence.hour_tenants
                alone = _only_one(guardrail, look, tenants) if guardrail.one_tenant else None
                if alone is not None:
                    why = REASONS["one_tenant"].format(what=why, tenant=alone)
                return Evaluation("fail", why, 1 if alone else guardrail.level, alone, guardrail.name)
    return shared


def _look(window: str, metric: Metric, limit: Limit, evidence: Evidence) -> Look:
    """One metric over the phase or its last hour; where v1 has no calls any more, beside its history."""
    pair = evidence.phase if window == "phase" else evidence.hour
    strata = evidence.strata if window == "phase" and evidence.strata else (pair,)
    if pair.v1.calls == 0 and evidence.history.calls:
        past = replace(evidence.history, breaker_opens=0, complaints=0)
        return Look(metric, limit, Pair(past, pair.v2), (Pair(past, pair.v2),))
    return Look(metric, limit, pair, strata)


def _only_one(guardrail: Guardrail, look: Look, tenants: Mapping[str, Sample]) -> str | None:
    """The tenant without which all is well: it fares worse than the others together, who are enough to tell, look
    well and trip nothing. None: it is not one tenant's trouble.

    Not tripping alone would not do: a guardrail that has only just tripped holds again without anybody's errors.
    """
    worst = _worst(look, tenants)
    if worst is None:
        return None
    rest = sum((sample for tenant, sample in tenants.items() if tenant != worst), Sample())
    if rest.calls < OTHERS_FROM or guardrail.trips(replace(look, pair=Pair(look.pair.v1, rest))):
        return None
    if look.metric in _COUNTS:
        return worst
    bad, of = rest.counts(look.metric, look.limit.go)
    no_go = 2 * SLOW_SHARE if look.metric == "p95_latency_ms" else look.limit.no_go
    chance = statistics.chance_of_more(*tenants[worst].counts(look.metric, look.limit.go), bad, of)
    looks_well = bad <= 1 or bad <= of * no_go
    return worst if looks_well and chance <= SINGLED_OUT_BY / len(tenants) else None


def _worst(look: Look, tenants: Mapping[str, Sample]) -> str | None:
    """The tenant with most bad calls beyond what Go allows it; None for a single one, or none."""
    if len(tenants) < 2:
        return None

    def excess(tenant: str) -> float:
        sample = tenants[tenant]
        if look.metric in _COUNTS:
            return sample.value(look.metric) or 0
        bad, of = sample.counts(look.metric, look.limit.go)
        return bad - of * look.line

    worst = max(sorted(tenants), key=excess)
    return worst if excess(worst) > 0 else None


def _told(words: str, look: Look) -> str:
    bad, of = look.pair.v2.counts(look.metric, look.limit.go)
    return words.format(
        metric=look.metric,
        value=shown(look.metric, look.pair.v2.value(look.metric)),
        go=shown(look.metric, look.limit.go),
        no_go=shown(look.metric, look.limit.no_go),
        bad=bad,
        of=of,
        critical=look.pair.v2.critical,
    )


# Going on -------------------------------------------------------------------------------------------------------------


def _promotable(
    phase: Phase, limits: Mapping[Metric, Limit], evidence: Evidence, found: tuple[Finding, ...]
) -> Evaluation:
    calls = evidence.phase.v2.calls
    if calls < phase.min_calls:
        return Evaluation("inconclusive", REASONS["few"].format(calls=calls, least=phase.min_calls))
    for reason in (_unmet(found), _unshown(phase, limits, evidence), _unstable(phase, limits, evidence)):
        if reason is not None:
            return Evaluation("inconclusive", reason)
    return Evaluation("pass", REASONS["pass"].format(phase=phase.name, calls=calls))


def _unmet(found: tuple[Finding, ...]) -> str | None:
    """The criterion that the figures do not meet, or the metric that is No-Go; None: all is well."""
    for each in found:
        value = shown(each.metric, each.value)
        if each.wanted is not None and each.value is None:
            return REASONS["unmeasured"].format(metric=each.metric)
        if each.wanted is not None and grade(each.metric, each.value, Limit(each.wanted, float("inf"))) != "go":
            limit = shown(each.metric, each.wanted)
            unmet = "not_at_most" if each.metric in _COUNTS else "not_below"
            return REASONS[unmet].format(metric=each.metric, value=value, limit=limit)
        if each.grade == "no_go":
            return REASONS["no_go"].format(metric=each.metric, value=value)
    return None


def _unshown(phase: Phase, limits: Mapping[Metric, Limit], evidence: Evidence) -> str | None:
    """The metric whose upper bound does not lie below No-Go yet."""
    for metric in _SHARES if phase.evidence else ():
        no_go = limits[metric].no_go
        bad, of = evidence.gathered.counts(metric, no_go)
        upper = statistics.interval(bad, of).high
        if upper >= (SLOW_SHARE if metric == "p95_latency_ms" else no_go):
            return REASONS["unshown"].format(metric=metric, bad=bad, of=of, no_go=shown(metric, no_go))
    return None


def _unstable(phase: Phase, limits: Mapping[Metric, Limit], evidence: Evidence) -> str | None:
    """The metric that grew worse within the phase."""
    halves = Pair(evidence.earlier, evidence.later)
    for metric in _SHARES if phase.stable else ():
        if statistics.is_worse([halves.stratum(metric, limits[metric].go)]):
            return REASONS["unstable"].format(metric=metric)
    return None


def _finding(metric: Metric, phase: Phase, limit: Limit, evidence: Evidence) -> Finding:
    look = _look("phase", metric, limit, evidence)
    v1, v2 = look.pair
    bad, of = v2.counts(metric, limit.go)
    value = v2.value(metric)
    return Finding(
        metric,
        value,
        limit.go,
        limit.no_go,
        phase.criteria.get(metric),
        bad,
        of,
        None if metric in _COUNTS else statistics.interval(bad, of),
        v1.value(metric),
        grade(metric, value, limit),
        _worst(look, evidence.phase_tenants),
    )


def shown(metric: Metric, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "nothing"
    return f"{100 * value:.2f} %" if metric in _RATES else f"{value:,.0f}" + (" ms" if "latency" in metric else "")
