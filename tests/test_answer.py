"""`relevo answer`: what v1 and v2 would say to a caller, side by side, before anybody is enabled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relevo.db.pool import Database
from relevo.migration import runner
from relevo.migration.run import Options
from tests.commands import relevo, succeeds
from tests.conftest import NOW, behind, change, load_sample, rows, value

PROMPT = (
    "Atiendes con gusto.\n\n## Horario\nDe nueve a seis.\n\n## Estacionamiento\nEn la esquina.\n\n"
    "## Instrucciones especiales\nNo aceptamos cheques."
)


async def moved(database: Database) -> None:
    result = await runner.migrate(database, Options(skip_backup=True), actor="test", clock=lambda: NOW)
    assert result.success, result.errors


async def a_clinic(database: Database, *, name: str | None = "Dental Ánimas", vertical: str | None = "dental") -> str:
    """A business with one active configuration, in v1 alone; returns its id."""
    tenant = str(await value(database, "SELECT gen_random_uuid()"))
    await change(
        database, "INSERT INTO public.businesses (id, name, vertical) VALUES (%s, %s, %s)", (tenant, name, vertical)
    )
    await change(
        database,
        """INSERT INTO public.voice_agent_config (id, business_id, assistant_name, system_prompt, voice_id,
                                                  first_message, is_active)
           VALUES (gen_random_uuid(), %s, 'Lupita', %s, 'voz-7', 'Bueno', true)""",
        (tenant, PROMPT),
    )
    return tenant


async def test_both_answers_stand_side_by_side(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    await moved(sampled)
    told = succeeds("answer", tenant, url=sampled.url)
    assert (told["tenant_id"], told["business_name"]) == (tenant, "Dental Ánimas")
    (config,) = told["configs"]
    assert config["is_active"] is True
    assert config["v1"] == {
        "assistant_name": "Lupita",
        "first_message": "Bueno",
        "voice_id": "voz-7",
        "system_prompt": PROMPT,
    }
    v2 = config["v2"]
    assert v2["assistant_name"] == "Recepción de Dental Ánimas"
    assert v2["first_message"] == "¡Gracias por llamar a Dental Ánimas! ¿En qué puedo ayudarle?"
    assert (v2["voice_id"], v2["voice_speed"], v2["template_version"], v2["unknown"]) == ("voz-7", 1.0, "1", [])
    assert (v2["assistant_type_id"], v2["enabled_capabilities"]) == ("dental_basic", ["business_hours"])
    assert v2["system_prompt"].endswith("## Instrucciones especiales\nNo aceptamos cheques.")
    assert "Hoy es" not in v2["system_prompt"]
    assert v2["added_at_call"].startswith("## Fecha y hora\nHoy es ")


async def test_what_v2_would_leave_out_is_told_with_its_place(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    await moved(sampled)
    (config,) = succeeds("answer", tenant, url=sampled.url)["configs"]
    assert [passage["text"] for passage in config["not_carried"]] == [
        "Atiendes con gusto.",
        "## Estacionamiento\nEn la esquina.",
    ]
    (retold,) = config["retold"]
    assert (retold["carried_by"], retold["text"]) == ("business_hours", "## Horario\nDe nueve a seis.")
    for passage in (*config["not_carried"], retold):
        assert PROMPT[passage["place"] - 1 :].startswith(passage["text"])


async def test_nothing_is_changed_by_asking(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    await moved(sampled)
    counted = "SELECT (SELECT count(*) FROM relevo.audit_log) + (SELECT count(*) FROM relevo.template_sets)"
    before = await value(sampled, counted), await rows(sampled, "SELECT * FROM public.voice_assistant_configs")
    succeeds("answer", tenant, url=sampled.url)
    after = await value(sampled, counted), await rows(sampled, "SELECT * FROM public.voice_assistant_configs")
    assert after == before


async def test_who_is_not_moved_yet_is_told_so(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    (config,) = succeeds("answer", tenant, url=sampled.url)["configs"]
    assert (config["v2"], config["v2_missing"]) == (None, "it has not been moved yet; run: relevo migrate")
    assert config["not_carried"] != []


async def test_who_is_set_aside_is_told_why(sampled: Database) -> None:
    tenant = await a_clinic(sampled, vertical=None)
    await moved(sampled)
    (config,) = succeeds("answer", tenant, url=sampled.url)["configs"]
    assert config["v2"] is None
    assert "it is set aside: its business has no vertical" in config["v2_missing"]


async def test_who_is_in_v2_alone_is_answered_by_v2(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    await moved(sampled)
    await behind(sampled, "DELETE FROM public.voice_agent_config WHERE business_id = %s", (tenant,))
    (config,) = succeeds("answer", tenant, url=sampled.url)["configs"]
    assert (config["v1"], config["not_carried"], config["retold"]) == (None, [], [])
    assert config["v2"]["assistant_type_id"] == "dental_basic"


async def test_a_business_without_a_configuration_is_answered_by_nobody(sampled: Database) -> None:
    await change(
        sampled, "INSERT INTO public.businesses (id, name, vertical) VALUES (gen_random_uuid(), 'Sola', 'dental')"
    )
    assert succeeds("answer", "Sola", url=sampled.url)["configs"] == []


async def test_a_tenant_is_known_by_id_by_its_beginning_or_by_name(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    for word in (tenant, tenant.upper(), tenant[:13], "dental animas", " DENTAL ÁNIMAS "):
        assert succeeds("answer", word, url=sampled.url)["tenant_id"] == tenant


async def test_a_business_without_a_name_is_answered_too(sampled: Database) -> None:
    tenant = await a_clinic(sampled, name=None)
    await moved(sampled)
    (config,) = succeeds("answer", tenant, url=sampled.url)["configs"]
    assert config["v2"]["first_message"].startswith("¡Gracias por llamar a nuestra clínica!")
    assert config["v2"]["unknown"] == ["business name"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("Dental Animal", "there is no tenant 'Dental Animal'. Did you mean 'Dental Ánimas'"),
        ("zzzzzz", "there is no tenant 'zzzzzz'."),
        ("", "there is no tenant ''."),
        ("0f8b2a9e-6c1d-4e57-9a35-3d2f1c7b8e90", "there is no tenant"),
        ("100%", "there is no tenant '100%'."),
    ],
)
async def test_an_unknown_tenant_is_an_error(sampled: Database, word: str, told: str) -> None:
    await a_clinic(sampled)
    answered = relevo("answer", word, url=sampled.url)
    assert (answered.status, answered.data["error"]["code"]) == (2, "UnknownName")
    assert answered.data["error"]["message"].startswith(told)


async def test_several_tenants_of_one_name_are_told_apart_by_id(sampled: Database) -> None:
    ids = {await a_clinic(sampled), await a_clinic(sampled)}
    answered = relevo("answer", "dental ánimas", url=sampled.url)
    assert answered.status == 2
    assert all(each in answered.data["error"]["message"] for each in ids)


async def test_without_the_schema_the_command_says_so(database: Database) -> None:
    await load_sample(database, tenants=2, calls=5)
    answered = relevo("answer", "x", url=database.url)
    assert (answered.status, answered.data["error"]["code"]) == (3, "SchemaMissing")


async def test_the_hour_is_that_of_the_business(sampled: Database, tmp_path: Path) -> None:
    tenant = await a_clinic(sampled)
    await moved(sampled)
    hours = []
    for zone in ("Etc/GMT+12", "Etc/GMT-14"):
        config = tmp_path / "relevo.toml"
        config.write_text(f"[source.tenants.fields]\ntime_zone = \"'{zone}'\"\n", encoding="utf-8")
        (told,) = succeeds("answer", tenant, url=sampled.url, config=config)["configs"]
        hours.append(told["v2"]["added_at_call"].split(" y ")[1])
    assert hours[0] != hours[1]


async def test_people_read_what_v2_leaves_out_without_colour(sampled: Database) -> None:
    tenant = await a_clinic(sampled)
    await moved(sampled)
    page = printed("answer", tenant, url=sampled.url)
    assert "v1 says, and v2 would not:\n  - Atiendes con gusto.\n  - ## Estacionamiento En la esquina." in page
    assert "  - business_hours: ## Horario De nueve a seis." in page
    assert "Recepción de Dental Ánimas" in page
    await change(sampled, "UPDATE public.voice_assistant_configs SET personality_type = 'grumpy'")
    assert "pass over what they do not know: personality grumpy" in printed("answer", tenant, url=sampled.url)


async def test_people_publish_and_read_texts(sampled: Database, tmp_path: Path) -> None:
    folder = tmp_path / "2"
    for piece in succeeds("templates", "show", "1", url=sampled.url):
        file = folder / piece["part"] / f"{'any' if piece['key'] == '*' else piece['key']}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(piece["body"], encoding="utf-8")
    made = succeeds("templates", "publish", str(folder), "--note", "the same", url=sampled.url)
    assert (made["version"], made["configurations"]) == ("2", 0)
    assert [each["version"] for each in succeeds("templates", "list", url=sampled.url)] == ["1", "2"]
    (folder / "offers" / "any.md").write_text("¿Qué? {x}", encoding="utf-8")
    refused = relevo("templates", "publish", str(folder.rename(tmp_path / "3")), "--note", "x", url=sampled.url)
    assert (refused.status, refused.data["error"]["code"]) == (2, "TemplatesFaulty")


def printed(*words: str, url: str) -> str:
    """What a command shows people, without colour."""
    command: list[Any] = [sys.executable, "-m", "relevo", *words, "--database-url", url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
