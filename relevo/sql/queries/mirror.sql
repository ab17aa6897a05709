-- What the commands ask of the mirror. Its functions are in mirror_functions.sql.

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
