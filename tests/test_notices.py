"""What clients and the team read: in their words, from files a team edits, each client once."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relevo.comms import blockkit, clients, texts, wording
from relevo.comms.clients import Sending
from relevo.comms.email import CONNECTIONS
from relevo.comms.notices import NOTICES, notice_of
from relevo.comms.texts import House, load, shipped
from relevo.db.pool import Database
from relevo.errors import Refused, TemplatesFaulty, UnknownName, UsageError
from relevo.migration import mirror
from relevo.migration.mapping import from_settings
from relevo.migration.runs import Who
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, rows, value
from tests.serving import serving
from tests.wires import hook, postbox

GOLDEN = Path(__file__).parent / "golden"
MAILS = [name for name, notice in NOTICES.items() if notice.audience == "client"]
TEAM = [name for name, notice in NOTICES.items() if notice.audience == "team"]
MAPPED = {"tenants": {"fields": {"email": "email", "time_zone": "time_zone", "phone_number": "phone_number"}}}


# Texts -------------------------------------------------------------------------------------------------------------


def made_of(name: str) -> dict[str, str]:
    """A notice with its sample, as files."""
    notice = NOTICES[name]
    if notice.audience == "team":
        told = blockkit.payload(shipped().slack(name, notice.sample), "#voice-agent-alerts")
        return {f"{name}.json": json.dumps(told, ensure_ascii=False, indent=2) + "\n"}
    mail = shipped().mail(name, notice.sample)
    return {f"{name}.txt": f"{mail.subject}\n\n{mail.text}", f"{name}.html": mail.html}


@pytest.mark.parametrize("name", list(NOTICES))
def test_every_notice_reads_as_it_was_approved(name: str) -> None:
    """After a change that is meant: ``python -m tests.test_notices`` writes them anew."""
    for file, text in made_of(name).items():
        assert text == (GOLDEN / file).read_text(encoding="utf-8"), file


@pytest.mark.parametrize("name", MAILS)
def test_mail_asks_nobody_for_anything(name: str) -> None:
    """No image, font or script from elsewhere: it can be read offline, and nobody is tracked."""
    html = shipped().mail(name, NOTICES[name].sample).html
    assert "http://" not in html.replace("http://www.w3.org", "").replace("http://schemas", "").replace("urn:", "")
    assert "https://" not in html
    assert "<img" not in html
    assert "<script" not in html


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("client_before.txt", "Hola {{ client_nme }}", "'client_nme', which there is not. Did you mean 'client_name'"),
        ("client_before.mjml", "{{ client_name", "client_before.mjml"),
        ("client_before.mjml", "<mjml><mj-bod></mjml>", "client_before.mjml"),
        ("client_before.subject", " ", "is empty"),
        ("client_before.subject", "x" * 200, "over 150"),
        ("team_phase.slack", "# " + "x" * 151, "a title of over 150 characters"),
        ("team_phase.slack", "x" * 3001, "over 3,000 characters"),
        ("team_phase.slack", "\n---\n".join("x" * 60), "over 50 blocks"),
        ("team_phase.slack", "{{ phase.length.days }}", "has no attribute"),
        ("team_phse.slack", "x", "Did you mean 'team_phase.slack'"),
    ],
)
def test_a_faulty_text_is_found_when_it_is_loaded(tmp_path: Path, file: str, text: str, says: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(TemplatesFaulty) as error:
        load(House(), tmp_path)
    assert says in str(error.value)


def test_a_folder_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(House(), tmp_path / "no")


def test_a_team_changes_one_text_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "client_before.subject").write_text("Hola de {{ brand }}", encoding="utf-8")
    house = House(brand="ACME & Co", support="hola@acme.mx")
    mail = load(house, tmp_path).mail("client_before", NOTICES["client_before"].sample)
    assert mail.subject == "Hola de ACME & Co"
    assert "El equipo de ACME & Co" in mail.text
    assert "El equipo de ACME &amp; Co" in mail.html
    assert "hola@acme.mx" in mail.html


def test_no_name_can_call_anybody_or_forge_a_section_in_slack() -> None:
    sample = {**NOTICES["team_phase"].sample, "why": "<!channel> & <https://x|y>\n---\n# boo", "actor": "*ana*"}
    told = blockkit.payload(shipped().slack("team_phase", sample), "#c")
    assert "<" not in json.dumps(told)
    assert len(told["blocks"]) == 4
    meant = replace(House(), urgent_mentions="<!subteam^S1>")
    assert "<!subteam^S1>" in load(meant).slack("team_rollback", NOTICES["team_rollback"].sample)


def test_what_is_too_long_for_slack_is_cut_and_still_goes() -> None:
    sample = {**NOTICES["alert"].sample, "title": "&" * 400, "message": "<" * 4000}
    told = blockkit.payload(shipped().slack("alert", sample), "#c")
    header, section = told["blocks"][0]["text"]["text"], told["blocks"][1]["text"]["text"]
    assert 148 < len(header) <= 150
    assert len(section) <= 3000
    assert section.endswith("&lt;…")
    assert len(told["text"]) <= 3000


@pytest.mark.parametrize(
    ("zone", "date", "time"),
    [
        ("America/Mexico_City", "lunes 30 de noviembre de 2026", "22:30"),
        ("Europe/Madrid", "martes 1 de diciembre de 2026", "5:30"),
        ("America/Tijuana", "lunes 30 de noviembre de 2026", "20:30"),
        ("Nowhere/Land", "lunes 30 de noviembre de 2026", "22:30"),
        ("../etc/passwd", "lunes 30 de noviembre de 2026", "22:30"),
        (None, "lunes 30 de noviembre de 2026", "22:30"),
    ],
)
def test_dates_are_those_of_the_clients_own_calendar(zone: str | None, date: str, time: str) -> None:
    at = datetime(2026, 12, 1, 4, 30, tzinfo=UTC)
    assert (wording.spanish_date(at, zone), wording.spanish_time(at, zone)) == (date, time)


@pytest.mark.parametrize(
    ("vertical", "word"),
    [
        ("restaurant", "reservaciones"),
        ("Dental", "citas"),
        ("veterinary", "reservaciones y citas"),
        (None, "reservaciones y citas"),
    ],
)
def test_a_trade_reads_its_own_word(vertical: str | None, word: str) -> None:
    sample = {**NOTICES["client_before"].sample, "vertical": vertical}
    assert f"Mejor manejo de {word}\n" in shipped().mail("client_before", sample).text


ACTIVE = """SELECT a.id FROM relevo.active_tenants() AS a (id)
            WHERE a.id IN (SELECT b.id::text FROM public.businesses b) ORDER BY 1"""

# Clients -----------------------------------------------------------------------------------------------------------


async def mapped(database: Database) -> list[str]:
    """Tell the database where clients are; returns the active ones, but the one that v1's own list lacks."""
    await mirror.install(database, from_settings(MAPPED), Who("t", None), lambda: NOW)
    return [row["id"] for row in await rows(database, ACTIVE)]


async def planned(database: Database, name: str, tenants: list[str] | None = None) -> Sending:
    async with database.transaction(read_only=True) as connection:
        return await clients.plan(connection, notice_of(name), tenants)


async def told(database: Database, plan: Sending) -> list[str]:
    async with database.transaction() as connection:
        return await clients.send(connection, plan, None, NOW, actor="ana", reason="launch")


async def test_until_v1_is_mapped_nobody_is_told(sampled: Database) -> None:
    with pytest.raises(Refused, match="does not know yet"):
        await planned(sampled, "client_before")


async def test_each_client_is_told_each_thing_once_ever(sampled: Database) -> None:
    active = await mapped(sampled)
    first = await planned(sampled, "client_before")
    assert [client.tenant_id for client in first.to] == active
    assert await told(sampled, first) == active
    assert await told(sampled, first) == []
    again = await planned(sampled, "client_before")
    assert again.to == ()
    assert {client.why_not for client in again.left_out} == {"is being told", "has no e-mail address"}
    returned = await planned(sampled, "client_returned", active[:1])
    assert await told(sampled, returned) == active[:1]
    (audited, _other) = await rows(sampled, "SELECT * FROM relevo.audit_log WHERE action = 'notice.send' ORDER BY id")
    assert (audited["actor"], audited["subject"], audited["details"]) == (
        "ana",
        "client_before",
        {"clients": len(active)},
    )


async def test_who_cannot_or_should_not_get_it_is_named_with_the_reason(sampled: Database) -> None:
    active = await mapped(sampled)
    one, two, three = active[:3]
    await change(sampled, "UPDATE public.businesses SET email = ' ' WHERE id = %s", (one,))
    await change(sampled, "UPDATE public.businesses SET email = 'x@y' WHERE id = %s", (two,))
    await change(sampled, "UPDATE public.feature_flags SET enabled = true, enabled_tenants = %s", ([three],))
    plan = await planned(sampled, "client_before", [one, two, three, active[3]])
    assert [client.tenant_id for client in plan.to] == [active[3]]
    assert {client.tenant_id: client.why_not for client in plan.left_out} == {
        one: "has no e-mail address",
        two: "has an address that is none: 'x@y' is no e-mail address",
        three: "is on v2",
    }
    assert [client.tenant_id for client in (await planned(sampled, "client_complete")).to] == [three]


async def test_an_unknown_tenant_is_an_error_and_nobody_is_told(sampled: Database) -> None:
    active = await mapped(sampled)
    with pytest.raises(UnknownName, match="nope"):
        await planned(sampled, "client_before", [active[0], "nope"])


async def test_the_teams_notices_are_not_for_clients(sampled: Database) -> None:
    with pytest.raises(UsageError, match="is for the team"):
        await planned(sampled, "team_status")


async def test_who_was_refused_may_be_told_at_another_address(sampled: Database) -> None:
    one = (await mapped(sampled))[0]
    await told(sampled, await planned(sampled, "client_before", [one]))
    await change(sampled, "UPDATE relevo.outbox SET state = 'dead', settled_at = now(), last_error = '550'")
    await change(sampled, "UPDATE public.businesses SET email = 'new@example.mx' WHERE id = %s", (one,))
    assert await told(sampled, await planned(sampled, "client_before", [one])) == [one]
    assert await rows(sampled, "SELECT state, recipient FROM relevo.outbox") == [
        {"state": "waiting", "recipient": "new@example.mx"}
    ]


# The command -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def configured(tmp_path: Path, **settings: Any) -> AsyncIterator[Path]:
    file = tmp_path / "relevo.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    yield file


async def test_a_mass_sending_is_a_dry_run_unless_told_otherwise(sampled: Database, tmp_path: Path) -> None:
    active = await mapped(sampled)
    async with postbox() as box, configured(tmp_path, smtp_url=box.url) as config:
        dry = await asyncio.to_thread(succeeds, "notify", "send", "client_before", url=sampled.url, config=config)
        assert (dry["dry_run"], len(dry["to"]), dry["told"]) == (True, len(active), [])
        assert box.got == []
        named = ["--tenant-ids", ",".join(active[:2])]
        some = await asyncio.to_thread(
            succeeds, "notify", "send", "client_before", *named, url=sampled.url, config=config
        )
        assert (some["dry_run"], some["told"]) == (False, active[:2])
        assert len(box.got) == 2
        box.refuses[await value(sampled, "SELECT email FROM public.businesses WHERE id = %s", (active[2],))] = (
            "550 unknown"
        )
        rest = await asyncio.to_thread(
            relevo, "notify", "send", "client_before", "--yes", url=sampled.url, config=config
        )
        assert rest.data["told"] == active[2:]
        assert rest.data["messages"] == {"sent": len(active) - 3, "waiting": 0, "dead": 1}
        assert f"{len(active) - 2} of {len(active) - 2} messages tried" in rest.told
        assert len({mail["To"] for mail in box.got}) == len(box.got) == len(active) - 1
        after = await asyncio.to_thread(succeeds, "notify", "status", url=sampled.url, config=config)
    assert [(row["state"], row["messages"]) for row in after["messages"]] == [("dead", 1), ("sent", len(active) - 1)]


async def test_a_preview_is_what_goes_out_and_sends_nothing(sampled: Database, tmp_path: Path) -> None:
    one = (await mapped(sampled))[0]
    name = await value(sampled, "SELECT name FROM public.businesses WHERE id = %s", (one,))
    page = tmp_path / "x.html"
    words = ["--tenant-id", one, "--html", str(page), "--at", "2026-12-01T04:30:00+00:00"]
    shown = succeeds("notify", "preview", "client_before", *words, url=sampled.url)
    assert name in shown["text"]
    assert shown["html"] == page.read_text(encoding="utf-8")
    assert "a partir del " in shown["text"]
    assert await value(sampled, "SELECT count(*) FROM relevo.outbox") == 0
    team = succeeds("notify", "preview", "team_rollback", url=sampled.url)
    assert team["blocks"][0]["type"] == "header"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["preview", "client_befor"], 2, "client_before"),
        (["preview", "team_status", "--html", "/tmp/x"], 2, "goes to Slack"),
        (["preview", "client_before", "--browser"], 2, "--html"),
        (["send", "client_before", "--tenant-ids", " , "], 2, "--tenant-ids is empty"),
        (["send", "client_before", "--yes"], 3, "relevo mirror install"),
        (["retry"], 2, "--all"),
    ],
)
async def test_a_wrong_word_is_one_clear_line(ready: Database, words: list[str], status: int, says: str) -> None:
    answered = relevo("notify", *words, url=ready.url)
    assert (answered.status, says in answered.told) == (status, True), answered.told


async def test_the_texts_can_be_taken_edited_and_used(ready: Database, tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert "client_before.mjml" in succeeds("notify", "texts", str(own), url=ready.url)["files"]
    assert {file.name for file in own.iterdir()} == {file.name for file in texts.SHIPPED.iterdir()}
    (own / "client_before.txt").write_text("Hola {{ client_nam }}", encoding="utf-8")
    async with configured(tmp_path, notify_texts=str(own)) as config:
        refused = relevo("notify", "preview", "client_before", url=ready.url, config=config)
        serving = relevo("serve", "--port", "0", url=ready.url, config=config)
    for answered in (refused, serving):  # a server with a faulty text does not start
        assert answered.status == 2
        assert "client_nam" in answered.told
    shutil.rmtree(own)


async def settled(database: Database) -> None:
    """Wait until no message waits; fails loudly when that never happens."""
    waiting = "SELECT count(*) FROM relevo.outbox WHERE state = 'waiting'"
    for _ in range(600):
        if await value(database, waiting) == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await rows(database, "SELECT * FROM relevo.outbox WHERE state = 'waiting' LIMIT 3"))


async def test_a_server_that_is_killed_loses_nothing(ready: Database) -> None:
    """Killed with messages under way, started again: each arrives, and is known as the same where it arrived twice."""
    inserted = """SELECT relevo.tell('k' || n, c, 'alert', %s::jsonb, now(), NULL, NULL, NULL)
                  FROM generate_series(1, 30) AS n, (VALUES ('slack')) AS v (c)"""
    async with hook() as slack:
        env = {"RELEVO_SLACK_WEBHOOK_URL": slack.url}
        await change(ready, inserted, (json.dumps(dict(NOTICES["alert"].sample)),))
        with serving(ready.url, env=env) as first:
            await slack.seen.wait()
            first.process.kill()
        with serving(ready.url, env=env):
            await settled(ready)
    assert await rows(ready, "SELECT state, count(*) AS n FROM relevo.outbox GROUP BY 1") == [
        {"state": "sent", "n": 30}
    ]
    assert 30 <= len(slack.taken) <= 31  # what it had taken in that very moment


async def test_two_servers_one_of_which_is_killed_tell_each_client_once(ready: Database) -> None:
    """Only what was on its way at that moment may arrive twice, and mailboxes then know it as the same."""
    await change(
        ready,
        """INSERT INTO relevo.outbox (dedup_key, channel, notice, tenant_id, recipient, variables, created_at, due_at)
           SELECT 'client_before:' || n, 'email', 'client_before', n::text, 'c' || n || '@example.mx',
                  '{"client_name": "Negocio", "vertical": "dental", "time_zone": null, "at": null}', now(), now()
           FROM generate_series(1, 150) AS n""",
    )
    async with postbox() as box:
        env = {"RELEVO_SMTP_URL": box.url}
        with serving(ready.url, env=env) as first, serving(ready.url, env=env):
            await box.reached(20)
            first.process.kill()
            await settled(ready)
    assert await rows(ready, "SELECT state, count(*) AS n FROM relevo.outbox GROUP BY 1") == [
        {"state": "sent", "n": 150}
    ]
    assert 150 <= len(box.got) <= 150 + CONNECTIONS
    assert len({mail["Message-ID"] for mail in box.got}) == len({mail["To"] for mail in box.got}) == 150


async def test_ten_thousand_clients_are_each_told_once(sampled: Database) -> None:
    await mapped(sampled)
    for function, what in (
        (
            "v1_tenants()",
            "SELECT md5(n::text)::uuid, 'dental', 'Negocio ' || n, NULL, 'c' || n || '@example.mx', NULL, NULL",
        ),
        ("active_tenants()", "SELECT md5(n::text)::uuid::text"),
    ):
        returns = await value(sampled, "SELECT pg_get_function_result(%s::regprocedure)", (f"relevo.{function}",))
        await change(
            sampled,
            f"CREATE OR REPLACE FUNCTION relevo.{function} RETURNS {returns} LANGUAGE sql STABLE AS"
            f" $$ {what} FROM generate_series(1, 10000) AS n $$",
        )
    plan = await planned(sampled, "client_before")
    assert len(await told(sampled, plan)) == 10_000
    assert await told(sampled, plan) == []
    assert (await planned(sampled, "client_before")).to == ()
    assert await value(sampled, "SELECT count(DISTINCT recipient) FROM relevo.outbox") == 10_000


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in NOTICES:
        for file_name, written in made_of(each).items():
            (GOLDEN / file_name).write_text(written, encoding="utf-8")
