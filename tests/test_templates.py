"""What v2 says is what its templates say, and read again it is the configuration that it came from."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from relevo.db.pool import Database
from relevo.errors import Refused, TemplatesFaulty, UnknownName, UsageError
from relevo.tenants import templates
from relevo.tenants.templates import SHIPPED, Piece
from tests.conftest import change, rows, value
from tests.test_transform import ACCENTED, FILLER, FRAGMENTS, HEADINGS, KEYWORDS, SIGNS, WHITE_SPACE, cased, fold

COMMON = ("business_hours", "human_transfer", "faq")
CAPABILITIES = {
    "restaurant": ("reservations", "orders", "menu_info", "promotions", *COMMON),
    "dental": ("appointments", "services_info", "doctor_info", "insurance_info", *COMMON),
    "veterinary": COMMON,
}
PERSONALITIES = ("friendly", "professional", "energetic", "calm")
WORDS = {
    "reservations": ("reserv",),
    "orders": ("pedido", "orden"),
    "menu_info": ("menu",),
    "promotions": ("promo",),
    "appointments": ("cita",),
    "services_info": ("servicio", "tratamiento"),
    "doctor_info": ("doctor",),
    "insurance_info": ("seguro",),
    "business_hours": ("horario",),
    "human_transfer": ("transferir", "humano"),
    "faq": ("faq", "pregunta"),
}

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Config:
    """What of a configuration decides what v2 says."""

    assistant_type_id: str
    enabled_capabilities: tuple[str, ...]
    special_instructions: str | None = None
    personality_type: str = "friendly"


@dataclass(frozen=True, slots=True)
class Case:
    config: Config
    vertical: str
    name: str | None = "Casa Luz"


@dataclass(frozen=True, slots=True)
class Read:
    """A prompt as v2 rendered it, and what becomes of it as a v1 prompt."""

    system_prompt: str
    assistant_type_id: str
    enabled_capabilities: list[str]
    special_instructions: str | None
    truncated: bool
    low_confidence: bool
    uncovered: list[dict[str, Any]]


RENDERED: LiteralString = """
    SELECT said.*
    FROM unnest(%s::jsonb[], %s::text[], %s::text[]) AS each (config, name, vertical),
         relevo.rendered(jsonb_populate_record(NULL::public.voice_assistant_configs, config), name, vertical) AS said"""
READ: LiteralString = """
    SELECT said.system_prompt, i.assistant_type_id, i.enabled_capabilities, i.special_instructions, i.truncated,
           i.low_confidence, relevo.uncovered(said.system_prompt, 1, i) AS uncovered
    FROM unnest(%s::jsonb[], %s::text[], %s::text[]) WITH ORDINALITY AS each (config, name, vertical, place),
         relevo.rendered(jsonb_populate_record(NULL::public.voice_assistant_configs, config), name, vertical) AS said,
         relevo.infer(said.system_prompt, vertical, 1) AS i
    ORDER BY place"""
HUMAN = {"assistant_type_id": "rest_complete", "enabled_capabilities": ["orders", "human_transfer"]}


def type_of(vertical: str, capabilities: Sequence[str]) -> str:
    """The type that the rules give to an assistant of these capabilities."""
    telling = {"restaurant": {"orders", "menu_info"}, "dental": {"services_info"}}.get(vertical, set())
    prefix = {"restaurant": "rest"}.get(vertical, vertical)
    if not telling & set(capabilities):
        return f"{prefix}_basic"
    return f"{prefix}_complete" if "human_transfer" in capabilities else f"{prefix}_standard"


def subsets(vertical: str) -> Iterator[tuple[str, ...]]:
    """Every set of capabilities, in the order of the rules; 'basic' for none."""
    for switches in itertools.product((True, False), repeat=len(CAPABILITIES[vertical])):
        yield tuple(itertools.compress(CAPABILITIES[vertical], switches)) or ("basic",)


def spoken_of(vertical: str, text: str) -> set[str]:
    """The capabilities whose words a text holds."""
    return {name for name in CAPABILITIES[vertical] if any(word in fold(text) for word in WORDS[name])}


def plain(instructions: str | None) -> str | None:
    """Instructions as they come back: without the white space around, no run of # longer than one."""
    kept = (instructions or "").lstrip(":" + WHITE_SPACE).rstrip(WHITE_SPACE)
    while "##" in kept:
        kept = kept.replace("##", "#")
    return kept or None


def _columns(cases: Sequence[Case]) -> list[list[Any]]:
    configs = [
        Jsonb(
            {name: getattr(case.config, name) for name in Config.__slots__}
            | {"enabled_capabilities": list(case.config.enabled_capabilities), "template_version": "1"}
        )
        for case in cases
    ]
    return [configs, [case.name for case in cases], [case.vertical for case in cases]]


def read_again(connection: Connection, cases: Sequence[Case]) -> list[Read]:
    with connection.cursor(row_factory=class_row(Read)) as cursor:
        return cursor.execute(READ, _columns(cases)).fetchall()


def said(connection: Connection, config: dict[str, Any], name: str | None, vertical: str | None) -> dict[str, Any]:
    """What v2 says by one configuration, given as a row."""
    with connection.cursor(row_factory=dict_row) as cursor:
        answer = cursor.execute(RENDERED, [[Jsonb(config)], [name], [vertical]]).fetchall()
    return dict(answer[0])


@pytest.fixture
def connection(sampled: Database) -> Iterator[Connection]:
    with psycopg.connect(sampled.url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    """A copy of the shipped texts, for people to spoil; as version 2."""
    return Path(shutil.copytree(SHIPPED / "1", tmp_path / "2"))


@pytest.mark.parametrize("vertical", CAPABILITIES)
def test_every_set_of_capabilities_in_every_temper_comes_back(connection: Connection, vertical: str) -> None:
    cases = [
        Case(Config(type_of(vertical, able), able, instructions, temper), vertical, name)
        for able in subsets(vertical)
        for temper in PERSONALITIES
        for instructions in (None, "Los lunes no abrimos.\n- No aceptamos cheques")
        for name in ("Casa Luz", None)
    ]
    for case, back in zip(cases, read_again(connection, cases), strict=True):
        expected = (case.config.assistant_type_id, list(case.config.enabled_capabilities))
        assert (back.assistant_type_id, back.enabled_capabilities) == expected
        assert back.special_instructions == case.config.special_instructions
        assert (back.truncated, back.low_confidence, back.uncovered) == (False, False, [])


@pytest.mark.parametrize("vertical", ["restaurant", "dental"])
def test_a_type_that_its_capabilities_do_not_bear_out_comes_back_as_the_one_they_do(
    connection: Connection, vertical: str
) -> None:
    prefix = {"restaurant": "rest"}.get(vertical, vertical)
    cases = [
        Case(Config(f"{prefix}_{size}", able), vertical)
        for size in ("basic", "standard", "complete")
        for able in subsets(vertical)
    ]
    for case, back in zip(cases, read_again(connection, cases), strict=True):
        assert back.enabled_capabilities == list(case.config.enabled_capabilities)
        assert back.assistant_type_id == type_of(vertical, case.config.enabled_capabilities)


PIECES = st.one_of(
    *(cased(KEYWORDS), cased(FRAGMENTS), cased(HEADINGS), st.sampled_from(FILLER), st.sampled_from(SIGNS)),
    *(st.sampled_from(ACCENTED), st.sampled_from(WHITE_SPACE + ":{}"), st.sampled_from(("{business_name}", "{offer}"))),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
NAMES = TEXTS.filter(lambda name: not any(heading in fold(name) for heading in HEADINGS))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    vertical = draw(st.sampled_from(sorted(CAPABILITIES)))
    able = draw(st.sampled_from(list(subsets(vertical))))
    instructions = draw(st.none() | TEXTS | st.just("x" * 1000))
    config = Config(type_of(vertical, able), able, instructions, draw(st.sampled_from(PERSONALITIES)))
    return Case(config, vertical, draw(st.none() | NAMES))


def test_whatever_the_name_and_the_instructions_say_comes_back(connection: Connection) -> None:
    """Instructions as they were; of capabilities also those that name and instructions speak of, as in any prompt."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(cases(), min_size=12, max_size=12))
    def comes_back(drawn: list[Case]) -> None:
        for case, back in zip(drawn, read_again(connection, drawn), strict=True):
            spoken = spoken_of(case.vertical, f"{case.name or ''} {case.config.special_instructions or ''}")
            expected = set(case.config.enabled_capabilities) | spoken
            assert set(back.enabled_capabilities) == (expected - {"basic"} or {"basic"}), case
            assert back.assistant_type_id == type_of(case.vertical, back.enabled_capabilities)
            assert back.special_instructions == plain(case.config.special_instructions)
            assert not back.truncated
            told = plain(case.config.special_instructions)
            heading = "\n\n## Instrucciones especiales\n"
            assert back.system_prompt.endswith(f"{heading}{told}") if told else heading not in back.system_prompt

    comes_back()


def test_what_came_back_once_comes_back_the_same_ever_after(connection: Connection) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(cases(), min_size=12, max_size=12))
    def settles(drawn: list[Case]) -> None:
        once = [_as_read(case, back) for case, back in zip(drawn, read_again(connection, drawn), strict=True)]
        twice = [_as_read(case, back) for case, back in zip(once, read_again(connection, once), strict=True)]
        assert twice == once

    settles()


def _as_read(case: Case, back: Read) -> Case:
    config = replace(
        case.config,
        assistant_type_id=back.assistant_type_id,
        enabled_capabilities=tuple(back.enabled_capabilities),
        special_instructions=back.special_instructions,
    )
    return replace(case, config=config)


@pytest.mark.parametrize(
    ("vertical", "able", "back"),
    [
        ("veterinary", ("appointments",), ["basic"]),  # no rule of that vertical infers it
        ("dental", ("orders", "appointments"), ["appointments"]),  # nor a dentist's an order
        ("restaurant", ("basic", "reservations"), ["reservations"]),  # basic is what is left when nothing else is
        ("restaurant", ("faq", "reservations"), ["reservations", "faq"]),  # in the order of the rules
    ],
)
def test_what_the_rules_cannot_infer_does_not_come_back(
    connection: Connection, vertical: str, able: tuple[str, ...], back: list[str]
) -> None:
    (read,) = read_again(connection, [Case(Config(type_of(vertical, able), able), vertical)])
    assert read.enabled_capabilities == back


def test_a_name_that_is_a_heading_of_instructions_is_read_as_one(connection: Connection) -> None:
    (back,) = read_again(connection, [Case(Config("rest_basic", ("reservations",)), "restaurant", "Notas Importantes")])
    assert back.special_instructions is not None


def test_a_marker_of_sections_within_the_instructions_does_not_cut_them(connection: Connection) -> None:
    config = Config("rest_basic", ("reservations",), "Primero esto.\n## Alergias\nAnota todas. ### ya")
    (back,) = read_again(connection, [Case(config, "restaurant")])
    assert back.special_instructions == "Primero esto.\n# Alergias\nAnota todas. # ya"
    assert back.enabled_capabilities == ["reservations"]


def test_an_empty_row_is_answered_too(connection: Connection) -> None:
    answer = said(connection, {}, None, None)
    assert answer["first_message"] == "¡Gracias por llamar a nuestro negocio! ¿En qué puedo ayudarle?"
    assert "toma el recado" in answer["system_prompt"]
    assert answer["unknown"] == ["template version null", "type null", "business name", "personality null"]


def test_unknown_names_are_passed_over_and_told(connection: Connection) -> None:
    config = {
        "assistant_type_id": "rest_premium",
        "enabled_capabilities": ["teleport", "menu_info", None],
        "personality_type": "grumpy",
        "template_version": "77",
    }
    answer = said(connection, config, "  ", "restaurant")
    assert answer["template_version"] == "1"
    assert answer["first_message"] == "¡Gracias por llamar a nuestro restaurante! ¿En qué puedo ayudarle?"
    assert "## Menú" in answer["system_prompt"]
    assert answer["unknown"] == [
        "template version 77",
        "type rest_premium",
        "business name",
        "personality grumpy",
        "capability null",
        "capability teleport",
    ]


def test_the_basic_type_of_a_vertical_without_texts_is_no_stranger(connection: Connection) -> None:
    config = {"assistant_type_id": "spa_basic", "template_version": "1", "personality_type": "calm"}
    assert said(connection, config, "Spa Luz", "spa")["unknown"] == []


def test_a_name_is_never_taken_for_a_variable_or_a_heading(connection: Connection) -> None:
    config = {**HUMAN, "template_version": "1", "personality_type": "friendly"}
    answer = said(connection, config, "{offer} {assistant_name}\n## Instrucciones", "restaurant")
    assert answer["assistant_name"] == "Asistente de {offer} {assistant_name} ## Instrucciones"
    assert "\n## Instrucciones" not in answer["system_prompt"]
    assert answer["first_message"].startswith("¡Gracias por llamar a {offer} {assistant_name} ## Instrucciones!")


def test_paragraphs_stand_as_the_configuration_orders_them_those_without_heading_first(connection: Connection) -> None:
    answer = said(connection, {"enabled_capabilities": ["faq", "basic", "orders", "faq"]}, "Casa Luz", "restaurant")
    headings = [line for line in answer["system_prompt"].split("\n") if line.startswith("#")]
    assert headings == ["## Personalidad", "## Preguntas frecuentes", "## Pedidos"]
    assert "Da la bienvenida" in answer["system_prompt"].split("\n\n")[0]


def test_a_rendering_holds_no_date_and_no_variable(connection: Connection) -> None:
    config = {**HUMAN, "template_version": "1", "voice_id": "v", "voice_speed": 1.2}
    answer = said(connection, config, "Casa Luz", "restaurant")
    assert answer == said(connection, config, "Casa Luz", "restaurant")
    assert not any(mark in answer["system_prompt"] for mark in ("{", "}", "Hoy es"))
    assert (answer["voice_id"], float(answer["voice_speed"])) == ("v", 1.2)


async def test_what_is_rendered_by_row_takes_name_and_vertical_from_the_platform(sampled: Database) -> None:
    async with sampled.transaction() as connection:
        await connection.execute(
            b"""CREATE OR REPLACE FUNCTION relevo.v1_tenants()
                RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text,
                               human_phone_number text)
                LANGUAGE sql STABLE AS 'SELECT id, vertical, name, NULL, NULL, NULL, NULL FROM public.businesses'"""
        )
        found = await connection.execute(
            b"""SELECT b.name, b.vertical, said.*
                FROM (SELECT * FROM public.businesses WHERE vertical = 'dental' AND name <> '' LIMIT 1) AS b,
                     jsonb_populate_record(NULL::public.voice_assistant_configs, jsonb_build_object(
                         'business_id', b.id, 'assistant_type_id', 'dental_basic')) AS config,
                     relevo.render(config) AS said"""
        )
        answer = await found.fetchone()
        stray = await (await connection.execute(b"SELECT * FROM relevo.render(NULL)")).fetchall()
    assert answer is not None
    assert answer["assistant_name"] == f"Recepción de {answer['name']}"
    assert len(stray) == 1


@pytest.mark.parametrize(
    ("moment", "zone", "told"),
    [
        ("2026-11-22 20:05Z", "America/Mexico_City", "Hoy es domingo 22 de noviembre de 2026 y son las 14:05,"),
        ("2026-11-22 20:05Z", None, "Hoy es domingo 22 de noviembre de 2026 y son las 14:05,"),
        ("2026-11-22 20:05Z", " ", "Hoy es domingo 22 de noviembre de 2026 y son las 14:05,"),
        ("2026-11-22 20:05Z", "Nowhere/Land", "Hoy es domingo 22 de noviembre de 2026 y son las 14:05,"),
        ("2026-11-22 20:05Z", "America/Tijuana", "Hoy es domingo 22 de noviembre de 2026 y son las 12:05,"),
        ("2026-01-01 06:30Z", "America/Tijuana", "Hoy es miércoles 31 de diciembre de 2025 y son las 22:30,"),
        ("2028-02-29 19:00Z", "America/Mexico_City", "Hoy es martes 29 de febrero de 2028 y son las 13:00,"),
        ("2026-08-01 07:09Z", "America/Mexico_City", "Hoy es sábado 1 de agosto de 2026 y es la 1:09,"),
        ("2026-08-01 06:00Z", "America/Mexico_City", "Hoy es sábado 1 de agosto de 2026 y son las 0:00,"),
    ],
)
async def test_a_call_is_told_the_day_in_the_words_of_the_business(
    sampled: Database, moment: str, zone: str | None, told: str
) -> None:
    async with sampled.transaction() as connection:
        await connection.execute(b"SET LOCAL TimeZone = 'Asia/Tokyo'; SET LOCAL lc_time = 'C'")
        found = await connection.execute(b"SELECT relevo.prompt_at_call('Contesta.', %s, %s) AS prompt", (moment, zone))
        (row,) = await found.fetchall()
    assert row["prompt"] == f"Contesta.\n\n## Fecha y hora\n{told} hora local."


async def test_a_call_without_a_prompt_is_told_the_day_all_the_same(sampled: Database) -> None:
    told = await value(sampled, "SELECT relevo.prompt_at_call(NULL, '2026-11-22 20:05Z', NULL)")
    assert told.startswith("## Fecha y hora\nHoy es domingo")


async def test_the_shipped_files_and_the_database_agree(sampled: Database) -> None:
    published = await templates.pieces(sampled, "1")
    assert set(published) == set(templates.read(SHIPPED / "1"))
    assert await templates.versions(sampled) != []


async def test_a_greeting_that_the_templates_gave_is_nobodys_own(sampled: Database) -> None:
    """So that a configuration born on v2 is not put on the review list when it comes back from v1."""
    greetings = await rows(
        sampled,
        """SELECT said.first_message, said.assistant_name
           FROM unnest(ARRAY['friendly', 'professional', 'energetic', 'calm']) AS temper,
                unnest(ARRAY['reservations', 'appointments', 'orders', 'faq']) AS able,
                jsonb_populate_record(NULL::public.voice_assistant_configs, jsonb_build_object(
                    'personality_type', temper, 'enabled_capabilities', ARRAY[able])) AS config,
                unnest(ARRAY['dental', 'restaurant']) AS vertical,
                relevo.rendered(config, 'Casa Luz', vertical) AS said
           WHERE relevo.is_customised(said.first_message, 'Casa Luz', relevo.defaults_of('first_message'))
              OR relevo.is_customised(said.assistant_name, 'Casa Luz', relevo.defaults_of('assistant_name'))""",
    )
    assert greetings == []


async def test_a_published_folder_speaks_for_those_who_name_it(sampled: Database, edition: Path) -> None:
    (edition / "places" / "restaurant.md").write_text("nuestra mesa\n", encoding="utf-8")
    made = await templates.publish(sampled, edition, note="tables", actor="ana", reason="menus")
    assert (made.version, made.pieces) == ("2", len(templates.read(edition)))
    greeting = """SELECT first_message FROM relevo.rendered(jsonb_populate_record(
                      NULL::public.voice_assistant_configs, jsonb_build_object('template_version', '{}'::text)),
                      NULL, 'restaurant')"""
    assert "nuestro restaurante" in await value(sampled, greeting.format("1"))
    assert "nuestra mesa" in await value(sampled, greeting.format("2"))
    assert "nuestra mesa" in await value(sampled, greeting.format("3"))  # unknown: the newest
    (audited,) = await rows(sampled, "SELECT * FROM relevo.audit_log WHERE action = 'templates.publish'")
    assert (audited["actor"], audited["subject"], audited["reason"]) == ("ana", "2", "menus")


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("greetings/friendly", "Hola. {offer}", r"greetings/friendly.md lacks the variable {business_name}"),
        ("greetings/friendly", "{business_name}. {offer} {nombre}", r"names the variable {nombre}"),
        ("capabilities/faq", "## Preguntas\nContesta cada pregunta de {business_name}.", r"names the variable"),
        ("types/any", "## Personalidad\nHablas por {business_name}, a las {9.", "brace without its other half"),
        ("greetings/calm", "**Hola**, {business_name}. {offer}", "heard as it is"),
        ("offers/any", "¿Qué le ofrezco?\n¿Le ayudo?", "offers/any.md is heard as it is: one line"),
        ("types/rest_basic", "## Personalidad\nSolicita datos por {business_name}.", 'rest_basic.md says "cita"'),
        ("capabilities/orders", "## Pedidos\nToma el pedido y da el menú.", 'orders.md says "menu"'),
        ("names/any", "Reservas {business_name}", 'names/any.md says "reserv"'),
        ("capabilities/menu_info", "## Menú\nHay menudo.", ""),
        ("capabilities/orders", "Toma nota.", "orders.md says none of the words by which it is inferred"),
        ("capabilities/promotions", "Hay que promover el local.", "promotions.md says none of the words"),
        ("personalities/calm", "Notas importantes: habla bajo.", 'says "notas importantes"'),
        ("types/any", "Hablas por {business_name}.", "any.md stands below no heading"),
        ("capabilities/orders", "## Otra cosa\nToma el pedido.", "stands below no heading that the rules know"),
        ("personalities/grumpy", "Habla seco.", "greetings/grumpy.md is missing"),
        ("greetings/grumpy", "{business_name}. {offer}", "personalities/grumpy.md is missing"),
        ("types/any", None, "types/any.md is missing"),
        ("capabilities/basic", None, "capabilities/basic.md is missing"),
        ("capabilities/faq", None, "capabilities/faq.md is missing: the rules infer this capability"),
        ("personalities/friendly", None, "personalities/friendly.md is missing"),
        ("capabilities/faq", "  ", "holds an empty text"),
        ("capabilities/Faq", "## Preguntas\nUna pregunta.", "a name that is none"),
        ("capability/faq", "## Preguntas\nUna pregunta.", "a part 'capability'.*'capabilities'"),
    ],
)
async def test_texts_that_would_not_come_back_are_not_published(
    sampled: Database, edition: Path, file: str, text: str | None, fault: str
) -> None:
    place = edition / f"{file}.md"
    if text is None:
        place.unlink()
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    if not fault:  # a word begun like a keyword is met beside the keyword itself
        await templates.publish(sampled, edition, note="x", actor="ana", reason=None)
        return
    with pytest.raises(TemplatesFaulty, match=fault):
        await templates.publish(sampled, edition, note="x", actor="ana", reason=None)
    assert [each.version for each in await templates.versions(sampled)] == ["1"]
    assert await value(sampled, "SELECT count(*) FROM relevo.template_sets") == 1


async def test_a_version_is_published_once(sampled: Database, edition: Path) -> None:
    await templates.publish(sampled, edition, note="x", actor="ana", reason=None)
    with pytest.raises(Refused, match="version 2 is published already"):
        await templates.publish(sampled, edition, note="x", actor="ana", reason=None)


async def test_a_folder_without_texts_is_a_mistake(sampled: Database, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no templates"):
        await templates.publish(sampled, tmp_path, note="x", actor="ana", reason=None)
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "any.md").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot read"):
        templates.read(tmp_path)


async def test_an_unknown_version_is_an_error_to_who_asks_for_it(sampled: Database) -> None:
    with pytest.raises(UnknownName, match="no template version '9'"):
        await templates.pieces(sampled, "9")


@pytest.mark.parametrize(
    "spoiling",
    [
        "UPDATE relevo.templates SET body = 'x'",
        "DELETE FROM relevo.templates",
        "INSERT INTO relevo.templates VALUES ('1', 'places', 'spa', 'nuestro spa')",
        "TRUNCATE relevo.templates",
        "UPDATE relevo.template_sets SET note = 'x'",
        "DELETE FROM relevo.template_sets",
        "WITH s AS (INSERT INTO relevo.template_sets VALUES ('2', DEFAULT, 'x') RETURNING version) "
        "INSERT INTO relevo.templates SELECT version, 'places', '*', ' ' FROM s",
    ],
)
async def test_a_published_version_does_not_change(sampled: Database, spoiling: str) -> None:
    with pytest.raises(psycopg.IntegrityError):
        await change(sampled, spoiling)


def test_the_file_of_everybody_is_called_any() -> None:
    assert Piece("offers", "*", "¿En qué puedo ayudarle?") in templates.read(SHIPPED / "1")
