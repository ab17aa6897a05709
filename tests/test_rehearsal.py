"""The rehearsal: each scenario as a user runs it, to its end, and the parts that it stands on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.conftest import rows, value
from tests.rollouts import scene

ENDS_WITHIN_S = 240
_NEVER = "postgresql://nobody@127.0.0.1:1/nothing"


@contextmanager
def demo(*words: str, home: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """``relevo demo`` as a process of its own, whose temporary files are in ``home``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "relevo", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(home), **env},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_must(name: str, tmp_path: Path) -> None:
    # A real Slack in the environment must hear nothing of it.
    with demo("--scenario", name, "--json", home=tmp_path, RELEVO_SLACK_WEBHOOK_URL=_NEVER) as process:
        out, err = process.communicate(timeout=ENDS_WITHIN_S)
    told = json.loads(out)
    failed = [claim for claim in told.get("claims", []) if not claim["holds"]]
    assert failed == []
    assert process.returncode == 0, err
    assert {claim["sentence"] for claim in told["claims"]} >= {claim.sentence for claim in ALWAYS}
    assert told["traffic"]["calls"] == sum(each["calls"] for each in told["heard"])
    assert list(tmp_path.glob("relevo-demo-*")) == []


def test_an_unknown_scenario_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    with demo("--scenario", "v2-fail", "--json", home=tmp_path) as process:
        out, _err = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 2
    assert "v2-fails" in json.loads(out)["error"]["message"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_it_finds_nothing_left(sent: signal.Signals, tmp_path: Path) -> None:
    with demo("--scenario", "human-steps-in", home=tmp_path) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("dashboard:"):
            assert process.poll() is None
        process.send_signal(sent)
        process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 130
    assert list(tmp_path.glob("relevo-demo-*")) == []


def test_who_keeps_it_ends_it_with_ctrl_c_and_has_its_answer(tmp_path: Path) -> None:
    with demo("--scenario", "edits-both-sides", "--keep", "--json", home=tmp_path) as process:
        assert process.stderr is not None
        while "Ctrl-C" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _err = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0
    assert json.loads(out)["success"]
    assert list(tmp_path.glob("relevo-demo-*")) == []


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
    ahead = datetime.now(UTC) + timedelta(days=30)
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
