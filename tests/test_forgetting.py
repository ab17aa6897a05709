"""What is kept only so long: the old goes in small steps, each on record, and nothing else does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relevo.cleanup import forgetting
from relevo.cleanup.forgetting import KINDS, forget
from relevo.db.pool import Database
from relevo.errors import ConfigurationError
from relevo.settings import load
from tests.conftest import NOW, change, rows, value

KEPT = timedelta(days=90)
OLD, YOUNG = NOW - KEPT - timedelta(minutes=1), NOW - KEPT + timedelta(minutes=1)
INSERTS = {
    "tool_calls": """INSERT INTO relevo.tool_calls (call_id, tool_call_id, version, name, arguments, result, at)
                     SELECT 'c' || n || %(at)s, 't', 'v2', 'create_order', '{}', 'ok', %(at)s::timestamptz
                     FROM generate_series(1, %(n)s) AS n""",
    "messages": """INSERT INTO relevo.outbox (dedup_key, channel, notice, created_at, due_at, state, settled_at)
                   SELECT n || %(at)s, 'slack', 'alert', %(at)s::timestamptz, %(at)s::timestamptz, 'sent',
                          %(at)s::timestamptz FROM generate_series(1, %(n)s) AS n""",
    "complaints": """INSERT INTO relevo.complaints (tenant_id, version, text, at, actor)
                     SELECT 't', 'v2', 'slow', %(at)s::timestamptz, 'ana' FROM generate_series(1, %(n)s)""",
}
TABLES = {"tool_calls": "relevo.tool_calls", "messages": "relevo.outbox", "complaints": "relevo.complaints"}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_old_goes_step_by_step_on_record_and_the_young_stays(
    ready: Database, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(forgetting, "AT_MOST", 4)
    await change(ready, INSERTS[kind], {"at": OLD.isoformat(), "n": 10})
    await change(ready, INSERTS[kind], {"at": YOUNG.isoformat(), "n": 3})
    assert await forget(ready, {kind: KEPT}, NOW) == {kind: 10}
    assert await value(ready, f"SELECT count(*) FROM {TABLES[kind]}") == 3
    steps = await rows(ready, "SELECT actor, subject, details FROM relevo.audit_log WHERE action = 'record.forget'")
    assert [(each["actor"], each["subject"], each["details"]["rows"]) for each in steps] == [
        ("relevo", kind, many) for many in (4, 4, 2)
    ]
    assert await forget(ready, {kind: KEPT}, NOW) == {kind: 0}
    assert await value(ready, "SELECT count(*) FROM relevo.audit_log WHERE action = 'record.forget'") == 3


async def test_what_is_not_named_is_kept_for_good(ready: Database) -> None:
    for kind in KINDS:
        await change(ready, INSERTS[kind], {"at": OLD.isoformat(), "n": 1})
    assert await forget(ready, {}, NOW) == {}
    for kind in KINDS:
        assert await value(ready, f"SELECT count(*) FROM {TABLES[kind]}") == 1


async def test_a_client_who_was_told_and_a_message_that_waits_are_not_forgotten(ready: Database) -> None:
    """Else the client would be told again, and the team never."""
    await change(
        ready,
        """INSERT INTO relevo.outbox (dedup_key, channel, notice, recipient, created_at, due_at, state, settled_at)
           VALUES ('client_before:1', 'email', 'client_before', 'a@b.mx', %(at)s, %(at)s, 'sent', %(at)s),
                  ('waits', 'slack', 'alert', NULL, %(at)s, %(at)s, 'waiting', NULL)""",
        {"at": OLD},
    )
    assert await forget(ready, {"messages": KEPT}, NOW) == {"messages": 0}


def test_days_too_few_for_the_report_are_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEVO_KEEP_COMPLAINTS_DAYS", "29")
    with pytest.raises(ConfigurationError, match="keep_complaints_days"):
        load()
    monkeypatch.setenv("RELEVO_KEEP_COMPLAINTS_DAYS", "30")
    assert load().keep_complaints_days == 30
