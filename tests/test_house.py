"""The house is as its plan says: one-way imports, small rooms, SQL in files, time and chance handed in."""

from __future__ import annotations

import ast
import random
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

RELEVO = Path(__file__).parent.parent / "relevo"
SOURCES = {path.relative_to(RELEVO).as_posix(): path.read_text(encoding="utf-8") for path in RELEVO.rglob("*.py")}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}

# A room imports from the rooms above it and from itself. What shares a line knows each other.
PLAN = """
    settings errors events clock
    db
    sql
    access
    tenants
    metrics
    flags
    webhooks
    migration
    comms
    alerts
    rollback
    rollout
    simulator
    report
    cleanup
    dashboard
    serving
    rehearsal
    __init__
    cli
    __main__
"""
FLOOR = {room: floor for floor, line in enumerate(PLAN.split("\n")) for room in line.split()}

VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
FILE_LINES, FUNCTION_LINES = 399, 50

# Who may look at the clock or throw dice, at what, and why. Everybody else is handed both.
TIME_AND_CHANCE = {
    ("clock.py", "datetime.now"): "the one clock; all others get it as an argument",
    ("access/tokens.py", "secrets.token_hex"): "a token is chance and nothing else",
    ("access/sessions.py", "secrets.token_urlsafe"): "so is the cookie of a session",
    ("access/sessions.py", "secrets.token_hex"): "names a session to people",
    ("access/provider.py", "secrets.token_urlsafe"): "and what a sign-in elsewhere is known by",
    ("clock.py", "time.monotonic"): "a compressed clock is read off the one that nobody sets back",
    ("cli/simulate.py", "random.Random"): "dice with the seed that was handed in",
    ("cli/checklist.py", "secrets.token_hex"): "names a test call, so that no other has its id",
    ("cli/demo.py", "time.monotonic"): "tells a person how long it took",
    ("cli/progress.py", "time.monotonic"): "draws rate and time left",
    ("cli/notify.py", "random.random"): "scatters who comes back after a failure",
    ("cli/serve.py", "random.random"): "the same",
    ("db/cluster.py", "time.monotonic"): "waits for a server only so long",
    ("db/cluster.py", "secrets.token_urlsafe"): "makes up the passwords of a new server",
    ("db/embedded.py", "secrets.token_hex"): "a file name that no other process picks",
    ("migration/runner.py", "time.monotonic"): "duration_seconds is a real duration",
    ("migration/steps/calls.py", "time.monotonic"): "makes batches as large as the database can bear",
    ("migration/throttle.py", "time.monotonic"): "looks once a second, and gives way only so long",
    ("migration/steps/backup.py", "uuid.uuid4"): "names a backup before the database knows of it",
    ("rollback/data.py", "time.monotonic"): "duration_seconds is a real duration",
    ("serving/told.py", "secrets.token_hex"): "tells the requests of one process from those of another in logs",
    ("rehearsal/stage.py", "random.Random"): "dice with the seed that was handed in",
    ("simulator/world.py", "random.Random"): "dice with the seed that was handed in",
}
WATCHED = {
    "datetime.date": {"today"},
    "datetime.datetime": {"now", "utcnow", "today"},
    "os": {"urandom", "getrandom"},
    "random": {name for name in dir(random) if not name.startswith("_")},
    "secrets": set(secrets.__all__),
    "time": {name for name in dir(time) if name != "sleep"},
    "uuid": {"uuid1", "uuid4"},
}

# SQL outside relevo/sql, by file and how it begins, with the reason why it cannot be a file's statement.
SQL_IN_PYTHON = {
    ("cleanup/archive.py", "^COPY"): "what pg_restore prints, looked for",
    ("db/cluster.py", "CREATE ROLE"): "before there is a database to have statements for",
    ("db/cluster.py", "CREATE DATABASE"): "the same",
    ("db/migrations.py", "INSERT INTO relevo.schema_files"): "printed at the end of each migration file",
    ("migration/mapping.py", "(SELECT {} FROM {}"): "put together from the mapping",
    ("db/migrations.py", "GRANT CREATE ON"): "advice to a person",
    ("db/pool.py", "SELECT pg_backend_pid()"): "asked while connecting, before there are statements",
    ("migration/structure.py", "GRANT {} ON {}"): "advice to a person",
    ("migration/structure.py", "SELECT {} FROM {} AS v1 LIMIT 0"): "put together from the mapping",
    ("migration/surroundings.py", "REVOKE ALL ON {}"): "advice to a person",
    ("migration/steps/shapes.py", "ALTER TABLE {}"): "advice to a person",
    ("migration/steps/verify.py", "(SELECT o.rule_version FROM"): "an expression that fills a statement",
    ("migration/voice_calls.py", "CREATE INDEX CONCURRENTLY ON {}"): "advice to a person",
    ("simulator/sample.py", "SELECT to_regclass"): "the sample knows no statements but its own table's",
    ("simulator/sample.py", "SELECT EXISTS"): "the same",
    ("simulator/sample.py", "COPY {} ({})"): "columns come from the row types",
}
SQL = re.compile(
    r"""^\W*(SELECT|INSERT\ INTO|UPDATE|DELETE\ FROM|MERGE\ INTO|WITH|COPY)\ [\w{(*]
      | ^\W*(CREATE|ALTER|DROP|TRUNCATE|GRANT|REVOKE)\ [\w{(*]
      | ^\W*SET\ (?!LOCAL\ |TRANSACTION\ )
      | \(SELECT\ """,
    re.VERBOSE,
)


def room_of(name: str) -> str:
    """``db/pool.py`` is in the room db; ``clock.py`` is a room of its own."""
    return name.split("/")[0].removesuffix(".py")


def imported(text: str, name: str = "cli/x.py") -> Iterator[str]:
    """Every module of relevo that a source names, however it hides that; "?" for a name made at run time.

    ``name`` is the source's own place, from which relative imports go.
    """
    package = ["relevo", *name.split("/")[:-1]]
    tree = ast.parse(text)
    loaders = {"__import__", "import_module", *_renamed_loaders(tree)}
    documentation = set(_docstrings(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.split(".")[0] == "relevo")
            case ast.ImportFrom(module=module, names=names, level=level):
                near = package[: len(package) - level + 1] if level else []
                source = ".".join([*near, *([module] if module else [])])
                if source == "relevo":
                    yield from (f"relevo.{each.name}" for each in names)
                elif source.startswith("relevo."):
                    yield source
            case ast.Call(func=function) if _last_name(function) in loaders:
                named = node.args[0] if node.args else next((word.value for word in node.keywords), None)
                if not (isinstance(named, ast.Constant) and isinstance(named.value, str)):
                    yield "?"
                elif named.value.startswith("."):
                    yield "relevo." + named.value.strip(".")
                elif named.value == "relevo":
                    yield "relevo.__init__"
            case ast.Constant(value=str(value)) if node not in documentation and re.match(r"relevo\.\w", value):
                yield re.split(r"[^\w.]", value)[0]


def target(module: str) -> str | None:
    """The room of an imported module; None for a string that only looks like one (relevo.toml, relevo.runs)."""
    if module in {"relevo", "relevo.__version__"}:
        return "__init__"
    room = module.split(".")[1]
    return room if room in FLOOR else None


def uphill(text: str, name: str) -> list[str]:
    """The modules a source imports against the direction of the house; and "?" for what cannot be checked."""
    here = room_of(name)
    modules = list(imported(text, name))
    return ["?" for module in modules if module == "?"] + [
        module
        for module in modules
        if module != "?" and (room := target(module)) and room != here and FLOOR[room] > FLOOR[here]
    ]


def calls_of(tree: ast.Module) -> Iterator[str]:
    """The watched functions that a source calls, or passes on for others to call, by their full name."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    for used in _used(tree):
        head, _, rest = ast.unparse(used).partition(".")
        owner, _, function = f"{names.get(head, '')}.{rest}".rstrip(".").rpartition(".")
        if function in WATCHED.get(owner, ()):
            yield f"{owner.removeprefix('datetime.')}.{function}"


def _used(tree: ast.Module) -> Iterator[ast.expr]:
    """What is called, and what is handed over as an argument, a default or another name."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=function, args=arguments, keywords=keywords):
                yield from (function, *arguments, *(keyword.value for keyword in keywords))
            case ast.Assign(value=value):
                yield value
            case ast.arguments(defaults=defaults, kw_defaults=more):
                yield from (default for default in (*defaults, *more) if default)


def sql_in(tree: ast.Module) -> Iterator[str]:
    """The literals that are SQL, on one line; ``{}`` for what is filled in."""
    documentation = set(_docstrings(tree))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in inside:
            text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
        else:
            continue
        text = " ".join(text.split())
        if node not in documentation and SQL.search(text):
            yield text


def _docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    """Strings that stand alone: documentation of a module, class, function or field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _last_name(function: ast.expr) -> str:
    return ast.unparse(function).rsplit(".", 1)[-1]


def _renamed_loaders(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "importlib":
            yield from (each.asname or each.name for each in node.names if each.name == "import_module")
        elif isinstance(node, ast.Assign) and _last_name(node.value) in {"import_module", "__import__"}:
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _undocumented(node: ast.AST, place: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring; what is inside a function is nobody's business."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            if ast.get_docstring(child) is None:
                yield f"{place}:{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{place}:{child.name}")


def test_every_room_is_in_the_plan() -> None:
    assert {room_of(name) for name in SOURCES} <= FLOOR.keys()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_imports_go_one_way(name: str) -> None:
    assert uphill(SOURCES[name], name) == []


@pytest.mark.parametrize(
    "source",
    [
        "import relevo.cli",
        "import relevo.cli.frame as f",
        "import os, relevo.cli",
        "from relevo import cli",
        "from relevo import settings, cli",
        "from relevo import __version__",
        "import relevo",
        "from relevo.cli import frame",
        "from relevo.cli.frame import Answer as A",
        "from .. import cli",
        "from ..cli import frame",
        "from ..cli.frame import Answer",
        "def f():\n    from relevo.cli import frame\n    return frame",
        "class A:\n    def f(self):\n        import relevo.cli",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from relevo.cli import frame",
        "try:\n    pass\nexcept ImportError:\n    from relevo.cli import frame",
        "import importlib\nimportlib.import_module('relevo.cli')",
        "from importlib import import_module\nimport_module('relevo.cli.frame')",
        "from importlib import import_module as load\nload('relevo.cli')",
        "from importlib import import_module\nload = import_module\nload('relevo.cli')",
        "import importlib\nimportlib.import_module('..cli', __package__)",
        "import importlib\nimportlib.import_module(name='relevo.cli')",
        "import importlib\nimportlib.import_module('relevo')",
        "__import__('relevo.cli')",
        "__import__('relevo.' + 'cli')",
        "import importlib\nname = 'cli'\nimportlib.import_module(f'relevo.{name}')",
        "import builtins\nbuiltins.__import__('relevo.cli')",
        "import sys\nsys.modules['relevo.cli']",
        "import pkgutil\npkgutil.resolve_name('relevo.cli.frame:Answer')",
        "MODULE = 'relevo.cli'",
    ],
)
def test_a_hidden_import_is_found(source: str) -> None:
    assert uphill(source, "db/x.py")


@pytest.mark.parametrize(
    "source",
    [
        "from relevo import settings",
        "from relevo.db import pool",
        "from . import pool",
        "from .pool import Database",
        "from ..errors import RelevoError",
        "import importlib\nimportlib.import_module('psycopg')",
        "FILE = 'relevo.toml'",
        "TABLE = 'relevo.runs'",
        "def f():\n    '''relevo.cli prints it.'''",
        "from importlib.resources import files\nfiles('relevo')",
    ],
)
def test_an_import_from_above_is_fine(source: str) -> None:
    assert uphill(source, "db/x.py") == []


def test_only_the_command_line_and_the_public_api_may_import_relevo_itself() -> None:
    assert uphill("from relevo import __version__", "cli/x.py") == []
    assert uphill("import relevo", "report/x.py") == ["relevo"]
    assert uphill("from relevo.cli import main", "__init__.py") == ["relevo.cli"]


def test_names_say_what_a_module_is_for() -> None:
    parts = {part.removesuffix(".py") for name in SOURCES for part in name.split("/")}
    assert parts & VAGUE == set()


def test_files_are_short() -> None:
    assert {name for name, text in SOURCES.items() if len(text.splitlines()) > FILE_LINES} == set()


def test_functions_are_short() -> None:
    lengths = {
        f"{name}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for name, tree in TREES.items()
        for function in _functions(tree)
    }
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


def test_everything_public_is_documented() -> None:
    modules = [name for name, tree in TREES.items() if tree.body and ast.get_docstring(tree) is None]
    rest = [missing for name, tree in TREES.items() for missing in _undocumented(tree, name)]
    assert [*modules, *rest] == []


def test_only_settings_and_the_command_line_read_the_environment() -> None:
    reading = {"environ", "environb", "getenv", "getenvb", "expandvars", "getuser", "expanduser"}
    readers = {name for name, tree in TREES.items() if reading & set(_names(tree))}
    assert {name for name in readers if room_of(name) not in {"settings", "cli"}} == set()


def _names(tree: ast.Module) -> Iterator[str]:
    """Every name that a source gets from elsewhere."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.alias(name=name):
                yield name
            case ast.Attribute(attr=name, value=ast.Name(id="os" | "path" | "Path" | "getpass")):
                yield name


def test_sql_lives_in_files() -> None:
    found = {(name, text) for name, tree in TREES.items() for text in sql_in(tree)}
    allowed = {
        (name, text)
        for name, text in found
        if any(name == file and beginning in text for file, beginning in SQL_IN_PYTHON)
    }
    assert found - allowed == set()
    unused = {row for row in SQL_IN_PYTHON if not any(row[0] == name and row[1] in text for name, text in allowed)}
    assert unused == set()


@pytest.mark.parametrize(
    "source",
    [
        "q = 'SELECT 1'",
        "q = '''\n    SELECT id\n    FROM t'''",
        "q = b'SELECT id FROM t'",
        "q = f'UPDATE {table} SET x = 1'",
        "q = 'INSERT INTO t VALUES (1)'",
        "q = 'DELETE FROM t'",
        "q = 'WITH x AS (SELECT 1) SELECT * FROM x'",
        "q = 'TRUNCATE t'",
        "q = 'SET search_path = x'",
        "q = f'id IN (SELECT id FROM {t})'",
    ],
)
def test_sql_in_a_literal_is_found(source: str) -> None:
    assert list(sql_in(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "q = 'SET LOCAL lock_timeout = 1'",
        "q = 'SET TRANSACTION READ ONLY;'",
        "'''SELECT in a docstring.'''",
        "q = 'Select a tenant'",
        "q = 'SELECT'",
    ],
)
def test_words_that_are_no_sql_are_fine(source: str) -> None:
    assert list(sql_in(ast.parse(source))) == []


def test_time_and_chance_are_handed_in() -> None:
    found = {(name, call) for name, tree in TREES.items() for call in calls_of(tree)}
    assert found == TIME_AND_CHANCE.keys()


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("import time\ntime.time()", "time.time"),
        ("import time as t\nt.time()", "time.time"),
        ("from time import monotonic\nmonotonic()", "time.monotonic"),
        ("from datetime import UTC, datetime\ndatetime.now(UTC)", "datetime.now"),
        ("import datetime\ndatetime.datetime.now()", "datetime.now"),
        ("from datetime import date\ndate.today()", "date.today"),
        ("import random\nrandom.random()", "random.random"),
        ("from random import choice as pick\npick([1])", "random.choice"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
        ("from datetime import datetime\nfield = dict(default_factory=datetime.now)", "datetime.now"),
        ("def f():\n    import os\n    return os.urandom(1)", "os.urandom"),
    ],
)
def test_a_look_at_the_clock_is_found(source: str, call: str) -> None:
    assert call in set(calls_of(ast.parse(source)))


def test_a_type_is_no_look_at_the_clock() -> None:
    assert list(calls_of(ast.parse("from random import Random\ndef f(rng: Random) -> Random: return rng"))) == []
    assert list(calls_of(ast.parse("from datetime import datetime\ndef f(x): return datetime(2026, 1, 1)"))) == []
