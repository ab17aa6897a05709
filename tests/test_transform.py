"""What v2 makes of a v1 prompt: as the seed does, whatever the accents, the session and the text."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import class_row

from relevo.db import migrations
from relevo.db.pool import Database
from tests.conftest import OWNER
from tests.oracle import Answer, Case, Oracle, consulting, node
from tests.servers import Server

INFER: LiteralString = """
    SELECT i.assistant_type_id, i.enabled_capabilities, i.special_instructions, i.truncated, i.low_confidence,
           i.provenance
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS each(prompt, vertical, place),
         relevo.infer(prompt, vertical, 1) AS i
    ORDER BY place"""
UNCOVERED: LiteralString = """
    SELECT relevo.uncovered(prompt, 1, relevo.infer(prompt, vertical, 1))
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS each(prompt, vertical, place)
    ORDER BY place"""

KEYWORDS = (
    *("reserv", "pedido", "orden", "menu", "promo", "cita", "servicio", "tratamiento", "doctor", "seguro"),
    *("horario", "transferir", "humano", "faq", "pregunta"),
)
HEADINGS = ("instrucciones especiales", "notas importantes", "reglas especiales")
FRAGMENTS = (
    *("ped", "ido", "or", "den", "me", "nu", "ci", "ta", "ser", "vicio", "huma", "no", "fa", "q", "reser", "doc"),
    *("instrucciones", "especiales", "notas", "importantes", "reglas ", " especiales"),
    *("solicita", "a menudo", "en orden", "a sus ordenes", "han pedido", "recursos humanos", "seguro que"),
)
FILLER = ("Eres", " la voz de ", "un lugar", "lunes a viernes", " 9:00 ", "gracias.", "no", "$120", "a", "1")
SIGNS = ("##", "#", "\n## ", "\n", "\r\n", ". ", ",", "-", "_", "*", "[", "¿", "\N{EM DASH}", "'", '"', "\\", "%")
ACCENTED = (  # no keyword and no part of a heading, whatever is done to the accents
    *(" también ", " Atención, ", " CAFÉ ", " cafe\u0301 ", " ÑANDÚ ", " mañana ", " así\n", " Straße ", " İzmir "),
    *(" \u1112\u1161\u11ab ", " \u0958 ", " \u304b\u3099 ", " \u0301 ", " Ǿ ", " ờ "),
)
WHITE_SPACE = (
    " \t\n\x0b\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
MARKS = re.compile("[\u0300-\u036f]")


def fold(text: str) -> str:
    """Lower case, no accents; the text itself where it had none."""
    return MARKS.sub("", unicodedata.normalize("NFD", text)).lower()


def cased(words: Sequence[str]) -> st.SearchStrategy[str]:
    """One of the words, each of its letters in either case."""
    return st.tuples(st.sampled_from(words), st.integers(0, 2**24 - 1)).map(
        lambda drawn: "".join(
            letter.upper() if drawn[1] >> spot & 1 else letter for spot, letter in enumerate(drawn[0])
        )
    )


def some(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """Twelve texts of some pieces each: batches of twelve times twelve prompts, as two texts make one."""
    return st.lists(st.lists(pieces, max_size=7).map("".join), min_size=12, max_size=12)


def prompts(texts: list[str]) -> list[str]:
    return ["".join(pair) for pair in itertools.product(texts, texts)]


ANY_CHARACTER = st.characters(min_codepoint=1, exclude_categories=["Cs"])
UNACCENTED = st.characters(min_codepoint=1, max_codepoint=0xFFFF, exclude_categories=["Cs"]).filter(
    lambda character: not MARKS.search(unicodedata.normalize("NFD", character))
)
BLANKS = st.text(st.sampled_from(":" + WHITE_SPACE), max_size=4)
HEADED = st.tuples(cased(HEADINGS), BLANKS).map("".join)
LONG = st.tuples(st.sampled_from(("mas texto, ", "ab \n", "z")), st.integers(990, 1010)).map(
    lambda drawn: (drawn[0] * drawn[1])[: drawn[1]]
)
PLAIN = st.one_of(
    *(cased(KEYWORDS), cased(FRAGMENTS), st.sampled_from(FILLER), st.sampled_from(SIGNS)),
    *(HEADED, BLANKS, st.text(UNACCENTED, max_size=5), LONG),
)


@dataclass(frozen=True, slots=True)
class Inferred:
    """One answer of relevo.infer."""

    assistant_type_id: str
    enabled_capabilities: list[str]
    special_instructions: str | None
    truncated: bool
    low_confidence: bool
    provenance: dict[str, Any]

    @property
    def answer(self) -> Answer:
        return Answer(self.assistant_type_id, self.enabled_capabilities, self.special_instructions)

    @property
    def reasons(self) -> list[dict[str, Any]]:
        return [*self.provenance["assistant_type_id"], *self.provenance["enabled_capabilities"].values()]

    @property
    def section(self) -> dict[str, Any] | None:
        section: dict[str, Any] | None = self.provenance["special_instructions"]
        return section


Connection = psycopg.Connection[Any]


def infer(connection: Connection, cases: Sequence[Case]) -> list[Inferred]:
    """All cases in one round trip."""
    with connection.cursor(row_factory=class_row(Inferred)) as cursor:
        return cursor.execute(INFER, [list(column) for column in zip(*cases, strict=True)]).fetchall()


def uncovered(connection: Connection, cases: Sequence[Case]) -> list[list[dict[str, Any]]]:
    """What v2 would not carry of each prompt."""
    found = connection.execute(UNCOVERED, [list(column) for column in zip(*cases, strict=True)])
    return [passages for (passages,) in found]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    program = node()
    if program is None:
        pytest.skip("Node is not installed: run make install, or apt-get install nodejs")
    with consulting(program) as running:
        yield running


@pytest.fixture
def connection(ready: Database, database_url: str) -> Iterator[Connection]:  # noqa: ARG001 (ready: has the schema)
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.mark.parametrize("pieces", [PLAIN, PLAIN | st.sampled_from(ACCENTED)], ids=["plain", "irrelevant accents"])
def test_the_seed_says_the_same(connection: Connection, oracle: Oracle, pieces: st.SearchStrategy[str]) -> None:
    compared = 0

    @settings(max_examples=75, deadline=None)
    @given(some(pieces), st.text(ANY_CHARACTER, max_size=8))
    def same(texts: list[str], other: str) -> None:
        nonlocal compared
        verticals = itertools.cycle(("restaurant", "dental", "restaurant", "dental", other))
        cases = list(zip([None, "", *prompts(texts)], verticals, strict=False))
        for case, ours, seeds in zip(cases, infer(connection, cases), oracle.answer(cases), strict=True):
            assert ours.answer == seeds, case
        compared += len(cases)

    same()
    assert compared > 10_000


def dressed(prompt: str, dress: Sequence[str], form: str) -> str:
    """Each letter in turn with the next mark, or in capitals; then normalised, or left as it is for ''."""
    turn = itertools.cycle(dress)
    written = "".join(
        (letter.upper() if (worn := next(turn)) == "capital" else letter + worn)
        if letter.isascii() and letter.isalpha()
        else letter
        for letter in prompt
    )
    return written if form == "" else unicodedata.normalize(form, written)  # type: ignore[arg-type]


def unplaced(inferred: Inferred) -> list[tuple[Any, ...]]:
    """What was inferred and why, without the places."""
    reasons = [*inferred.reasons, *([inferred.section] if inferred.section else [])]
    return [
        (inferred.assistant_type_id, *inferred.enabled_capabilities),
        *((reason.get("keyword", reason.get("heading")), reason["confidence"]) for reason in reasons),
    ]


def check_places(prompt: str, inferred: Inferred) -> None:
    """Every place is that of the word, in the prompt as written."""
    for reason in inferred.reasons:
        assert not MARKS.match(prompt[reason["place"] - 1])
        assert fold(prompt[reason["place"] - 1 :]).startswith(reason["keyword"])
    assert (inferred.section is None) == (inferred.special_instructions is None)
    if inferred.section is None or inferred.special_instructions is None:
        return
    place, until = inferred.section["place"] - 1, inferred.section["until"] - 1
    carved = prompt[place:until]
    assert fold(carved).startswith(inferred.section["heading"])
    assert prompt[until:] == "" or prompt[until:].startswith("##")
    assert "##" not in carved
    below = carved.strip(WHITE_SPACE)
    assert inferred.special_instructions in below
    assert inferred.truncated or below.endswith(inferred.special_instructions)


def test_accents_and_case_change_nothing(connection: Connection) -> None:
    marks = st.sampled_from(["", "\u0301", "\u0303", "\u0308", "capital", "\u0308\u0301"])

    @settings(max_examples=25, deadline=None)
    @given(some(PLAIN), st.lists(marks, min_size=1, max_size=5), st.sampled_from(["", "NFC", "NFD"]))
    def same(texts: list[str], dress: list[str], form: str) -> None:
        plain = list(zip(prompts(texts), itertools.cycle(("restaurant", "dental")), strict=False))
        written = [(dressed(prompt or "", dress, form), vertical) for prompt, vertical in plain]
        found = zip(written, infer(connection, plain), infer(connection, written), strict=True)
        for (prompt, _), before, after in found:
            assert unplaced(before) == unplaced(after), prompt
            check_places(prompt, after)

    same()


def check_anything(prompt: str, inferred: Inferred, passages: list[dict[str, Any]]) -> None:
    """What holds of every prompt there could be."""
    assert inferred.enabled_capabilities
    assert len(inferred.special_instructions or "") <= 1000
    assert inferred.low_confidence == any(reason["confidence"] == "low" for reason in inferred.reasons)
    check_places(prompt, inferred)
    after = 0
    for passage in passages:
        starts = passage["place"] - 1
        assert passage["text"]
        assert after <= starts
        after = starts + len(passage["text"])
        assert prompt[starts:after] == passage["text"]


def test_no_text_is_too_strange(connection: Connection) -> None:
    strange = st.one_of(
        st.text(ANY_CHARACTER, max_size=8),
        st.tuples(st.text(ANY_CHARACTER, min_size=1, max_size=8), st.integers(0, 400)).map(
            lambda drawn: drawn[0] * drawn[1]
        ),
        *(cased(KEYWORDS), HEADED, st.sampled_from((*SIGNS, *ACCENTED, "\nMENÚ:\n", "\nNada:\n", "\n# Citas\n"))),
    )

    @settings(max_examples=60, deadline=None)
    @given(some(strange), st.text(ANY_CHARACTER, max_size=8))
    def holds(texts: list[str], other: str) -> None:
        cases = list(zip(texts, itertools.cycle(("restaurant", "dental", other)), strict=False))
        for case, found, passages in zip(cases, infer(connection, cases), uncovered(connection, cases), strict=True):
            check_anything(case[0] or "", found, passages)

    holds()


@pytest.mark.parametrize(
    ("vertical", "prompt", "capability", "keyword", "place", "confidence"),
    [
        ("restaurant", "Menú", "menu_info", "menu", 1, "high"),
        ("restaurant", "Ver el MENÚ", "menu_info", "menu", 8, "high"),
        ("restaurant", "El menu\u0301", "menu_info", "menu", 4, "high"),
        ("restaurant", "E\u0301l me\u0301nu\u0301", "menu_info", "menu", 5, "high"),
        ("restaurant", "¡Órdenes!", "orders", "orden", 2, "high"),
        ("restaurant", "_menu_", "menu_info", "menu", 2, "high"),
        ("restaurant", "[menu](carta)", "menu_info", "menu", 2, "high"),
        ("restaurant", "Carta:menu", "menu_info", "menu", 7, "high"),
        ("restaurant", "submenu", "menu_info", "menu", 4, "low"),
        ("restaurant", "todo en orden", "orders", "orden", 9, "low"),
        ("restaurant", "A sus órdenes", "orders", "orden", 7, "low"),
        ("restaurant", "A sus órdenes. Toma la orden.", "orders", "orden", 24, "high"),
        ("restaurant", "a menudo", "menu_info", "menu", 3, "low"),
        ("restaurant", "menudo", "menu_info", "menu", 1, "low"),
        ("restaurant", "todo en orden; anota el pedido", "orders", "pedido", 25, "high"),
        ("dental", "solicita", "appointments", "cita", 5, "low"),
        ("dental", "solicita una cita", "appointments", "cita", 14, "high"),
        ("dental", "CİTA", "appointments", "cita", 1, "high"),
        ("dental", "A su servicio", "services_info", "servicio", 6, "low"),
        ("dental", "un ser humano", "human_transfer", "humano", 8, "low"),
    ],
)
def test_a_keyword_met_is_a_capability_and_says_how_sure(
    connection: Connection, vertical: str, prompt: str, capability: str, keyword: str, place: int, confidence: str
) -> None:
    (found,) = infer(connection, [(prompt, vertical)])
    assert found.enabled_capabilities == [capability]
    assert found.low_confidence == (confidence == "low")
    assert found.provenance["enabled_capabilities"] == {
        capability: {"keyword": keyword, "place": place, "confidence": confidence}
    }


@pytest.mark.parametrize(
    ("vertical", "prompt", "expected_type", "capabilities"),
    [
        ("restaurant", None, "rest_basic", ["reservations"]),
        ("restaurant", "", "rest_basic", ["reservations"]),
        ("restaurant", " ", "rest_basic", ["basic"]),
        ("dental", None, "dental_basic", ["appointments"]),
        ("veterinaria", "", "veterinaria_basic", ["appointments"]),
        ("veterinaria", "Menú, citas y horario", "veterinaria_basic", ["business_hours"]),
        ("Dental", "Citas y servicios", "Dental_basic", ["basic"]),
        ("dental", "cıta", "dental_basic", ["basic"]),  # a dotless i is another letter
        ("dental", "Servicio; transferir", "dental_complete", ["services_info", "human_transfer"]),
    ],
)
def test_type_and_capabilities(
    connection: Connection, vertical: str, prompt: str | None, expected_type: str, capabilities: list[str]
) -> None:
    (found,) = infer(connection, [(prompt, vertical)])
    assert (found.assistant_type_id, found.enabled_capabilities) == (expected_type, capabilities)


@pytest.mark.parametrize(
    ("prompt", "instructions", "place", "until"),
    [
        ("Instrucciones especiales: hablar despacio", "hablar despacio", 1, 42),
        ("## INSTRUCCIONES ESPECIALES\n\nno fumar \n\n## Otras", "no fumar", 4, 41),
        ("Notas importantes:\u00a0\ufeff\u2028 sin gluten\u00a0", "sin gluten", 1, 34),
        ("Instrucciones especiales:\n\n## Notas importantes: sin gluten", "sin gluten", 31, 60),
        ("Reglas especiales: a\nNotas importantes: b", "b", 22, 42),
        ("E\u0301l. Instrucciónes\u0301 especialés\u0301: a ## b", "a", 6, 36),
        ("\u1112\u1161\u11ab \u0958 Á Notas importantes: a", "a", 9, 29),
        ("Notas importantes: : ", None, None, None),
        ("Notas importantes", None, None, None),
        ("Notas  importantes: a", None, None, None),
    ],
)
def test_special_instructions(
    connection: Connection, prompt: str, instructions: str | None, place: int | None, until: int | None
) -> None:
    (found,) = infer(connection, [(prompt, "dental")])
    assert found.special_instructions == instructions
    section = found.section or {"place": None, "until": None}
    assert (section["place"], section["until"]) == (place, until)


@pytest.mark.parametrize(("length", "truncated"), [(1000, False), (1001, True)])
def test_instructions_are_cut_at_1000_code_points(connection: Connection, length: int, truncated: bool) -> None:
    text = "\N{GRINNING FACE}" * length
    (found,) = infer(connection, [(f"Instrucciones especiales: {text} \n", "dental")])
    assert (found.special_instructions, found.truncated) == (text[:1000], truncated)


LONG_RULES = "a" + "\N{GRINNING FACE}é" * 500 + " y lo demás"


@pytest.mark.parametrize(
    ("prompt", "passages"),
    [
        (None, []),
        ("", []),
        ("  \n ", []),
        ("Eres Ana.", ["Eres Ana."]),
        ("Eres Ana.\n\n## Menú\nTacos.\n", ["Eres Ana."]),
        ("## Horarios\nLunes\n\n## Estacionamiento\nHay dos.\n## Tono\nAmable.", ["## Estacionamiento\nHay dos."]),
        ("\ufeff# HORARIO\u00a0\nLunes\nCitas:\u00a0\r\npor la tarde", []),
        ("# Voz autónoma\nSin nadie.", ["# Voz autónoma\nSin nadie."]),  # no section on the tone
        ("Instrucciones especiales:\nno fumar", []),
        ("## Instrucciones especiales\nno fumar\n## Menú\nTacos", []),
        ("Hola.\n## **Notas importantes**\nno fumar\n## Wifi\nclave 1", ["Hola.", "## Wifi\nclave 1"]),
        ("Instrucciones especiales: \n## Notas importantes\nno fumar", []),
        (
            "## Notas importantes\nb\n## Instrucciones especiales\na\n## Reglas especiales\nc",
            ["## Notas importantes\nb", "## Reglas especiales\nc"],
        ),
        (f"Notas importantes: {LONG_RULES}\n\n## Wifi\nno", [LONG_RULES[1000:], "## Wifi\nno"]),
        (f"E\u0301l.\n## Nótas impórtantes\n{LONG_RULES}", ["E\u0301l.", LONG_RULES[1000:]]),
        ("Reglas especiales" + "s" * 1001, ["s"]),
    ],
)
def test_what_v2_would_not_carry_is_listed(connection: Connection, prompt: str | None, passages: list[str]) -> None:
    (found,) = uncovered(connection, [(prompt, "restaurant")])
    assert [passage["text"] for passage in found] == passages
    for passage in found:
        assert (prompt or "")[passage["place"] - 1 :].startswith(passage["text"])


CORPUS: tuple[Case, ...] = tuple(
    (prompt, vertical)
    for vertical in ("restaurant", "Restaurant", "dental", "İstanbul")
    for prompt in (
        *("CİTA İ ı Straße", "TRANSFERIR AL DOCTOR", "MENÚ\nmenú\nMenu\u0301", "A sus órdenes", "\u200b", " ", "i̇ I"),
        "Él.\n## INSTRUCCIONES ESPECIALES\u00a0\nİ ı ß\n## Wifi\n\u0301x",
        f"# TÍTULO\nEres İnes. ORDEN: pedidos, cita\nNotas importantes: {LONG_RULES}",
    )
)


def everything(connection: Connection) -> list[Any]:
    """All that is said of the corpus."""
    return [*infer(connection, CORPUS), *uncovered(connection, CORPUS)]


@pytest.mark.parametrize(
    "setting",
    [
        "TimeZone = 'Pacific/Chatham'",
        "DateStyle = 'German, DMY'",
        "lc_numeric = 'C'",
        "lc_time = 'POSIX'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "search_path = fooled, pg_catalog",
        "row_security = off",
        "plan_cache_mode = force_generic_plan",
    ],
)
def test_no_setting_of_a_session_matters(connection: Connection, setting: str) -> None:
    connection.execute("CREATE SCHEMA fooled; CREATE FUNCTION fooled.lower(text) RETURNS text RETURN 'menu'")
    before = everything(connection)
    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        other.execute(f"SET {setting}".encode())
        assert everything(other) == before


@asynccontextmanager
async def database_of(server: Server, name: str, locale: str) -> AsyncIterator[str]:
    """A database of another locale, with Relevo's schema; skips where the server has no such locale."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as postgres:
        try:
            postgres.execute(
                f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8' {locale}".encode()
            )
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError) as refusal:
            pytest.skip(f"PostgreSQL {server.version} has no such locale: {refusal}")
        try:
            async with Database(server.url(name, OWNER)) as database:
                await migrations.up(database)
            yield server.url(name, OWNER)
        finally:
            postgres.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize(
    "locale",
    [
        "LOCALE 'C'",
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
        "LOCALE_PROVIDER icu ICU_LOCALE 'tr' LOCALE 'C'",
    ],
)
async def test_no_locale_of_a_database_matters(connection: Connection, server: Server, locale: str) -> None:
    async with database_of(server, f"{connection.info.dbname}_elsewhere", locale) as url:
        with psycopg.connect(url, autocommit=True) as elsewhere:
            assert everything(elsewhere) == everything(connection)


@pytest.mark.parametrize(
    "collation",
    [
        "LOCALE = 'C'",
        "PROVIDER = icu, LOCALE = 'tr'",
        "PROVIDER = icu, LOCALE = 'und-u-ks-level1', DETERMINISTIC = false",
    ],
)
def test_no_collation_of_a_column_matters(connection: Connection, collation: str) -> None:
    try:
        connection.execute(f"CREATE COLLATION public.theirs ({collation})".encode())
    except psycopg.errors.FeatureNotSupported as refusal:
        pytest.skip(f"no such collation: {refusal}")
    from_columns = [
        query.replace("unnest(%s::text[], %s::text[])", "unnest(%s::text[] COLLATE theirs, %s::text[] COLLATE theirs)")
        for query in (INFER, UNCOVERED)
    ]
    columns = [list(column) for column in zip(*CORPUS, strict=True)]
    with connection.cursor(row_factory=class_row(Inferred)) as cursor:
        found = cursor.execute(from_columns[0].encode(), columns).fetchall()
    assert found == infer(connection, CORPUS)
    listed = [passages for (passages,) in connection.execute(from_columns[1].encode(), columns)]
    assert listed == uncovered(connection, CORPUS)
