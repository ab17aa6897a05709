"""The stage: a served platform in compressed time, callers on its lines, and what happens there, told as it happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Literal, Protocol

import psycopg
from pydantic import SecretStr

from relevo.access import tokens
from relevo.access.roles import Role
from relevo.clock import Clock, CompressedClock, system_clock
from relevo.db.pool import Database
from relevo.db.statements import statement
from relevo.errors import Refused, RelevoError, SomebodyWasFaster
from relevo.flags.writing import Author
from relevo.metrics.record import Version
from relevo.migration.mapping import SourceMapping
from relevo.rehearsal.inbox import PAGERDUTY, SLACK, Inbox, Post
from relevo.rollout import operating
from relevo.rollout import plan as plans
from relevo.rollout.cohort import Candidate, with_canary
from relevo.rollout.operating import Status
from relevo.rollout.plan import Plan
from relevo.serving import server
from relevo.serving.app import Application
from relevo.serving.background import Pace
from relevo.serving.readiness import Readiness
from relevo.settings import Settings
from relevo.simulator import lines
from relevo.simulator.lines import Line
from relevo.simulator.script import Manner
from relevo.simulator.traffic import Credentials, Flow, Traffic

SECRET = "secret-of-the-rehearsal"  # noqa: S105 - signs simulated messages on the loopback, and nothing else
PACE = Pace(rollout_s=0.1, alerts_s=0.2, deliveries_s=0.1, clients_s=0.3)
PROMOTER = Author("the demo", "as the plan says: promotion is automatic here")

_LOOKS_EVERY_S = 0.1
_GIVES_UP_AFTER_S = 90.0
_CALL_S = 90.0  # as v1's calls last
_CANARIES = 3
_TRIES = 10
_BUSY_CALLS = 40
"""Open calls at which the machine does not keep up, and the clock slows down: else waiting would look like hours."""
_SLOWEST = 300.0

Kind = Literal["act", "move", "message", "note"]
Manners = Callable[[Line, Version | None], Manner]


class Assembling(Protocol):
    """How a server's application is put together: relevo.cli.serve knows."""

    def __call__(
        self, database: Database, in_force: Settings, mapping: SourceMapping, clock: Clock, pace: Pace
    ) -> AbstractAsyncContextManager[tuple[Application, Readiness]]:
        """The application and its readiness, for the length of the block."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened."""

    kind: Kind
    at: datetime  # by the compressed clock
    text: str


HEALTHY: Mapping[Version | None, Manner] = {
    "v1": Manner(error_rate=0.012, latency_ms=700, failed_rate=0.015),
    "v2": Manner(error_rate=0.0005, latency_ms=430, failed_rate=0.004),
    None: Manner(),
}
"""v1 as the sample's history has it; v2 as it is hoped for."""


def healthy(_line: Line, version: Version | None) -> Manner:
    """How calls go when all is well."""
    return HEALTHY[version]


@dataclass(slots=True)
class Stage:
    """See the module; made by ``staged``."""

    database: Database
    clock: CompressedClock
    fastest: float
    inbox: Inbox
    told: Callable[[Told], None]
    home: Path
    mapping: SourceMapping
    plan: Plan = plans.DEFAULT
    address: str = ""
    token: str = ""
    manners: Manners = healthy
    traffic: Traffic | None = None
    lines: list[Line] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    status: Status | None = None  # as last seen
    began_at: datetime = field(default_factory=system_clock)  # really
    _seen: int = 0  # transitions that were told
    _flowing: asyncio.Task[object] | None = None
    _looked: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, kind: Kind, text: str) -> None:
        """Something happened."""
        self.told(Told(kind, self.clock(), text))

    @property
    def state(self) -> str | None:
        """The rollout's, as last seen."""
        rollout = self.status.rollout if self.status else None
        return rollout.standing.state if rollout else None

    @property
    def phase(self) -> str | None:
        """The name of the phase asked for."""
        rollout = self.status.rollout if self.status else None
        return rollout.phase.name if rollout else None

    @property
    def canary(self) -> list[str]:
        """Tenants who are called often enough to tell: those next to the busiest ten."""
        called = {line.tenant_id for line in self.lines}
        fit = [each for each in self.candidates if each.unverified is None and each.tenant_id in called]
        return [each.tenant_id for each in sorted(fit, key=_busiest_first)[10 : 10 + _CANARIES]]

    async def begin(self) -> None:
        """The canary goes to v2, by the plan; promotion is automatic. Where v1 itself is No-Go, we go over
        that as a person would, and say so."""
        plan = with_canary(replace(self.plan, promotion="automatic"), self.canary)
        try:
            await operating.start(self.database, plan, self.mapping.fill(), PROMOTER, self.clock, force=False)
        except Refused as refused:
            self.tell("note", f"start refused: {refused}; started with --force")
            author = replace(PROMOTER, reason="v2 is meant to be better than v1 is")
            await operating.start(self.database, plan, self.mapping.fill(), author, self.clock, force=True)

    async def take_phase(self, name: str) -> None:
        """A person takes phase after phase, without waiting for holds, until this one is reached."""
        await self.until(lambda: self.state == "Progressing")
        while self.phase != name:
            await self.promote(Author("ana", "rehearsal: straight to this phase"))
            await self.until(lambda: self.state in ("Progressing", "Healthy"))

    async def promote(self, author: Author) -> None:
        """A person takes the next phase; where the controller was just faster, they look and try again."""
        for _ in range(_TRIES):
            with contextlib.suppress(SomebodyWasFaster):
                await operating.promote(self.database, author, self.clock(), force=True)
                break
            await self._next_look()
        await self.look()

    async def until(self, happens: Callable[[], bool], within_s: float = _GIVES_UP_AFTER_S) -> bool:
        """Wait until it happens; False when it did not within so many real seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not happens():
                    await self._next_look()
                return True
        return False

    async def pass_hours(self, hours: float) -> None:
        """Wait for so much of the compressed time."""
        ends = self.clock().timestamp() + 3_600 * hours
        while self.clock().timestamp() < ends:
            await self._next_look()

    async def _next_look(self) -> None:
        self._looked.clear()
        await self._looked.wait()

    async def look(self) -> None:
        """See where the rollout stands, and tell what is new."""
        self.status = await operating.status(self.database, self.clock())
        _rollout, transitions, _evaluations = await operating.events(self.database, 100)
        for each in reversed(transitions[: len(transitions) - self._seen]):
            where = f"{each['event']} → {each['target']}"
            why = f": {each['why']}" if each["why"] else ""
            self.told(Told("move", each["at"], f"{where} (phase {each['phase'] + 1}, by {each['actor']}){why}"))
        self._seen = len(transitions)

    async def call_in(self, calls_a_day: float) -> None:
        """Callers begin to call those whom they called in v1's history, and who answered there."""
        volume = {each.tenant_id: each.calls_per_day for each in self.candidates}
        self.lines = [
            replace(line, weight=max(volume[line.tenant_id], 0.01))
            for line in await lines.of_tenants(self.database, self.clock, answered=True)
            if line.tenant_id in volume
        ]
        credentials = Credentials(hmac_secret=SECRET, hmac_signs_time=False)
        rng = Random(7)  # noqa: S311 - a rehearsal must repeat; nothing is secret
        self.traffic = Traffic(
            self.address,
            credentials,
            lambda line, version: self.manners(line, version),
            rng,
            self.clock,
            real_s=self.clock.real_s,
        )
        await self.traffic.__aenter__()
        self._flowing = asyncio.create_task(
            self.traffic.flow(self.lines, Flow(calls_a_day / 86_400, None, None, _CALL_S))
        )

    async def hang_up(self) -> None:
        """No call comes in any more, and those that are going on end."""
        if self.traffic is None or self._flowing is None:
            return
        self.traffic.stop()
        await self._flowing
        await self.traffic.__aexit__(None, None, None)
        self._flowing = None

    async def settle(self) -> None:
        """Until every message is sent, or given up."""
        for _ in range(200):
            async with self.database.transaction(read_only=True) as connection:
                row = await (await connection.execute(statement("rehearsal", "unsent"))).fetchone()
            if row is not None and row["unsent"] == 0:
                return
            await asyncio.sleep(_LOOKS_EVERY_S)

    async def set_pace(self, times: float) -> None:
        """Go on so fast, here and in the database."""
        self.clock.run(times)
        async with self.database.transaction() as connection:
            wanted = {"since": self.clock(), "times": times}
            await connection.execute(statement("rollout", "compress_time"), wanted)

    async def keep_looking(self) -> None:
        """See where things stand, again and again, and slow down where the machine does not keep up."""
        while True:
            with contextlib.suppress(RelevoError, psycopg.Error):
                await self.look()
                await self._govern()
            self._looked.set()
            await asyncio.sleep(_LOOKS_EVERY_S)

    async def _govern(self) -> None:
        if self.traffic is None or self._flowing is None:  # nobody calls any more: whoever sets the pace then keeps it
            return
        going_on = self.traffic.tally.calls - self.traffic.tally.over
        if going_on > _BUSY_CALLS and self.clock.times > _SLOWEST:
            await self.set_pace(max(self.clock.times / 2, _SLOWEST))
        elif going_on < _BUSY_CALLS / 2 and self.clock.times < self.fastest:
            await self.set_pace(min(self.clock.times * 1.25, self.fastest))


def _busiest_first(candidate: Candidate) -> tuple[float, str]:
    return -candidate.calls_per_day, candidate.tenant_id


def settings_of(url: str, inbox: Inbox) -> Settings:
    """The settings of the stage: nothing of the environment, whose Slack is a real one."""
    return Settings.model_construct(
        database_url=url,
        vapi_hmac_secret=SECRET,
        vapi_hmac_signs="body",  # a time that is signed would be hours old when it arrives
        slack_webhook_url=_secret(inbox.http + SLACK),
        pagerduty_routing_key=_secret("the rehearsal's own key"),
        pagerduty_url=inbox.http + PAGERDUTY,
        smtp_url=_secret(inbox.smtp),
        notify_clients=True,
    )


def _secret(text: str) -> SecretStr:
    return SecretStr(text)


@asynccontextmanager
async def staged(
    url: str,
    home: Path,
    mapping: SourceMapping,
    assemble: Assembling,
    told: Callable[[Told], None],
    times: float,
    calls_a_day: float,
    plan: Plan = plans.DEFAULT,
) -> AsyncIterator[Stage]:
    """The stage on a database that has been moved, served and called, for the length of the block."""
    clock = CompressedClock(system_clock(), times)
    # Not waiting for the disk: in compressed time its milliseconds are minutes, and nothing here survives its end.
    url = f"{url}{'&' if '?' in url else '?'}options=-c%20synchronous_commit%3Doff"

    def arrived(post: Post) -> None:
        told(Told("message", clock(), f"{post.channel}: {post.headline}"))

    async with AsyncExitStack() as stack:
        inbox = await stack.enter_async_context(Inbox(arrived).open())
        database = await stack.enter_async_context(Database(url, wait_s=3.0))
        stage = Stage(database, clock, times, inbox, told, home, mapping, plan)
        await stage.set_pace(times)
        made = await tokens.create(
            database, Role.ADMIN, name="demo", expires_at=None, clock=system_clock, actor="the demo", reason="demo"
        )
        stage.token = made.secret
        stage.candidates = await operating.candidates(database, stage.mapping.fill(), clock())
        app, readiness = await stack.enter_async_context(
            assemble(database, settings_of(url, inbox), mapping, clock, PACE)
        )
        stage.address = await stack.enter_async_context(server.beside(app, server.listen("127.0.0.1", 0), readiness))
        looking = asyncio.create_task(stage.keep_looking())
        stack.callback(looking.cancel)
        await stage.call_in(calls_a_day)
        stack.push_async_callback(stage.hang_up)
        yield stage
