"""NPS: imported from a file whose bad lines are named, told in the report with its interval."""

from __future__ import annotations

from datetime import timedelta
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.db.pool import Database
from relevo.errors import UsageError
from relevo.metrics import folding
from relevo.report import nps, telling
from tests.commands import relevo, succeeds
from tests.conftest import NOW, rows, value
from tests.test_report import made, v2_calls

BEFORE, AFTER = NOW - timedelta(days=10), NOW - timedelta(hours=1)


def file_of(tmp_path: Path, *lines: str, heading: str = "answered_at,score,tenant_id") -> Path:
    file = tmp_path / "nps.csv"
    file.write_text("\n".join((heading, *lines)) + "\n", encoding="utf-8")
    return file


def several(at: Any, **scores: int) -> list[str]:
    return [f"{at.isoformat()},{name.removeprefix('s')}," for name, many in scores.items() for _ in range(many)]


async def test_answers_are_counted_once_however_often_they_are_imported(ready: Database, tmp_path: Path) -> None:
    """Two who answered alike on one day are two."""
    file = file_of(tmp_path, *several(BEFORE, s10=2, s3=1))
    first = succeeds("nps", "import", str(file), "--actor", "ana", url=ready.url)
    assert (first["answers"], first["added"]) == (3, 3)
    more = file_of(tmp_path, *several(BEFORE, s10=2, s3=1), *several(AFTER, s9=1))
    assert succeeds("nps", "import", str(more), url=ready.url)["added"] == 1
    assert await value(ready, "SELECT count(*) FROM relevo.nps_answers") == 4
    (audited, _other) = await rows(ready, "SELECT actor, details FROM relevo.audit_log WHERE action = 'nps.import'")
    assert (audited["actor"], audited["details"]) == ("ana", {"answers": 3})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2026-11-01,11,", "line 3: '11' is no score of 0 to 10"),
        ("2026-11-01,-1,", "line 3: '-1' is no score"),
        ("2026-11-01,9.5,", "line 3: '9.5' is no score"),
        ("2026-11-01,,", "line 3: '' is no score"),
        ("2026-11-01,٣,", "line 3: '٣' is no score"),
        ("ayer,9,", "line 3: 'ayer' is no date"),
        ("2026-11-01,9,a,b", "line 3: has more fields than the heading"),
        ("2026-11-01", "line 3: '' is no score"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_is_imported(
    ready: Database, tmp_path: Path, line: str, says: str
) -> None:
    file = file_of(tmp_path, "2026-11-01,9,", line)
    answered = relevo("nps", "import", str(file), url=ready.url)
    assert (answered.status, says in answered.told) == (2, True), answered.told
    assert await value(ready, "SELECT count(*) FROM relevo.nps_answers") == 0


@pytest.mark.parametrize(
    ("heading", "says"),
    [
        ("answered_at,tenant_id", "lacks score"),
        ("answered_at,score,name", "a column 'name'"),
        ("", "lacks answered_at"),
    ],
)
def test_a_wrong_heading_is_named(tmp_path: Path, heading: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        nps.read(file_of(tmp_path, heading=heading))
    with pytest.raises(UsageError, match="cannot read"):
        nps.read(tmp_path / "none.csv")
    (tmp_path / "latin").write_bytes("answered_at,score\nñ".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot read"):
        nps.read(tmp_path / "latin")


async def test_the_report_tells_it_with_its_interval(sampled: Database, tmp_path: Path) -> None:
    tenants = [
        row["id"] for row in await rows(sampled, "SELECT id::text AS id FROM public.businesses ORDER BY 1 LIMIT 3")
    ]
    await v2_calls(sampled, tenants, 60)
    await folding.fold(sampled)
    none = await made(sampled)
    assert none.nps is None
    assert any("relevo nps import" in each for each in telling.doubts(none))
    answers = [*several(BEFORE, s10=40, s7=30, s2=30), *several(AFTER, s10=70, s8=20, s0=10)]
    succeeds("nps", "import", str(file_of(tmp_path, *answers)), url=sampled.url)
    report = await made(sampled)
    told = telling.as_json(report)["nps"]
    assert (told["before"]["value"], told["after"]["value"], told["improvement"]) == (10.0, 60.0, 50.0)
    assert (told["before"]["calls"], told["conclusion"]) == (100, "better")
    assert telling.lines(telling.table_of_success(report))[-1] == ("NPS", "+10", "+60", "+50", "", "", "better")
    page = telling.page(report)
    assert "<td>NPS</td>" in page
    assert "NPS" not in [plot.metric.title for plot in report.overall]


def test_few_who_agree_prove_little() -> None:
    found = nps.score(3, 0, 0)
    assert found.value == 100
    assert found.interval is not None
    assert found.interval.low < 20
    assert nps.score(0, 0, 0).value is None


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_score(promoters: int, passives: int, detractors: int) -> None:
    found = nps.score(promoters, passives, detractors)
    if found.value is None or found.interval is None:
        assert promoters + passives + detractors == 0
        return
    assert -100 <= found.interval.low <= found.value <= found.interval.high <= 100


@pytest.mark.parametrize("answers", [12, 40])
@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.2, 0.2, 0.6), (0.7, 0.25, 0.05), (0.1, 0.8, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(answers: int, shares: tuple[float, float, float]) -> None:
    """Over every way so many answers can fall, each by its exact chance: in about 95 % the interval holds what all
    clients together would have answered; one too narrow holds it less often, one too wide nearly always."""
    promoters, passives, detractors = shares
    truth, held = 100 * (promoters - detractors), 0.0
    for up in range(answers + 1):
        for down in range(answers - up + 1):
            between = answers - up - down
            found = nps.score(up, between, down).interval
            assert found is not None
            if found.low <= truth <= found.high:
                ways = comb(answers, up) * comb(answers - up, down)
                held += ways * promoters**up * passives**between * detractors**down
    assert 0.925 <= held <= (0.985 if answers == 40 else 0.997)


@pytest.mark.parametrize(
    ("promoters", "passives", "detractors", "low", "high"),
    [(70, 20, 10, 45.27, 71.24), (3, 0, 0, -6.58, 100.0), (0, 0, 3, -100.0, 6.58), (5, 5, 5, -36.93, 36.93)],
)
def test_intervals_are_those_of_the_method(
    promoters: int, passives: int, detractors: int, low: float, high: float
) -> None:
    found = nps.score(promoters, passives, detractors).interval
    assert found is not None
    assert found.low == pytest.approx(low, abs=0.005)
    assert found.high == pytest.approx(high, abs=0.005)
