"""The Net Promoter Score: answers that the team asked for, imported from a file, and what they come to."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path

from psycopg.types.json import Jsonb
from pydantic_core import to_jsonable_python

from relevo.db.pool import Connection, one
from relevo.db.statements import statement
from relevo.errors import UsageError
from relevo.report.comparison import Compared, Figure, Interval, Metric, Z, concluded

NPS = Metric("nps", "NPS", "points", more_is_better=True)
REQUIRED, OPTIONAL = ("answered_at", "score"), ("tenant_id", "id")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """One client's answer."""

    key: str
    answered_at: datetime
    score: int  # 0 to 10
    tenant_id: str | None


def read(file: Path) -> list[Answer]:
    """The answers of a CSV file with a heading. A date without an offset is in UTC.

    Raises UsageError naming every line that cannot be understood, up to a few; then nothing should be imported.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            _check_heading(file, rows.fieldnames or ())
            return _answers(file, ((rows.line_num, row) for row in rows))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {file}: {error}", fix="give a CSV file in UTF-8") from error


def _check_heading(file: Path, heading: Sequence[str]) -> None:
    lacking = [name for name in REQUIRED if name not in heading]
    strange = [name for name in heading if name not in (*REQUIRED, *OPTIONAL)]
    if lacking or strange:
        what = f"lacks {', '.join(lacking)}" if lacking else f"has a column {strange[0]!r} that there is not"
        raise UsageError(
            f"{file}, line 1: the heading {what}", fix=f"name the columns {', '.join(REQUIRED + OPTIONAL)}"
        )


def _answers(file: Path, rows: Iterable[tuple[int, dict[str, str | None]]]) -> list[Answer]:
    answers, bad = [], []
    seen: Counter[str] = Counter()
    for number, row in rows:
        try:
            answers.append(_answer(row, seen))
        except ValueError as error:
            bad.append(f"line {number}: {error}")
    if bad:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise UsageError(f"{file}, {'; '.join(bad[:_SHOWN])}{more}", fix="nothing was imported; correct these lines")
    return answers


def _answer(row: dict[str, str | None], seen: Counter[str]) -> Answer:
    """One line. Raises ValueError with what is wrong with it."""
    if None in row:
        raise ValueError("has more fields than the heading")
    said = {name: (value or "").strip() for name, value in row.items()}
    if not said["score"].isascii() or not said["score"].isdigit() or int(said["score"]) > 10:
        raise ValueError(f"{said['score']!r} is no score of 0 to 10")
    try:
        at = datetime.fromisoformat(said["answered_at"])
    except ValueError:
        raise ValueError(f"{said['answered_at']!r} is no date") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    same = "|".join((at.isoformat(), said["score"], said.get("tenant_id", "")))
    seen[same] += 1  # two who answered alike on one day are two
    key = said.get("id") or hashlib.sha256(f"{same}|{seen[same]}".encode()).hexdigest()
    return Answer(key, at, int(said["score"]), said.get("tenant_id") or None)


async def store(
    connection: Connection, answers: Sequence[Answer], file: str, now: datetime, *, actor: str, reason: str | None
) -> int:
    """Keep answers that are not known yet; how many."""
    said = Jsonb(to_jsonable_python([asdict(each) for each in answers]))
    values = {"answers": said, "file": file, "now": now, "actor": actor, "reason": reason}
    return int((await one(connection, statement("report", "import_answers"), values))["added"])


async def compare(
    connection: Connection, before: tuple[datetime, datetime], after: tuple[datetime, datetime]
) -> Compared | None:
    """Both windows' scores; None where nobody answered in either."""
    figures = []
    for since, until in (before, after):
        row = await one(connection, statement("report", "answers"), {"since": since, "until": until})
        figures.append(score(row["promoters"], row["passives"], row["detractors"]))
    if not any(each.of for each in figures):
        return None
    values = [each.value for each in figures]
    gained = None if values[0] is None or values[1] is None else values[1] - values[0]
    return Compared(NPS, figures[0], figures[1], gained, concluded(NPS, *figures), None)


def score(promoters: int, passives: int, detractors: int) -> Figure:
    """From -100 to 100. The interval is the adjusted Wald one: as if three more had answered, half of them passive; so
    a few who agree prove little."""
    answers = promoters + passives + detractors
    if answers == 0:
        return Figure(None)
    value = 100 * (promoters - detractors) / answers
    many = answers + 3
    for_it, against = (promoters + 0.75) / many, (detractors + 0.75) / many
    half = 100 * Z * sqrt((for_it + against - (for_it - against) ** 2) / many)
    middle = 100 * (for_it - against)
    low, high = min(middle - half, value), max(middle + half, value)
    return Figure(value, Interval(max(low, -100.0), min(high, 100.0)), answers)
