"""A mapping proposed from names: a file that loads, and that says where it guessed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from relevo.db.pool import Database
from relevo.migration import proposal
from relevo.migration.mapping import DEFAULT, from_settings
from relevo.migration.preflight import blockers, structure
from tests.conftest import change

OTHER_V1 = """
    CREATE SCHEMA crm;
    CREATE TABLE crm.tenants (id uuid PRIMARY KEY, industry text, "businessName" text);
    CREATE TABLE crm.assistants (
        id uuid PRIMARY KEY, tenant_id uuid, vapi_assistant_id text, phone_number_id text, display_name text,
        prompt text, voice_id text, greeting text, estado text, created_at timestamptz, updated_at timestamptz);
    CREATE TABLE public.voice_calls (
        id uuid PRIMARY KEY, tenant_id uuid, call_id text, status text, started_at timestamptz, duration integer,
        latency_ms integer)
"""


async def test_the_proposal_for_other_names_leaves_nothing_in_the_way(database: Database) -> None:
    await change(database, OTHER_V1)
    text = await proposal.propose(database)
    mapping = from_settings(tomllib.loads(text)["source"])
    assert (mapping.tenants.name, mapping.configurations.name) == ("crm.tenants", "crm.assistants")
    assert mapping.configurations.fields["business_id"].read == "tenant_id"
    assert mapping.calls.fields["avg_latency_ms"].read == "latency_ms"
    assert "IN ('active'" in mapping.configurations.fields["is_active"].read
    assert mapping.tenants.fields["name"].read == "NULL", "no name is near enough to be guessed"
    assert blockers(await structure(database, mapping)) == []


async def test_the_specifications_names_need_no_proposal(sampled: Database) -> None:
    text = await proposal.propose(sampled)
    assert from_settings(tomllib.loads(text)["source"]) == DEFAULT


def test_what_looks_like_nothing_is_left_to_the_reader() -> None:
    text = proposal.as_toml({"public.invoices": {"id": "bigint"}})
    assert "no table looks like public.voice_agent_config" in text
    assert tomllib.loads(text)["source"] == {"configurations": {}, "calls": {}, "tenants": {}}


@pytest.mark.parametrize("column", ['od"d', "Mixed", "with space", "1st"])
def test_odd_names_survive_the_file(column: str) -> None:
    text = proposal.as_toml({"public.businesses": {"id": "uuid", "name": "text", column: "text", "vertical": "text"}})
    tomllib.loads(text)
    quoted = '"' + column.replace('"', '""') + '"'
    assert proposal._name(column) == quoted


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path, database_url: str) -> None:
    from relevo.cli import _run

    kept = tmp_path / "relevo.toml"
    kept.write_text("mine")
    assert _run(["preflight", "--propose", str(kept), "--database-url", database_url]) == 2
    assert kept.read_text() == "mine"
