"""A real PgBouncer in front of a server, pooling transactions, with few server connections."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from relevo.db.programs import is_root
from tests.servers import NOBODY, Server, free_port

PGBOUNCER = Path("/usr/sbin/pgbouncer")
STARTS_WITHIN_S = 10

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
max_client_conn = 100
"""


@contextmanager
def pooling(server: Server, user: str) -> Iterator[int]:
    """The port of a pooler that lets everybody in, and works as ``user``; stopped at the end of the block."""
    place = Path(tempfile.mkdtemp(prefix="relevo-test-pooler-"))
    port = free_port()
    settings = place / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(server=f"{server.port} user={user}", port=port))
    if is_root():
        place.chmod(0o755)
        settings.chmod(0o644)
        os.chown(place, NOBODY, NOBODY)
    process = subprocess.Popen(
        [PGBOUNCER, "-q", settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=NOBODY if is_root() else None,
        group=NOBODY if is_root() else None,
        extra_groups=[] if is_root() else None,
    )
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(place)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            psycopg.connect(f"postgresql://pgbouncer@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, "pgbouncer ended at once"
            assert time.monotonic() < deadline, "pgbouncer lets nobody in"
            time.sleep(0.05)
        else:
            return
