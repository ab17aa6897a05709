-- Statements of the cleanup: what stands in its way, and what its stages do to v1's table ({table}; {told} is its name for people).

-- hold_stages --
-- One cleanup at a time.
DO $$ BEGIN LOCK TABLE relevo.cleanup_stages IN SHARE ROW EXCLUSIVE MODE; END $$

-- stages --
SELECT stage, done_at, actor, reason, details FROM relevo.cleanup_stages

-- record --
WITH done AS (
    INSERT INTO relevo.cleanup_stages (stage, done_at, actor, reason, details)
    VALUES (%(stage)s, %(now)s, %(actor)s, %(reason)s, %(details)s::jsonb)
)
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, 'cleanup.' || %(stage)s::text, 'v1', %(reason)s, %(details)s::jsonb)

-- forget --
WITH undone AS (DELETE FROM relevo.cleanup_stages WHERE stage = %(stage)s)
INSERT INTO relevo.audit_log (actor, action, subject, reason)
VALUES (%(actor)s, 'cleanup.undo', %(stage)s, %(reason)s)

-- standing --
-- What the flag says, and who still lives on v1: active tenants that it does not send to v2, and calls that v1 answered
-- lately or is in the middle of.
SELECT f.enabled AND f.percentage = 100 AS for_all,
       ARRAY(SELECT t.id FROM relevo.active_tenants() AS t (id)
             WHERE NOT public.should_use_voice_agent_v2(t.id) ORDER BY t.id) AS on_v1,
       (SELECT count(*) FROM relevo.calls c
        WHERE c.version = 'v1' AND c.decided_at > %(now)s::timestamptz - interval '1 day' AND NOT c.synthetic
          AND c.tenant_id IS NOT NULL) AS v1_calls,
       (SELECT count(*) FROM relevo.mirror_queue) AS queued,
       (SELECT count(*) FROM relevo.mirror_conflicts WHERE resolved_at IS NULL) AS conflicts,
       (SELECT id FROM relevo.runs WHERE state = 'running') AS open_run
FROM public.feature_flags f WHERE f.name = 'voice_agent_v2'

-- table --
-- v1's table under the name it has now; no row where there is none.
SELECT c.oid::bigint AS oid, c.relkind::text AS kind, pg_has_role(c.relowner, 'USAGE') AS ours,
       to_regclass(format('%%I.%%I', %(schema)s::text, %(other)s::text)) IS NOT NULL AS other_is_taken
FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))

-- reads --
-- How often the table was read since the server's statistics began.
SELECT coalesce(max(s.seq_scan), 0) + coalesce(max(s.idx_scan), 0) AS reads
FROM pg_catalog.pg_stat_all_tables s WHERE s.relid = %(oid)s

-- needed_by --
-- What would go with the table, and is not ours: views and keys of others.
SELECT format('view %%s', r.ev_class::regclass) AS what
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = %(oid)s AND r.ev_class <> %(oid)s
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class v JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
                  WHERE v.oid = r.ev_class AND n.nspname = %(schema)s::text AND v.relname = %(view)s::text)
UNION
SELECT format('foreign key %%s of %%s', k.conname, k.conrelid::regclass) FROM pg_catalog.pg_constraint k
WHERE k.contype = 'f' AND k.confrelid = %(oid)s AND k.conrelid <> %(oid)s
ORDER BY 1

-- only_on_v1 --
-- Configurations that v2 does not have: undoing must not take them for deleted.
SELECT coalesce(array_agg(c.id), '{{}}') AS ids FROM relevo.v1_configurations() AS c
WHERE c.id IS NOT NULL AND NOT EXISTS (SELECT FROM public.voice_assistant_configs v WHERE v.id = c.id)

-- rename --
ALTER TABLE {table} RENAME TO {to}

-- refuse_writes --
CREATE TRIGGER relevo_deprecated BEFORE INSERT OR UPDATE OR DELETE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_v1_write({told})

-- refuse_truncate --
CREATE TRIGGER relevo_deprecated_whole BEFORE TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_v1_write({told})

-- always_refuse --
ALTER TABLE {table} ENABLE ALWAYS TRIGGER relevo_deprecated, ENABLE ALWAYS TRIGGER relevo_deprecated_whole

-- write_again --
DROP TRIGGER relevo_deprecated ON {table}

-- truncate_again --
DROP TRIGGER relevo_deprecated_whole ON {table}

-- stand_in --
-- Under the old name: reads go through, writes are refused by the table.
CREATE VIEW {view} WITH (security_invoker) AS SELECT * FROM {table}

-- tombstone --
-- Under the old name once the table is gone, with the columns it had: whoever reads it hears why it is gone.
CREATE VIEW {view} WITH (security_invoker) AS SELECT {columns} WHERE NOT relevo.v1_is_gone({told})

-- explain --
-- By this Relevo knows its own view.
DO $$ BEGIN COMMENT ON VIEW {view} IS 'Relevo: stands in for a table of v1'; END $$

-- columns --
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum

-- grants --
-- Who may do what with the table, but for its owner.
SELECT coalesce(r.rolname, 'PUBLIC') AS grantee, g.privilege_type AS privilege
FROM pg_catalog.pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
WHERE c.oid = %(oid)s AND g.grantee <> c.relowner AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
ORDER BY 1, 2

-- grant --
DO $$ BEGIN GRANT {privilege} ON {view} TO {grantee}; END $$

-- drop_view --
DROP VIEW {view}

-- drop_table --
DROP TABLE {table}

-- queue_edits --
-- What may have been written on v2 while v1 took no writes, for repair to bring to it. The fields that only v2 has go with
-- it, so that verification knows of their edits; nothing tells which were edited, so all are looked at.
WITH written AS (
    SELECT id, (v1.one).id IS NULL AS born, (v2.two).id IS NULL AS gone, relevo.differing(v1.one, v2.two) AS fields, v2.two
    FROM (SELECT c.id, c AS one FROM relevo.v1_configurations() AS c WHERE c.id IS NOT NULL) AS v1
    FULL JOIN (SELECT c.id, c AS two FROM public.voice_assistant_configs AS c) AS v2 USING (id)
)
INSERT INTO relevo.mirror_queue (config_id, written_on, operation, was, fields, values, reason, writer)
SELECT w.id, 'v2', CASE WHEN w.born THEN 'insert' WHEN w.gone THEN 'delete' ELSE 'update' END,
       CASE WHEN w.gone THEN jsonb_build_object('id', w.id) WHEN NOT w.born THEN to_jsonb(w.two) END,
       CASE WHEN w.gone THEN '{{}}' WHEN w.born THEN relevo.shared_fields() || relevo.own_fields()
            ELSE w.fields || relevo.own_fields() END,
       CASE WHEN NOT w.gone THEN to_jsonb(w.two) END, 'written while v1 was deprecated', %(actor)s
FROM written w
WHERE NOT (w.gone AND w.id = ANY (%(only_on_v1)s::uuid[]))

-- forget_prompts --
UPDATE relevo.config_origins SET prompt = NULL WHERE prompt IS NOT NULL

-- forget_deleted --
DELETE FROM relevo.deleted_configs

-- hold --
DO $$ BEGIN LOCK TABLE {table}, relevo.config_origins, relevo.deleted_configs IN EXCLUSIVE MODE; END $$

-- rows --
SELECT count(*) AS rows FROM {table}

-- server --
SELECT current_setting('server_version_num')::integer / 10000 AS major

-- backups_before --
SELECT id, created_at, contents FROM public.migration_backups
WHERE created_at < %(before)s::timestamptz ORDER BY created_at, id

-- backups_left --
SELECT count(*) AS left FROM public.migration_backups

-- drop_copy --
DROP TABLE IF EXISTS {copy}

-- forget_backup --
DELETE FROM public.migration_backups WHERE id = %(id)s

-- deprecated --
SELECT relevo.v1_is_deprecated() AS deprecated, relevo.v1_is_retired() AS retired

-- forget_tool_calls --
WITH gone AS (
    DELETE FROM relevo.tool_calls WHERE (call_id, tool_call_id) IN (
        SELECT t.call_id, t.tool_call_id FROM relevo.tool_calls t WHERE t.at < %(before)s::timestamptz
        ORDER BY t.at LIMIT %(at_most)s FOR UPDATE SKIP LOCKED) RETURNING at
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, details)
    SELECT 'relevo', 'record.forget', 'tool_calls', jsonb_build_object('rows', count(*), 'until', max(at)) FROM gone
    HAVING count(*) > 0
)
SELECT count(*) AS forgotten FROM gone

-- forget_messages --
-- Mails are kept: each client gets each notice once, ever.
WITH gone AS (
    DELETE FROM relevo.outbox WHERE id IN (
        SELECT o.id FROM relevo.outbox o WHERE o.settled_at < %(before)s::timestamptz AND o.channel <> 'email'
        ORDER BY o.settled_at LIMIT %(at_most)s FOR UPDATE SKIP LOCKED) RETURNING settled_at
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, details)
    SELECT 'relevo', 'record.forget', 'messages', jsonb_build_object('rows', count(*), 'until', max(settled_at))
    FROM gone HAVING count(*) > 0
)
SELECT count(*) AS forgotten FROM gone

-- forget_complaints --
WITH gone AS (
    DELETE FROM relevo.complaints WHERE id IN (
        SELECT c.id FROM relevo.complaints c WHERE c.at < %(before)s::timestamptz
        ORDER BY c.at LIMIT %(at_most)s FOR UPDATE SKIP LOCKED) RETURNING at
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, details)
    SELECT 'relevo', 'record.forget', 'complaints', jsonb_build_object('rows', count(*), 'until', max(at)) FROM gone
    HAVING count(*) > 0
)
SELECT count(*) AS forgotten FROM gone
