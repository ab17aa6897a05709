"""A server that keeps its promises to the disk, and the v1 databases that are cloned for every measurement."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random

import psycopg

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.db.programs import is_root
from relevo.simulator import prompts
from tests.servers import NOBODY, Server, programs_of, running

PROMPTS = 500  # different ones, of which every configuration has one
_BYTES = range(800, 1_900)  # of a prompt, in UTF-8
_PHONE = "+52 55 1234 5678"
BUSINESSES = 1_000

_FILL = """
    INSERT INTO businesses (id, name, vertical)
    SELECT gen_random_uuid(), 'Negocio ' || n, CASE n %% 2 WHEN 0 THEN 'restaurant' ELSE 'dental' END
    FROM generate_series(1, %(businesses)s) AS n;
    INSERT INTO voice_agent_config (id, business_id, vapi_assistant_id, phone_number_id, assistant_name,
                                    system_prompt, voice_id, first_message)
    SELECT gen_random_uuid(), b.id, 'asst_' || n, 'phone_' || n, 'Sofía', p.prompt, 'elevenlabs-maria', 'Hola'
    FROM generate_series(1, %(configurations)s) AS n
    JOIN (SELECT id, vertical, row_number() OVER (ORDER BY id) AS number FROM businesses) AS b
      ON b.number = 1 + n %% %(businesses)s
    JOIN prompts p ON p.vertical = b.vertical AND p.number = n %% %(prompts)s / 2;
    INSERT INTO voice_calls (id, business_id, vapi_call_id, status, started_at, duration_seconds, avg_latency_ms)
    SELECT gen_random_uuid(), b.id, 'call_' || n, (ARRAY['completed', 'completed', 'failed', 'no-answer'])[1 + n %% 4],
           now() - interval '29 days' * (1 - n / %(calls)s::float8), n %% 400, 300 + n * 7919::bigint %% 1500
    FROM generate_series(1, %(calls)s) AS n
    JOIN (SELECT id, row_number() OVER (ORDER BY id) AS number FROM businesses) AS b
      ON b.number = 1 + n * 7919::bigint %% %(businesses)s;
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The server, and where its socket is."""

    server: Server
    socket: Path
    _numbers: Iterator[int]

    def local(self, database: str) -> str:
        """A connection string by the socket, as a script on the same machine would use."""
        return f"postgresql://postgres@/{database}?host={self.socket}&port={self.server.port}"

    def url(self, database: str) -> str:
        """The connection string that Relevo gets."""
        return self.server.url(database)

    @asynccontextmanager
    async def v1(self, configurations: int, calls: int = 0) -> AsyncIterator[str]:
        """A v1 database with Relevo's schema, to be cloned; its name. Dropped at the end."""
        with self._database("template0") as name:
            async with Database(self.url(name)) as database:
                await migrations.up(database)
            with psycopg.connect(self.url(name), autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
                connection.execute(files("relevo.sql").joinpath("sample.sql").read_bytes())
                connection.execute("CREATE TEMP TABLE prompts (vertical text, number integer, prompt text)")
                with connection.cursor().copy("COPY prompts FROM STDIN") as copy:
                    for row in written(PROMPTS):
                        copy.write_row(row)
                numbers = {"businesses": BUSINESSES, "configurations": configurations, "calls": calls}
                connection.execute(_FILL, {**numbers, "prompts": PROMPTS})
                connection.execute("DROP TABLE prompts")
                connection.execute("VACUUM (FREEZE, ANALYZE)")
            yield name

    @contextmanager
    def empty(self) -> Iterator[str]:
        """A new database, dropped at the end; its name."""
        with self._database("template0") as name:
            yield name

    @contextmanager
    def clone(self, template: str) -> Iterator[str]:
        """A copy of a database, dropped at the end; its name. Nothing is left to be written when it begins."""
        with self._database(template) as name:
            self.settle(name)
            yield name

    def settle(self, database: str) -> None:
        """Have everything written, so that the next measurement pays for itself alone."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    @contextmanager
    def _database(self, template: str) -> Iterator[str]:
        name = f"bench_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
            try:
                yield name
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def place() -> Iterator[Place]:
    """PostgreSQL 18 as packaged, with every safety on."""
    programs = programs_of(18)
    if programs is None:
        raise SystemExit("bench: PostgreSQL is not installed; run make install")
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as folder:
        if is_root():
            os.chown(folder, NOBODY, NOBODY)  # as whom the server runs then
        safe = ("fsync=on", "full_page_writes=on", "synchronous_commit=on")
        steady = ("autovacuum=off", "max_wal_size=8GB", "checkpoint_timeout=1h", "shared_buffers=256MB")
        where = f"unix_socket_directories={folder}"
        with running(18, programs, *safe, *steady, where, on_disk=True) as server:
            yield Place(server, Path(folder), itertools.count(1))


def written(count: int) -> Iterator[tuple[str, int, str]]:
    """Vertical, number and text of prompts of ordinary length, half of them of each vertical; always the same."""
    chance = Random(7)
    for vertical in ("restaurant", "dental"):
        subject = prompts.Subject("La Casa", vertical, _PHONE)
        drawn = (prompts.write(chance, chance.choice(prompts.DECK), subject) for _ in itertools.count())
        ordinary = (text for text in drawn if text and len(text.encode()) in _BYTES)
        for number, text in enumerate(itertools.islice(ordinary, count // 2)):
            yield vertical, number, text
