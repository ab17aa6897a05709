-- v1 as the database itself may read it: the source mapping as functions, so that triggers and the flag's rules see
-- the same rows as the move. Until a mapping is installed they know no row. They hold no dependency on v1's columns:
-- the platform may change its tables whenever it likes.

CREATE TYPE relevo.v1_config AS (
    id uuid, business_id uuid, vapi_assistant_id text, phone_number_id text, assistant_name text, system_prompt text,
    voice_id text, first_message text, is_active boolean, created_at timestamptz, updated_at timestamptz
);

CREATE FUNCTION relevo.v1_configurations() RETURNS SETOF relevo.v1_config
LANGUAGE sql STABLE AS 'SELECT NULL::relevo.v1_config WHERE false';

CREATE FUNCTION relevo.v1_tenants()
RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text,
               human_phone_number text)
LANGUAGE sql STABLE AS
'SELECT NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text WHERE false';

-- The fields of a configuration that can be written back to v1.
CREATE FUNCTION relevo.v1_writable() RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = '' AS 'SELECT NULL::text[] WHERE false';

-- Which mapping the functions were made from.
CREATE TABLE relevo.source_mapping (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    fingerprint  text NOT NULL,       -- SHA-256 of all that was generated
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- Which voice v2 speaks with, where v1 names none.
CREATE FUNCTION relevo.voice_of(voice_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(nullif(voice_id, ''), 'elevenlabs-maria');

-- What verification last said of each configuration: equal to what v1 says it should be, edited on v2 by somebody,
-- or wrong. It stays true while the mirror is on, because the mirror writes both sides or queues.
CREATE TABLE relevo.verifications (
    config_id   uuid PRIMARY KEY,
    business_id uuid,
    state       text NOT NULL CHECK (state IN ('matched', 'edited_on_v2', 'drifted', 'missing', 'quarantined', 'queued')),
    fields      text[] NOT NULL DEFAULT '{}',  -- which differ
    verified_at timestamptz NOT NULL
);
CREATE INDEX verifications_business ON relevo.verifications (business_id);

-- Every tenant with an active configuration: of v1, which leads, and of v2 once v1 is deprecated. A platform without v1
-- tables has none.
CREATE FUNCTION relevo.active_tenants() RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    IF relevo.v1_is_deprecated() THEN
        RETURN QUERY SELECT DISTINCT c.business_id::text FROM public.voice_assistant_configs AS c WHERE c.is_active;
        RETURN;
    END IF;
    RETURN QUERY SELECT DISTINCT c.business_id::text FROM relevo.v1_configurations() AS c
                 WHERE c.is_active AND c.business_id IS NOT NULL;
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name THEN
    RETURN;
END $$;

-- Those of some tenants that may not live on v2, and why: data that was not verified, or waits to be mirrored; a number
-- that Vapi was last seen to ask nobody about, so that a switch would change nothing of what callers hear.
-- Planned anew for each list: a plan for ten tenants takes minutes with 20,000.
CREATE FUNCTION relevo.unverified_tenants(tenants text[]) RETURNS TABLE (tenant_id text, why text)
LANGUAGE plpgsql STABLE SET search_path = '' SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    WITH asked AS (SELECT DISTINCT unnest(tenants) AS tenant)
    , judged AS (
        SELECT c.business_id::text AS tenant, c.id, CASE
            WHEN q.config_id IS NOT NULL THEN 'is set aside: ' || q.reason
            WHEN v2.id IS NULL THEN 'is not on v2 yet'
            WHEN w.config_id IS NOT NULL THEN 'has writes that wait for repair'
            WHEN v.config_id IS NULL THEN 'was never verified'
            WHEN v.state NOT IN ('matched', 'edited_on_v2') THEN 'was verified and found ' || v.state
            WHEN by_id.bound OR by_number.bound
                THEN 'has a number bound at Vapi, which never asks who answers (relevo vapi adopt)'
        END AS fault
        FROM asked
        JOIN relevo.v1_configurations() AS c ON c.business_id::text = asked.tenant
        LEFT JOIN public.voice_assistant_configs v2 ON v2.id = c.id
        LEFT JOIN relevo.quarantine q ON q.config_id = c.id::text
        LEFT JOIN (SELECT DISTINCT config_id FROM relevo.mirror_queue) AS w ON w.config_id = c.id
        LEFT JOIN relevo.verifications v ON v.config_id = c.id
        LEFT JOIN relevo.vapi_numbers by_id
               ON by_id.bound AND by_id.id = coalesce(v2.phone_number_id, c.phone_number_id)
        LEFT JOIN relevo.vapi_numbers by_number
               ON by_number.bound AND by_number.number = coalesce(v2.phone_number_id, c.phone_number_id)
    )
    SELECT asked.tenant,
           CASE WHEN count(judged.id) = 0 THEN 'has no configuration' ELSE 'its configuration ' || min(judged.fault) END
    FROM asked LEFT JOIN judged ON judged.tenant = asked.tenant
    GROUP BY asked.tenant
    HAVING count(judged.fault) > 0 OR count(judged.id) = 0
    ORDER BY asked.tenant COLLATE "C";
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name THEN
    RETURN QUERY SELECT DISTINCT t, 'has no configuration' FROM unnest(tenants) AS t;
END $$;
