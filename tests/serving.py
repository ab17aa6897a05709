"""``relevo serve`` as it is run: a process of its own, asked over HTTP, or over a bare socket where HTTP is bent."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from relevo.access import tokens
from relevo.access.roles import Role
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.migration import runner
from relevo.migration.run import Options
from tests import forked
from tests.conftest import copied
from tests.forked import Forked
from tests.servers import Server

STARTS_WITHIN_S = 30
HAPPENS_WITHIN_S = 30
FLAG = "voice_agent_v2"
SINGLE = f"/ofrep/v1/evaluate/flags/{FLAG}"
BULK = "/ofrep/v1/evaluate/flags"
API = f"/api/v1/flags/{FLAG}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Served:
    """A running ``relevo serve``."""

    address: str
    process: Forked
    _log: IO[str]

    @property
    def port(self) -> int:
        """Where it listens, on the loopback."""
        return int(urlsplit(self.address).port or 0)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own. A body that is no bytes is sent as JSON."""
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        known = {"content-type": "application/json"} if sent is not None else {}
        if token is not None:
            known["authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, sent, {**known, **(headers or {})})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def raw(self, *parts: bytes) -> socket.socket:
        """A connection on which the parts were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        for part in parts:
            connection.sendall(part)
        return connection

    def evaluate(self, tenant: str, token: str) -> Any:
        """The flag's answer for a tenant, as OFREP gives it."""
        answer = self.ask("POST", SINGLE, {"context": {"targetingKey": tenant}}, token=token)
        assert answer.status == 200, answer.body
        return answer.json

    def until(self, path: str, status: int, token: str | None = None, *, says: str = "") -> Answer:
        """Ask again until the answer has this status and says this; fails loudly when it never does."""
        deadline = time.monotonic() + HAPPENS_WITHIN_S
        while True:
            answer = self.ask("GET", path, token=token)
            if answer.status == status and says.encode() in answer.body:
                return answer
            assert time.monotonic() < deadline, f"{path} still answers {answer.status}: {answer.body!r}"
            time.sleep(0.02)

    def log(self) -> list[dict[str, Any]]:
        """What it has written to standard error."""
        self._log.flush()
        return [json.loads(line) for line in Path(self._log.name).read_text().splitlines()]

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HAPPENS_WITHIN_S)


@contextmanager
def serving(
    url: str, *, port: int = 0, env: Mapping[str, str] | None = None, starts_within_s: float = STARTS_WITHIN_S
) -> Iterator[Served]:
    """A running server, ended with the block."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        said, says = os.pipe()
        words = ("serve", "--json", "--database-url", url, "--port", str(port))
        process = forked.start(*words, stdout=says, stderr=log.fileno(), env={**os.environ, **(env or {})})
        os.close(says)
        try:
            with open(said, encoding="utf-8") as first:
                readable, _, _ = select.select([first], [], [], starts_within_s)
                line = first.readline() if readable else ""
                assert line, f"it does not start: {Path(log.name).read_text()}"
                yield Served(json.loads(line)["address"], process, log)
        finally:
            process.kill()
            process.wait()


async def secrets_of_each_role(database: Database) -> dict[Role, str]:
    """A new token per role."""
    made: dict[Role, str] = {}
    for role in Role:
        created = await tokens.create(
            database, role, name=role.label, expires_at=None, clock=system_clock, actor="tests", reason=None
        )
        made[role] = created.secret
    return made


@dataclass(frozen=True, slots=True)
class House:
    """A server, its database, and tokens to ask it with."""

    served: Served
    database: Database
    secrets: Mapping[Role, str]

    @property
    def viewer(self) -> str:
        """A token that may read."""
        return self.secrets[Role.VIEWER]

    @property
    def operator(self) -> str:
        """A token that may change."""
        return self.secrets[Role.OPERATOR]


@asynccontextmanager
async def housed(server: Server, template: str, *, moved: bool = False) -> AsyncIterator[House]:
    """A house on a copy of a database; ``moved``: whose tenants have been moved."""
    with copied(server, template) as url:
        async with Database(url) as database:
            if moved:
                await runner.migrate(database, Options(), actor="tests", clock=system_clock)
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                yield House(served, database, secrets)
