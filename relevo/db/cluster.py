"""PostgreSQL's own programs and data for one RELEVO_HOME: initialise, start, look, stop, remove.

Nothing here decides who may do so when: ``EmbeddedServer`` holds the lock around every call.

PostgreSQL refuses to run as root, and the user it then runs as often cannot enter RELEVO_HOME or the virtual
environment. So for root the data, and a copy of the programs, live in ``/var/lib/relevo``.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg

from relevo.db.files import draft_of, write_private
from relevo.db.programs import SHARED_PLACE, is_root, make_enterable, run
from relevo.errors import EmbeddedServerFailed

PATIENCE_S = 15.0  # how long to wait out what passes by itself

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",  # the log is read below, in English
}

# What PostgreSQL says when the next attempt may well succeed.
PASSING = (
    "pre-existing shared memory block",  # a killed server's children are still going away
    "could not create any TCP/IP sockets",  # somebody took the port between our look and the start
    'lock file "postmaster.pid" already exists',  # a killed command's start got through after all
    "it runs but lets nobody in",  # it is recovering, or on its way down
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the embedded server listens and how to get in."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str

    @property
    def url(self) -> str:
        """The address as one PostgreSQL URL; it contains the password."""
        password = quote(self.password, safe="")
        return f"postgresql://{self.user}:{password}@{self.host}:{self.port}/{self.database}"


class Cluster:
    """The data of one RELEVO_HOME and the PostgreSQL that serves it.

    ``store`` holds ``data`` (PostgreSQL's), ``server.json`` (port and passwords) and ``home`` (whose it is).
    Secrets live beside the data they open, so losing RELEVO_HOME does not lock anybody out.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pointer = home / "postgres"
        self.store = _store_of(home, self.pointer)
        self.data = self.store / "data"
        self._secrets = self.store / "server.json"

    def ensure_running(self) -> Address:
        """The address of a server that has just let us in; initialises and starts it when needed.

        Raises EmbeddedServerFailed at once for a lasting cause, after ``PATIENCE_S`` for a passing one.
        """
        if not self._secrets.exists():
            self._initialise()
        self._point_from_home()
        deadline = time.monotonic() + PATIENCE_S
        while obstacle := self._obstacle():
            if time.monotonic() > deadline or not any(each in obstacle for each in PASSING):
                raise self._failed("did not start", obstacle)
            time.sleep(0.2)
        return self._address()

    def answers(self) -> bool:
        """Whether a connection as role relevo succeeds right now."""
        return self._secrets.exists() and not self._complaint()

    def stop(self) -> bool:
        """Stop the server, disconnecting whoever is left; False if it was not running."""
        if self.postmaster() is None:
            return False
        result = self._pg_ctl("-m", "fast", "stop")
        if result.returncode and self.postmaster() is not None:
            raise self._failed("did not stop", _last_line(result.stderr))
        return True

    def remove(self) -> None:
        """Remove a stopped server's data for good."""
        if self.store.exists():
            shutil.rmtree(self.store)
        self.pointer.unlink(missing_ok=True)

    def postmaster(self) -> int | None:
        """The process id of the PostgreSQL serving this data; None when there is none."""
        pid = self._recorded_pid()
        return pid if pid is not None and _serves(pid, self.data) else None

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split(maxsplit=1)[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None

    def _obstacle(self) -> str | None:
        """None when the server lets us in, having started it if need be; else what stands in the way."""
        complaint = self._complaint()
        if complaint and self.postmaster() is None:
            return self._start() or self._complaint()
        return f"it runs but lets nobody in: {complaint}" if complaint else None

    def _complaint(self) -> str | None:
        """Why a connection as role relevo fails; None when it succeeds."""
        try:
            # Said outright, lest PGSSLMODE in the environment ask an embedded server for a certificate.
            psycopg.connect(self._address().url, connect_timeout=3, sslmode="disable", gssencmode="disable").close()
        except psycopg.OperationalError as error:
            return _last_line(str(error))
        return None

    def _start(self) -> str | None:
        """Try once; None on success, else the reason as PostgreSQL's log gives it."""
        self._drop_misleading_pid_file()
        port = self._take_port()
        log = self.data / "server.log"
        seen = log.stat().st_size if log.exists() else 0
        result = self._pg_ctl("-l", str(log), "-o", f"-p {port}", "start")
        if result.returncode == 0:
            return None
        return _reason(log.read_bytes()[seen:] if log.exists() else b"") or _last_line(result.stderr)

    def _drop_misleading_pid_file(self) -> None:
        # PostgreSQL clears the file of a dead process itself, after a look at its shared memory. It only
        # gives up when the file is empty, or when an unrelated process has since been given the number.
        pid = self._recorded_pid()
        if pid is None or _alive(pid):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _take_port(self) -> int:
        """Last time's port when it is free, else another; recorded before the start, so it is never lost."""
        known = self._read_secrets()
        port = _free_port(int(known["port"]))
        if port != known["port"]:
            write_private(self._secrets, json.dumps({**known, "port": port}))
        return port

    def _address(self) -> Address:
        known = self._read_secrets()
        return Address("127.0.0.1", int(known["port"]), "relevo", str(known["password"]), "relevo")

    def _read_secrets(self) -> dict[str, str | int]:
        try:
            known: dict[str, str | int] = json.loads(self._secrets.read_text())
        except ValueError as error:
            raise self._failed("cannot be opened", f"{self._secrets} is not JSON") from error
        return known

    def _point_from_home(self) -> None:
        if self.pointer != self.store and not self.pointer.is_symlink():
            self.pointer.symlink_to(self.store)

    def _initialise(self) -> None:
        if self.store != self.pointer:
            make_enterable(SHARED_PLACE)
        with draft_of(self.store) as draft:
            draft.chmod(0o711 if is_root() else 0o700)  # the unprivileged user passes through, no more
            data = draft / "data"
            data.mkdir(mode=0o700)
            if is_root():
                nobody = pwd.getpwnam("nobody")
                os.chown(data, nobody.pw_uid, nobody.pw_gid)
            superuser, password = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
            self._initdb(data, superuser)
            self._create_role_and_database(data, password)
            (draft / "home").write_text(f"{self.home}\n")
            known = {"port": _free_port(), "password": password, "superuser_password": superuser}
            write_private(draft / "server.json", json.dumps(known))

    def _initdb(self, data: Path, password: str) -> None:
        password_file = data.with_name("password")
        write_private(password_file, password, owner=data)
        options = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        options += ["--username=postgres", f"--pwfile={password_file}", "--auth=scram-sha-256"]
        options += [f"--set={name}={value}" for name, value in SETTINGS.items()]
        self._expect(run(data, "initdb", "-D", str(data), *options))
        password_file.unlink()

    def _create_role_and_database(self, data: Path, password: str) -> None:
        # Single-user mode needs no port, so a cluster is complete before anybody can reach it.
        statements = f"CREATE ROLE relevo LOGIN PASSWORD '{password}';\nCREATE DATABASE relevo OWNER relevo;\n"
        options = ["--single", "-D", str(data), "-c", "exit_on_error=on", "postgres"]
        self._expect(run(data, "postgres", *options, stdin=statements))

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.data, "pg_ctl", "-D", str(self.data), "-t", "60", "-w", *arguments)

    def _expect(self, result: subprocess.CompletedProcess[str]) -> None:
        if result.returncode:
            raise self._failed("could not be initialised", _last_line(result.stderr))

    def _failed(self, what: str, why: str) -> EmbeddedServerFailed:
        log = self.data / "server.log"
        fix = f"{f'read {log}, ' if log.exists() else ''}mend the cause, then run the command again"
        return EmbeddedServerFailed(f"the embedded PostgreSQL {what}: {why}", fix=fix)


def _store_of(home: Path, inside: Path) -> Path:
    somebody_elses = inside.is_dir() and not inside.is_symlink()
    if somebody_elses or not is_root():
        return inside
    return SHARED_PLACE / hashlib.sha256(os.fsencode(home)).hexdigest()[:16]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _serves(pid: int, data: Path) -> bool:
    """Whether process ``pid`` is a PostgreSQL on ``data``; without a /proc, any living process counts."""
    if not Path("/proc/self").exists():
        return _alive(pid)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return command[0].endswith(b"postgres") and os.fsencode(data) in command


def _free_port(wanted: int = 0) -> int:
    """``wanted`` if it can be had, else any free port of 127.0.0.1."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return _free_port()
        return int(probe.getsockname()[1])


def _reason(log: bytes) -> str | None:
    """The last fatal line of a server log, without its prefix; None when there is none."""
    lines = log.decode(errors="replace").splitlines()
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    return fatal[-1].split(":  ", 1)[-1] if fatal else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
