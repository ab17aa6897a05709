-- Taking Relevo away: what is there because of us, and its removal.

-- in_use --
-- What still needs us: an open run, work that a process holds, tenants on v2.
SELECT (SELECT id FROM relevo.runs WHERE state = 'running') AS open_run,
       (SELECT string_agg(name || ' (' || holder || ')', ', ') FROM relevo.leases WHERE expires_at > now()) AS leases,
       (SELECT count(*) FROM public.feature_flags
        WHERE enabled AND (percentage > 0 OR cardinality(enabled_tenants) > 0)) AS flags_on

-- ours --
SELECT (SELECT coalesce(array_agg(name ORDER BY name), '{{}}') FROM relevo.public_tables) AS tables,
       (SELECT coalesce(jsonb_agg(to_jsonb(a) ORDER BY a."column"), '[]') FROM relevo.added_columns a) AS columns,
       (SELECT coalesce(array_agg(p.oid::regprocedure::text ORDER BY 1), '{{}}') FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND p.proname IN ('should_use_voice_agent_v2', 'voice_agent_v2_percentile')) AS functions

-- drop_column --
ALTER TABLE {table} DROP COLUMN IF EXISTS {column}

-- drop_functions --
DO $$
DECLARE
    ours text;
BEGIN
    FOR ours IN SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p
                WHERE p.pronamespace = 'public'::regnamespace
                  AND p.proname IN ('should_use_voice_agent_v2', 'voice_agent_v2_percentile') LOOP
        EXECUTE 'DROP FUNCTION ' || ours;
    END LOOP;
END $$

-- drop_schema --
-- The triggers on v2's tables that are ours go with their functions.
DROP SCHEMA relevo CASCADE

-- drop_backups --
DROP SCHEMA IF EXISTS relevo_backup CASCADE

-- drop_table --
DROP TABLE {table} CASCADE
