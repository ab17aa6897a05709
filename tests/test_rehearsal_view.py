"""What the rehearsal shows can be read: on eighty columns, and without knowing Slack's marks or PagerDuty's keys."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from relevo.cli import report
from relevo.clock import CompressedClock, system_clock
from relevo.db.pool import Database
from relevo.migration.mapping import DEFAULT
from relevo.rehearsal.inbox import PAGERDUTY, SLACK, Inbox, Post
from relevo.rehearsal.stage import Stage
from relevo.simulator.script import Manner
from relevo.simulator.traffic import Credentials, Traffic
from tests.commands import succeeds

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(days=1)


async def test_what_arrives_is_told_as_people_read_it() -> None:
    told: list[Post] = []
    async with Inbox(told.append).open() as inbox, aiohttp.ClientSession() as session:
        update = ":rotating_light: URGENT: Rollback\n*Trigger:* v2_error_rate 6 %\n*Time:* 2026-11-25 00:36 UTC"
        page: dict[str, Any] = {"event_action": "trigger", "dedup_key": "a:key", "payload": {"summary": "Degraded"}}
        for path, body in (
            (SLACK, {"text": update}),
            (PAGERDUTY, page),
            (PAGERDUTY, {"event_action": "resolve", "dedup_key": "a:key"}),
        ):
            async with session.post(inbox.http + path, json=body) as answer:
                assert answer.status < 300
    assert [post.headline for post in told] == [
        "URGENT: Rollback Trigger: v2_error_rate 6 % Time: 2026-11-25 00:36 UTC",
        "trigger Degraded",
        "resolve Degraded",
    ]


async def test_once_nobody_calls_any_more_the_clock_keeps_the_pace_it_was_given(ready: Database) -> None:
    clock = CompressedClock(system_clock(), 1_000)
    stage = Stage(ready, clock, 1_000, Inbox(lambda _post: None), lambda _told: None, Path(), DEFAULT)
    stage.traffic = Traffic("http://127.0.0.1:1", Credentials(), lambda *_: Manner(), Random(1), clock)
    await stage.set_pace(1)
    looking = asyncio.create_task(stage.keep_looking())
    looks = iter(range(4))
    assert await stage.until(lambda: next(looks) == 3)
    looking.cancel()
    assert clock.times == 1


@pytest.mark.parametrize("server", [18], ids=["pg18"], indirect=True)
async def test_the_report_keeps_its_words_whole_on_eighty_columns(sampled: Database) -> None:
    succeeds("migrate", url=sampled.url)
    drawn = io.StringIO()
    Console(file=drawn, width=80).print(report.table(await report.made(sampled, DEFAULT, NOW)))
    text = drawn.getvalue()
    for word in ("improvement", "conclusion", "Reservations", "Appointments", "before", "target"):
        assert word in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
