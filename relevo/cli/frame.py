"""What every command shares: its common options, the database it works on, how it answers and how it fails."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter, Token
from rich.console import Console, ConsoleRenderable

from relevo import settings
from relevo.cli.progress import TerminalSink
from relevo.db.embedded import EmbeddedServer
from relevo.db.pool import Database
from relevo.errors import ConfigurationError, Refused, UsageError
from relevo.events import Sink
from relevo.migration.mapping import SourceMapping, from_settings

# A pipe has no width; a table in it is as wide as it needs to be.
OUT = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
ERR = Console(stderr=True, highlight=False)


def _whole(_type: type, tokens: Sequence[Token]) -> int:
    """An integer as people write one; 12.5 is a mistake, not 12."""
    try:
        return int(tokens[0].value.replace("_", ""))
    except ValueError:
        raise UsageError(
            f"{tokens[0].keyword} takes a whole number, not {tokens[0].value!r}", fix="give digits only"
        ) from None


WholeNumber = Annotated[int, Parameter(converter=_whole)]


def _os_user() -> str:
    """Who runs us; a container may run us as a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class Answer:
    """What a command has to say: ``data`` for machines, ``text`` for people, and the exit status."""

    data: Any
    text: ConsoleRenderable | str
    status: int = 0


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    database_url: Annotated[str | None, Parameter(help="The database; default: the embedded PostgreSQL.")] = None
    config: Annotated[Path | None, Parameter(help="Settings file; default: relevo.toml where there is one.")] = None
    json: Annotated[bool, Parameter(negative="", help="One JSON document on standard output.")] = False
    actor: Annotated[str, Parameter(help="Who acts; default: the OS user. Goes to the audit log.")] = field(
        default_factory=_os_user
    )
    reason: Annotated[str | None, Parameter(help="Why. Goes to the audit log.")] = None

    def settings(self) -> settings.Settings:
        """The settings in force for this command."""
        return settings.load(self.config, database_url=self.database_url)

    def mapping(self) -> SourceMapping:
        """Where the v1 rows are, by the settings in force."""
        return from_settings(self.settings().source)

    def free_bytes(self) -> int | None:
        """Room on the disk of the embedded server; None for a database elsewhere."""
        in_force = self.settings()
        if in_force.database_url is not None:
            return None
        return shutil.disk_usage(in_force.home / "postgres").free

    def sink(self) -> Sink:
        """Where progress goes: standard error, drawn for a terminal and in plain lines elsewhere."""
        return TerminalSink(ERR)

    @asynccontextmanager
    async def database(self, *, direct: bool = False) -> AsyncIterator[Database]:
        """The database to work on, open. The embedded server is started where none is named, and stopped
        again at the end unless somebody else uses it or wants it kept.

        ``direct``: by RELEVO_DIRECT_URL where it is set, for what changes the schema.
        """
        if not self.actor.strip():
            raise UsageError("--actor is empty", fix="name who acts, or leave it out")
        in_force = self.settings()
        if in_force.database_url is not None:
            async with Database(await _way(in_force) if direct else in_force.database_url) as database:
                yield database
            return
        lease = await asyncio.to_thread(EmbeddedServer(in_force.home).acquire)
        try:
            async with Database(lease.address.url) as database:
                yield database
        finally:
            await asyncio.to_thread(lease.release)


async def _way(in_force: settings.Settings) -> str:
    """The connection string for changes of the schema. Raises ConfigurationError where the direct one goes astray."""
    url, direct_url = in_force.database_url or "", in_force.direct_url
    if direct_url is None:
        return url
    async with Database(url) as ours, Database(direct_url) as direct:
        if await ours.identity() == await direct.identity():
            return direct_url
        raise ConfigurationError(
            f"RELEVO_DIRECT_URL leads to another database, {direct.place}, than {ours.place}",
            fix="correct it, or unset it",
        )


ORDINARY = Common()

CONFIRMATION = "CONFIRM"


def confirmed() -> bool:
    """Whether the person at the terminal types CONFIRM. Raises Refused where nobody can be asked."""
    if not sys.stdin.isatty():
        raise Refused("nobody is there to type CONFIRM", fix="add --yes once what is shown is what you want")
    ERR.print(f'Type "{CONFIRMATION}" to proceed: ', end="")
    return sys.stdin.readline().strip() == CONFIRMATION


TenantIds = Annotated[
    str | None, Parameter(name="--tenant-ids", help="Only these tenants, separated by commas; default: all.")
]


def tenants(written: str | None) -> tuple[UUID, ...] | None:
    """The ids of ``--tenant-ids``; None for all. Raises UsageError for what is no UUID."""
    if written is None:
        return None
    try:
        return tuple(UUID(each.strip()) for each in written.split(",") if each.strip()) or _no_tenant()
    except ValueError as error:
        raise UsageError(
            f"--tenant-ids holds something that is no UUID: {written!r}",
            fix="separate ids by commas, each like 0f8b2a9e-6c1d-4e57-9a35-3d2f1c7b8e90",
        ) from error


def _no_tenant() -> tuple[UUID, ...]:
    raise UsageError("--tenant-ids is empty", fix="name at least one tenant, or leave it out for all")
