"""The texts that v2 speaks by: files for people to edit, published into the database as a version that never changes.

A folder is a version: ``VERSION/PART/KEY.md`` is one piece, and ``any.md`` the piece for whoever has none of their
own. Rendering is done in the database, by ``relevo.rendered``; here nothing is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from relevo.db import migrations
from relevo.db.pool import Database, every, first
from relevo.db.statements import statement
from relevo.errors import Refused, TemplatesFaulty, UnknownName, UsageError, nearest

SHIPPED = Path(__file__).parent / "templates"
"""The folder of the versions that come with Relevo."""

_ANYBODY = {"any": "*"}  # an asterisk is no file name


@dataclass(frozen=True, slots=True)
class Piece:
    """One text of a version."""

    part: str  # types, personalities, capabilities, greetings, offers, names, places
    key: str  # whose it is; "*" serves whoever has none of their own
    body: str


@dataclass(frozen=True, slots=True)
class Version:
    """A published version, and how many configurations of v2 name it."""

    version: str
    note: str
    published_at: datetime
    pieces: int
    configurations: int


def read(folder: Path) -> list[Piece]:
    """The pieces of a folder, by part and key. Raises UsageError for a folder or file that cannot be read."""
    try:
        return [
            Piece(file.parent.name, _ANYBODY.get(file.stem, file.stem), file.read_text(encoding="utf-8").strip())
            for file in sorted(folder.glob("*/*.md"))
        ] or _nothing_in(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {folder}: {error}", fix="name a folder of UTF-8 files PART/KEY.md") from error


async def publish(database: Database, folder: Path, *, note: str, actor: str, reason: str | None) -> Version:
    """Publish a folder as the version of its name; returns it. Nothing is published unless all of it is sound.

    Raises TemplatesFaulty with every fault found, Refused where the version is there already, UsageError for a folder
    that cannot be read, SchemaMissing.
    """
    version, pieces = _version_of(folder), read(folder)
    async with database.transaction() as connection:
        await migrations.require(connection)
        parts = [row["part"] for row in await every(connection, statement("tenants", "template_parts"))]
        for piece in pieces:
            if piece.part not in parts:
                raise TemplatesFaulty(
                    f"{folder} has a part {piece.part!r}, which there is not.{nearest(piece.part, parts)}",
                    fix=f"one of: {', '.join(parts)}",
                )
        named = {"version": version}
        try:
            drafted = await first(connection, statement("tenants", "draft_templates"), {**named, "note": note})
            for piece in pieces if drafted else ():
                values = {**named, "part": piece.part, "key": piece.key, "body": piece.body}
                await connection.execute(statement("tenants", "add_template"), values)
        except psycopg.errors.CheckViolation as error:
            raise TemplatesFaulty(
                f"{folder} holds an empty text, or a name that is none: {error.diag.message_detail}",
                fix="name version and files in small letters, digits and _, and write something in each",
            ) from error
        if drafted is None:
            raise Refused(f"template version {version} is published already", fix="copy the folder to another name")
        if faults := await every(connection, statement("tenants", "template_faults"), named):
            raise TemplatesFaulty(_listed(folder, faults), fix="correct these texts; nothing was published")
        await connection.execute(statement("tenants", "publish_templates"), named)
        audited = {"actor": actor, "action": "templates.publish", "subject": version, "reason": reason}
        details = Jsonb({"note": note, "pieces": len(pieces)})
        await connection.execute(statement("tenants", "audit"), {**audited, "details": details})
    return next(each for each in await versions(database) if each.version == version)


async def versions(database: Database) -> list[Version]:
    """Every published version, oldest first. Raises SchemaMissing."""
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        return [Version(**row) for row in await every(connection, statement("tenants", "template_versions"))]


async def pieces(database: Database, version: str) -> list[Piece]:
    """The pieces of a published version. Raises UnknownName, SchemaMissing."""
    known = [each.version for each in await versions(database)]
    if version not in known:
        raise UnknownName(
            f"there is no template version {version!r}.{nearest(version, known)}", fix=f"one of: {', '.join(known)}"
        )
    async with database.transaction(read_only=True) as connection:
        rows = await every(connection, statement("tenants", "template_pieces"), {"version": version})
    return [Piece(**row) for row in rows]


def _version_of(folder: Path) -> str:
    return folder.resolve().name


def _listed(folder: Path, faults: list[dict[str, Any]]) -> str:
    """All faults on one line, each with its file."""
    files = {key: name for name, key in _ANYBODY.items()}
    told = "; ".join(f"{each['part']}/{files.get(each['key'], each['key'])}.md {each['fault']}" for each in faults)
    return f"{folder} cannot be published: {told}"


def _nothing_in(folder: Path) -> list[Piece]:
    raise UsageError(f"{folder} holds no templates", fix="name a folder of files PART/KEY.md")
