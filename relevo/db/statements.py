"""Named SQL statements, kept in ``relevo/sql/queries/<folder>.sql``.

A statement begins with a line ``-- name --``. Where it reads v1, it says ``{configurations}``, ``{calls}`` or
``{tenants}``, which the source mapping fills in.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from psycopg import sql

_HEADER = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def statements(folder: str) -> dict[str, str]:
    """All statements of a folder by name. Raises FileNotFoundError for a folder without any."""
    text = (resources.files("relevo") / "sql" / "queries" / f"{folder}.sql").read_text(encoding="utf-8")
    parts = _HEADER.split(text)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def identifier(*parts: str) -> sql.Identifier:
    """A name as it is found in a catalogue, quoted; its percent signs are no placeholders."""
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))


def statement(folder: str, name: str, **fill: sql.Composable) -> sql.Composed:
    """One statement, its braces filled; always executed with parameters, be they none. Raises KeyError for an
    unknown name."""
    return sql.SQL(statements(folder)[name]).format(**fill)


def put_together(query: sql.Composed) -> sql.Composed:
    """The same statement as one text: for one that is executed over and over, for its parts are joined each time."""
    return sql.Composed([sql.SQL(query.as_string())])
