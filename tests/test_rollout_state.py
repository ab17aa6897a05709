"""The rollout's states: the table of arrows, and what the controller decides, walked at random against a model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relevo.rollout.gate import Evaluation
from relevo.rollout.state import (
    ARROWS,
    ENDED,
    OPEN,
    TRANSITIONS,
    Event,
    Move,
    Standing,
    State,
    after,
    decide,
    may,
    shifted,
    within,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PASS, INCONCLUSIVE, ERROR = (Evaluation(verdict, "why") for verdict in ("pass", "inconclusive", "error"))
FAILS = (
    Evaluation("fail", "both"),
    Evaluation("fail", "one", 1, "t3"),
    Evaluation("fail", "some", 2),
    Evaluation("fail", "all", 3),
)
SAID = (PASS, INCONCLUSIVE, ERROR, *FAILS)
STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)


def at(state: State, *, phase: int = 1, automatic: bool = False, **more: object) -> Standing:
    """Somewhere in a rollout of five phases; every hold is over."""
    paused = {"paused_at": NOW, "cause": "operator"} if state == "Paused" else {}
    base = Standing(state, phase, 5, 7, NOW - HOUR, NOW + HOUR, NOW - HOUR, automatic_promotion=automatic)
    return replace(base, **(paused | more))  # type: ignore[arg-type]


def test_every_arrow_is_said_once_and_every_event_is_used() -> None:
    assert len(TRANSITIONS) == len(ARROWS)
    assert {arrow.event for arrow in ARROWS} == set(EVENTS)
    assert all(arrow.sentence for arrow in ARROWS)


def test_what_has_ended_stays_so_but_a_way_back_can_be_undone() -> None:
    assert [(arrow.source, arrow.event) for arrow in ARROWS if arrow.source in ENDED] == [("RolledBack", "undo")]


def test_every_open_state_has_a_way_back() -> None:
    for state in OPEN:
        assert all(may(state, event) for event in ("roll_back", "abort", "shrink", "single_out", "overrule"))


@pytest.mark.parametrize("said", [INCONCLUSIVE, ERROR, *FAILS])
@pytest.mark.parametrize("state", STATES)
def test_without_a_pass_nobody_is_promoted(state: State, said: Evaluation) -> None:
    chosen = decide(at(state, automatic=True), said, NOW, reached=True)
    assert chosen is None or chosen.event not in ("pass", "promote", "finish", "force")


@pytest.mark.parametrize(
    ("standing", "said", "event"),
    [
        (at("Pending"), PASS, "reach"),
        (at("Progressing"), PASS, "pass"),
        (at("Progressing", hold_until=NOW + HOUR), PASS, None),
        (at("Progressing", due_at=NOW + HOUR), PASS, None),
        (at("Progressing", due_at=NOW + HOUR, expires_at=NOW), PASS, "pass"),
        (at("Progressing", expires_at=NOW), INCONCLUSIVE, "expire"),
        (at("Progressing", expires_at=NOW), ERROR, "expire"),
        (at("Progressing", expires_at=NOW), PASS, "pass"),
        (at("Healthy"), PASS, None),
        (at("Healthy", automatic=True), PASS, "promote"),
        (at("Healthy"), INCONCLUSIVE, "relapse"),
        (at("Healthy"), ERROR, "relapse"),
        (at("Healthy", phase=4), PASS, "finish"),
        (at("Progressing"), FAILS[0], "degrade"),
        (at("Degraded"), FAILS[0], None),
        (at("Degraded"), INCONCLUSIVE, "heal"),
        (at("Degraded"), ERROR, None),
        (at("Degraded"), FAILS[3], "roll_back"),
        (at("Progressing"), FAILS[1], "single_out"),
        (at("Progressing"), FAILS[2], "shrink"),
        (at("Progressing", phase=0), FAILS[2], "roll_back"),
        (at("Pending"), FAILS[3], "roll_back"),
        (at("Paused"), FAILS[3], "roll_back"),
        (at("Paused"), PASS, None),
        (at("Paused", cause="flag"), FAILS[3], None),
        (at("Paused", cause="undo"), FAILS[3], None),
        (at("Progressing", automatic_rollback=False), FAILS[3], "degrade"),
        (at("RolledBack"), FAILS[3], None),
        (at("Complete"), PASS, None),
    ],
)
def test_what_is_decided(standing: Standing, said: Evaluation, event: Event | None) -> None:
    chosen = decide(standing, said, NOW, reached=True, back_to=standing.phase - 1 if standing.phase else None)
    assert (chosen and chosen.event) == event


def test_level_2_is_level_3_where_no_phase_before_has_fewer_tenants() -> None:
    back = decide(at("Progressing", phase=3), FAILS[2], NOW, reached=True, back_to=1)
    assert back == Move("shrink", "some", phase=1)
    assert decide(at("Progressing", phase=3), FAILS[2], NOW, reached=True) == Move("roll_back", "some")


def test_a_phase_is_pending_until_every_process_obeys() -> None:
    assert decide(at("Pending"), PASS, NOW, reached=False) is None


def test_nobody_joins_in_a_freeze() -> None:
    assert decide(at("Healthy", automatic=True), PASS, NOW, reached=True, frozen_until=NOW + HOUR) is None


@given(st.sampled_from(STATES), st.sampled_from(SAID), st.booleans(), st.booleans(), st.integers(0, 4))
def test_a_decision_is_always_an_arrow(
    state: State, said: Evaluation, reached: bool, automatic: bool, phase: int
) -> None:
    chosen = decide(at(state, automatic=automatic, phase=phase), said, NOW, reached=reached)
    assert chosen is None or may(state, chosen.event)


def test_a_pause_costs_no_time() -> None:
    paused = at("Paused", paused_at=NOW)
    later = shifted(paused, NOW + 3 * HOUR)
    assert later.hold_until == NOW + 2 * HOUR
    assert later.expires_at == NOW + 4 * HOUR
    assert (later.paused_at, later.cause) == (None, None)
    assert shifted(paused, NOW - HOUR).hold_until == paused.hold_until  # a clock that jumped back


@given(st.integers(-400, 400), st.integers(-400, 400), st.integers(-400, 400))
def test_no_timer_is_further_away_than_its_length_whatever_the_clock_did(hold: int, rest: int, due: int) -> None:
    began = NOW + hold * HOUR
    found = at("Progressing", hold_until=began, expires_at=began + abs(rest) * HOUR, due_at=NOW + due * HOUR)
    capped = within(found, NOW, 4 * HOUR, 8 * HOUR, HOUR)
    assert capped.hold_until == min(found.hold_until or NOW, NOW + 4 * HOUR)
    assert capped.expires_at == min(found.expires_at or NOW, NOW + 8 * HOUR)
    assert capped.due_at == min(found.due_at or NOW, NOW + HOUR)
    assert capped.hold_until <= capped.expires_at
    assert within(at("Paused", hold_until=began), NOW, 4 * HOUR, 8 * HOUR, HOUR).hold_until == began


class Walk(RuleBasedStateMachine):
    """A rollout under a controller that crashes, operators, a human at the flag, and a clock that runs."""

    @initialize(automatic=st.booleans(), rollback=st.booleans())
    def begin(self, automatic: bool, rollback: bool) -> None:
        """Start; the model is the list of cohort sizes and the passes seen."""
        self.now = NOW
        self.standing = Standing("Pending", 0, 5, 1, automatic_promotion=automatic, automatic_rollback=rollback)
        self.version = 1
        self.human_since: int | None = None  # the flag's version that a human wrote, as long as it stands
        self.fired: set[tuple[int, str, datetime]] = set()

    def go(self, move: Move, *, by_controller: bool) -> None:
        """Do as moving.move does, in memory; check what must hold of each arrow."""
        was, said = self.standing, move.event
        now_state = after(was.state, said)
        phase = was.phase + (said == "force") if move.phase is None else move.phase
        assert 0 <= phase < 5
        if said in ("promote", "force", "shrink", "single_out", "roll_back", "abort", "finish", "overrule"):
            self.version += 1
        if by_controller:
            assert self.human_since is None or said in ("reach",), f"{said} overrules a human"
        if by_controller and said in ("promote", "pass", "finish"):
            assert self.said.verdict == "pass"
        if said == "expire":
            timer = (phase, "expires", was.expires_at or NOW)
            assert timer not in self.fired
            self.fired.add(timer)
        self.human_since = self.version if said == "overrule" else None if said == "resume" else self.human_since
        if said == "force":
            self.human_since = None
        standing = shifted(was, self.now) if said == "resume" else was
        if said in ("promote", "force", "shrink"):
            standing = replace(standing, hold_until=None, expires_at=None, due_at=None)
        elif said == "reach" and standing.hold_until is None:
            hold = {"hold_until": self.now + 4 * HOUR, "expires_at": self.now + 8 * HOUR, "due_at": self.now}
            standing = replace(standing, **hold)  # type: ignore[arg-type]
        cause = {"pause": "operator", "expire": "max_hold", "shrink": "rollback", "overrule": "flag"}.get(
            said, was.cause
        )
        self.standing = replace(
            standing,
            state=now_state,
            phase=phase,
            flag_version=self.version,
            paused_at=(was.paused_at or self.now) if now_state == "Paused" else None,
            cause=cause if now_state == "Paused" else None,  # type: ignore[arg-type]
        )

    @rule(
        said=st.sampled_from(SAID),
        reached=st.booleans(),
        frozen=st.booleans(),
        crash=st.booleans(),
        fewer=st.integers(0, 4),
    )
    def tick(self, said: Evaluation, reached: bool, frozen: bool, crash: bool, fewer: int) -> None:
        """The controller looks; a crash before the commit leaves everything as it was."""
        self.said = said
        freeze = self.now + HOUR if frozen else None
        back_to = fewer if fewer < self.standing.phase else None
        chosen = decide(self.standing, said, self.now, reached=reached, frozen_until=freeze, back_to=back_to)
        assert chosen == decide(self.standing, said, self.now, reached=reached, frozen_until=freeze, back_to=back_to)
        if chosen is None or crash:
            return
        assert chosen.event != "shrink" or chosen.phase == back_to
        assert not (frozen and chosen.event == "promote")
        before = self.standing
        self.go(chosen, by_controller=True)
        if chosen.event == "promote":
            assert self.standing.phase == before.phase + 1

    @rule(hours=st.integers(-1, 30))
    def wait(self, hours: int) -> None:
        """Time passes, or the clock jumps back."""
        self.now += hours * HOUR

    @rule(event=st.sampled_from(["pause", "resume", "abort", "force", "overrule"]))
    def operate(self, event: Event) -> None:
        """Somebody does something; what has no arrow is refused."""
        if may(self.standing.state, event) and not (event == "force" and self.standing.is_last):
            self.go(Move(event, "a human"), by_controller=False)

    @invariant()
    def is_sound(self) -> None:
        """What the database's constraints say too."""
        if hasattr(self, "standing"):
            assert (self.standing.state == "Paused") == (self.standing.paused_at is not None)
            assert self.standing.state not in ("Progressing", "Healthy", "Degraded") or self.standing.hold_until

    @precondition(lambda self: hasattr(self, "standing") and self.standing.state in ENDED)
    @rule(said=st.sampled_from(SAID))
    def nothing_follows_the_end(self, said: Evaluation) -> None:
        """No tick wakes what has ended."""
        assert decide(self.standing, said, self.now, reached=True) is None


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
