"""Real PostgreSQL servers for the tests: the packaged 18 and Debian's 15, each started once and thrown away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from relevo.db.programs import is_root, program_folder

NOBODY = 65534
OWNER = "tests.pid"
DURABLE = ("fsync=on", "full_page_writes=on", "recovery_init_sync_method=syncfs")  # the last is but faster
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

# Each test has a database of its own, some hundred files; in memory they come and go at a tenth of the cost. What is
# committed survives a killed server there, too.
MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Server:
    """A running server that trusts everybody on the loopback."""

    version: int
    port: int
    programs: Path
    data: Path

    def url(self, database: str, user: str = "postgres") -> str:
        """The connection string of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def control(self, *arguments: str) -> None:
        """Run pg_ctl on it."""
        _run(self.programs / "pg_ctl", "-D", self.data, "-w", *arguments)

    def postmaster(self) -> int:
        """The process id of the server."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def pull_the_plug(self) -> None:
        """Kill the server with all that works for it: a backend left alone would finish the statement it is at."""
        postmaster = self.postmaster()
        backends = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in (postmaster, *map(int, backends)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def programs_of(version: int) -> Path | None:
    """Where a version's programs are; None where it is not installed."""
    if version == 15:
        return DEBIAN_15 if DEBIAN_15.exists() else None
    return program_folder()


@contextmanager
def running(version: int, programs: Path, *settings: str, on_disk: bool = False) -> Iterator[Server]:
    """A fresh server, stopped and removed at the end of the block. ``settings`` win over those of the tests. In memory,
    unless what the disk costs is to be measured."""
    place = Path(tempfile.mkdtemp(prefix=f"relevo-test-{version}-", dir=None if on_disk else _memory()))
    place.chmod(0o755)
    (place / OWNER).write_text(str(os.getpid()))
    data = place / "data"
    data.mkdir(mode=0o700)
    if is_root():
        os.chown(data, NOBODY, NOBODY)
    server = Server(version, free_port(), programs, data)
    costly = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "jit=off")
    ours = (*costly, "listen_addresses=127.0.0.1", "unix_socket_directories=")
    options = " ".join(f"-c {each}" for each in (*ours, f"port={server.port}", "max_connections=150", *settings))
    try:
        _run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        server.control("-o", options, "-l", str(data / "server.log"), "start")
        yield server
    finally:
        server.control("-m", "immediate", "stop")
        shutil.rmtree(place)


def _memory() -> Path | None:
    """The folder of the machine's memory, swept; None where there is none or little left: the usual folder."""
    if not os.access(MEMORY, os.W_OK):
        return None
    for left in MEMORY.glob("relevo-test-*"):
        with suppress(OSError, ValueError):
            if not Path("/proc", str(int((left / OWNER).read_text()))).exists():
                shutil.rmtree(left)  # by tests that were killed
    return MEMORY if shutil.disk_usage(MEMORY).free > ENOUGH_BYTES else None


def free_port() -> int:
    """A port of the loopback that nobody has at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _run(*command: object) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        user=NOBODY if is_root() else None,
        group=NOBODY if is_root() else None,
        extra_groups=[] if is_root() else None,
    )
