"""The checklist of after the rollout (specification 8.1): every item, and when it holds. Pure.

What a machine can know it checks itself, with evidence; what only people know they sign. A new item is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from relevo.metrics.health import Health
from relevo.report.comparison import METRICS

Stage = Literal["day_1", "week_1", "week_4"]
State = Literal["done", "open", "failing"]

DUE_AFTER: Mapping[Stage, timedelta] = MappingProxyType(
    {"day_1": timedelta(days=1), "week_1": timedelta(days=7), "week_4": timedelta(days=28)}
)
WINDOW = timedelta(days=1)
"""Figures and logs are of the last day, but not of before everybody was on v2."""
SHORTEST_WINDOW = timedelta(hours=8)
ENOUGH_CALLS = 20
"""Of fewer, a rate says nothing."""

_BUILT_IN = "is tried with: relevo checklist call"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A test call that should have been made: one of each vertical and kind of booking."""

    vertical: str
    outcome: str | None  # the booking to be made; None: none
    transfers: bool  # whether its assistant may pass a caller on to a person


@dataclass(frozen=True, slots=True)
class TestCall:
    """What the newest of them came to."""

    vertical: str
    outcome: str | None
    at: datetime
    version: str | None
    answered: bool
    booked: bool
    removed: bool
    transfer: str | None
    faults: Sequence[str]


@dataclass(frozen=True, slots=True)
class Mails:
    """What became of the notice that the rollout is complete, in clients."""

    sent: int
    waiting: int
    untold: int  # nothing was ever sent, or it is dead
    unreachable: int  # no address, or one that is none


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine knows, as of ``now``."""

    now: datetime
    completed_at: datetime
    v2: Health  # over the window
    incidents: Sequence[str]  # titles of those that are not over
    open_breakers: Sequence[str]
    logged_errors: Mapping[str, int]  # by event
    servers: int  # that could have logged
    wanted: Sequence[Wanted]
    calls: Sequence[TestCall]
    mails: Mails | None  # None: nobody knows where the clients are
    backups: int
    stages: Mapping[str, datetime] = field(default_factory=dict)  # of the cleanup, done

    @property
    def window(self) -> timedelta:
        """How long the figures are of."""
        return min(WINDOW, self.now - self.completed_at)


@dataclass(frozen=True, slots=True)
class Found:
    """Whether an item holds, and by what that is known. None: it cannot be told yet."""

    holds: bool | None
    evidence: str


def _metrics(facts: Facts) -> Found:
    hours = facts.window / timedelta(hours=1)
    counted = f"{facts.v2.total_calls:,} calls in {hours:.0f} h"
    if facts.window < SHORTEST_WINDOW or facts.v2.total_calls < ENOUGH_CALLS or facts.v2.measured_calls < ENOUGH_CALLS:
        return Found(None, f"too little to tell: {counted}, {facts.v2.measured_calls:,} with a latency")
    told, met = [], True
    for metric in METRICS:
        value = getattr(facts.v2, metric.name) if metric.target is not None else None
        if metric.target is None or value is None:
            continue
        met &= value < metric.target
        shown = (
            (f"{value:.0f} ms", f"{metric.target:.0f} ms")
            if metric.unit == "ms"
            else (f"{value:.2%}", f"{metric.target:.0%}")
        )
        told.append(f"{metric.title} {shown[0]} (target below {shown[1]})")
    return Found(met, f"{'; '.join(told)}; {counted}")


def _alerts(facts: Facts) -> Found:
    if facts.incidents:
        return Found(False, f"{len(facts.incidents)} active: {_few(facts.incidents)}")
    return Found(True, "no incident is open")


def _breakers(facts: Facts) -> Found:
    if facts.open_breakers:
        return Found(False, f"not closed: {_few(facts.open_breakers)}")
    return Found(True, "every breaker is closed")


def _logs(facts: Facts) -> Found:
    if facts.logged_errors:
        return Found(False, "logged: " + _few(f"{event} ({many:,})" for event, many in facts.logged_errors.items()))
    if facts.servers == 0:
        return Found(None, "no relevo serve is running that would have logged anything")
    return Found(True, f"{facts.servers} servers logged no error in {facts.window / timedelta(hours=1):.0f} h")


def _test_calls(facts: Facts) -> Found:
    return _of_calls(facts, facts.wanted, _fault_of_call, "answered by v2, recorded, and left out of the figures")


def _reservations(facts: Facts) -> Found:
    return _booked(facts, "reservation_created", "reservations")


def _appointments(facts: Facts) -> Found:
    return _booked(facts, "appointment_created", "appointments")


def _transfers(facts: Facts) -> Found:
    wanted = [each for each in facts.wanted if each.transfers]
    if not wanted and facts.wanted:
        return Found(True, "no assistant on v2 passes callers on")
    return _of_calls(
        facts, wanted, lambda call: None if call.transfer else "no person could be reached", "a person would be reached"
    )


def _booked(facts: Facts, outcome: str, what: str) -> Found:
    wanted = [each for each in facts.wanted if each.outcome == outcome]
    if not wanted and facts.wanted:
        return Found(True, f"no assistant on v2 takes {what}")

    def fault(call: TestCall) -> str | None:
        if not call.booked:
            return "it was not made: " + (_few(call.faults) or "nobody knows why")
        return None if call.removed else "it was made, and not removed: do that by hand"

    return _of_calls(facts, wanted, fault, "made, and removed again")


def _fault_of_call(call: TestCall) -> str | None:
    if not call.answered:
        return "nobody answered: " + (_few(call.faults) or "nobody knows why")
    if call.version != "v2":
        return f"{call.version or 'nobody'} answered"
    return _few(call.faults) or None


def _of_calls(facts: Facts, wanted: Iterable[Wanted], fault: Callable[[TestCall], str | None], good: str) -> Found:
    made = {(call.vertical, call.outcome): call for call in facts.calls}
    lacking, faulty, fine = [], [], []
    for each in wanted:
        call = made.get((each.vertical, each.outcome))
        if call is None:
            lacking.append(_named(each))
        elif why := fault(call):
            faulty.append(f"{_named(each)}: {why}")
        else:
            fine.append(f"{_named(each)} at {call.at:%Y-%m-%d %H:%M}")
    if faulty:
        return Found(False, _few(faulty))
    if lacking:
        return Found(None, f"not tried: {_few(lacking)}; {_BUILT_IN}")
    if not fine:
        return Found(None, "nobody on v2 can be called")
    return Found(True, f"{good}: {_few(fine)}")


def _named(each: Wanted) -> str:
    return f"{each.vertical} ({each.outcome.removesuffix('_created')})" if each.outcome else each.vertical


def _mails(facts: Facts) -> Found:
    mails = facts.mails
    if mails is None:
        return Found(None, "nobody knows where the clients are; run: relevo mirror install")
    told = f"{mails.sent:,} delivered, {mails.waiting:,} on their way, {mails.untold:,} not"
    if mails.unreachable:
        told += f"; {mails.unreachable:,} clients have no address that mail could go to"
    return Found(mails.sent > 0 and not mails.waiting and not mails.untold, told)


def _stage(stage: str, what: str) -> Callable[[Facts], Found]:
    def check(facts: Facts) -> Found:
        done_at = facts.stages.get(stage)
        if done_at is None:
            return Found(False, f"not done; it is done by: relevo cleanup --stage {stage}")
        return Found(True, f"{what} at {done_at:%Y-%m-%d %H:%M} UTC")

    return check


def _backups(facts: Facts) -> Found:
    if facts.backups:
        return Found(False, f"{facts.backups} are left; they go by: relevo cleanup --stage backups")
    if "drop" not in facts.stages:
        return Found(False, "there is none; but v1 is still there, and should have one until it is dropped")
    return Found(True, "no backup is left in the database")


Check = Callable[[Facts], Found]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist."""

    name: str
    stage: Stage
    section: str
    title: str
    check: Check | None = None  # None: only people know; they sign
    hint: str = ""  # where to look before signing


ITEMS = (
    Item("metrics_within_targets", "day_1", "technical", "All metrics are within their targets", _metrics),
    Item("no_active_alerts", "day_1", "technical", "No alert is active", _alerts),
    Item("breakers_closed", "day_1", "technical", "All circuit breakers are closed", _breakers),
    Item("no_critical_logs", "day_1", "technical", "The logs hold no critical error", _logs),
    Item("test_calls_succeed", "day_1", "functional", "Test calls succeed", _test_calls),
    Item("reservations_work", "day_1", "functional", "Reservations are made correctly", _reservations),
    Item("appointments_work", "day_1", "functional", "Appointments are made correctly", _appointments),
    Item("transfer_works", "day_1", "functional", "Passing a caller on to a person works", _transfers),
    Item("clients_confirmed", "day_1", "communication", "Clients have the confirmation by e-mail", _mails),
    Item("documentation_updated", "day_1", "communication", "The documentation is updated"),
    Item("support_informed", "day_1", "communication", "The support team is informed"),
    Item("metrics_reviewed_daily", "week_1", "monitoring", "Metrics are reviewed daily", None, "relevo metrics show"),
    Item("feedback_analysed", "week_1", "monitoring", "What users say is analysed", None, "relevo complaints list"),
    Item("v1_and_v2_compared", "week_1", "monitoring", "v1 and v2 are compared", None, "relevo report"),
    Item("flags_removed", "week_1", "cleaning", "The feature flag is removed", _stage("flags", "retired")),
    Item("v1_code_deprecated", "week_1", "cleaning", "The code of v1 is deprecated"),
    Item("old_tables_marked", "week_1", "cleaning", "The old tables are marked to go", _stage("deprecate", "marked")),
    Item("retrospective_held", "week_1", "documentation", "The retrospective is held"),
    Item("lessons_documented", "week_1", "documentation", "The lessons learnt are written down"),
    Item("runbooks_updated", "week_1", "documentation", "The runbooks are updated", None, "docs/runbook.md"),
    Item("v1_code_removed", "week_4", "removal", "The code of v1 is removed"),
    Item("backups_removed", "week_4", "removal", "The backup tables are removed", _backups),
    Item("flags_removed_from_code", "week_4", "removal", "The feature flag is removed from the code"),
    Item("report_documented", "week_4", "final", "The report is filed", None, "relevo report --html FILE"),
    Item("return_calculated", "week_4", "final", "The return on the investment is calculated", None,
         "relevo report --value-per-booking N"),
    Item("stakeholders_told", "week_4", "final", "It was presented to the stakeholders"),
)  # fmt: skip
BY_NAME: Mapping[str, Item] = MappingProxyType({item.name: item for item in ITEMS})


@dataclass(frozen=True, slots=True)
class Done:
    """Who found an item done, and when."""

    at: datetime
    name: str  # relevo: the machine
    note: str | None
    evidence: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """Where one item stands."""

    item: Item
    state: State
    due_at: datetime
    overdue: bool
    done: Done | None
    evidence: str  # what was seen when it was done, or what is seen now


def stand(facts: Facts, done: Mapping[str, Done]) -> list[Line]:
    """Where each item stands, in the specification's order."""
    return [_line(item, facts, done.get(item.name)) for item in ITEMS]


def _line(item: Item, facts: Facts, done: Done | None) -> Line:
    due_at = facts.completed_at + DUE_AFTER[item.stage]
    if done is not None:
        return Line(item, "done", due_at, False, done, done.evidence or done.note or "")
    overdue = facts.now > due_at
    if item.check is None:
        return Line(item, "open", due_at, overdue, None, item.hint and f"look at: {item.hint}")
    found = item.check(facts)
    return Line(item, "failing" if found.holds is False else "open", due_at, overdue, None, found.evidence)


def to_tick(facts: Facts, done: Mapping[str, Any]) -> dict[str, str]:
    """What the machine finds to hold and has not ticked yet, with the evidence."""
    found = {item.name: item.check(facts) for item in ITEMS if item.check is not None and item.name not in done}
    return {name: each.evidence for name, each in found.items() if each.holds}


def _few(words: Iterable[str], most: int = 5) -> str:
    listed = list(words)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return "; ".join(listed[:most]) + more
