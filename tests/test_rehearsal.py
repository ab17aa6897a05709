"""The rehearsal: each scenario as a user runs it, to its end, and the parts that it stands on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import aiosmtplib
import pytest
from pydantic import SecretStr

from relevo.db.pool import Database
from relevo.db.statements import statement
from relevo.flags import writing
from relevo.flags.writing import Author
from relevo.rehearsal.inbox import PAGERDUTY, SLACK, Inbox, Post
from relevo.rehearsal.scenario import ALWAYS, SCENARIOS
from relevo.rehearsal.stage import settings_of
from relevo.rollout import plan as plans
from tests import forked
from tests.conftest import change, rows, value
from tests.forked import Forked
from tests.rollouts import scene

ENDS_WITHIN_S = 240
_NEVER = "postgresql://nobody@127.0.0.1:1/nothing"

_CALLS = {"canary": 1, "early_adopters": 1, "expansion": 5, "majority": 15, "complete": 25}
_EVIDENCE = ("majority", "complete")
BRIEF = replace(
    plans.DEFAULT,
    phases=tuple(
        replace(
            phase,
            min_hold=phase.min_hold / 24,
            every=timedelta(minutes=5),
            min_calls=_CALLS[phase.name],
            evidence=phase.name in _EVIDENCE,
        )
        for phase in plans.DEFAULT.phases
    ),
    # So that a few dozen calls are evidence.
    limits={
        name: replace(limit, no_go=0.2) if name.endswith("_rate") else limit for name, limit in plans.LIMITS.items()
    },
)
"""The specification's five phases in a few hours."""
SLOWLY = 4_500
"""How many times as fast the clock runs then. Faster, and more of the calls come in while a phase is being changed."""


@dataclass(frozen=True, slots=True)
class Demo:
    """A running ``relevo demo``, and the files that it writes to."""

    process: Forked
    out: Path
    err: Path

    @property
    def said(self) -> Any:
        """The JSON of standard output."""
        return json.loads(self.out.read_text(encoding="utf-8"))

    def ends(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(ENDS_WITHIN_S)

    def until(self, file: Path, line: str) -> None:
        """Wait for something that it writes."""
        while line not in file.read_text(encoding="utf-8"):
            assert self.process.poll() is None
            time.sleep(0.05)


@contextmanager
def demo(*words: str, home: Path, **env: str) -> Iterator[Demo]:
    """``relevo demo`` as a process of its own, whose temporary files are in ``home``."""
    out, err = home / "out", home / "err"
    with out.open("wb") as says, err.open("wb") as tells:
        environment = {**os.environ, "TMPDIR": str(home), **env}
        process = forked.start("demo", *words, stdout=says.fileno(), stderr=tells.fileno(), env=environment)
    try:
        yield Demo(process, out, err)
    finally:
        process.kill()
        process.wait()


def bases(home: Path) -> list[Path]:
    """The folders of the demos that are there."""
    return list(home.glob("relevo-demo-*"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_must(name: str, tmp_path: Path) -> None:
    words: tuple[str, ...] = ()
    if name == "healthy":
        plan = tmp_path / "brief.toml"
        plan.write_text(plans.written(BRIEF), encoding="utf-8")
        words = ("--plan", str(plan), "--times", str(SLOWLY))
    # A real Slack in the environment must hear nothing of it.
    with demo("--scenario", name, *words, "--json", home=tmp_path, RELEVO_SLACK_WEBHOOK_URL=_NEVER) as ran:
        status = ran.ends()
    told = ran.said
    failed = [claim for claim in told.get("claims", []) if not claim["holds"]]
    assert failed == []
    assert status == 0, ran.err.read_text()
    checked = (*ALWAYS, *SCENARIOS[name].claims)
    assert [claim["sentence"] for claim in told["claims"]] == [claim.sentence for claim in checked]
    assert told["traffic"]["calls"] == sum(each["calls"] for each in told["heard"])
    assert bases(tmp_path) == []


@pytest.mark.parametrize(("ordinal", "minutes", "holds"), [(0, 0, True), (0, -1, False), (4, -1, False), (4, 1, True)])
async def test_a_phase_shorter_than_its_plan_is_told(ready: Database, ordinal: int, minutes: int, holds: bool) -> None:
    stage = await scene(ready)
    await stage.start()
    planned = [phase.min_hold for phase in plans.DEFAULT.phases]
    lasted = [hold + timedelta(minutes=minutes) * (each == ordinal) for each, hold in enumerate(planned)]
    await change(
        ready,
        "UPDATE relevo.rollout_phases SET asked_at = %(at)s, reached_at = %(at)s,"
        " ended_at = %(at)s + (%(lasted)s::interval[])[ordinal + 1]",
        {"at": stage.now, "lasted": lasted},
    )
    async with ready.transaction() as connection:
        told = await (
            await connection.execute(statement("rehearsal", "claim_all_phases"), {"holds": planned})
        ).fetchone()
    assert told is not None
    assert told["holds"] is holds, told["found"]


def test_an_unknown_scenario_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    with demo("--scenario", "v2-fail", "--json", home=tmp_path) as ran:
        assert ran.ends() == 2
    assert "v2-fails" in ran.said["error"]["message"]


def test_a_plan_is_for_the_scenario_in_which_all_goes_well(tmp_path: Path) -> None:
    with demo("--scenario", "v2-fails", "--plan", str(tmp_path / "plan.toml"), "--json", home=tmp_path) as ran:
        assert ran.ends() == 2
    assert "healthy" in ran.said["error"]["fix"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_it_finds_nothing_left(sent: signal.Signals, tmp_path: Path) -> None:
    with demo("--scenario", "human-steps-in", home=tmp_path) as ran:
        ran.until(ran.out, "dashboard:")
        assert len(bases(tmp_path)) == 1
        ran.process.send_signal(sent)
        ran.until(ran.err, "begin anew")
        assert ran.ends() == 130
    assert bases(tmp_path) == []


def test_who_keeps_it_ends_it_with_ctrl_c_and_has_its_answer(tmp_path: Path) -> None:
    with demo("--scenario", "edits-both-sides", "--keep", "--json", home=tmp_path) as ran:
        ran.until(ran.err, "Ctrl-C")
        ran.process.send_signal(signal.SIGINT)
        assert ran.ends() == 0
    assert ran.said["success"]
    assert bases(tmp_path) == []


def test_the_settings_of_the_environment_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_WEBHOOK_URL", "PAGERDUTY_ROUTING_KEY", "SMTP_URL", "V2_UPSTREAM", "VAPI_API_KEY", "DIRECT_URL"):
        monkeypatch.setenv(f"RELEVO_{name}", "https://a.real.one/secret")
    inbox = Inbox(lambda _post: None)
    inbox.http, inbox.smtp = "http://127.0.0.1:1", "smtp://127.0.0.1:2"
    for name, chosen in settings_of("url", inbox):
        told = chosen.get_secret_value() if isinstance(chosen, SecretStr) else chosen
        assert "a.real.one" not in str(told), name


async def test_what_is_sent_to_the_stand_ins_can_be_read() -> None:
    told: list[Post] = []
    async with Inbox(told.append).open() as inbox, aiohttp.ClientSession() as session:
        inbox.away.add("slack")
        async with session.post(inbox.http + SLACK, json={"text": "lost"}) as answer:
            assert answer.status == 503
        inbox.away.clear()
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*why*"}}]
        async with session.post(inbox.http + SLACK, json={"text": "rolled  back", "blocks": blocks}) as answer:
            assert answer.status == 200
        event: dict[str, Any] = {"event_action": "trigger", "dedup_key": "k", "payload": {"summary": "wake up"}}
        async with session.post(inbox.http + PAGERDUTY, json=event) as answer:
            assert answer.status == 202
        host, port = inbox.smtp.removeprefix("smtp://").split(":")
        letter = "Subject: Bienvenida\r\n\r\nHola\r\n..\r\n"
        await aiosmtplib.send(
            letter, hostname=host, port=int(port), sender="a@b.example", recipients=["c@d.example"], start_tls=False
        )
        async with session.get(inbox.http) as answer:
            page = await answer.text()
    assert [(post.channel, post.headline) for post in told] == [
        ("slack", "rolled back"),
        ("pagerduty", "trigger wake up"),
        ("email", "c@d.example: Bienvenida"),
    ]
    assert told == inbox.posts
    assert all(word in page for word in ("*why*", "wake up", "Bienvenida"))
    assert inbox.refused == 1


async def test_a_change_by_hand_is_written_down_in_the_rehearsals_time(ready: Database) -> None:
    stage = await scene(ready)
    await stage.start()
    ahead = stage.now + timedelta(days=30)
    async with ready.transaction() as connection:
        await connection.execute(statement("rollout", "compress_time"), {"since": ahead, "times": 3_600.0})
    await writing.disable(ready, [stage.tenants[0]], Author("ana"))
    (row,) = await rows(ready, "SELECT state, paused_at, judged_from FROM relevo.rollouts")
    (moved,) = await rows(ready, "SELECT at FROM relevo.rollout_transitions WHERE event = 'overrule'")
    assert row["state"] == "Paused"
    assert ahead <= row["paused_at"] < ahead + timedelta(days=1)
    assert row["paused_at"] <= row["judged_from"] <= row["paused_at"] + timedelta(minutes=1)
    assert moved["at"] == row["paused_at"]


async def test_without_a_rehearsal_the_present_is_the_transactions(ready: Database) -> None:
    assert await value(ready, "SELECT relevo.present() = now()")
    async with ready.transaction() as connection:
        await connection.execute(
            statement("rollout", "compress_time"), {"since": datetime(2030, 1, 1, tzinfo=UTC), "times": 3_600.0}
        )
    first = await value(ready, "SELECT relevo.present()")
    await asyncio.sleep(0.01)
    again = await value(ready, "SELECT relevo.present()")
    assert datetime(2030, 1, 1, tzinfo=UTC) < first <= again - timedelta(seconds=36)
