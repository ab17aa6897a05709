"""What stands in the way of the move, found before it begins: structure blocks, rows only warn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from relevo.db import migrations
from relevo.db.pool import Database, one
from relevo.errors import ConfigurationError, Refused, UnknownName
from relevo.migration import preflight, runner
from relevo.migration.mapping import DEFAULT, SourceMapping, from_settings
from relevo.migration.preflight import Finding
from relevo.migration.run import Options
from tests.conftest import OWNER, change, copied, made
from tests.servers import Server


def uid(number: int) -> str:
    return str(UUID(int=number))


A, B, NOBODY = uid(1), uid(2), uid(99)
FIRST_CONFIG, FIRST_CALL = uid(101), uid(201)

V1 = (resources.files("relevo") / "sql" / "sample.sql").read_text(encoding="utf-8")
SOUND = f"""
    INSERT INTO public.businesses (id, name, vertical) VALUES ('{A}', 'a', 'restaurant'), ('{B}', 'b', 'dental');
    INSERT INTO public.voice_agent_config (id, business_id, phone_number_id, vapi_assistant_id)
    VALUES ('{FIRST_CONFIG}', '{A}', '+1', 'asst-1'), ('{uid(102)}', '{B}', '+2', 'asst-2');
    INSERT INTO public.voice_calls (id, business_id, vapi_call_id)
    VALUES ('{FIRST_CALL}', '{A}', 'call-1'), ('{uid(202)}', '{B}', 'call-2');
"""


def config(number: int, business: str | None, more: str = "") -> str:
    """A statement that adds a configuration; ``more``: column = value, …"""
    return _insert("voice_agent_config", f"id = {uid(number)!r}, business_id = {_text(business)}", more)


def call(number: int, business: str | None, more: str = "") -> str:
    return _insert("voice_calls", f"id = {uid(number)!r}, business_id = {_text(business)}", more)


def business(identity: str, vertical: str | None) -> str:
    return _insert("businesses", f"id = {identity!r}, vertical = {_text(vertical)}")


def _text(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"


def _insert(table: str, *assignments: str) -> str:
    pairs = [pair.split(" = ") for each in assignments if each for pair in each.split(", ")]
    return f"INSERT INTO public.{table} ({', '.join(p[0] for p in pairs)}) VALUES ({', '.join(p[1] for p in pairs)});"


@pytest_asyncio.fixture
async def bare(database: Database) -> Database:
    """A v1 of two tenants in which nothing is wrong, and nothing of ours."""
    await change(database, V1)
    await change(database, SOUND)
    return database


@pytest_asyncio.fixture(scope="module")
async def sound_template(server: Server) -> AsyncIterator[str]:
    """The name of a database with both, to which nobody is connected: for copies."""
    with made(server, "sound_of_tests") as url:
        async with Database(url) as opened:
            await change(opened, V1)
            await change(opened, SOUND)
            await migrations.up(opened)
        yield "sound_of_tests"


@pytest_asyncio.fixture
async def sound(server: Server, sound_template: str) -> AsyncIterator[Database]:
    """The same with Relevo's schema."""
    with copied(server, sound_template) as url:
        async with Database(url) as opened:
            yield opened


async def inspect(
    database: Database,
    tenants: Iterable[str] | None = None,
    *,
    mapping: SourceMapping = DEFAULT,
    free_bytes: int | None = None,
) -> dict[str, Finding]:
    ids = None if tenants is None else [UUID(tenant) for tenant in tenants]
    findings = await preflight.inspect(database, mapping, tenant_ids=ids, free_bytes=free_bytes)
    return {finding.code: finding for finding in findings}


async def test_what_dual_write_cannot_do_is_told_with_the_line_to_add(sound: Database) -> None:
    await change(
        sound,
        """ALTER TABLE public.voice_agent_config ADD plan text NOT NULL DEFAULT 'x', ADD city text;
           ALTER TABLE public.voice_agent_config ALTER plan DROP DEFAULT""",
    )
    fields = {"voice_id": "lower(voice_id)", "is_active": 'v1."is_active"'}
    found = await inspect(sound, mapping=from_settings({"configurations": {"fields": fields}}))
    assert {code: each.severity for code, each in found.items()} == {
        "not_written_back": "warning",
        "required_columns": "warning",
    }
    assert "v1's voice_id:" in found["not_written_back"].message
    assert "voice_id = {read" in found["not_written_back"].fix
    assert "requires plan," in found["required_columns"].message
    assert '[source.configurations.defaults] plan = "…"' in found["required_columns"].fix
    mended = {
        "fields": {**fields, "voice_id": {"read": "lower(voice_id)", "write": {"voice_id": "{value}"}}},
        "defaults": {"plan": "'básico'"},
    }
    assert await inspect(sound, mapping=from_settings({"configurations": mended})) == {}


async def test_a_sound_v1_has_no_findings(sound: Database) -> None:
    assert await inspect(sound) == {}


async def test_an_empty_v1_has_no_findings(ready: Database) -> None:
    await change(ready, V1)
    assert await inspect(ready) == {}


class Defect(NamedTuple):
    """A world where a defect occurs, which rows show it, and a world that comes close to it but is sound."""

    code: str
    world: str
    examples: tuple[str, ...]
    close: str
    severity: str = "warning"


DEFECTS = (
    Defect("config_without_business", config(103, None), (uid(103),), business(NOBODY, None)),
    Defect(
        "config_with_unknown_business",
        config(103, NOBODY),
        (uid(103),),
        business(NOBODY, "dental") + config(103, NOBODY),
    ),
    Defect(
        "config_without_vertical",
        f"UPDATE public.businesses SET vertical = NULL WHERE id = '{A}'",
        (FIRST_CONFIG,),
        business(NOBODY, None),
    ),
    Defect(
        "config_without_vertical",
        f"UPDATE public.businesses SET vertical = E' \\t\\u3000\\u00A0' WHERE id = '{A}'",
        (FIRST_CONFIG,),
        f"UPDATE public.businesses SET vertical = 'dental' WHERE id = '{A}'",
    ),
    Defect(
        "config_without_id",
        "ALTER TABLE public.voice_agent_config DROP CONSTRAINT voice_agent_config_pkey;"
        "ALTER TABLE public.voice_agent_config ALTER id DROP NOT NULL;"
        f"INSERT INTO public.voice_agent_config (business_id, is_active) VALUES ('{A}', false)",
        (A,),
        "ALTER TABLE public.voice_agent_config DROP CONSTRAINT voice_agent_config_pkey",
    ),
    Defect(
        "duplicate_config_id",
        "ALTER TABLE public.voice_agent_config DROP CONSTRAINT voice_agent_config_pkey;"
        + config(101, A, "is_active = false"),
        (FIRST_CONFIG,),
        config(103, A, "is_active = false"),
        "blocker",
    ),
    Defect(
        "duplicate_business_id",
        "ALTER TABLE public.businesses DROP CONSTRAINT businesses_pkey;" + business(A, "restaurant"),
        (A,),
        business(NOBODY, "restaurant"),
        "blocker",
    ),
    Defect(
        "duplicate_phone_number",
        f"UPDATE public.voice_agent_config SET phone_number_id = '+1' WHERE business_id = '{B}'",
        ("+1",),
        f"UPDATE public.voice_agent_config SET phone_number_id = '';{config(103, A, 'is_active = false')}",
    ),
    Defect(
        "duplicate_assistant",
        f"UPDATE public.voice_agent_config SET vapi_assistant_id = 'asst-1' WHERE business_id = '{B}'",
        ("asst-1",),
        config(103, A, "is_active = false, vapi_assistant_id = 'asst-1'"),
    ),
    Defect("several_active_configs", config(103, A), (A,), config(103, A, "is_active = false")),
    Defect("call_without_business", call(203, None), (uid(203),), call(203, A)),
    Defect("call_with_unknown_business", call(203, NOBODY), (uid(203),), business(NOBODY, None) + call(203, NOBODY)),
    Defect(
        "duplicate_vapi_call_id",
        call(203, A, "vapi_call_id = 'call-1'"),
        ("call-1",),
        call(203, A, "vapi_call_id = ''") + call(204, A, "vapi_call_id = ''") + call(205, A) + call(206, A),
    ),
    Defect(
        "vertical_without_rules",
        f"UPDATE public.businesses SET vertical = 'florist' WHERE id = '{A}'",
        ("florist (1)",),
        business(NOBODY, "florist"),
    ),
    Defect(
        "vertical_without_rules",  # case counts, as it does for v1
        f"UPDATE public.businesses SET vertical = 'Dental' WHERE id = '{A}'",
        ("Dental (1)",),
        f"UPDATE public.businesses SET vertical = 'dental' WHERE id = '{A}'",
    ),
)


async def test_white_space_means_the_same_before_and_after_the_schema(ready: Database) -> None:
    async with ready.transaction() as connection:
        query = sql.SQL("SELECT {white_space} = relevo.white_space() AS same").format(**preflight._WHITE)
        assert await one(connection, query) == {"same": True}


def test_every_defect_has_its_worlds() -> None:
    assert {defect.code for defect in DEFECTS} >= preflight._DEFECTS.keys()


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.code)
async def test_a_defect_is_found_where_it_is_and_only_there(sound: Database, defect: Defect) -> None:
    async with sound.transaction() as connection:
        await connection.execute(defect.world.encode())
        found = {f.code: f for f in await preflight.rows(connection, DEFAULT, tenant_ids=None)}
        assert found.keys() == {defect.code}
        finding = found[defect.code]
        assert (finding.severity, finding.count, finding.examples) == (defect.severity, 1, defect.examples)
        assert finding.message.endswith(": 1")
        assert finding.fix
        raise psycopg.Rollback
    await change(sound, defect.close)
    assert await inspect(sound) == {}


MANY = MappingProxyType(
    {
        "config_without_business": """INSERT INTO public.voice_agent_config (id)
            SELECT lpad(n::text, 32, '0')::uuid FROM generate_series(1001, 1012) AS n""",
        "call_without_business": """INSERT INTO public.voice_calls (id)
            SELECT lpad(n::text, 32, '0')::uuid FROM generate_series(1001, 1012) AS n""",
        "duplicate_vapi_call_id": f"""INSERT INTO public.voice_calls (id, business_id, vapi_call_id)
            SELECT gen_random_uuid(), '{A}', lpad(n::text, 32, '0')
            FROM generate_series(1001, 1012) AS n, generate_series(1, 3)""",
    }
)


@pytest.mark.parametrize("code", MANY)
async def test_all_are_counted_and_ten_are_named(sound: Database, code: str) -> None:
    await change(sound, MANY[code])
    finding = (await inspect(sound))[code]
    assert finding.count == 12
    assert finding.message.endswith(": 12")
    assert [example.replace("-", "") for example in finding.examples] == [f"{n:032}" for n in range(1001, 1011)]


async def test_only_the_tenants_asked_for_are_looked_at(sound: Database) -> None:
    for number, tenant in enumerate((A, B)):
        await change(sound, config(110 + number, tenant))
        await change(sound, call(210 + number, tenant, f"vapi_call_id = 'call-{number + 1}'"))
    await change(sound, config(120, None))
    await change(sound, call(220, None))
    await change(sound, call(221, NOBODY))
    assert (await inspect(sound)).keys() == {
        "several_active_configs",
        "duplicate_vapi_call_id",
        "config_without_business",
        "call_without_business",
        "call_with_unknown_business",
    }
    of_a = await inspect(sound, [A])
    assert {code: (finding.count, finding.examples) for code, finding in of_a.items()} == {
        "several_active_configs": (1, (A,)),
        "duplicate_vapi_call_id": (1, ("call-1",)),
    }
    assert (await inspect(sound, [A, B]))["several_active_configs"].count == 2


async def test_a_vertical_without_rules_matters_to_those_who_have_it(sound: Database) -> None:
    await change(sound, f"UPDATE public.businesses SET vertical = 'florist' WHERE id = '{A}'")
    assert (await inspect(sound, [A])).keys() == {"vertical_without_rules"}
    assert await inspect(sound, [B]) == {}


async def test_a_business_that_is_there_twice_matters_to_those_who_are_it(sound: Database) -> None:
    await change(sound, "ALTER TABLE public.businesses DROP CONSTRAINT businesses_pkey")
    await change(sound, business(A, "restaurant"))
    assert (await inspect(sound, [A])).keys() == {"duplicate_business_id"}
    assert await inspect(sound, [B]) == {}


async def test_an_unknown_tenant_is_no_silent_nothing(sound: Database) -> None:
    with pytest.raises(UnknownName, match=f"no tenant {uid(3)}.*Did you mean .*{uid(1)}"):
        await preflight.require_tenants(sound, DEFAULT, [UUID(A), UUID(uid(3))])
    await preflight.require_tenants(sound, DEFAULT, [UUID(A), UUID(B)])


async def test_what_v2_holds_is_told_by_whose_it_is(sound: Database) -> None:
    foreign = """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id)
                 VALUES (gen_random_uuid(), %s, 'rest_basic')"""
    await change(sound, foreign, [UUID(B)])
    only = (await inspect(sound)).values()
    assert [(f.severity, f.code, f.count) for f in only] == [("warning", "foreign_rows_in_v2", 1)]
    assert await inspect(sound, [A]) == {}

    await runner.migrate(sound, Options(tenant_ids=(UUID(A),)), actor="test")
    found = [(f.severity, f.code, f.count) for f in (await inspect(sound)).values()]
    assert found == [("warning", "foreign_rows_in_v2", 1), ("notice", "already_moved", 1)]
    assert (await inspect(sound, [A])).keys() == {"already_moved"}


async def test_without_our_schema_the_rows_are_looked_at_all_the_same(bare: Database) -> None:
    await change(bare, config(103, None))
    found = await inspect(bare)
    assert {code: f.severity for code, f in found.items()} == {
        "config_without_business": "warning",
        "schema_not_applied": "notice",
    }
    await migrations.up(bare)
    assert (await inspect(bare)).keys() == {"config_without_business"}


async def test_blockers_come_first_and_the_rows_then_wait(sound: Database) -> None:
    await change(sound, config(103, None))
    await change(sound, "ALTER TABLE public.businesses DROP CONSTRAINT businesses_pkey")
    await change(sound, business(A, "restaurant"))
    severities = [finding.severity for finding in (await inspect(sound)).values()]
    assert severities == ["blocker", "warning"]
    await change(sound, "DROP TABLE public.voice_calls")
    assert (await inspect(sound)).keys() == {"table_missing"}


def test_a_refusal_names_the_first_blocker_and_how_many_more() -> None:
    preflight.refuse_blocked([Finding("warning", "a", "a thing", "mend it")])
    first, more = Finding("blocker", "a", "no table", "make one"), Finding("blocker", "b", "b", "b")
    with pytest.raises(Refused, match=r"^no table$") as alone:
        preflight.refuse_blocked([first])
    assert alone.value.fix == "make one"
    with pytest.raises(Refused, match=r"^no table \(and 1 more"):
        preflight.refuse_blocked([first, more])


class Structure(NamedTuple):
    """A blocker of the structure: what a superuser does to bring it about, and to come close to it."""

    code: str
    world: str
    message: str
    fix: str
    close: str


# The {guest}, who is asked, owns the tables.
STRUCTURES = (
    Structure(
        "table_missing",
        "ALTER TABLE public.businesses RENAME TO companies",
        "there is no table public.businesses, from which tenants are read",
        '[source.tenants] table = "…"',
        "ALTER TABLE public.businesses RENAME TO companies; CREATE VIEW public.businesses AS SELECT * FROM companies;"
        " GRANT SELECT ON public.businesses TO {guest}",
    ),
    Structure(
        "column_missing",
        "ALTER TABLE public.businesses RENAME vertical TO verticals",
        "public.businesses has no column vertical. Did you mean 'verticals'?",
        '[source.tenants.fields] vertical = "…"',
        "ALTER TABLE public.businesses DROP time_zone",
    ),
    Structure(
        "no_privilege",
        "REVOKE SELECT ON public.businesses FROM {guest}",
        "this role lacks the right SELECT on public.businesses",
        "GRANT SELECT ON public.businesses",
        "REVOKE UPDATE, INSERT, DELETE, TRIGGER ON public.businesses FROM {guest}",
    ),
    Structure(
        "no_privilege",
        "REVOKE UPDATE ON public.voice_agent_config FROM {guest}",
        "this role lacks the right UPDATE on public.voice_agent_config",
        "GRANT UPDATE ON public.voice_agent_config",
        "REVOKE INSERT, DELETE ON public.voice_agent_config FROM {guest}",
    ),
    Structure(
        "no_privilege",
        "ALTER SCHEMA public OWNER TO CURRENT_USER; REVOKE USAGE ON SCHEMA public FROM {guest}, PUBLIC",
        "this role lacks the right USAGE on schema public",
        "GRANT USAGE ON schema public",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ),
    Structure(
        "not_owner",
        "ALTER TABLE public.voice_calls OWNER TO CURRENT_USER; GRANT ALL ON public.voice_calls TO {guest}",
        "public.voice_calls belongs to another role",
        "connect as the owner of public.voice_calls",
        "ALTER TABLE public.voice_calls ADD outcome text, ADD agent_version text, OWNER TO CURRENT_USER;"
        " GRANT ALL ON public.voice_calls TO {guest}",
    ),
    Structure(
        "not_owner",
        "ALTER TABLE public.voice_agent_config OWNER TO CURRENT_USER;"
        " GRANT ALL ON public.voice_agent_config TO {guest}",
        "dual write cannot put its triggers on it",
        "connect as the owner of public.voice_agent_config",
        "CREATE ROLE owner_of_{guest}; GRANT owner_of_{guest} TO {guest};"
        " ALTER TABLE public.voice_agent_config OWNER TO owner_of_{guest}",
    ),
    Structure(
        "rows_hidden",
        "ALTER TABLE public.businesses ENABLE ROW LEVEL SECURITY, OWNER TO CURRENT_USER;"
        " GRANT ALL ON public.businesses TO {guest}",
        "row level security of public.businesses may hide rows",
        "BYPASSRLS",
        "ALTER TABLE public.voice_calls ENABLE ROW LEVEL SECURITY",  # of its owner it hides nothing
    ),
    Structure(
        "rows_hidden",
        "ALTER TABLE public.voice_calls ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "row level security of public.voice_calls may hide rows",
        "BYPASSRLS",
        "ALTER TABLE public.voice_calls FORCE ROW LEVEL SECURITY",
    ),
    Structure(
        "not_a_table",
        "ALTER TABLE public.voice_agent_config RENAME TO settings;"
        " CREATE VIEW public.voice_agent_config AS SELECT * FROM settings;"
        " GRANT ALL ON public.voice_agent_config TO {guest}",
        "public.voice_agent_config is a view",
        '[source.configurations] table = "…"',
        "ALTER TABLE public.voice_calls RENAME TO old;"
        " CREATE TABLE public.voice_calls (LIKE old) PARTITION BY HASH (id);"
        " ALTER TABLE public.voice_calls OWNER TO {guest}",
    ),
    Structure(
        "cannot_be_read",
        "ALTER TABLE public.businesses ALTER id DROP DEFAULT, DROP CONSTRAINT businesses_pkey,"
        " ALTER id TYPE bigint USING 1",
        "public.businesses cannot be read as it should be: cannot cast type bigint to uuid",
        "[source.tenants.fields]",
        "ALTER TABLE public.businesses ALTER id TYPE text",
    ),
)


@pytest.mark.parametrize("close", [False, True], ids=["there", "close"])
@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.code)
async def test_the_structure_blocks(server: Server, bare: Database, case: Structure, close: bool) -> None:
    name = bare.url.rsplit("/", 1)[1]
    guest = f"guest_of_{name}"
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute(
            f"""CREATE ROLE {guest} LOGIN; GRANT ALL ON SCHEMA public TO {guest};
                ALTER TABLE public.businesses OWNER TO {guest};
                ALTER TABLE public.voice_agent_config OWNER TO {guest};
                ALTER TABLE public.voice_calls OWNER TO {guest}""".encode()
        )
        connection.execute((case.close if close else case.world).format(guest=guest).encode())
    async with Database(server.url(name, guest)) as database:
        found = await inspect(database)
        assert found.pop("schema_not_applied").severity == "notice"
        if close:
            # A view bears no triggers: dual write goes without it, and says so.
            assert set(found) == ({"tenants_not_watched"} if case.code == "table_missing" else set())
            return
        assert {code: finding.severity for code, finding in found.items()} == {case.code: "blocker"}
        assert case.message in found[case.code].message
        assert case.fix in found[case.code].fix
        with pytest.raises(Refused):
            await runner.migrate(database, Options(), actor="test")


async def test_a_member_of_the_owner_is_as_good_as_the_owner(server: Server, bare: Database) -> None:
    name = bare.url.rsplit("/", 1)[1]
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE member_of_{name} LOGIN IN ROLE {OWNER}".encode())
        connection.execute("ALTER TABLE public.voice_calls ENABLE ROW LEVEL SECURITY")
    async with Database(server.url(name, f"member_of_{name}")) as database:
        assert (await inspect(database)).keys() == {"schema_not_applied"}


async def test_a_value_that_cannot_be_read_blocks(sound: Database) -> None:
    await change(sound, "ALTER TABLE public.voice_agent_config ALTER id TYPE text")
    assert await inspect(sound) == {}
    await change(sound, f"INSERT INTO public.voice_agent_config (id, business_id) VALUES ('seven', '{A}')")
    found = await inspect(sound)
    assert {code: f.severity for code, f in found.items()} == {"unreadable_value": "blocker"}
    assert 'invalid input syntax for type uuid: "seven"' in found["unreadable_value"].message


class Around(NamedTuple):
    """Something around the tables: what a superuser does to bring it about, how grave it is, and what comes close."""

    code: str
    severity: str
    world: str
    message: str
    close: str


TELLS = """
    CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER tells AFTER {event} ON public.voice_calls FOR EACH ROW EXECUTE FUNCTION public.tell();
"""
BROWSER = """
    DO $$ BEGIN CREATE ROLE anon; EXCEPTION WHEN duplicate_object THEN END $$;
    GRANT USAGE ON SCHEMA public TO anon;
"""
AROUND = (
    Around(
        "exposed",
        "warning",
        BROWSER + "GRANT SELECT ON public.voice_agent_config TO anon",
        "public.voice_agent_config can be read by anon",
        BROWSER + "GRANT SELECT ON public.voice_agent_config TO anon;"
        " ALTER TABLE public.voice_agent_config ENABLE ROW LEVEL SECURITY",
    ),
    Around(
        "user_trigger",
        "warning",
        TELLS.format(event="UPDATE"),
        "trigger tells on public.voice_calls fires",
        TELLS.format(event="INSERT"),
    ),
    Around(
        "statement_timeout",
        "notice",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 5000', current_database()); END $$",
        "cut off after 5000ms",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 5000', current_database()); END $$",
    ),
    Around(
        "many_calls",
        "warning",
        "UPDATE pg_class SET reltuples = 6000000 WHERE oid = 'public.voice_calls'::regclass",
        "calls to back up: about 6,000,000",
        "UPDATE pg_class SET reltuples = 5000000 WHERE oid = 'public.voice_calls'::regclass",
    ),
    Around(
        "outcome_check",
        "warning",
        "UPDATE public.voice_calls SET status = 'failed';"
        " ALTER TABLE public.voice_calls ADD outcome text CHECK (outcome IN ('unknown', 'completed'))",
        "CHECK refuses: 2",
        "UPDATE public.voice_calls SET status = 'failed';"
        " ALTER TABLE public.voice_calls ADD outcome text CHECK (outcome IN ('unknown', 'failed'))",
    ),
)


@pytest.mark.parametrize("close", [False, True], ids=["there", "close"])
@pytest.mark.parametrize("case", AROUND, ids=lambda case: case.code)
async def test_what_surrounds_the_tables_is_told(server: Server, sound: Database, case: Around, close: bool) -> None:
    with psycopg.connect(server.url(sound.url.rsplit("/", 1)[1]), autocommit=True) as connection:
        connection.execute((case.close if close else case.world).encode())
    async with Database(sound.url) as database:
        found = await inspect(database)
    if close:
        assert found == {}
        return
    assert {code: finding.severity for code, finding in found.items()} == {case.code: case.severity}
    assert case.message in found[case.code].message
    assert found[case.code].fix


async def test_a_disk_without_room_for_the_backup_blocks(sound: Database) -> None:
    full = await inspect(sound, free_bytes=1_000)
    assert {code: finding.severity for code, finding in full.items()} == {"disk": "blocker"}
    assert await inspect(sound, free_bytes=10**9) == {}


async def test_a_table_of_our_name_and_another_shape_blocks(bare: Database) -> None:
    await change(bare, "CREATE TABLE public.voice_assistant_types (name integer)")
    found = await inspect(bare)
    assert found.keys() == {"foreign_shape", "schema_not_applied"}
    assert found["foreign_shape"].severity == "blocker"
    assert "public.voice_assistant_types exists already" in found["foreign_shape"].message


async def test_a_mapped_expression_must_work(bare: Database) -> None:
    await change(bare, "ALTER TABLE public.businesses RENAME vertical TO kind")

    def reading(expression: str) -> SourceMapping:
        return from_settings({"tenants": {"fields": {"vertical": expression}}})

    assert (await inspect(bare, mapping=reading("lower(v1.kind)"))).keys() == {"schema_not_applied"}
    found = await inspect(bare, mapping=reading("lower(v1.kin)"))
    assert found["expression_fails"].severity == "blocker"
    assert "source.tenants.fields.vertical does not work: column v1.kin does not exist" in (
        found["expression_fails"].message
    )
    with pytest.raises(ConfigurationError, match=r"source\.tenants\.fields\.vertical does not parse"):
        await inspect(bare, mapping=reading("lower(v1.kind"))
