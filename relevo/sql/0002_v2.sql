-- The tables of v2, by the specification's names. Values that v1 may leave empty stay empty here: a
-- configuration must be able to go back as it came.

CREATE TABLE IF NOT EXISTS public.voice_assistant_types (
    id           text PRIMARY KEY,
    vertical     text NOT NULL,
    name         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
SELECT relevo.seclude('public.voice_assistant_types');

CREATE TABLE IF NOT EXISTS public.voice_assistant_configs (
    id                   uuid PRIMARY KEY,
    business_id          uuid NOT NULL,
    assistant_type_id    text NOT NULL REFERENCES public.voice_assistant_types,
    vapi_assistant_id    text,
    phone_number_id      text,
    voice_id             text NOT NULL DEFAULT 'elevenlabs-maria',
    voice_speed          numeric NOT NULL DEFAULT 1.0 CHECK (voice_speed > 0),
    personality_type     text NOT NULL DEFAULT 'friendly',
    special_instructions text CHECK (char_length(special_instructions) <= 1000),
    enabled_capabilities text[] NOT NULL DEFAULT '{basic}' CHECK (cardinality(enabled_capabilities) > 0),
    template_version     text NOT NULL DEFAULT '1',
    is_active            boolean DEFAULT true,
    created_at           timestamptz DEFAULT now(),
    updated_at           timestamptz DEFAULT now(),
    migrated_from_v1     boolean NOT NULL DEFAULT false,
    migrated_at          timestamptz,
    original_prompt_hash text,  -- SHA-256 of the v1 prompt's UTF-8 bytes, in hexadecimal
    CHECK (NOT migrated_from_v1 OR (migrated_at IS NOT NULL AND original_prompt_hash IS NOT NULL))
);
CREATE INDEX IF NOT EXISTS voice_assistant_configs_business ON public.voice_assistant_configs (business_id);
SELECT relevo.seclude('public.voice_assistant_configs');

CREATE TABLE IF NOT EXISTS public.voice_assistant_metrics (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    business_id          uuid NOT NULL,
    period_start         timestamptz NOT NULL,
    period_end           timestamptz NOT NULL CHECK (period_end > period_start),
    total_calls          bigint NOT NULL CHECK (total_calls >= 0),
    successful_calls     bigint NOT NULL CHECK (successful_calls >= 0),
    failed_calls         bigint NOT NULL CHECK (failed_calls >= 0),
    avg_duration_seconds numeric NOT NULL,  -- over the calls that lasted; 0: none did
    avg_latency_ms       numeric NOT NULL,  -- over the calls that were measured, as are the percentiles
    p50_latency_ms       numeric NOT NULL,
    p95_latency_ms       numeric NOT NULL,
    reservations_created bigint NOT NULL DEFAULT 0,
    appointments_created bigint NOT NULL DEFAULT 0,
    orders_created       bigint NOT NULL DEFAULT 0,
    human_transfers      bigint NOT NULL DEFAULT 0,
    created_at           timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS voice_assistant_metrics_once
    ON public.voice_assistant_metrics (business_id, period_start, period_end);
SELECT relevo.seclude('public.voice_assistant_metrics');

CREATE TABLE IF NOT EXISTS public.rollout_alerts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type       text NOT NULL CHECK (type IN ('warning', 'critical')),
    title      text NOT NULL,
    message    text NOT NULL,
    action     text,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT relevo.seclude('public.rollout_alerts');

CREATE TABLE IF NOT EXISTS public.migration_backups (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    created_at  timestamptz NOT NULL DEFAULT now(),
    tables      text[] NOT NULL,      -- the tables copied, schema-qualified
    contents    jsonb NOT NULL,       -- per table: its copy, rows, checksum
    tenant_ids  uuid[],               -- null: the rows of all tenants; else of these alone
    actor       text NOT NULL,
    reason      text,
    verified_at timestamptz           -- null: not yet read back
);
SELECT relevo.seclude('public.migration_backups');
