"""The rollout on a real database, walked at random: figures, clock, crashes, several controllers, operators, hands at
the flag. A model of a few lines says after each step who is on v2, and what must never happen."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import ceil
from typing import Any, ClassVar, Literal, TypeVar, get_args

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import Refused, RelevoError, UnknownName
from relevo.rollback import levels
from relevo.rollout import controller, operating
from relevo.rollout.moving import CONTROLLER
from relevo.rollout.plan import DEFAULT
from relevo.rollout.state import ENDED, TRANSITIONS, Event, State
from tests.conftest import change, copied, made, rows, value
from tests.flags import row, write
from tests.rollouts import ANA, HOUR, SOURCE, Scene, every_transition_follows_the_one_before, scene
from tests.servers import Server

TENANTS = 12
TABLES_TO_DIE_AT = (
    "public.feature_flags", "relevo.rollouts", "relevo.rollout_transitions", "relevo.rollout_evaluations",
    "relevo.rollout_phases", "relevo.audit_log", "relevo.outbox",
)  # fmt: skip
PLAN = replace(
    DEFAULT,
    phases=tuple(replace(each, min_calls=min(each.min_calls, 20), evidence=False) for each in DEFAULT.phases),
)
SIZES = (2, 2, 3, 6, 12)  # of 12 tenants
T = TypeVar("T")


@dataclass
class Model:
    """Who is on v2, in the order in which they joined, and whether a human has decided that."""

    order: list[str] = field(default_factory=list)  # of the rollout
    on: list[str] = field(default_factory=list)
    off: set[str] = field(default_factory=set)
    singled_out: set[str] = field(default_factory=set)
    enabled: bool = False
    percentage: int = 0
    state: State = "RolledBack"
    phase: int = 0
    human: bool = False
    automatic: bool = False
    automatic_back: bool = True

    @property
    def runs(self) -> bool:
        """Whether a rollout is open."""
        return self.state not in ENDED

    def resize(self, least: int, most: int) -> None:
        """The first of the order stay, then whom a hand put there; the next of the order join."""
        rank = {tenant: place for place, tenant in enumerate(self.order)}
        was = sorted(self.on, key=lambda tenant: (rank.get(tenant, len(rank)), self.on.index(tenant)))
        others = (each for each in self.order if each not in {*self.on, *self.off, *self.singled_out})
        self.on = was[:most] + list(itertools.islice(others, max(0, least - len(was))))

    def go(self, event: Event, phase: int, tenant: str | None, by_controller: bool, verdict: str | None) -> None:
        """One arrow, and all that must hold of it."""
        was_on = list(self.on)
        if by_controller:
            assert not self.human, f"{event} overrules a human"
            assert event not in ("force", "abort", "pause", "resume", "overrule", "undo")
        if event in ("pass", "promote", "finish") and (by_controller or event == "promote"):
            assert verdict == "pass", f"{event} on {verdict}"
        if event in ("force", "finish"):
            assert verdict not in ("fail", "error", None), f"{event} on {verdict}"
        if event == "promote" and by_controller:
            assert self.automatic
            assert phase == self.phase + 1
        if event in ("single_out", "shrink", "roll_back"):
            assert by_controller
            assert self.automatic_back
            assert verdict == "fail"
        match event:
            case "promote" | "force":
                self.enabled = True
                self.resize(SIZES[phase], TENANTS)
            case "shrink":
                assert phase == max(before for before in range(self.phase) if SIZES[before] < len(was_on))
                self.resize(0, SIZES[phase])
            case "single_out":
                assert tenant is not None
                self.on.remove(tenant)
                self.off.add(tenant)
                self.singled_out.add(tenant)
            case "roll_back" | "abort":
                self.on, self.enabled, self.percentage = [], False, 0
            case "finish":
                self.on, self.enabled, self.percentage = [], True, 100
        self.human = event in ("overrule", "undo") or (self.human and TRANSITIONS[self.state, event].target == "Paused")
        self.state, self.phase = TRANSITIONS[self.state, event].target, phase


class Walk(RuleBasedStateMachine):
    """One database, one rollout after the other."""

    server: Server
    template: str
    happened: ClassVar[Counter[str]] = Counter()

    @initialize(automatic=st.booleans(), back=st.booleans(), phases=st.integers(0, 4))
    def begin(self, automatic: bool, back: bool, phases: int) -> None:
        """A platform of its own, and a rollout that has begun."""
        self.runner = asyncio.Runner()
        self.copy = copied(self.server, self.template)
        self.database = Database(self.copy.__enter__())
        self.do(self.database.__aenter__())
        found = self.do(rows(self.database, "SELECT business_id::text AS id FROM relevo.verifications ORDER BY 1"))
        self.scene = Scene(self.database, [each["id"] for each in found], system_clock())
        self.model = Model(automatic=automatic, automatic_back=back)
        self.seen = 0
        self.last_back: tuple[int, Model] | None = None  # the audit entry of the last way back, and what was before
        self.start()
        if phases:
            self.prosper(phases)

    def teardown(self) -> None:
        """The database is gone."""
        if hasattr(self, "runner"):
            self.do(self.database.__aexit__())
            self.runner.close()
            self.copy.__exit__(None, None, None)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        return self.runner.run(coroutine)

    # The controller -------------------------------------------------------------------------------------------------

    @rule(controllers=st.sampled_from([1, 1, 1, 2, 3]))
    def tick(self, controllers: int) -> None:
        """They look at once; who comes late does nothing."""

        async def at_once() -> list[Any]:
            ticks = (controller.tick(self.database, self.scene.now) for _ in range(controllers))
            return await asyncio.gather(*ticks, return_exceptions=True)

        for ended in self.do(at_once()):
            assert not isinstance(ended, BaseException) or isinstance(ended, RelevoError), ended
        self.check()

    @rule(table=st.sampled_from(TABLES_TO_DIE_AT))
    def die(self, table: str) -> None:
        """A controller that dies as it writes there has done nothing at all."""
        before: tuple[Any, ...] | None = self.do(self.told())
        self.do(
            change(
                self.database, f"CREATE TRIGGER a_dies BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION public.die()"
            )
        )
        with suppress(psycopg.Error, RelevoError):
            self.do(controller.tick(self.database, self.scene.now))
            before = None  # it had no reason to write there
        self.do(change(self.database, f"DROP TRIGGER a_dies ON {table}"))
        assert before is None or self.do(self.told()) == before
        self.check()

    @rule()
    def look_at_nothing(self) -> None:
        """The figures cannot be read."""
        self.do(change(self.database, "ALTER TABLE relevo.call_stats RENAME TO gone"))
        ticked = self.do(controller.tick(self.database, self.scene.now))
        self.do(change(self.database, "ALTER TABLE relevo.gone RENAME TO call_stats"))
        assert ticked is None or ticked.evaluation.verdict == "error"
        assert ticked is None or ticked.move is None or ticked.move.event in ("reach", "relapse", "expire")
        self.check()

    # The world ------------------------------------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0.02, 0.1, 1, 4, 24, 50, -1, -30, 300]))
    def wait(self, hours: float) -> None:
        """Time passes, or the clock jumps: back, or far ahead."""
        self.scene.now += hours * HOUR

    def call(self, figures: tuple[int, int, int, int]) -> None:
        """Calls of both versions, so many of them with errors."""
        v2, v2_errors, v1, v1_errors = figures
        self.scene.now += timedelta(minutes=2)
        if self.model.on:
            self.do(self.scene.calls("v2", v2, errors=v2_errors, tenants=self.model.on))
        self.do(self.scene.calls("v1", v1, errors=v1_errors))

    @rule(phases=st.integers(1, 5))
    def prosper(self, phases: int) -> None:
        """Phases that go well."""
        self.start()
        for _ in range(phases):
            self.tick(1)
            self.call((250, 0, 300, 0))
            self.wait(30)
            self.tick(1)
            self.promote(False, 1)

    @rule(figures=st.sampled_from([(40, 16, 120, 2), (600, 27, 900, 2), (22, 10, 66, 30), None]))
    def suffer(self, figures: tuple[int, int, int, int] | None) -> None:
        """A phase that does not, for all or for one."""
        self.tick(1)
        if figures is None:
            self.call_one(0)
        else:
            self.call(figures)
        self.tick(2)

    def call_one(self, place: int) -> None:
        """One tenant's calls fail, and no other's."""
        self.scene.now += timedelta(minutes=2)
        if len(self.model.on) > 1:
            bad = self.model.on[place % len(self.model.on)]
            self.do(self.scene.calls("v2", 15, errors=13, tenants=[bad]))
            self.do(self.scene.calls("v2", 60, tenants=[each for each in self.model.on if each != bad]))
            self.do(self.scene.calls("v1", 300))

    # Operators ------------------------------------------------------------------------------------------------------

    @rule(event=st.sampled_from(["pause", "resume", "pause", "resume", "pause", "resume", "abort"]))
    def operate(self, event: Literal["pause", "resume", "abort"]) -> None:
        """What has no arrow is refused."""
        may = self.model.runs and (self.model.state, event) in TRANSITIONS
        try:
            self.do(operating.change(self.database, event, ANA, self.scene.now))
        except Refused:
            assert not may
        else:
            assert may
        self.check()

    @rule(force=st.booleans(), ahead=st.sampled_from([1, 1, 2]))
    def promote(self, force: bool, ahead: int) -> None:
        """Refused, or done and checked."""
        with suppress(Refused):
            self.do(operating.promote(self.database, ANA, self.scene.now, force=force, ahead=ahead))
        self.check()

    @rule()
    def start(self) -> None:
        """Where none runs and nobody is on v2."""
        free = [each for each in self.scene.tenants if each not in self.model.off]
        may = not self.model.runs and not self.model.on and not self.model.percentage and len(free) >= 2
        plan = replace(
            PLAN,
            named=tuple(free[:2]),
            promotion="automatic" if self.model.automatic else "manual",
            rollback="automatic" if self.model.automatic_back else "manual",
        )
        clock = self.scene.clock
        try:
            self.do(operating.start(self.database, plan, SOURCE, ANA, clock, force=True))
        except Refused:
            assert not may
            return
        assert may
        order = self.do(rows(self.database, "SELECT tenant_id, rollout_id FROM relevo.rollout_cohort ORDER BY 2, 1"))
        newest = max(each["rollout_id"] for each in order)
        line = self.do(
            rows(
                self.database,
                "SELECT tenant_id FROM relevo.rollout_cohort WHERE rollout_id = %s ORDER BY place",
                (newest,),
            )
        )
        self.model = replace(
            self.model,
            order=[each["tenant_id"] for each in line],
            on=free[:2],
            singled_out=set(),
            enabled=True,
            state="Pending",
            phase=0,
            human=False,
        )
        self.check()

    # Hands at the flag ----------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["percentage", "list", "back", "back, and not"]),
        percentage=st.sampled_from([None, 0, 10, 25, 50, 90]),
        place=st.integers(0, TENANTS - 1),
        off=st.booleans(),
        resume=st.booleans(),
    )
    def hand(self, what: str, percentage: int | None, place: int, off: bool, resume: bool) -> None:
        """Somebody changes the flag: by old code, psql, a button, or relevo rollback."""
        if what == "percentage":
            self.write_percentage(percentage or 0)
        elif what == "list":
            self.write_list(place, off)
        else:
            self.go_back(percentage)
        if what == "back, and not":
            self.undo()
        if resume:
            self.operate("resume")

    def write_percentage(self, percentage: int) -> None:
        """While a rollout runs: that share of the tenants, and a pause."""
        if not self.model.runs:
            return
        self.do(write(self.database, "percentage = %s", percentage))
        self.model.resize(size := ceil(percentage * TENANTS / 100), size)
        self.check()

    def write_list(self, place: int, off: bool) -> None:
        """The specification's own statements: only ever an element more."""
        tenant = self.scene.tenants[place]
        column = "disabled_tenants" if off else "enabled_tenants"
        self.do(write(self.database, f"{column} = array_append({column}, %s)", tenant))
        if off:
            self.model.off.add(tenant)
            self.model.on = [each for each in self.model.on if each != tenant]
        elif tenant not in {*self.model.on, *self.model.off}:
            self.model.on.append(tenant)
        self.check()

    def go_back(self, percentage: int | None) -> None:
        """Levels 2 and 3."""
        before = replace(self.model, on=list(self.model.on), off=set(self.model.off))
        if percentage is None:
            done = self.do(levels.all_back(self.database, ANA, self.scene.clock))
            self.model.on, self.model.enabled, self.model.percentage = [], False, 0
        else:
            done = self.do(levels.partly_back(self.database, percentage, ANA, self.scene.clock))
            self.model.on = self.model.on[: ceil(percentage * TENANTS / 100)]
            self.model.percentage = min(self.model.percentage, percentage)
        assert set(done.after.enabled_tenants) <= set(done.before.enabled_tenants)
        self.last_back = (done.audit_id, before)
        self.check()

    def undo(self) -> None:
        """As it was before; refused where somebody changed the flag since."""
        if self.last_back is None:
            return
        entry, before = self.last_back
        self.last_back = None
        try:
            self.do(levels.undo(self.database, entry, ANA, self.scene.clock))
        except (Refused, UnknownName):
            return
        was = self.model
        self.model = replace(was, on=[each for each in before.on if each not in was.off])
        self.model.enabled, self.model.percentage = before.enabled, before.percentage
        self.check()

    # What must hold ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Replay what was written down since, then compare."""
        self.do(every_transition_follows_the_one_before(self.database))
        new = self.do(
            rows(self.database, "SELECT * FROM relevo.rollout_transitions WHERE id > %s ORDER BY id", (self.seen,))
        )
        for each in new:
            self.seen = each["id"]
            self.happened[each["event"]] += 1
            if each["event"] == "start":
                continue
            verdict = self.do(self.verdict_at(each))
            self.model.go(
                each["event"], each["phase"], each["details"].get("tenant"), each["actor"] == CONTROLLER, verdict
            )
        flag, rollout = self.do(row(self.database)), self.do(self.scene.rollout())
        assert (rollout.standing.state, rollout.standing.phase) == (self.model.state, self.model.phase)
        assert flag["enabled_tenants"] == self.model.on
        assert set(flag["disabled_tenants"]) == self.model.off
        assert (flag["enabled"], flag["percentage"]) == (self.model.enabled, self.model.percentage)

    async def verdict_at(self, moved: Mapping[str, Any]) -> str | None:
        """What the gate said in the transaction of a transition."""
        found = await rows(
            self.database,
            """SELECT e.verdict FROM relevo.rollout_evaluations e JOIN relevo.rollout_transitions t
               ON t.xmin::text = e.xmin::text AND t.rollout_id = e.rollout_id WHERE t.id = %s""",
            (moved["id"],),
        )
        return found[0]["verdict"] if found else None

    async def told(self) -> tuple[Any, ...]:
        """Everything that a controller may change."""
        counted = [
            await value(
                self.database, f"SELECT md5(coalesce(string_agg(t::text, '' ORDER BY t::text), '')) FROM {table} t"
            )
            for table in TABLES_TO_DIE_AT
        ]
        return tuple(counted)


@pytest.fixture(scope="module")
def platform(server: Server) -> Iterator[str]:
    """The name of a database with verified tenants, to be copied."""

    async def make() -> None:
        async with Database(url) as database:
            await migrations.up(database)
            await scene(database, verified=TENANTS)
            await change(
                database,
                """CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql
                   AS $$ BEGIN RAISE EXCEPTION 'killed'; END $$""",
            )

    with made(server, "walks") as url:
        asyncio.run(make())
        yield "walks"


def test_the_model_knows_every_arrow(server: Server, platform: str) -> None:
    class Here(Walk):
        """On this server."""

        happened: ClassVar[Counter[str]] = Counter()

    Here.server, Here.template = server, platform
    walk = Here()
    walk.begin(automatic=False, back=True, phases=0)
    try:
        walk.suffer((22, 10, 66, 30))  # both versions: Degraded
        walk.call((400, 0, 400, 0))
        walk.tick(1)  # heals
        walk.wait(30)
        walk.tick(1)  # Healthy
        walk.look_at_nothing()  # and not any more
        walk.tick(1)
        walk.wait(2)
        walk.tick(1)
        walk.promote(force=False, ahead=1)
        walk.hand("back, and not", None, 0, off=False, resume=True)
        walk.tick(1)
        walk.wait(300)
        walk.tick(1)  # too few calls, too long
        walk.promote(force=True, ahead=1)
        walk.tick(1)
        walk.operate("pause")
        walk.hand("percentage", 50, 0, off=False, resume=True)
        walk.suffer(None)  # one tenant
        walk.suffer((600, 27, 900, 2))  # level 2
        walk.operate("resume")
        walk.suffer((40, 16, 120, 2))  # level 3
        walk.start()
        walk.operate("abort")
        walk.prosper(5)
        walk.tick(1)
        for table in TABLES_TO_DIE_AT:
            walk.die(table)
        print(f"walked over {dict(Here.happened)}")
        assert Here.happened.keys() >= {*get_args(Event)}, {*get_args(Event)} - Here.happened.keys()
    finally:
        walk.teardown()


def test_whatever_happens_the_database_is_as_the_model_says(server: Server, platform: str) -> None:
    class Here(Walk):
        """On this server."""

    Here.server, Here.template = server, platform
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )
    print(f"walked over {dict(Here.happened.most_common())}")
