"""What the dashboard says and judges, without a server: limits, languages, who may go where, what is vendored."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from pathlib import Path
from typing import cast, get_args

import pytest

from relevo.access import refusals
from relevo.access.roles import Role
from relevo.alerts import thresholds, watching
from relevo.dashboard import (
    charts,
    judging,
    records,
    rooms,
    strip,
    wheel,
    wording,
)
from relevo.dashboard.house import House
from relevo.dashboard.live import Pulse
from relevo.metrics.health import Health
from relevo.metrics.latency import Histogram
from relevo.migration import reviewing, states
from relevo.migration.steps import hanging
from relevo.rollout import gate, reasons, state
from relevo.rollout.plan import Metric

DASHBOARD = Path(rooms.__file__).parent
ROOT = DASHBOARD.parent.parent

# Who may go where. A place without a row here fails.
NEEDED: dict[tuple[str, str], Role | None] = {
    ("GET", "/"): Role.VIEWER,
    ("GET", "/extend"): Role.OPERATOR,
    ("POST", "/extend"): Role.OPERATOR,
    ("GET", "/rollback"): Role.OPERATOR,
    ("POST", "/rollback"): Role.OPERATOR,
    ("GET", "/rollout/{action}"): Role.OPERATOR,
    ("POST", "/rollout/{action}"): Role.OPERATOR,
    ("POST", "/alerts/ack"): Role.OPERATOR,
    ("GET", "/tenants"): Role.VIEWER,
    ("GET", "/tenants/{tenant}"): Role.VIEWER,
    ("GET", "/tenants/{tenant}/to/{version}"): Role.OPERATOR,
    ("POST", "/tenants/{tenant}/to/{version}"): Role.OPERATOR,
    ("GET", "/migration"): Role.VIEWER,
    ("GET", "/review/{config}"): Role.VIEWER,
    ("POST", "/review/{config}"): Role.OPERATOR,
    ("POST", "/quarantine/retry"): Role.OPERATOR,
    ("GET", "/backups/{backup}"): Role.OPERATOR,
    ("GET", "/calls"): Role.VIEWER,
    ("GET", "/calls/{call_id:path}"): Role.VIEWER,
    ("GET", "/audit"): Role.VIEWER,
    ("GET", "/audit.csv"): Role.VIEWER,
    ("GET", "/settings"): Role.VIEWER,
    ("GET", "/live"): Role.VIEWER,
    ("GET", "/sign-in"): None,
    ("POST", "/sign-in"): None,
    ("GET", "/sign-in/provider"): None,
    ("GET", "/sign-in/callback"): None,
    ("POST", "/sign-out"): None,
    ("POST", "/preferences"): None,
    ("POST", "/sessions/end"): Role.ADMIN,
}
PLACES = rooms.places(Pulse(cast(House, None)))


def test_every_place_has_a_row_in_the_matrix() -> None:
    known = {(place.method, place.path): place.needed for place in PLACES}
    assert known == NEEDED


@pytest.mark.parametrize(
    ("v2", "verdict"),
    [
        (Health("v2"), "no_data"),
        (Health("v2", total_calls=100, errors=1, measured_calls=1, latencies=Histogram.of([700])), "healthy"),
        (Health("v2", total_calls=100, errors=2, measured_calls=1, latencies=Histogram.of([700])), "issues"),
        (Health("v2", total_calls=100, errors=0, measured_calls=1, latencies=Histogram.of([900])), "issues"),
        (Health("v2", total_calls=2, errors=2), "issues"),
    ],
)
def test_the_badge_follows_the_specification(v2: Health, verdict: str) -> None:
    assert judging.verdict(v2) == verdict


@pytest.mark.parametrize(
    ("name", "figure", "grade"),
    [
        ("error_rate", 0.0199, "good"),
        ("error_rate", 0.02, "bad"),
        ("avg_latency_ms", 499, "good"),
        ("avg_latency_ms", 5_000, "warning"),
        ("p95_latency_ms", 800, "bad"),
        ("failed_call_rate", 0.03, "warning"),
        ("failed_call_rate", 0.11, "bad"),
        ("breaker_opens", 0, "good"),
        ("breaker_opens", 2, "warning"),
        ("complaints", 4, "bad"),
        ("error_rate", None, "none"),
    ],
)
def test_each_figure_has_its_limits(name: str, figure: float | None, grade: str) -> None:
    assert judging.BY_NAME[name].grade(figure) == grade


def test_vendored_files_are_what_was_published() -> None:
    static = DASHBOARD / "static"
    for line in (static / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == digest, name
    listed = {line.split()[1] for line in (static / "SHA256SUMS").read_text().splitlines()}
    assert {file.name for file in static.glob("*.min.*")} <= listed


def test_every_sentence_is_said_in_spanish() -> None:
    said = set()
    for file in (DASHBOARD / "templates").glob("*.html"):
        text = file.read_text(encoding="utf-8")
        said |= set(re.findall(r'\bt\("([^"]*)"', text))
        for table in re.findall(r"\bt\((\{[^}]*\})", text):
            said |= set(re.findall(r': "([^"]*)"', table))
    said |= {*wheel.LABELS, *wheel.REFUSALS.values(), *strip.LABELS.values(), *get_args(gate.Verdict)}
    said |= {*get_args(state.State)}
    said |= {*reviewing.REASONS.values(), *records.COUNTS.values()}
    said |= {limit.label for limit in judging.LIMITS} | {span.label for span in charts.SPANS.values()}
    said |= {*get_args(states.State), *(role.label for role in Role), *get_args(judging.Grade)} - {"none"}
    assert len(said) > 150
    assert said - wording.spanish().keys() == set()


def written_in(module: str) -> set[str]:
    """What a file refuses with, and how to mend it; a gap holds a name that nobody would write."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(str(each.value) if isinstance(each, ast.Constant) else "Zq1" for each in node.values)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""

    found = set()
    for node in ast.walk(ast.parse((ROOT / "relevo" / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            told = [*node.exc.args[:1], *(each.value for each in node.exc.keywords if each.arg == "fix")]
            found |= {text(each) for each in told}
    return found - {""}


def told_by_itself(module: str) -> set[str]:
    """The words with which something moves, or an alert is raised."""
    text = (ROOT / "relevo" / module).read_text(encoding="utf-8")
    return set(re.findall(r'(?:Move|Finding)\((?:[^()]*, )?"([a-zA-Z][^"]* [^"]*)"', text)) | {
        each.replace("{where}", "Phase 7 of rollout 7") for each in re.findall(r'message = f"([^"]*)"', text)
    }


# Whatever a page may be told of.
REFUSING = (
    *(f"dashboard/{file.name}" for file in sorted(DASHBOARD.glob("*.py"))),
    *("access/door.py", "alerts/incidents.py", "flags/writing.py", "migration/steps/difference.py"),
    *("rollback/levels.py", "rollout/operating.py", "tenants/answer.py"),
)


@pytest.mark.parametrize("module", REFUSING)
def test_every_refusal_that_a_page_may_show_is_told_in_spanish(module: str) -> None:
    told = {sentence for sentence in written_in(module) if wording.retold("es", sentence) == sentence}
    assert told == set()


def sample(words: str) -> str:
    return re.sub(r"\{\w+(:[^}]*)?\}", "7", words)


def test_every_reason_of_ours_is_told_in_spanish() -> None:
    said = {*states.WORDS, *get_args(Metric), *(rule.words for rule in gate.GUARDRAILS), *reasons.REASONS.values()}
    for rule in thresholds.RULES:
        said |= {rule.says, *rule.titles.values(), *rule.actions.values()}
    said |= {watching.drift({"tenants": many, "first": "a"}).message for many in (1, 2)}
    said |= {
        f"Error rate is 7.00% (threshold: 5%), 20 calls in {thresholds._words(each)}" for each in thresholds.WINDOWS
    }
    said |= {*hanging._ACTIONS.values()}
    said |= {words for _, *told in refusals.REFUSALS.values() for words in told}
    for file in ("rollout/controller.py", "rollout/state.py"):
        said |= told_by_itself(file)
    assert {words for words in said if wording.retold("es", sample(words)) == sample(words)} == set()


def test_words_of_ours_in_a_gap_are_told_too_and_names_of_others_are_not() -> None:
    why = "p95_latency_ms 1,300 ms is above No-Go 1,200 ms (this phase); without tenant flag it holds"
    told = "la latencia p95 (1,300 ms) pasa de No-Go 1,200 ms (en esta fase); sin el tenant flag se cumple"
    assert wording.retold("es", why) == told


def test_a_translation_keeps_its_gaps() -> None:
    gaps = re.compile(r"\{\w+\}")
    for english, spanish in {**wording.spanish(), **wording.sentences()}.items():
        assert sorted(gaps.findall(english)) == sorted(gaps.findall(spanish)), json.dumps(english)


def test_reasons_are_told_in_spanish_with_what_is_in_their_gaps() -> None:
    fact = {"quarantined": 2, "configs": 3, "quarantined_because": "no_vertical {x}"}
    told = "{quarantined} of {configs} set aside: {quarantined_because}".format(**fact)
    assert wording.retold("es", told) == "2 de 3 apartadas: no_vertical {x}"
    assert wording.retold("en", told) == told
    assert wording.retold("es", "something else") == "something else"
