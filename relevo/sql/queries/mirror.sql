-- The mirror as it is generated from the source mapping, and what the commands ask of it. In the generated functions
-- v1's expressions see the table as v1.

-- source_functions --
-- What the database itself knows of v1. No dependency on v1's columns is recorded: the bodies are texts.
CREATE OR REPLACE FUNCTION relevo.v1_configurations() RETURNS SETOF relevo.v1_config
LANGUAGE sql STABLE AS $source$ SELECT ROW(c.*)::relevo.v1_config FROM {configurations} AS c $source$;

CREATE OR REPLACE FUNCTION relevo.v1_tenants()
RETURNS TABLE (id uuid, vertical text, name text, time_zone text, email text, phone_number text)
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
SELECT ROW(c.*)::relevo.v1_config FROM {configurations} AS c WHERE c.id = ANY (ids) $source$;

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

-- mirror_functions --
-- (Generic plans: making a plan for each write anew took longer than the write.)
-- What the triggers run: the written rows, as v1 and v2 call them, before and after. A thousand at a time, for a COPY of
-- millions is one statement; but all in one attempt, where nothing stands in the way.
CREATE OR REPLACE FUNCTION relevo.v1_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   relevo.v1_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(ROW(NULL::relevo.v1_config, p.written, {fields})::relevo.v1_change)
                FROM (SELECT ROW(c.*)::relevo.v1_config AS written, (row_number() OVER () - 1) / 1000 AS number
                      FROM {new_configurations} AS c WHERE c.id IS NOT NULL) AS p
                GROUP BY p.number
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
        END;
    END LOOP;
    -- v1's columns are not what they were: which rows were written is all that can be known.
    INSERT INTO relevo.mirror_queue (config_id, written_on, operation, fields, reason, writer)
    SELECT {id}, 'v1', 'insert', {fields}, why, relevo.writer()
    FROM new_rows AS v1 WHERE {id} IS NOT NULL;
    RETURN NULL;
END $mirror$;

CREATE OR REPLACE FUNCTION relevo.v1_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   relevo.v1_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(ROW(p.was, p.now,
                    CASE WHEN (p.was).id IS NULL THEN {fields}
                         ELSE relevo.changed_fields(p.was, p.now) END)::relevo.v1_change)
                FROM (SELECT was.config AS was, now.config AS now, (row_number() OVER () - 1) / 1000 AS number
                      FROM (SELECT c.id, ROW(c.*)::relevo.v1_config AS config FROM {old_configurations} AS c) AS was
                      FULL JOIN (SELECT c.id, ROW(c.*)::relevo.v1_config AS config
                                 FROM {new_configurations} AS c) AS now USING (id)
                      WHERE id IS NOT NULL AND was.config IS DISTINCT FROM now.config) AS p
                GROUP BY p.number
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
        END;
    END LOOP;
    -- v1's columns are not what they were: which rows were written is all that can be known.
    INSERT INTO relevo.mirror_queue (config_id, written_on, operation, fields, reason, writer)
    SELECT {id}, 'v1', 'update', {fields}, why, relevo.writer()
    FROM new_rows AS v1 WHERE {id} IS NOT NULL;
    RETURN NULL;
END $mirror$;

CREATE OR REPLACE FUNCTION relevo.v1_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   relevo.v1_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(ROW(p.was, NULL::relevo.v1_config, '{{}}'::text[])::relevo.v1_change)
                FROM (SELECT ROW(c.*)::relevo.v1_config AS was, (row_number() OVER () - 1) / 1000 AS number
                      FROM {old_configurations} AS c WHERE c.id IS NOT NULL) AS p
                GROUP BY p.number
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
        END;
    END LOOP;
    -- v1's columns are not what they were: which rows were written is all that can be known.
    INSERT INTO relevo.mirror_queue (config_id, written_on, operation, was, fields, reason, writer)
    SELECT {id}, 'v1', 'delete', jsonb_build_object('id', {id}), '{{}}'::text[], why, relevo.writer()
    FROM old_rows AS v1 WHERE {id} IS NOT NULL;
    RETURN NULL;
END $mirror$;

CREATE OR REPLACE FUNCTION relevo.v2_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   relevo.v2_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(ROW(NULL::public.voice_assistant_configs, p.written,
                    relevo.shared_fields() || relevo.own_fields())::relevo.v2_change)
                FROM (SELECT ROW(n.*)::public.voice_assistant_configs AS written, (row_number() OVER () - 1) / 1000 AS number
                      FROM new_rows AS n) AS p
                GROUP BY p.number
            LOOP
                IF attempt = 1 THEN
                    PERFORM relevo.bring(part);
                ELSE
                    budget := relevo.bring_by_halves(part, budget, why);
                END IF;
            END LOOP;
            RETURN NULL;
        EXCEPTION WHEN OTHERS THEN
            IF attempt = 2 OR relevo.mirror_is_strict() THEN
                RAISE;
            END IF;
            budget.waits := CASE SQLSTATE WHEN '55P03' THEN 1 ELSE budget.waits END;
            why := SQLERRM;
        END;
    END LOOP;
    RETURN NULL;
END $mirror$;

CREATE OR REPLACE FUNCTION relevo.v2_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   relevo.v2_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(ROW(p.was, p.now,
                    CASE WHEN (p.was).id IS NULL THEN relevo.shared_fields() || relevo.own_fields()
                         ELSE relevo.changed_fields(p.was, p.now) END)::relevo.v2_change)
                FROM (SELECT was.config AS was, now.config AS now, (row_number() OVER () - 1) / 1000 AS number
                      FROM (SELECT o.id, ROW(o.*)::public.voice_assistant_configs AS config FROM old_rows AS o) AS was
                      FULL JOIN (SELECT n.id, ROW(n.*)::public.voice_assistant_configs AS config
                                 FROM new_rows AS n) AS now USING (id)
                      WHERE was.config IS DISTINCT FROM now.config) AS p
                GROUP BY p.number
            LOOP
                IF attempt = 1 THEN
                    PERFORM relevo.bring(part);
                ELSE
                    budget := relevo.bring_by_halves(part, budget, why);
                END IF;
            END LOOP;
            RETURN NULL;
        EXCEPTION WHEN OTHERS THEN
            IF attempt = 2 OR relevo.mirror_is_strict() THEN
                RAISE;
            END IF;
            budget.waits := CASE SQLSTATE WHEN '55P03' THEN 1 ELSE budget.waits END;
            why := SQLERRM;
        END;
    END LOOP;
    RETURN NULL;
END $mirror$;

CREATE OR REPLACE FUNCTION relevo.v2_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    part   relevo.v2_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(
                    ROW(p.was, NULL::public.voice_assistant_configs, '{{}}'::text[])::relevo.v2_change)
                FROM (SELECT ROW(o.*)::public.voice_assistant_configs AS was, (row_number() OVER () - 1) / 1000 AS number
                      FROM old_rows AS o) AS p
                GROUP BY p.number
            LOOP
                IF attempt = 1 THEN
                    PERFORM relevo.bring(part);
                ELSE
                    budget := relevo.bring_by_halves(part, budget, why);
                END IF;
            END LOOP;
            RETURN NULL;
        EXCEPTION WHEN OTHERS THEN
            IF attempt = 2 OR relevo.mirror_is_strict() THEN
                RAISE;
            END IF;
            budget.waits := CASE SQLSTATE WHEN '55P03' THEN 1 ELSE budget.waits END;
            why := SQLERRM;
        END;
    END LOOP;
    RETURN NULL;
END $mirror$;

-- A tenant's vertical decides what is made of its prompts; a tenant that appears may free its configurations from
-- quarantine.
CREATE OR REPLACE FUNCTION relevo.tenants_written() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms'
SET plan_cache_mode = 'force_generic_plan' AS $mirror$
DECLARE
    of_tenants uuid[];
    part   relevo.v1_change[];
    budget relevo.mirror_budget := ROW(60, 2);
    why    text;
BEGIN
    IF relevo.mirror_is_off() THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        of_tenants := ARRAY(SELECT t.id FROM {new_tenants} AS t);
    ELSE
        of_tenants := ARRAY(SELECT now.id FROM {new_tenants} AS now LEFT JOIN {old_tenants} AS was USING (id)
                            WHERE was.vertical IS DISTINCT FROM now.vertical);
    END IF;
    IF cardinality(of_tenants) = 0 THEN
        RETURN NULL;
    END IF;
    FOR attempt IN 1..2 LOOP
        BEGIN
            FOR part IN
                SELECT array_agg(ROW(p.config, p.config, ARRAY['vertical'])::relevo.v1_change)
                FROM (SELECT c AS config, (row_number() OVER () - 1) / 1000 AS number
                      FROM relevo.v1_configurations() AS c
                      WHERE c.business_id = ANY (of_tenants) AND c.id IS NOT NULL) AS p
                GROUP BY p.number
            LOOP
                IF attempt = 1 THEN
                    PERFORM relevo.bring(part);
                ELSE
                    budget := relevo.bring_by_halves(part, budget, why);
                END IF;
            END LOOP;
            RETURN NULL;
        EXCEPTION WHEN OTHERS THEN
            IF attempt = 2 OR relevo.mirror_is_strict() THEN
                RAISE;
            END IF;
            budget.waits := CASE SQLSTATE WHEN '55P03' THEN 1 ELSE budget.waits END;
            why := SQLERRM;
        END;
    END LOOP;
    RETURN NULL;
END $mirror$;

-- trigger --
CREATE TRIGGER {trigger} AFTER {event} ON {table} {referencing}
FOR EACH STATEMENT EXECUTE FUNCTION {function}()

-- truncate_trigger --
CREATE TRIGGER {trigger} BEFORE TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_truncate()

-- drop_trigger --
DROP TRIGGER IF EXISTS {trigger} ON {table}

-- always --
-- Also for a session that replays a backup or follows another server (session_replication_role).
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}

-- column_types --
-- Without lengths: a value too long for its column must be refused, and a cast would cut it in silence.
SELECT a.attname AS "column", format_type(a.atttypid, -1) AS type
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- triggers_in_place --
-- Ours, wherever they are, and whether they fire for everybody.
SELECT t.tgname AS name, c.oid::regclass::text AS "table", n.nspname AS schema, c.relname AS relation,
       t.tgenabled = 'A' AS always
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgname LIKE 'relevo\_mirror\_%%'
ORDER BY 2, 1

-- installed_mapping --
SELECT fingerprint, installed_at FROM relevo.source_mapping

-- remember_mapping --
INSERT INTO relevo.source_mapping (fingerprint, installed_at) VALUES (%(fingerprint)s, %(now)s)
ON CONFLICT (only_one) DO UPDATE SET fingerprint = excluded.fingerprint, installed_at = excluded.installed_at

-- unchecked --
-- v1's tables may not be there yet, and a function's body is checked when it runs.
SELECT set_config('check_function_bodies', 'off', true)

-- off --
-- For this transaction alone one side is written without the other.
SELECT set_config('relevo.mirror', 'off', true)

-- set_strict --
UPDATE relevo.mirror_settings SET strict = %(strict)s

-- state --
SELECT (SELECT strict FROM relevo.mirror_settings) AS strict,
       (SELECT count(*) FROM relevo.mirror_queue) AS queued,
       (SELECT min(queued_at) FROM relevo.mirror_queue) AS oldest,
       (SELECT count(*) FROM relevo.mirror_conflicts WHERE resolved_at IS NULL) AS conflicts,
       (SELECT count(DISTINCT config_id) FROM relevo.v2_edits) AS edited_configs,
       (SELECT count(*) FROM relevo.deleted_configs) AS deleted_configs

-- queue --
SELECT q.id, q.config_id, q.written_on, q.operation, q.fields, q.reason, q.writer, q.queued_at, q.tried_at
FROM relevo.mirror_queue q ORDER BY q.id LIMIT %(most)s

-- conflicts --
SELECT id, config_id, field, v1_value, v1_writer, v2_value, v2_writer, kept, found_at
FROM relevo.mirror_conflicts WHERE resolved_at IS NULL ORDER BY id LIMIT %(most)s

-- to_repair --
SELECT DISTINCT config_id FROM relevo.mirror_queue
WHERE config_id > %(after)s
  AND (%(tried_before)s::timestamptz IS NULL OR tried_at IS NULL OR tried_at < %(tried_before)s::timestamptz)
ORDER BY config_id LIMIT 500

-- repair --
SELECT relevo.repair(%(config_id)s) AS reason

-- mark_failed --
UPDATE relevo.mirror_queue SET tried_at = %(now)s, reason = %(reason)s WHERE config_id = %(config_id)s

-- queue_drift --
-- What verification found wrong, queued as if v1 had just written it.
INSERT INTO relevo.mirror_queue (config_id, written_on, operation, fields, reason, writer)
SELECT v.config_id, 'v1', 'update', {fields}, 'v2 differs, and nobody is known to have edited it there', %(actor)s
FROM relevo.verifications v
WHERE v.state IN ('drifted', 'missing')
  AND NOT EXISTS (SELECT FROM relevo.mirror_queue q WHERE q.config_id = v.config_id)

-- conflict --
SELECT id, config_id, field, v1_value, v2_value, kept, resolved_at FROM relevo.mirror_conflicts
WHERE id = %(id)s FOR UPDATE

-- close_conflict --
UPDATE relevo.mirror_conflicts SET resolved_at = %(now)s, resolved_by = %(actor)s, kept = %(take)s WHERE id = %(id)s

-- take_value --
-- One value of a conflict, written to v2; dual write brings a shared field to v1 as well.
UPDATE public.voice_assistant_configs v SET {field} = taken.{field}
FROM jsonb_populate_record(NULL::public.voice_assistant_configs,
                           jsonb_build_object(%(field)s::text, %(value)s::jsonb)) AS taken
WHERE v.id = %(config_id)s
