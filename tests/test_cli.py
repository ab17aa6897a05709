"""The command line as its users meet it: real processes, one JSON document, an exit status, one line on what to do."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from cyclopts import App
from rich.console import Console

from relevo import __version__, cli
from relevo.cli.frame import Common
from relevo.cli.progress import TerminalSink, end_drawing
from relevo.db import migrations
from relevo.db.embedded import EmbeddedServer
from relevo.db.pool import Database
from relevo.events import Progress
from relevo.simulator import sample
from tests import forked
from tests.conftest import NOW, rows, value
from tests.servers import Server

ROOT = Path(__file__).parent.parent
PASSWORD = "hunter2-in-plain-sight"  # in every URL, and in no output
NOWHERE = f"postgresql://u:{PASSWORD}@127.0.0.1:1/nowhere"  # nothing listens on port 1

ENDS_WITHIN_S = 120

# Which PostgreSQL answers makes no difference to most of what a process says.
on_18 = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])


@dataclass(frozen=True)
class Ran:
    """A process that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


class Shell:
    """Runs relevo in an empty folder, with an environment that says nothing it was not told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | bytes, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "relevo", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self.folder,
            env=self.environment(env),
        )
        self.started.append(process)
        return process

    def __call__(
        self,
        *arguments: str | bytes,
        env: Mapping[str, str] | None = None,
        secret: bool = True,
        fresh: bool = False,
    ) -> Ran:
        """Run it to its end; ``fresh``: by starting Python, for what happens before ``main``."""
        if fresh:
            return self.end(self.start(*arguments, env=env), secret=secret)
        words = [os.fsdecode(each) for each in arguments]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = forked.start(
                *words, stdout=out.fileno(), stderr=err.fileno(), env=self.environment(env), folder=self.folder
            )
            status = process.wait(ENDS_WITHIN_S)
            for each in (out, err):
                each.seek(0)
            return self.ended(status, out.read(), err.read(), secret=secret)

    def environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        """All that it is told."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "RELEVO_HOME": str(self.folder / ".relevo"),
            "LANG": "C.UTF-8",
            "USER": "olga",
            **(env or {}),
        }

    def end(self, process: subprocess.Popen[str], *, secret: bool = True) -> Ran:
        out, err = process.communicate(timeout=ENDS_WITHIN_S)
        return self.ended(process.returncode, out, err, secret=secret)

    def ended(self, status: int, out: str, err: str, *, secret: bool) -> Ran:
        assert "Traceback" not in err, err
        assert not secret or PASSWORD not in out + err
        return Ran(status, out, err)


@pytest.fixture
def relevo(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    for process in shell.started:
        with process:  # closes its pipes
            process.kill()


def with_password(url: str) -> str:
    """The same database; its server trusts whoever comes, with any password."""
    return url.replace("@", f":{PASSWORD}@", 1)


@pytest.fixture
def url(database_url: str) -> str:
    """An empty database."""
    return with_password(database_url)


def state(server: Server, url: str) -> dict[str, Any]:
    """All that could have changed: every row of every table but who is at work, and the catalogue."""
    ours = "nspname !~ '^pg_' AND nspname <> 'information_schema'"
    catalogue = f"""
        SELECT 'class' AS kind, c.oid, relname AS name, concat_ws(' ', relowner, relacl, relnatts, relrowsecurity)
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {ours}
        UNION ALL SELECT 'function', p.oid, proname, proowner::text
        FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {ours}
        UNION ALL SELECT 'schema', oid, nspname, nspacl::text FROM pg_namespace WHERE {ours}
        UNION ALL SELECT 'trigger', oid, tgname, tgenabled::text FROM pg_trigger
        ORDER BY 1, 2"""
    with psycopg.connect(server.url(url.rsplit("/", 1)[1])) as connection:
        tables = connection.execute(
            f"""SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                WHERE relkind = 'r' AND relname <> 'leases' AND {ours}""".encode()
        ).fetchall()
        contents = {
            name: connection.execute(
                f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {name} t".encode()
            ).fetchone()
            for (name,) in tables
        }
        return {**contents, "catalogue": connection.execute(catalogue.encode()).fetchall()}


def assert_refused(ran: Ran, status: int, *said: str) -> None:
    """One line on standard error that says what is wrong and what to do, and the same as one JSON document."""
    assert ran.status == status, ran
    (line,) = ran.err.splitlines()
    assert line.startswith("relevo: ")
    assert " — " in line
    for words in said:
        assert words in line
    if ran.out:
        answer = ran.json
        assert answer["success"] is False
        error = answer["error"]
        assert line == f"relevo: {error['message']} — {error['fix']}"
        assert error["code"].isidentifier()
        assert error["fix"]


# --- what machines read ---


class Told(NamedTuple):
    """A command, its exit status and the keys of its answer; those of each element where it is a list."""

    command: str
    keys: str
    status: int = 0


MIGRATE = (
    "success run_id dry_run migrated_configs skipped_configs quarantined_configs review_configs updated_calls"
    " metrics_businesses backup_id errors duration_seconds"
)
STORY = (
    Told("db status", "complete database files", 1),
    Told("preflight", "success findings", 1),
    Told("sample load --tenants 40 --calls 3000", "success businesses configurations calls broken"),
    Told("preflight", "success findings"),
    Told("db up", "success applied"),
    Told("db status", "complete database files"),
    Told("verify", "success checked matched edited_on_v2 drifted missing orphaned errors", 1),
    Told("migrate --dry-run", MIGRATE),
    Told("migrate", MIGRATE),
    Told("verify", "success checked matched edited_on_v2 drifted missing orphaned errors"),
    Told(
        "explain --vertical restaurant --prompt-file prompt.txt",
        "assistant_type_id enabled_capabilities special_instructions truncated uncovered provenance",
    ),
    Told("review", "config_id reasons assistant_type_id uncovered"),
    Told("quarantine list", "config_id business_id reason detail set_aside_at"),
    Told("quarantine retry", "success migrated_configs quarantined_configs left", 1),
    Told("status", "total_tenants tenants_on_v2 states tenants"),
    Told("mirror status", "installed missing strict queued conflicts unwritable"),
    Told("mirror repair", "success repaired failed"),
    Told("flags evaluate a b", "tenant_id value variant reason percentile flag_version"),
    Told("flags off", "success unverified"),
    Told("templates list", "version"),
    Told("backups create", "success backup_id"),
    Told("backups list", "id created_at tables tenant_ids actor reason verified_at"),
    Told("db url", "url"),
)
# Commands that tell something only of a state of their own; their tests are beside what they are about.
TOLD_ELSEWHERE = {
    *("db sql", "db stop", "db down", "demo", "backups diff", "backups restore", "rollback", "serve", "answer", "why"),
    *("mirror install", "mirror remove", "mirror resolve"),
}
GROUPS_TOLD_ELSEWHERE = {
    *("alerts", "breakers", "checklist", "cleanup", "complaints", "flags", "metrics", "notify", "nps", "report"),
    *("rollout", "sessions", "simulate", "templates", "tokens", "vapi"),
}


@on_18
async def test_every_answer_is_one_json_document(relevo: Shell, url: str) -> None:
    (relevo.folder / "prompt.txt").write_text("Toma reservaciones y pedidos. Instrucciones especiales: sé amable.")
    answers = []
    started: set[str] = set()
    for told in STORY:
        words, shows_it = told.command.split(), told.command == "db url"
        first = words[0] not in started  # by itself, in a Python that has imported nothing else
        started.add(words[0])
        ran = relevo(*words, "--json", env={"RELEVO_DATABASE_URL": url}, secret=not shows_it, fresh=first)
        assert ran.status == told.status, (told, ran)
        answer = ran.json
        assert (answer[0] if isinstance(answer, list) else answer).keys() >= set(told.keys.split()), told
        assert "\x1b" not in ran.out + ran.err
        answers.append((told.command, ran))

    dry, real = (ran for command, ran in answers if command.startswith("migrate"))
    assert [line.split("] ")[0] for line in real.err.splitlines() if line.startswith("[")] == [
        f"[{number}/5" for number in range(1, 6)
    ]
    counted = [name for name in MIGRATE.split() if name not in {"run_id", "dry_run", "backup_id", "duration_seconds"}]
    assert {name: dry.json[name] for name in counted} == {name: real.json[name] for name in counted}
    assert (dry.json["dry_run"], dry.json["run_id"], dry.json["backup_id"]) == (True, None, None)
    assert str(UUID(real.json["run_id"])) == real.json["run_id"]
    backups = answers[-2][1].json
    assert [backup["reason"] for backup in backups] == [None, f"before run {real.json['run_id']}"]
    assert answers[-1][1].json == {"url": url}


def test_every_command_is_told_of() -> None:
    told = {" ".join(word for word in told.command.split() if not word.startswith("-")) for told in STORY}
    commands = {each for each in _commands(cli.app) if each.split()[0] not in GROUPS_TOLD_ELSEWHERE}
    assert len(commands) > 9
    assert {each for each in commands - TOLD_ELSEWHERE if not any(t.startswith(each) for t in told)} == set()


def _commands(app: App, before: str = "") -> Iterator[str]:
    for name in app:
        if not name.startswith("-"):
            inner = app[name]
            below = list(_commands(inner, f"{before}{name} "))
            yield from below or [f"{before}{name}"]


def test_the_version_and_help_need_no_database(relevo: Shell) -> None:
    assert relevo("--version", fresh=True).out == f"{__version__}\n"
    shown = relevo("--help")
    assert (shown.status, shown.err) == (0, "")
    assert all(command.split()[0] in shown.out for command in _commands(cli.app))
    of_migrate = relevo("migrate", "--help")
    assert all(option in of_migrate.out for option in ("--dry-run", "--batch-size", "--tenant-ids", "--resume"))
    assert not (relevo.folder / ".relevo").exists()


def test_the_list_of_commands_shows_what_each_says_of_itself(relevo: Shell) -> None:
    shown = relevo("--help", env={"COLUMNS": "240"}, fresh=True).out
    told = dict(re.findall(r"^│ ([a-z]+) +(\S.*?) *│$", shown, re.MULTILINE))
    assert told.keys() == cli.COMMANDS.keys()
    for name in cli.COMMANDS:
        assert " ".join(str(cli.app[name].help).split()).startswith(told[name].split(".")[0]), name


def test_a_command_loads_only_what_it_needs() -> None:
    asked = "import sys; from relevo import cli; cli._run(['--version']); print([*sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert "'psycopg'" in loaded
    assert [each for each in ("fastapi", "aiohttp", "relevo.rollout", "jinja2") if f"'{each}'" in loaded] == []


def test_a_bar_that_nobody_ended_is_taken_away_and_gives_the_cursor_back() -> None:
    hide, show = "\x1b[?25l", "\x1b[?25h"
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    sink = TerminalSink(terminal)
    for event in (Progress(1, 4, "businesses"), Progress(4, 4, "calls")):
        sink(event)
    end_drawing()
    assert isinstance(terminal.file, io.StringIO)
    drawn = terminal.file.getvalue()
    assert drawn.count(hide) == drawn.count(show) == 1
    assert "4/4 calls" in drawn
    sink(Progress(1, 2, "calls"))  # the next step draws again
    end_drawing()
    assert terminal.file.getvalue().count(show) == 2


def test_the_url_is_one_line_however_narrow_the_terminal(relevo: Shell) -> None:
    url = f"{NOWHERE}?application_name=[red]{'x' * 300}"
    ran = relevo("db", "url", "--database-url", url, env={"COLUMNS": "20"}, secret=False, fresh=True)
    assert (ran.status, ran.out, ran.err) == (0, f"{url}\n", "")


def test_the_url_comes_from_a_named_file_too(relevo: Shell) -> None:
    (relevo.folder / "other.toml").write_text(f'[database]\nurl = "{NOWHERE}"')
    assert relevo("db", "url", "--config", "other.toml", secret=False).out == f"{NOWHERE}\n"


def test_the_schema_is_written_as_files(relevo: Shell) -> None:
    ran = relevo("db", "sql", "--output", "new/folder", "--json")
    scripts = dict(migrations.as_scripts())
    assert (ran.status, ran.json, ran.err) == (0, {"written": list(scripts)}, "")
    written = {file.name: file.read_text() for file in (relevo.folder / "new" / "folder").iterdir()}
    assert written == scripts


def test_a_reader_who_has_seen_enough_is_no_fault(relevo: Shell) -> None:
    process = relevo.start("db", "sql")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 0
    process.stderr.close()


# --- wrong usage: 2, before anything is touched ---

EXPLAIN = ("explain", "--vertical", "dental", "--prompt-file")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("migrate", "--batch-size", "0"), "Must be >= 1"),
        (("migrate", "--batch-size", "-5"), "-5"),
        (("migrate", "--batch-size", "12.5"), "--batch-size takes a whole number, not '12.5'"),
        (("migrate", "--batch-size", "abc"), "'abc'"),
        (("migrate", "--batch-size", "99999999999"), "Must be <= 100000"),
        (("migrate", "--tenant-ids", "nonsense"), "no UUID"),
        (("verify", "--tenant-ids", ","), "--tenant-ids is empty"),
        (("migrate", "--resume", "nonsense"), "--resume"),
        (("migrat",), 'Did you mean "migrate"?'),
        (("migrate", "--batchsize", "3"), "Did you mean --batch-size?"),
        (("migrate", "surplus"), "surplus"),
        (("explain", "--prompt-file", "good.txt"), "--vertical"),
        ((*EXPLAIN, "missing.txt"), "cannot read missing.txt: No such file"),
        ((*EXPLAIN, "latin1.txt"), "latin1.txt is not UTF-8"),
        ((*EXPLAIN, "nul.txt"), "nul.txt holds a NUL"),
        (("preflight", "--config", "bad.toml"), "bad.toml is not valid TOML"),
        (("preflight", "--config", "missing.toml"), "cannot read missing.toml"),
        (("preflight", "--config", "unknown.toml"), "Did you mean 'database_url'"),
        (("migrate", "--actor", ""), "--actor is empty"),
        (("sample", "load", "--tenants", "0"), "--tenants 1"),
        (("db", "sql", "--output", "good.txt"), "cannot write into good.txt"),
        (("migrate", "--reason", b"\xff"), "not UTF-8"),
    ],
    ids=lambda each: " ".join(map(str, each)) if isinstance(each, tuple) else "",
)
def test_wrong_usage_is_refused_before_the_database_is_asked(
    relevo: Shell, arguments: tuple[str | bytes, ...], said: str
) -> None:
    """A command that went as far as asking the database would find nobody there, and exit with 3."""
    (relevo.folder / "good.txt").write_text("Hola")
    (relevo.folder / "latin1.txt").write_bytes("Años".encode("latin-1"))
    (relevo.folder / "nul.txt").write_bytes(b"a\0b")
    (relevo.folder / "bad.toml").write_text("[database")
    (relevo.folder / "unknown.toml").write_text('[database]\nurll = "x"')
    ran = relevo(*arguments, "--json", env={"RELEVO_DATABASE_URL": NOWHERE})
    assert ran.out
    assert_refused(ran, 2, said)


@pytest.mark.parametrize(
    "unreadable",
    [
        f"postgresql://u:{PASSWORD}@127.0.0.1:port/x",
        f"postgresql://u:{PASSWORD}@[::1/x",
        f"postgresql://u:{PASSWORD}@127.0.0.1/x?nonsense=1",
        f"postgresql://u:x@{PASSWORD}@127.0.0.1:5432/x",  # an @ that is not written as %40
        f"postgresql://u:1/{PASSWORD}@127.0.0.1:5432/x",
        f"mysql://u:{PASSWORD}@127.0.0.1/x",
        f"password={PASSWORD} nonsense=1",
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(relevo: Shell, unreadable: str) -> None:
    assert_refused(relevo("db", "status", "--database-url", unreadable), 2, "database")


@on_18
async def test_an_unknown_name_is_refused_with_the_nearest(relevo: Shell, server: Server, sampled: Database) -> None:
    there = str(await value(sampled, "SELECT id FROM public.businesses ORDER BY id LIMIT 1"))
    not_there = there[:-1] + ("0" if there[-1] != "0" else "1")
    before, url = state(server, sampled.url), with_password(sampled.url)
    (relevo.folder / "prompt.txt").write_text("Hola")
    for command, said in (
        (f"migrate --tenant-ids {not_there}", f"Did you mean '{there}'"),
        (f"preflight --tenant-ids {there},{not_there}", f"no tenant {not_there}"),
        (f"backups create --tenant-ids {not_there}", f"no tenant {not_there}"),
        ("explain --prompt-file prompt.txt --vertical restaurante", "Did you mean 'restaurant'?"),
        (f"migrate --resume {there}", "is not open"),
    ):
        assert_refused(relevo(*command.split(), "--database-url", url), 2, said)
    assert state(server, sampled.url) == before


# --- refused: 3, and nothing was changed ---


def test_a_server_that_is_not_there(relevo: Shell) -> None:
    assert_refused(relevo("migrate", "--json", "--database-url", NOWHERE), 3, "127.0.0.1:1/nowhere does not answer")


@on_18
def test_a_database_that_is_not_there(relevo: Shell, server: Server) -> None:
    url = with_password(server.url("nonexistent"))
    assert_refused(relevo("migrate", "--database-url", url), 3, 'database "nonexistent" does not exist')


def as_guest(statement: str) -> Callable[[Server, str], str]:
    """Come as a role that owns what the move writes, after a superuser has done what ``statement`` says."""

    def prepare(server: Server, url: str) -> str:
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(server.url(name), autocommit=True) as connection:
            connection.execute(
                f"""CREATE ROLE guest_{name} LOGIN;
                    GRANT ALL ON public.businesses TO guest_{name};
                    ALTER TABLE public.voice_agent_config OWNER TO guest_{name};
                    ALTER TABLE public.voice_calls OWNER TO guest_{name};
                    {statement.format(guest=f"guest_{name}")}""".encode()
            )
        return server.url(name, f"guest_{name}")

    return prepare


def as_owner(statement: str) -> Callable[[Server, str], str]:
    """Come as the owner, after a superuser has done what ``statement`` says."""

    def prepare(server: Server, url: str) -> str:
        with psycopg.connect(server.url(url.rsplit("/", 1)[1]), autocommit=True) as connection:
            connection.execute(statement.encode())
        return url

    return prepare


@on_18
@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (as_owner("DROP TABLE public.voice_calls"), "no table public.voice_calls"),
        (as_owner("ALTER TABLE public.voice_calls DROP status"), "public.voice_calls has no column status"),
        (as_guest("REVOKE SELECT ON public.businesses FROM {guest}"), "SELECT on public.businesses"),
        (as_guest("ALTER TABLE public.businesses ENABLE ROW LEVEL SECURITY"), "may hide rows"),
    ],
    ids=["missing table", "missing column", "no rights", "hidden rows"],
)
async def test_what_blocks_is_found_by_preflight_and_refused_by_migrate(
    relevo: Shell, server: Server, database: Database, prepare: Callable[[Server, str], str], said: str
) -> None:
    await _load_small(database)
    url = with_password(prepare(server, database.url))
    before = state(server, database.url)
    preflight = relevo("preflight", "--json", "--database-url", url)
    assert (preflight.status, preflight.json["success"], preflight.err) == (1, False, "")
    blockers = [finding for finding in preflight.json["findings"] if finding["severity"] == "blocker"]
    assert said in blockers[0]["message"]
    assert_refused(relevo("migrate", "--database-url", url), 3, said, blockers[0]["fix"])
    assert state(server, database.url) == before


@on_18
async def test_without_the_schema_only_a_real_run_helps_itself(
    relevo: Shell, server: Server, database: Database
) -> None:
    await _load_small(database)
    (relevo.folder / "prompt.txt").write_text("Hola")
    before, url = state(server, database.url), with_password(database.url)
    for command in ("migrate --dry-run", "verify", "explain --vertical dental --prompt-file prompt.txt"):
        assert_refused(relevo(*command.split(), "--database-url", url), 3, "run: relevo db up")
    assert_refused(relevo("db", "stop", "--database-url", url), 3, "not the embedded one")
    assert_refused(relevo("sample", "load", "--database-url", url), 3, "businesses already has rows")
    assert state(server, database.url) == before
    assert relevo("migrate", "--skip-backup", "--database-url", url).status == 0


async def _load_small(database: Database) -> None:
    async with database.transaction() as connection:
        await sample.load(connection, tenants=3, calls=20, seed=7, now=NOW)


# --- what a person sees, and what the log keeps ---


@on_18
async def test_who_and_why_reach_the_audit_log_as_they_are(relevo: Shell, ready: Database) -> None:
    await _load_small(ready)
    url = with_password(ready.url)
    reason = "la ventana de las 3 [/b] [red]"
    moved = relevo("migrate", "--actor", "ana", "--reason", reason, "--database-url", url)
    assert moved.status == 0
    assert "success" in moved.out
    assert relevo("backups", "create", "--database-url", url).status == 0
    log = await rows(ready, "SELECT action, actor, reason FROM relevo.audit_log ORDER BY id")
    assert [tuple(entry.values()) for entry in log][:4] == [
        ("migration.start", "ana", reason),
        ("backup.create", "ana", reason),
        ("mirror.install", "ana", reason),
        ("migration.succeeded", "ana", reason),
    ]
    assert tuple(log[-1].values()) == ("backup.create", "olga", None)
    listed = relevo("backups", "list", "--database-url", url)
    assert listed.status == 0
    assert reason in listed.out


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run as any user id."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert Common().actor == "uid 54321"


@on_18
async def test_ctrl_c_leaves_a_run_that_the_next_one_finishes(relevo: Shell, sampled: Database) -> None:
    url = with_password(sampled.url)
    configurations = await value(sampled, "SELECT count(*) FROM public.voice_agent_config")
    copied = "SELECT count(*) FROM public.voice_assistant_configs"
    tenth = await value(sampled, "SELECT id FROM public.voice_agent_config ORDER BY id OFFSET 9 LIMIT 1")
    process = relevo.start("migrate", "--batch-size", "1", "--json", "--database-url", url)
    async with sampled.transaction() as held:  # it will come to the tenth, and wait there
        await held.execute("SELECT FROM public.voice_agent_config WHERE id = %s FOR UPDATE", [tenth])
        deadline = time.monotonic() + 30
        while await value(sampled, f"SELECT ({copied}) < 5 FROM pg_sleep(0.05)"):
            assert time.monotonic() < deadline, process.poll()
        process.send_signal(signal.SIGINT)
        stopped = relevo.end(process)
    assert stopped.status == 130
    assert stopped.json["error"]["code"] == "Interrupted"
    last = stopped.err.splitlines()[-1]
    assert last == "relevo: interrupted — run the command again to go on"
    assert 5 <= await value(sampled, copied) < 10

    finished = relevo("migrate", "--json", "--database-url", url)
    assert finished.status == 0
    assert "resuming run" in finished.err
    answer = finished.json
    done = answer["migrated_configs"] + answer["quarantined_configs"] + answer["skipped_configs"]
    assert (answer["success"], done) == (True, configurations)
    assert await value(sampled, "SELECT count(*) FROM relevo.runs") == 1
    assert relevo("verify", "--database-url", url).status == 0


# --- the embedded server, which asks for its password ---


def test_without_a_url_the_embedded_server_serves(relevo: Shell) -> None:
    shown = relevo("db", "url", fresh=True)
    try:
        (url,) = shown.out.splitlines()
        assert (shown.status, shown.err) == (0, "")
        assert relevo("db", "up", "--json").json["success"] is True
        secret = url.split(":")[2].split("@")[0]
        wrong = relevo("db", "status", "--json", "--database-url", url.replace(secret, PASSWORD))
        assert_refused(wrong, 3, "refuses the password or role", "check the user and password")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM relevo.schema_files").fetchone() == (True,)
        stopped = relevo("db", "stop", "--json")
        assert (stopped.status, stopped.json) == (0, {"stopped": True})
        assert relevo("db", "stop").out == "it was not running\n"
    finally:
        EmbeddedServer(relevo.folder / ".relevo").destroy()
