"""The plan: what a TOML file may say, and who joins in which phase."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.errors import ConfigurationError, Refused, UnknownName
from relevo.rollout.cohort import Candidate, line_up, with_canary
from relevo.rollout.plan import DEFAULT, frozen_until, parse, target, written

PHASE = """
[[phase]]
name = "everybody"
cohort = "all"
percent = 100
min_hold = "1h"
max_hold = "2h"
every = "10m"
min_calls = 1
"""


def tenants(many: int, *, verticals: int = 3, unverified: int = 0) -> list[Candidate]:
    """So many tenants, each with a little more calls than the one before."""
    return [
        Candidate(f"t{number:03}", None, f"v{number % verticals}", float(number), "x" if number < unverified else None)
        for number in range(many)
    ]


def test_nothing_said_is_the_specification() -> None:
    plan = parse("")
    assert plan == DEFAULT
    assert [(phase.name, phase.percent) for phase in plan.phases] == [
        ("canary", 5), ("early_adopters", 10), ("expansion", 25), ("majority", 50), ("complete", 100),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        'promotion = "automatic"\ncanary = ["a", "b"]\n[[freeze]]\ndays = ["friday"]\nbegins = 18:00:00\nlasts = "62h"',
        "[limits.p95_latency_ms]\nrelative_to_v1 = 1.1\n" + PHASE,
    ],
)
def test_a_plan_written_down_is_read_as_the_same(text: str) -> None:
    assert parse(written(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("promotion = 'auto'", "promotion is 'auto'.*Did you mean 'automatic'"),
        ("promote = 'manual'", "the plan has no 'promote'.*Did you mean 'promotion'"),
        ("time_zone = 'Mexico'x", "no TOML"),
        ("time_zone = 'Mars/Base'", "time_zone 'Mars/Base' is unknown"),
        ("canary = 'a'", "canary is no list"),
        ("[limits.error_rate]\ngo = 2", "limits.error_rate.go is 2"),
        ("[limits.error_rate]\ngo = 0.2\nno_go = 0.1", "no_go 0.1 is below go 0.2"),
        ("[limits.complaints]\nrelative_to_v1 = 2", "is for rates and latency"),
        ("[limits.errors]\ngo = 2", "limits has no 'errors'.*'error_rate'"),
        ("[[freeze]]\ndays = ['Friday']", "freeze 1: days is 'Friday'.*'friday'"),
        ("phase = 3", "phase is no list of tables"),
        (PHASE.replace('"2h"', '"30m"'), "max_hold is less than min_hold"),
        (PHASE.replace('"2h"', "2"), "max_hold is 2"),
        (PHASE.replace("100", "120"), "percent is 120"),
        (PHASE.replace("100", "50"), "is the last one, and not everybody"),
        (PHASE.replace("min_calls = 1\n", ""), "lacks min_calls"),
        (PHASE.replace('"all"', '"some"'), "cohort is 'some'"),
        (PHASE + PHASE, "stands twice"),
        (PHASE + PHASE.replace("everybody", "more"), "100 is no more than before"),
        (PHASE + "criteria = {errors = 1}", "criteria has no 'errors'"),
    ],
)
def test_a_mistake_in_a_plan_is_named(text: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){what}"):
        parse(text)


@pytest.mark.parametrize(
    ("percent", "active", "many"),
    [(10, 90, 9), (10, 91, 10), (25, 90, 23), (50, 90, 45), (5, 1, 1), (12.5, 8, 1), (100, 90, 90), (10, 0, 0)],
)
def test_a_share_is_rounded_up(percent: float, active: int, many: int) -> None:
    assert target(percent, active) == many


@given(st.integers(3, 200), st.integers(0, 150), st.integers(1, 6))
def test_phases_have_exactly_their_share_of_verified_tenants(active: int, unverified: int, verticals: int) -> None:
    everybody = tenants(active, verticals=verticals, unverified=min(unverified, active - 3))
    plan = with_canary(DEFAULT, [each.tenant_id for each in everybody[-3:]])
    line = line_up(plan, everybody)
    fit = len(everybody) - len(line.left_out)
    order = [each.tenant.tenant_id for each in line.order]
    for phase, step in zip(plan.phases[1:], line.steps[1:], strict=True):
        assert step.tenants == max(3, min(ceil(phase.percent * active / 100), fit))
    assert line.steps[0].tenants == 3
    assert len(order) == len(set(order)) == fit
    assert not set(order) & {each.tenant_id for each in line.left_out}
    assert [step.tenants for step in line.steps] == sorted(step.tenants for step in line.steps)


def test_each_phase_takes_whom_its_rule_says() -> None:
    line = line_up(with_canary(DEFAULT, ["t050", "t060"]), tenants(90))
    joined = [[each.tenant.tenant_id for each in step.joining] for step in line.steps]
    assert joined[0] == ["t050", "t060"]
    assert joined[1] == [f"t{number:03}" for number in range(7)]
    mixed = sorted(each.tenant.calls_per_day for each in line.steps[2].joining)
    assert (mixed[0] < 25, mixed[-1] > 70) == (True, True)
    assert set(Counter(each.tenant.vertical for each in line.steps[2].joining).values()) <= {4, 5}
    left = [f"t{number:03}" for number in range(89, -1, -1) if f"t{number:03}" not in {*joined[0], *joined[2]}]
    assert joined[3][:11] == left[:11]
    assert sum(map(len, joined)) == 90


@given(st.integers(10, 120), st.integers(1, 7))
def test_mixed_volumes_give_each_vertical_its_share(active: int, verticals: int) -> None:
    line = line_up(with_canary(DEFAULT, ["t000", "t001"]), tenants(active, verticals=verticals))
    earlier = {each.tenant.tenant_id for step in line.steps[:2] for each in step.joining}
    waiting = Counter(each.vertical for each in tenants(active, verticals=verticals) if each.tenant_id not in earlier)
    joining = Counter(each.tenant.vertical for each in line.steps[2].joining)
    for vertical, many in waiting.items():
        share = many * len(line.steps[2].joining) / sum(waiting.values())
        assert abs(joining[vertical] - share) < 1 + 1e-9


def test_a_canary_is_two_or_three_verified_tenants_that_exist() -> None:
    everybody = tenants(10, unverified=1)
    for names in ([], ["t001"], ["t001", "t002", "t003", "t004"]):
        with pytest.raises(Refused, match="2 to 3 tenants"):
            line_up(with_canary(DEFAULT, names), everybody)
    with pytest.raises(UnknownName, match="Did you mean 't0"):
        line_up(with_canary(DEFAULT, ["t001", "t0022"]), everybody)
    with pytest.raises(Refused, match="t000 cannot be a canary: x"):
        line_up(with_canary(DEFAULT, ["t000", "t001"]), everybody)
    assert line_up(DEFAULT, everybody, unnamed=True).steps[0].joining[0].why == "to be named"


def test_a_freeze_is_in_local_time_and_passes_midnight() -> None:
    plan = parse('[[freeze]]\ndays = ["friday"]\nbegins = 18:00:00\nlasts = "62h"')
    friday = datetime(2026, 11, 27, 23, 59, tzinfo=UTC)  # 17:59 in Mexico
    assert frozen_until(plan, friday) is None
    until = frozen_until(plan, friday + timedelta(minutes=1))
    assert until == datetime(2026, 11, 30, 14, tzinfo=UTC)
    assert frozen_until(plan, until - timedelta(minutes=1)) == until
    assert frozen_until(plan, until) is None
    assert frozen_until(replace(plan, freezes=()), friday) is None


def test_a_freeze_is_over_when_it_is_over_for_everybody_who_would_join() -> None:
    plan = parse('[[freeze]]\ndays = ["friday"]\nbegins = 18:00:00\nlasts = "12h"')
    in_tijuana = datetime(2026, 11, 28, 2, tzinfo=UTC)  # friday, 18:00 there; 20:00 in Mexico City
    assert frozen_until(plan, in_tijuana - timedelta(minutes=1), ["America/Tijuana"]) is None
    until = frozen_until(plan, in_tijuana, ["America/Tijuana", "America/Cancun"])
    assert until == datetime(2026, 11, 28, 14, tzinfo=UTC)
    unknown = frozen_until(plan, in_tijuana, ["Nowhere/At_All", None, " ", "../etc"])
    assert unknown == frozen_until(plan, in_tijuana) == datetime(2026, 11, 28, 12, tzinfo=UTC)
