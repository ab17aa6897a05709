-- lock_schema --
SELECT pg_catalog.pg_advisory_xact_lock(7364205118830466091)

-- privileges --
SELECT current_user AS role,
       current_database() AS database,
       has_database_privilege(current_database(), 'CREATE')
           OR to_regnamespace('relevo') IS NOT NULL AND to_regnamespace('relevo_backup') IS NOT NULL
           AS may_create_schema,
       has_schema_privilege('public', 'CREATE') AS may_use_public

-- create_ledger --
-- The schema comes first with its ledger, before any file.
DO $ledger$
BEGIN
    IF to_regclass('relevo.schema_files') IS NULL THEN
        CREATE SCHEMA IF NOT EXISTS relevo;
        CREATE TABLE relevo.schema_files (
            version    integer PRIMARY KEY,
            name       text NOT NULL,
            sha256     text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        );
    END IF;
END $ledger$

-- ledger_exists --
SELECT to_regclass('relevo.schema_files') IS NOT NULL AS present

-- ledger --
SELECT version, name, sha256, applied_at FROM relevo.schema_files ORDER BY version

-- record_file --
INSERT INTO relevo.schema_files (version, name, sha256) VALUES (%(version)s, %(name)s, %(sha256)s)

-- foreign_shapes --
-- Columns of ours that an existing table of the same name lacks, or has as another type.
WITH ours ("table", "column", type) AS (
    VALUES ('feature_flags', 'name', 'text'),
           ('feature_flags', 'enabled', 'boolean'),
           ('feature_flags', 'percentage', 'integer'),
           ('feature_flags', 'enabled_tenants', 'text[]'),
           ('feature_flags', 'disabled_tenants', 'text[]'),
           ('voice_assistant_types', 'id', 'text'),
           ('voice_assistant_types', 'vertical', 'text'),
           ('voice_assistant_types', 'name', 'text'),
           ('voice_assistant_configs', 'id', 'uuid'),
           ('voice_assistant_configs', 'business_id', 'uuid'),
           ('voice_assistant_configs', 'assistant_type_id', 'text'),
           ('voice_assistant_configs', 'vapi_assistant_id', 'text'),
           ('voice_assistant_configs', 'phone_number_id', 'text'),
           ('voice_assistant_configs', 'voice_id', 'text'),
           ('voice_assistant_configs', 'voice_speed', 'numeric'),
           ('voice_assistant_configs', 'personality_type', 'text'),
           ('voice_assistant_configs', 'special_instructions', 'text'),
           ('voice_assistant_configs', 'enabled_capabilities', 'text[]'),
           ('voice_assistant_configs', 'template_version', 'text'),
           ('voice_assistant_configs', 'is_active', 'boolean'),
           ('voice_assistant_configs', 'created_at', 'timestamp with time zone'),
           ('voice_assistant_configs', 'updated_at', 'timestamp with time zone'),
           ('voice_assistant_configs', 'migrated_from_v1', 'boolean'),
           ('voice_assistant_configs', 'migrated_at', 'timestamp with time zone'),
           ('voice_assistant_configs', 'original_prompt_hash', 'text'),
           ('voice_assistant_metrics', 'id', 'uuid'),
           ('voice_assistant_metrics', 'business_id', 'uuid'),
           ('voice_assistant_metrics', 'period_start', 'timestamp with time zone'),
           ('voice_assistant_metrics', 'period_end', 'timestamp with time zone'),
           ('voice_assistant_metrics', 'total_calls', 'bigint'),
           ('voice_assistant_metrics', 'successful_calls', 'bigint'),
           ('voice_assistant_metrics', 'failed_calls', 'bigint'),
           ('voice_assistant_metrics', 'avg_duration_seconds', 'numeric'),
           ('voice_assistant_metrics', 'avg_latency_ms', 'numeric'),
           ('voice_assistant_metrics', 'p50_latency_ms', 'numeric'),
           ('voice_assistant_metrics', 'p95_latency_ms', 'numeric'),
           ('rollout_alerts', 'type', 'text'),
           ('rollout_alerts', 'title', 'text'),
           ('rollout_alerts', 'message', 'text'),
           ('rollout_alerts', 'action', 'text'),
           ('rollout_alerts', 'created_at', 'timestamp with time zone'),
           ('migration_backups', 'id', 'uuid'),
           ('migration_backups', 'created_at', 'timestamp with time zone'),
           ('migration_backups', 'tables', 'text[]'),
           ('migration_backups', 'contents', 'jsonb')
)
SELECT ours."table", ours."column",
       coalesce('is ' || theirs.type || ', expected ' || ours.type, 'is missing') AS difference
FROM ours
JOIN pg_catalog.pg_class c ON c.relname = ours."table" AND c.relnamespace = 'public'::regnamespace
LEFT JOIN LATERAL (
    SELECT format_type(a.atttypid, NULL) AS type
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attname = ours."column" AND NOT a.attisdropped
) AS theirs ON true
WHERE theirs.type IS DISTINCT FROM ours.type
ORDER BY ours."table", ours."column"

-- lock_lease --
SELECT holder, expires_at > clock_timestamp() AS alive FROM relevo.leases WHERE name = %(name)s FOR UPDATE

-- take_lease --
INSERT INTO relevo.leases AS l (name, holder, token, expires_at)
VALUES (%(name)s, %(holder)s, 1, clock_timestamp() + %(seconds)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = l.token + 1, expires_at = excluded.expires_at
RETURNING token

-- hold_lease --
SELECT true AS held FROM relevo.leases WHERE name = %(name)s AND token = %(token)s FOR KEY SHARE

-- renew_lease --
UPDATE relevo.leases SET expires_at = clock_timestamp() + %(seconds)s * interval '1 second'
WHERE name = %(name)s AND token = %(token)s

-- release_lease --
UPDATE relevo.leases SET expires_at = clock_timestamp() WHERE name = %(name)s AND token = %(token)s

-- which_database --
-- The same through every way to it, and no other's.
SELECT system_identifier || ':' || oid AS identity
FROM pg_control_system(), pg_database WHERE datname = current_database()
