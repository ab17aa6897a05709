"""The documentation says what is there, and what it shows works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

from relevo.cli import app
from relevo.db.pool import Database
from relevo.settings import Settings
from tests.conftest import change, value

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
