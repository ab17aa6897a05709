"""What the pages say of commands, states, rooms and rights is what the code has; what they show to type works."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import psycopg
import pytest
from cyclopts import App

from relevo.access.roles import LABELS
from relevo.cli import app
from relevo.db.pool import Database
from relevo.errors import MissingPrivilege
from relevo.migration import preflight
from relevo.migration.mapping import DEFAULT
from relevo.migration.states import State as TenantState
from relevo.rollout.state import ARROWS
from relevo.settings import Settings
from tests.commands import relevo
from tests.conftest import OWNER, change, load_sample, rows, value
from tests.servers import Server
from tests.test_house import PLAN

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", ROOT / "README.es.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in FILES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown(page: str, language: str) -> list[str]:
    """The blocks of a page in a language; "": what is typed."""
    return [block for written, block in FENCE.findall(PAGES[page]) if written == language]


def typed(page: str) -> list[list[str]]:
    """The words of each ``relevo`` command in the page's blocks, without ``relevo``."""
    lines = (line.removeprefix("$ ") for block in shown(page, "") for line in block.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("relevo ")]


def mentioned(page: str) -> list[list[str]]:
    """The same of what stands in a sentence or a table."""
    spans = re.findall(r"`(relevo [^`]+)`", FENCE.sub("", PAGES[page]))
    return [span.replace("\\|", "|").split()[1:] for span in spans]


def faults(words: list[str]) -> list[str]:
    """What of a command line there is not."""
    chain, apps, rest = app.parse_commands(words)
    if words[0] in ("--version", "--help"):
        return []
    is_group = apps[-1].default_command is None
    if not chain or (is_group and rest and not rest[0].startswith("-")):
        return [f"relevo {' '.join(words)}: no such command"]
    known = set() if is_group else {name for each in apps[-1].assemble_argument_collection() for name in each.names}
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    return [f"relevo {' '.join(words)}: no option {option}" for option in options if option not in known]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_exists_with_its_options(page: str) -> None:
    assert [fault for words in typed(page) + mentioned(page) for fault in faults(words)] == []


def test_a_command_that_is_not_there_is_found_out() -> None:
    assert faults(["flags", "shw"])
    assert faults(["migrat"])
    assert faults(["migrate", "--dryrun"])
    assert faults(["migrate", "--dry-run", "--tenant-ids", "a"]) == []


def options(parent: App) -> Iterator[str]:
    """Every option of every command."""
    if parent.default_command is not None:
        yield from (name for argument in parent.assemble_argument_collection() for name in argument.names)
    for name in parent:
        if not name.startswith("-"):
            yield from options(parent[name])


@pytest.mark.parametrize("page", PAGES)
def test_every_option_mentioned_is_one_of_some_command(page: str) -> None:
    named = {
        word for span in re.findall(r"`(--[^`]+)`", PAGES[page]) for word in re.findall(r"--[a-z][a-z0-9-]*", span)
    }
    assert named - set(options(app)) == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_mentioned_exists(page: str) -> None:
    known = {f"RELEVO_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bRELEVO_[A-Z0-9_]+", PAGES[page])) - known == set()


def test_the_page_of_settings_has_their_places_and_defaults() -> None:
    told = re.findall(
        r"^\| `RELEVO_(\w+)` \| `(?:\[(\w+)\] ?)?(\w*)` \| (.+?) \|", PAGES["docs/settings.md"], re.MULTILINE
    )
    assert {name.lower() for name, *_ in told} == set(Settings.model_fields)
    assert [name for name, section, key, _ in told if "_".join(filter(None, (section, key))) != name.lower()] == []
    defaults = {name.lower(): re.fullmatch(r"`([^`]+)`", default) for name, *_, default in told}
    written = {name: found[1] for name, found in defaults.items() if found}
    assert len(written) > 10
    of_the_code = {name: f"{Settings.model_fields[name].default}" for name in written}
    assert written == {name: {"False": "false", "0.0": "0"}.get(each, each) for name, each in of_the_code.items()}


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_and_its_heading(page: str) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[page])):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        text = target.read_text(encoding="utf-8") if target.suffix == ".md" and target.is_file() else ""
        headings = {slug(each) for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        lost += [link] if not target.exists() or (anchor and anchor not in headings) else []
    assert lost == []


def test_every_picture_is_shown_said_in_words_and_small() -> None:
    shown_on = [
        ((ROOT / page).parent.joinpath(path).resolve(), " ".join(words.split()))
        for page, text in PAGES.items()
        for words, path in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    ]
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert pictures == sorted({picture for picture, _words in shown_on})
    assert [picture.name for picture, words in shown_on if len(words) < 40] == []
    sizes = {picture.name: picture.stat().st_size for picture in pictures}
    drawn = [picture.read_text(encoding="utf-8") for picture in pictures if picture.suffix == ".svg"]
    assert [text for text in drawn if "url(" in text.replace("url(#", "")] == []  # nothing is fetched to show one
    assert max(sizes.values()) < 150_000, sizes
    assert sum(sizes.values()) < 1_000_000, sizes


def test_every_page_is_in_the_index() -> None:
    indexed = set(re.findall(r"\]\(([\w-]+\.md)", PAGES["docs/README.md"]))
    assert {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"} == indexed


def test_the_spanish_readme_shows_what_the_english_one_shows() -> None:
    def commands(page: str) -> list[str]:
        lines = (line.partition("#")[0].strip() for block in shown(page, "") for line in block.splitlines())
        return [line for line in lines if line]

    def table(page: str) -> list[tuple[str, set[str]]]:
        rows = re.findall(r"^\| (`relevo .+?) \| (.+) \|$", PAGES[page], re.MULTILINE)
        return [(commands, set(re.findall(r"--[a-z][a-z0-9-]*", says))) for commands, says in rows]

    assert commands("README.es.md") == commands("README.md")
    assert len(table("README.md")) > 30
    assert table("README.es.md") == table("README.md")


@pytest.mark.parametrize("page", ["quickstart", "first-rollout", "runbook", "restore"])
def test_whoever_reads_only_spanish_is_shown_every_command_of_an_operator(page: str) -> None:
    def named(file: str) -> set[tuple[str, ...]]:
        return {tuple(app.parse_commands(words)[0]) for words in typed(file) + mentioned(file)}

    assert named(f"docs/{page}.md") - named("docs/guia-del-operador.md") == set()


# What is drawn --------------------------------------------------------------------------------------------------------

ARCHITECTURE = PAGES["docs/architecture.md"]


def test_the_diagram_of_a_rollout_has_the_arrows_of_the_code() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", ARCHITECTURE, re.MULTILINE)
    assert {(source, event, target) for source, target, events in drawn for event in events.split(", ")} == {
        (arrow.source, arrow.event, arrow.target) for arrow in ARROWS
    }
    told = dict(re.findall(r"^\| (\w+) \| (.+) \|$", ARCHITECTURE, re.MULTILINE))
    sentences: dict[str, dict[str, None]] = {}
    for arrow in ARROWS:
        sentences.setdefault(arrow.event, {})[arrow.sentence] = None
    assert {event: told.get(event) for event in sentences} == {
        event: "; ".join(said) for event, said in sentences.items()
    }


def test_the_states_of_a_tenant_are_those_of_the_code() -> None:
    section = ARCHITECTURE.partition("## A tenant's states")[2].partition("##")[0]
    assert sorted(re.findall(r"^\| (\w+) \| (?!when)", section, re.MULTILINE)) == sorted(get_args(TenantState))


def test_the_rooms_of_the_house_are_those_of_the_code() -> None:
    section = ARCHITECTURE.partition("## The house")[2]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    assert [cell.replace("`", "") for cell in cells] == [line.strip() for line in PLAN.strip().splitlines()]


def test_the_roles_of_tokens_are_those_of_the_code() -> None:
    assert re.findall(r"^\| (\w+) \| (?:evaluate|also)", PAGES["docs/security.md"], re.MULTILINE) == [*LABELS]


# What is true of the database -----------------------------------------------------------------------------------------


async def test_the_tables_named_in_public_are_ours_and_all_of_them(ready: Database) -> None:
    told = re.search(r"^\| (`public\..+?) \|", PAGES["docs/security.md"], re.MULTILINE)
    assert told
    ours = await value(ready, "SELECT array_agg(name ORDER BY name) FROM relevo.public_tables")
    assert sorted(re.findall(r"public\.\w+", told[1])) == ours


async def test_whatever_runs_with_its_owners_rights_is_a_trigger_of_ours_with_an_empty_path(sampled: Database) -> None:
    await asyncio.to_thread(relevo, "mirror", "install", url=sampled.url)
    found = await rows(
        sampled,
        """SELECT p.oid::regprocedure::text AS name, n.nspname AS schema, p.prorettype = 'trigger'::regtype AS trigger,
                  'search_path=""' = ANY (p.proconfig) AS closed
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')""",
    )
    assert len(found) > 8
    assert [each for each in found if not (each["schema"] == "relevo" and each["trigger"] and each["closed"])] == []


async def test_tables_that_grow_with_traffic_begin_with_the_calls_id(ready: Database) -> None:
    section = PAGES["docs/scale.md"].partition("| table | holds |")[2]
    named = re.findall(r"^\| `relevo\.(\w+)` \|", section, re.MULTILINE)
    first = await rows(
        ready,
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1"
        " WHERE c.relnamespace = 'relevo'::regnamespace AND c.relname = ANY (%s) AND a.attname = 'call_id'",
        [named],
    )
    assert len(named) == 4
    assert sorted(each["relname"] for each in first) == sorted(named)


# What is typed --------------------------------------------------------------------------------------------------------

VERIFIED = """
    SELECT DISTINCT c.business_id::text AS id FROM public.voice_assistant_configs c
    WHERE c.is_active AND NOT EXISTS (SELECT FROM relevo.unverified_tenants(ARRAY[c.business_id::text]))
    ORDER BY 1 LIMIT 2
"""
PG18 = pytest.mark.parametrize("server", [18], ids=["pg18"], indirect=True)


async def run(database: Database, words: list[str], known: dict[str, str]) -> int:
    """The exit status of a command as the page shows it, with its placeholders filled."""
    filled = [known.get(word, word) for word in words]
    answered = await asyncio.to_thread(relevo, *filled, url=database.url)
    assert answered.status != 2, (filled, answered.told)
    return answered.status


@PG18
async def test_the_quick_start_works_as_it_is_typed(database: Database) -> None:
    known: dict[str, str] = {}
    for words in typed("docs/quickstart.md"):
        if "TENANT" in words and not known:
            known = {"TENANT": (await rows(database, VERIFIED))[0]["id"]}
        assert await run(database, words, known) == 0, words


# Of the first rollout: what may say no here, and with which status.
SAYS_NO = {
    ("rollout", "rehearse"): 1,  # the sample's v1 is slow
    ("rollout", "evaluate"): 1,
    ("checklist",): 3,  # no rollout is complete yet
}


@PG18
async def test_the_first_rollout_works_as_it_is_typed(database: Database, tmp_path: Path) -> None:
    page = "docs/first-rollout.md"
    (plan,) = shown(page, "toml")
    known = {name: str(tmp_path / name) for name in ("plan.toml", "review.html", "report.html")}
    await asyncio.to_thread((tmp_path / "plan.toml").write_text, plan, encoding="utf-8")
    assert await run(database, ["sample", "load", "--tenants", "12", "--calls", "1000"], {}) == 0
    for words in typed(page):
        if words[0] == "vapi":
            continue  # there is no Vapi here
        if words[:2] == ["rollout", "start"]:
            known["TENANT,TENANT"] = ",".join(each["id"] for each in await rows(database, VERIFIED))
            words.append("--force")  # a thousand calls: their error rate may be anything
        status = await run(database, words, known)
        assert status in {0, next((no for begins, no in SAYS_NO.items() if begins == tuple(words[: len(begins)])), 0)}
    assert await value(database, "SELECT count(*) FROM relevo.rollouts") == 1


@PG18
async def test_the_roles_that_are_shown_can_do_what_is_said(server: Server, database_url: str) -> None:
    """Relevo's own log-in moves the data of another owner; an application asks the flag, and can do nothing else."""
    name = database_url.rsplit("/", 1)[1]
    granted, asking = shown("docs/supabase.md", "sql")
    async with Database(database_url) as owners:
        await load_sample(owners)
    with psycopg.connect(server.url(name), autocommit=True) as admin:
        for statement in granted.replace("DATABASE postgres", f"DATABASE {name}").split(";\n"):
            admin.execute(statement.replace("GRANT postgres", f"GRANT {OWNER}").encode())
        try:
            async with Database(server.url(name, "relevo")) as ours:
                assert preflight.blockers(await preflight.inspect(ours, DEFAULT)) == []
                assert await run(ours, ["migrate"], {}) == 0
                await change(ours, "UPDATE public.feature_flags SET enabled = true, enabled_tenants = ARRAY['someone']")
            admin.execute(b"CREATE ROLE application LOGIN")
            for statement in asking.split(";\n"):
                admin.execute(statement.encode())
            async with Database(server.url(name, "application")) as applications:
                assert await value(applications, "SELECT public.should_use_voice_agent_v2('someone')") is True
                with pytest.raises(MissingPrivilege):
                    await change(applications, "UPDATE public.feature_flags SET percentage = 100")
        finally:
            admin.execute(f"DROP OWNED BY relevo CASCADE; REVOKE {OWNER} FROM relevo; DROP ROLE relevo".encode())
            admin.execute(
                b"DO $$ BEGIN DROP OWNED BY application; DROP ROLE application;"
                b" EXCEPTION WHEN undefined_object THEN END $$"
            )


# Of the other pages: what cannot be typed here, and what is asked for where nobody can type CONFIRM.
NOT_TYPED = {
    ("vapi",): "there is no Vapi here",
    ("mirror", "resolve"): "no conflict is open",
    ("--version",): "it answers without a database, and not in JSON",
}
ASKS = {("backups", "restore"), ("db", "down")}
TYPED_IN_TURN = ("supabase", "restore", "metrics", "mirror", "flags", "upgrade")  # the last takes Relevo away


@PG18
async def test_what_other_pages_show_works_as_it_is_typed(sampled: Database) -> None:
    assert await run(sampled, ["migrate"], {}) == 0
    assert await run(sampled, ["backups", "create"], {}) == 0
    tenant = (await rows(sampled, VERIFIED))[0]["id"]
    newest = "SELECT id::text FROM public.migration_backups ORDER BY created_at DESC LIMIT 1"
    known = {"TENANT…": tenant, "TENANT": tenant, "ID": await value(sampled, newest)}
    for page in TYPED_IN_TURN:
        for words in typed(f"docs/{page}.md"):
            if any(words[: len(begins)] == [*begins] for begins in NOT_TYPED):
                continue
            asked = ["--yes"] if tuple(words[:2]) in ASKS else []
            status = await run(sampled, words + asked, known)
            assert status == 0 or words == ["verify"], (page, words)  # the sample's faults are set aside
    assert await value(sampled, "SELECT to_regnamespace('relevo') IS NULL")
