"""The final backup: tables exported with pg_dump to a file, which is read back before anything is dropped."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from relevo.db.programs import program_folder
from relevo.errors import MoveFailed, Refused, UsageError

BUNDLED = 18
"""The newest server that the packaged pg_dump reads."""
_LONGEST_LINE = 1 << 28  # a row with a long prompt is one line
_COPY = re.compile(rb"^COPY (.+?) \(.*\) FROM stdin;$")


@dataclass(frozen=True, slots=True)
class Archive:
    """An export that was read back."""

    file: str
    sha256: str
    rows: Mapping[str, int]  # per table, as they are in the file


async def export(url: str, tables: Sequence[str], file: Path, major: int) -> Archive:
    """Export tables, named as PostgreSQL quotes them, to a new file that only its owner may read; count what is in it.

    Raises UsageError for a file that is there or cannot be written, Refused without a pg_dump for this server,
    MoveFailed where the export fails or cannot be read.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise UsageError(f"{file} is there already", fix="name a file that is not") from None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", fix="name a file that can be written") from error
    try:
        programs = _programs(major)
        with tempfile.TemporaryDirectory() as folder:
            named = [f"--table={table}" for table in tables]
            place = _place(url, Path(folder))
            await _run(
                programs / "pg_dump",
                ["--format=custom", "--no-password", f"--file={file}", f"--dbname={place}", *named],
            )
        digest = await asyncio.to_thread(_settled, file)
        return Archive(str(file), digest, await _rows(programs / "pg_restore", file))
    except BaseException:
        remove(file)
        raise


def remove(file: Path) -> None:
    """An export that became none."""
    file.unlink(missing_ok=True)


def _settled(file: Path) -> str:
    """The file's SHA-256, once it is on the disk."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
        return hashlib.file_digest(written, "sha256").hexdigest()


def _programs(major: int) -> Path:
    if major <= BUNDLED:
        return program_folder()
    found = shutil.which("pg_dump")
    if found is None:
        raise Refused(
            f"the server is PostgreSQL {major}, and no pg_dump of that version is here",
            fix=f"install the client programs of PostgreSQL {major}",
        )
    return Path(found).parent


def _place(url: str, folder: Path) -> str:
    """The way to the database without its password, which others could read in the list of processes."""
    parts = conninfo_to_dict(url)
    password = parts.pop("password", None)
    if password is not None:
        file = folder / "passwords"
        file.touch(0o600)
        escaped = re.sub(r"([\\:])", r"\\\1", str(password))
        file.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
        parts["passfile"] = str(file)
    return make_conninfo("", **parts)


async def _rows(program: Path, file: Path) -> dict[str, int]:
    """Rows per table, counted in what the file would restore."""
    process = await asyncio.create_subprocess_exec(
        program, "--data-only", "--file=-", file,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=_LONGEST_LINE,
    )  # fmt: skip
    rows: dict[str, int] = {}
    table: str | None = None
    while process.stdout is not None and (line := await process.stdout.readline()):
        begins = _COPY.match(line.rstrip())
        if table is None and begins is not None:
            table = begins[1].decode()
            rows[table] = 0
        elif table is not None and line == b"\\.\n":
            table = None
        elif table is not None:
            rows[table] += 1
    await _ended(process, program)
    return rows


async def _run(program: Path, words: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(program, *words, stderr=asyncio.subprocess.PIPE)
    await _ended(process, program)


async def _ended(process: asyncio.subprocess.Process, program: Path) -> None:
    _out, told = await process.communicate()
    if process.returncode != 0:
        said = " ".join(told.decode(errors="replace").split())
        raise MoveFailed(f"{program.name} failed: {said[:300]}", fix="nothing was dropped; mend that, and try again")
