"""The documentation says what is there, and what it shows works."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from relevo.alerts import watching
from relevo.alerts.incidents import note
from relevo.alerts.thresholds import RULES, Finding
from relevo.cli import app
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.rollout.controller import findings
from relevo.settings import Settings
from relevo.webhooks.answers import APOLOGY, APOLOGY_BEFORE_TRANSFER
from tests.commands import relevo, succeeds
from tests.conftest import change, rows, value

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}


def commands(parent: App, prefix: str = "") -> Iterator[str]:
    """Every command of the CLI, as it is typed."""
    for name in parent:
        if name.startswith("-"):
            continue
        child = parent[name]
        inner = list(commands(child, f"{prefix}{name} "))
        yield from inner or [f"{prefix}{name}"]


def test_every_command_is_in_the_readme() -> None:
    told = set(re.findall(r"`(?:relevo )?([a-z]+(?: [a-z][a-z-]*)?)", README))
    assert len(list(commands(app))) > 10
    assert [command for command in commands(app) if command not in told] == []


def test_every_setting_is_documented() -> None:
    missing = [name for name in Settings.model_fields if f"`RELEVO_{name.upper()}`" not in PAGES["settings.md"]]
    assert missing == []


def test_every_link_leads_somewhere() -> None:
    pages = {ROOT / "README.md": README} | {ROOT / "docs" / name: text for name, text in PAGES.items()}
    links = [(page, link) for page, text in pages.items() for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_glossary_comes_first_and_is_in_order() -> None:
    assert re.findall(r"\]\((\w+\.md)\)", PAGES["README.md"])[0] == "glossary.md"
    words = re.findall(r"^\*\*(.+?)\*\*", PAGES["glossary.md"], re.MULTILINE)
    assert words == sorted(words)


async def test_the_rules_shown_can_be_published(ready: Database) -> None:
    (shown,) = re.findall(r"```sql\n(.*?)```", PAGES["rules.md"], re.DOTALL)
    for statement in shown.split(";\n"):
        await change(ready, statement)
    inferred = "SELECT (relevo.infer('Toca vacuna', 'veterinary', relevo.current_rules())).enabled_capabilities"
    assert await value(ready, inferred) == ["vaccinations"]


MAY_SAY_NO = ("verify", "status", "resume", "evaluate", "rehearse")  # the sample has drifted; no rollout runs any more


@pytest.mark.parametrize("server", [18], ids=["pg18"], indirect=True)
async def test_the_runbooks_commands_run_as_they_are_typed(sampled: Database) -> None:
    moved = await asyncio.to_thread(succeeds, "migrate", url=sampled.url)
    canary = await rows(
        sampled,
        """SELECT v.business_id::text AS id FROM relevo.verifications v
        WHERE NOT EXISTS (SELECT FROM relevo.unverified_tenants(ARRAY[v.business_id::text])) ORDER BY 1 LIMIT 2""",
    )
    begun = "rollout", "start", "--force", "--canary", ",".join(each["id"] for each in canary)
    await asyncio.to_thread(succeeds, *begun, url=sampled.url)
    async with sampled.transaction() as connection:
        await note(connection, Finding("v2.error_rate", "critical", "Voice Agent V2", "Error rate"), system_clock())
    known = {
        "TENANT": canary[0]["id"],
        "INCIDENT": str(await value(sampled, "SELECT id FROM relevo.incidents")),
        "BACKUP": moved["backup_id"],
    }
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGES["runbook.md"], re.DOTALL | re.MULTILINE)
    typed = [
        shlex.split(line, comments=True)[1:]
        for language, block in blocks
        if not language
        for line in block.splitlines()
    ]
    assert len(typed) > 20
    for words in dict.fromkeys(map(tuple, typed)):
        answered = await asyncio.to_thread(relevo, *(known.get(word, word) for word in words), url=sampled.url)
        assert answered.status == 0 or words[-1] in MAY_SAY_NO, (words, answered.told)
        assert answered.status != 2, (words, answered.told)


def test_whoever_reads_spanish_is_told_to_type_the_same_in_a_hurry() -> None:
    def steps(page: str, heading: str) -> list[list[str]]:
        section = PAGES[page].partition(f"## {heading}\n")[2].partition("\n## ")[0]
        lines = re.findall(r"^relevo .+$", section, re.MULTILINE)
        return [re.sub(r'"[^"]*"', "REASON", line).split() for line in lines]

    assert steps("guia-del-operador.md", "Nivel por nivel") == steps("runbook.md", "Level by level")
    panic = [re.findall(r"```sql\n(.*?)```", PAGES[page], re.DOTALL) for page in ("guia-del-operador.md", "runbook.md")]
    assert len(panic[0]) == 2
    assert panic[0] == panic[1]


def test_the_runbook_knows_every_alert_and_what_callers_hear() -> None:
    causes = {rule.cause for rule in RULES} | {watching.DRIFT} | {each.cause for each in findings(None)}
    for page in ("runbook.md", "guia-del-operador.md"):
        assert [cause for cause in sorted(causes) if f"`{cause}`" not in PAGES[page]] == [], page
    heard = " ".join(PAGES["runbook.md"].split())
    assert [text for text in (APOLOGY, APOLOGY_BEFORE_TRANSFER) if f"*{text}*" not in heard] == []
