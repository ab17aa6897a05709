-- The functions that are generated from the source mapping. In them v1's expressions see the table as v1.

-- source_functions --
-- What the database itself knows of v1. No dependency on v1's columns is recorded: the bodies are texts. Rows are
-- returned column by column, for then a query takes the function in, and finds by an index what it asks for.
CREATE OR REPLACE FUNCTION relevo.v1_configurations() RETURNS SETOF relevo.v1_config
LANGUAGE sql STABLE AS $source$ SELECT c.* FROM {configurations} AS c $source$;

CREATE OR REPLACE FUNCTION relevo.v1_tenants()
RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text,
               human_phone_number text)
LANGUAGE sql STABLE AS $source$ SELECT {tenant_columns} FROM {tenants_table} AS v1 $source$;

CREATE OR REPLACE FUNCTION relevo.derived(configs relevo.v1_config[])
RETURNS TABLE (id uuid, business_id uuid, vapi_assistant_id text, phone_number_id text, voice_id text,
               voice_speed numeric, personality_type text, template_version text, is_active boolean,
               created_at timestamptz, updated_at timestamptz, migrated_from_v1 boolean, original_prompt_hash text,
               assistant_type_id text, enabled_capabilities text[], special_instructions text, provenance jsonb,
               review text[], prompt text, assistant_name text, first_message text, vertical text, business_name text,
               defect text)
LANGUAGE sql STABLE AS $source$ {derive} $source$;

CREATE OR REPLACE FUNCTION relevo.v1_by_id(ids uuid[]) RETURNS SETOF relevo.v1_config
LANGUAGE sql STABLE AS $source$
SELECT c.* FROM {configurations} AS c WHERE c.id = ANY (ids) $source$;

-- Nobody else writes these until we commit.
CREATE OR REPLACE FUNCTION relevo.v1_hold(ids uuid[]) RETURNS void
LANGUAGE sql AS $source$
SELECT FROM {configurations_table} AS v1 WHERE {id} = ANY (ids) ORDER BY {id} FOR NO KEY UPDATE $source$;

CREATE OR REPLACE FUNCTION relevo.v1_writable() RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = '' AS $source$ SELECT {writable}::text[] $source$;

CREATE OR REPLACE FUNCTION relevo.v1_insert(configs relevo.v1_config[]) RETURNS void
LANGUAGE sql AS $source$
INSERT INTO {configurations_table} ({insert_columns}) OVERRIDING SYSTEM VALUE
SELECT {insert_values}
FROM (SELECT c AS config FROM unnest(configs) AS c) AS written
-- An expression may speak of the row it changes; a new one is empty.
LEFT JOIN {configurations_table} AS v1 ON false $source$;

CREATE OR REPLACE FUNCTION relevo.v1_update(writes relevo.v1_write[]) RETURNS void
LANGUAGE sql AS $source$
UPDATE {configurations_table} AS v1 SET {update_columns}
FROM (SELECT w.config, w.fields, (w.config).id AS written_id FROM unnest(writes) AS w) AS written
WHERE {id} = written.written_id $source$;

CREATE OR REPLACE FUNCTION relevo.v1_delete(ids uuid[]) RETURNS TABLE (id uuid, "row" jsonb)
LANGUAGE sql AS $source$
DELETE FROM {configurations_table} AS v1 WHERE {id} = ANY (ids) RETURNING {id}, to_jsonb(v1) $source$;

-- trigger_function --
-- What a trigger runs: what the statement wrote, as changes, brought to the other side. A thousand at a time, for a COPY
-- of millions is one statement; but all in one attempt, where nothing stands in the way. (Generic plans: making a plan
-- for each write anew took longer than the write.)
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   {change}[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
    code   text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(numbered.change)
                FROM (SELECT written.change, (row_number() OVER () - 1) / 1000 AS number
                      FROM ({written}) AS written) AS numbered
                GROUP BY numbered.number
            LOOP
                IF attempt = 1 THEN
                    PERFORM relevo.bring(part);
                ELSE
                    budget := relevo.bring_by_halves(part, budget, why);
                END IF;
            END LOOP;
            RETURN NULL;
        EXCEPTION WHEN OTHERS THEN
            IF SQLSTATE = '40001' AND attempt = 2 OR relevo.mirror_is_strict() THEN
                RAISE;
            END IF;
            budget.waits := CASE SQLSTATE WHEN '55P03' THEN 1 ELSE budget.waits END;
            why := SQLERRM;
            code := SQLSTATE;
        END;
    END LOOP;
    {unreadable};
    RETURN NULL;
END $mirror$

-- v1_inserted --
SELECT ROW(NULL::relevo.v1_config, ROW(c.*)::relevo.v1_config, {fields})::relevo.v1_change AS change
FROM {new_configurations} AS c WHERE c.id IS NOT NULL

-- v1_updated --
SELECT ROW(was.config, now.config, CASE WHEN (was.config).id IS NULL THEN {fields}
               ELSE relevo.changed_fields(was.config, now.config) END)::relevo.v1_change AS change
FROM (SELECT c.id, ROW(c.*)::relevo.v1_config AS config FROM {old_configurations} AS c) AS was
FULL JOIN (SELECT c.id, ROW(c.*)::relevo.v1_config AS config FROM {new_configurations} AS c) AS now USING (id)
WHERE id IS NOT NULL AND was.config IS DISTINCT FROM now.config

-- v1_deleted --
SELECT ROW(ROW(c.*)::relevo.v1_config, NULL::relevo.v1_config, '{{}}'::text[])::relevo.v1_change AS change
FROM {old_configurations} AS c WHERE c.id IS NOT NULL

-- v2_inserted --
SELECT ROW(NULL::public.voice_assistant_configs, ROW(n.*)::public.voice_assistant_configs,
           relevo.shared_fields() || relevo.own_fields())::relevo.v2_change AS change
FROM new_rows AS n

-- v2_updated --
SELECT ROW(was.config, now.config, CASE WHEN (was.config).id IS NULL THEN relevo.shared_fields() || relevo.own_fields()
               ELSE relevo.changed_fields(was.config, now.config) END)::relevo.v2_change AS change
FROM (SELECT o.id, ROW(o.*)::public.voice_assistant_configs AS config FROM old_rows AS o) AS was
FULL JOIN (SELECT n.id, ROW(n.*)::public.voice_assistant_configs AS config FROM new_rows AS n) AS now USING (id)
WHERE was.config IS DISTINCT FROM now.config

-- v2_deleted --
SELECT ROW(ROW(o.*)::public.voice_assistant_configs, NULL::public.voice_assistant_configs, '{{}}'::text[]
           )::relevo.v2_change AS change
FROM old_rows AS o

-- tenants_inserted --
-- A tenant that appears may free its configurations from quarantine.
SELECT of_tenants.change FROM (SELECT ARRAY(SELECT t.id FROM {new_tenants} AS t) AS ids) AS touched
CROSS JOIN LATERAL ({of_tenants}) AS of_tenants WHERE cardinality(touched.ids) > 0

-- tenants_updated --
-- A tenant's vertical decides what is made of its prompts. Where none changed, v1 is not even looked at.
SELECT of_tenants.change
FROM (SELECT ARRAY(SELECT now.id FROM {new_tenants} AS now LEFT JOIN {old_tenants} AS was USING (id)
                   WHERE was.vertical IS DISTINCT FROM now.vertical) AS ids) AS touched
CROSS JOIN LATERAL ({of_tenants}) AS of_tenants WHERE cardinality(touched.ids) > 0

-- of_tenants --
SELECT ROW(c, c, ARRAY['vertical'])::relevo.v1_change AS change
FROM relevo.v1_configurations() AS c WHERE c.business_id = ANY (touched.ids) AND c.id IS NOT NULL

-- queue_ids --
-- v1's columns are not what they were: which rows were written is all that can be known.
INSERT INTO relevo.mirror_queue (config_id, written_on, operation, was, fields, reason, writer)
SELECT {id}, 'v1', lower(TG_OP), CASE TG_OP WHEN 'DELETE' THEN jsonb_build_object('id', {id}) END,
       CASE TG_OP WHEN 'DELETE' THEN '{{}}' ELSE {fields} END, why, relevo.writer()
FROM {images} AS v1 WHERE {id} IS NOT NULL

-- fail --
RAISE EXCEPTION USING MESSAGE = why, ERRCODE = code
