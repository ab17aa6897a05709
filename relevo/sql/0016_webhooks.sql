-- The router: its signing keys, the calls it could not place, the numbers at Vapi, and what its own back end was told.

-- Keys that pins are signed with. The newest signs; one that is retired is not accepted any more.
CREATE TABLE relevo.webhook_keys (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    secret     bytea NOT NULL CHECK (octet_length(secret) >= 32)
               DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
INSERT INTO relevo.webhook_keys DEFAULT VALUES;

-- Calls of which nobody could tell whom they were for: what an operator needs to find out.
CREATE TABLE relevo.unplaced_calls (
    call_id      text PRIMARY KEY CHECK (call_id <> ''),
    message_type text NOT NULL,
    number_id    text,
    number       text,
    assistant_id text,
    why          text NOT NULL,
    messages     bigint NOT NULL DEFAULT 1,
    first_at     timestamptz NOT NULL,
    last_at      timestamptz NOT NULL
);
CREATE INDEX unplaced_calls_last ON relevo.unplaced_calls (last_at);

-- The numbers at Vapi as they were last seen, and what release puts back. A number bound to something never asks us.
CREATE TABLE relevo.vapi_numbers (
    id           text PRIMARY KEY CHECK (id <> ''),
    number       text,
    name         text,
    assistant_id text,
    squad_id     text,
    workflow_id  text,
    fallback     jsonb,
    server       jsonb,
    bound        boolean NOT NULL GENERATED ALWAYS AS
                 (coalesce(assistant_id, squad_id, workflow_id) IS NOT NULL) STORED,
    seen_at      timestamptz NOT NULL,
    adopted_at   timestamptz,
    adopted_by   text,
    before       jsonb,  -- what adopting changed, as it was
    CHECK ((adopted_at IS NULL) = (before IS NULL) AND (adopted_at IS NULL) = (adopted_by IS NULL))
);
CREATE INDEX vapi_numbers_number ON relevo.vapi_numbers (number);

-- What the built-in back end was asked to do, each once, and what it answered.
CREATE TABLE relevo.tool_calls (
    call_id      text NOT NULL CHECK (call_id <> ''),
    tool_call_id text NOT NULL CHECK (tool_call_id <> ''),
    tenant_id    text,
    version      text NOT NULL CHECK (version IN ('v1', 'v2')),
    name         text NOT NULL,
    arguments    jsonb NOT NULL,
    result       text,
    error        text,
    outcome      text CHECK (outcome IN ('reservation_created', 'appointment_created', 'order_created')),
    at           timestamptz NOT NULL,
    PRIMARY KEY (call_id, tool_call_id),
    CHECK ((result IS NULL) <> (error IS NULL)),
    CHECK (outcome IS NULL OR error IS NULL)
);
CREATE INDEX tool_calls_at ON relevo.tool_calls (at);  -- the oldest are forgotten first

-- v1 as it is, or nothing where it is retired or the platform has dropped it: v2 must still be answered.
CREATE FUNCTION relevo.v1_as_it_is() RETURNS SETOF relevo.v1_config
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    IF NOT relevo.v1_is_retired() THEN
        RETURN QUERY SELECT * FROM relevo.v1_configurations();
    END IF;
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name THEN
    RETURN;
END $$;

-- The same of some of them, by key: the rest is not read.
CREATE FUNCTION relevo.v1_as_it_is(ids uuid[]) RETURNS SETOF relevo.v1_config
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    IF NOT relevo.v1_is_retired() THEN
        RETURN QUERY SELECT * FROM relevo.v1_by_id(ids);
    END IF;
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name OR undefined_function THEN
    RETURN;
END $$;

CREATE FUNCTION relevo.tenants_as_they_are()
RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text,
               human_phone_number text)
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    RETURN QUERY SELECT * FROM relevo.v1_tenants();
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name THEN
    RETURN;
END $$;

-- Where a person of a business answers: the number that Vapi itself transfers to, else the business's own. Null where that
-- is none that Vapi would take: an assistant with such a one is refused as a whole.
CREATE FUNCTION relevo.human_line(fallback jsonb, own text) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN coalesce(
    fallback ->> 'number',
    CASE WHEN translate(own, ' ()-.', '') COLLATE "C" ~ '^\+[1-9][0-9]{6,14}$' THEN translate(own, ' ()-.', '') END);

-- How many minutes a time zone is ahead of UTC.
CREATE FUNCTION relevo.minutes_from_utc(now timestamptz, time_zone text) RETURNS integer
LANGUAGE sql STABLE
RETURN round(extract(epoch FROM relevo.local_time(now, time_zone) - (now AT TIME ZONE 'UTC')) / 60);

-- Every configuration of a tenant, and by what its calls are known; ``stamp`` changes when what is said of it may change.
-- In buckets, so that a reader who knows a bucket's digest reads no more than what differs.
CREATE FUNCTION relevo.directory(now timestamptz)
RETURNS TABLE (config_id text, bucket integer, tenant_id text, active boolean, since double precision, in_v1 boolean,
               in_v2 boolean, number_ids text[], number text, v1_assistant text, v2_assistant text, human_line text,
               minutes_from_utc integer, stamp text)
LANGUAGE sql STABLE SET search_path = '' AS $$
    -- Of each row a hash is taken first: sorted and joined with their prompts, they would not fit into memory.
    WITH v1 AS MATERIALIZED (
        SELECT c.id, c.business_id, c.is_active, c.created_at, c.phone_number_id, c.vapi_assistant_id,
               hashtextextended(c::text, 0) AS hash
        FROM relevo.v1_as_it_is() AS c
    ), v2 AS MATERIALIZED (
        SELECT c.id, c.business_id, c.is_active, c.created_at, c.phone_number_id, c.vapi_assistant_id,
               hashtextextended(c::text, 0) AS hash
        FROM public.voice_assistant_configs AS c
    ), tenant AS MATERIALIZED (
        SELECT t.id, t.time_zone, t.phone_number, t.human_phone_number, hashtextextended(t::text, 0) AS hash
        FROM relevo.tenants_as_they_are() AS t
    )
    , zone AS MATERIALIZED (
        SELECT z.time_zone, relevo.minutes_from_utc(now, z.time_zone) AS minutes
        FROM (SELECT DISTINCT time_zone FROM tenant UNION SELECT NULL) AS z
    )
    SELECT coalesce(v1.id, v2.id)::text, (hashtextextended(coalesce(v1.id, v2.id)::text, 0) & 255)::integer,
           coalesce(v2.business_id, v1.business_id)::text, coalesce(coalesce(v2.is_active, v1.is_active), false),
           extract(epoch FROM coalesce(v2.created_at, v1.created_at))::double precision,
           v1.id IS NOT NULL, v2.id IS NOT NULL AND q.config_id IS NULL,
           array_remove(ARRAY[nullif(v1.phone_number_id, ''), nullif(v2.phone_number_id, '')], NULL),
           nullif(tenant.phone_number, ''), nullif(v1.vapi_assistant_id, ''), nullif(v2.vapi_assistant_id, ''),
           relevo.human_line(n.fallback, tenant.human_phone_number), zone.minutes,
           concat_ws('|', v1.hash, v2.hash, tenant.hash, q.config_id)
    FROM v1 FULL JOIN v2 ON v2.id = v1.id
    LEFT JOIN tenant ON tenant.id = coalesce(v2.business_id, v1.business_id)
    LEFT JOIN zone ON zone.time_zone IS NOT DISTINCT FROM tenant.time_zone
    LEFT JOIN relevo.quarantine q ON q.config_id = coalesce(v1.id, v2.id)::text
    LEFT JOIN relevo.vapi_numbers n ON n.id = coalesce(v2.phone_number_id, v1.phone_number_id)
    WHERE coalesce(v2.business_id, v1.business_id) IS NOT NULL
$$;

DO $$
DECLARE
    ours regclass;
BEGIN
    FOREACH ours IN ARRAY ARRAY['relevo.webhook_keys', 'relevo.unplaced_calls', 'relevo.vapi_numbers',
                                'relevo.tool_calls']::regclass[] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', ours);
    END LOOP;
END $$;
