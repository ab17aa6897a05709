-- Statements of the move. {configurations}, {calls} and {tenants} are v1 through the source mapping.

-- derive --
-- What v2 should hold for each v1 configuration, or why it cannot hold it. This is the only place where a row of
-- v1 becomes a row of v2; the copy, verification, the dry run and the review select from it.
SELECT c.id, c.business_id, c.vapi_assistant_id, c.phone_number_id,
       relevo.voice_of(c.voice_id) AS voice_id,
       1.0 AS voice_speed,
       'friendly' AS personality_type,
       '1' AS template_version,
       c.is_active, c.created_at, c.updated_at,
       true AS migrated_from_v1,
       encode(sha256(convert_to(coalesce(c.system_prompt, ''), 'UTF8')), 'hex') AS original_prompt_hash,
       CASE WHEN 'assistant_type_id' = ANY (w.fields) THEN w.assistant_type_id ELSE i.assistant_type_id
       END AS assistant_type_id,
       CASE WHEN 'enabled_capabilities' = ANY (w.fields) THEN w.enabled_capabilities ELSE i.enabled_capabilities
       END AS enabled_capabilities,
       CASE WHEN 'special_instructions' = ANY (w.fields) THEN w.special_instructions ELSE i.special_instructions
       END AS special_instructions,
       CASE WHEN w.fields IS NULL THEN i.provenance
            ELSE i.provenance || jsonb_build_object('overridden', w.fields) END AS provenance,
       CASE WHEN d.defect IS NULL
            THEN relevo.review_reasons(i, w.fields,
                                       relevo.is_customised(c.assistant_name, t.name, defaults.names),
                                       relevo.is_customised(c.first_message, t.name, defaults.greetings)) END AS review,
       c.system_prompt AS prompt, c.assistant_name, c.first_message,
       t.vertical, t.name AS business_name,
       d.defect
FROM {configurations} AS c
LEFT JOIN {tenants} AS t ON t.id = c.business_id
LEFT JOIN {overrides} AS w ON w.config_id = c.id
CROSS JOIN (SELECT relevo.defaults_of('assistant_name') AS names,
                   relevo.defaults_of('first_message') AS greetings OFFSET 0) AS defaults
CROSS JOIN LATERAL (SELECT CASE
    WHEN c.business_id IS NULL THEN 'no_business'
    WHEN t.id IS NULL THEN 'unknown_business'
    WHEN t.vertical IS NULL OR btrim(t.vertical, relevo.white_space()) = '' THEN 'no_vertical'
END) AS d (defect)
LEFT JOIN LATERAL relevo.infer(c.system_prompt, t.vertical, {rule_version}) AS i ON d.defect IS NULL

-- tables --
-- What the catalogue says of the mapped tables.
SELECT c.oid, s.kind,
       has_schema_privilege(n.oid, 'USAGE') AS may_enter,
       has_table_privilege(c.oid, 'SELECT') AS may_read,
       has_table_privilege(c.oid, 'UPDATE') AS may_update,
       pg_has_role(c.relowner, 'USAGE') AS may_alter,
       c.relkind IN ('r', 'p') AS is_table,
       coalesce(starts_with(obj_description(c.oid, 'pg_class'), 'Relevo: '), false) AS stands_in,  -- for a v1 cleaned away
       (SELECT count(*) = 2 FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attname IN ('outcome', 'agent_version') AND NOT a.attisdropped) AS has_our_columns,
       c.relrowsecurity AND NOT (r.rolsuper OR r.rolbypassrls)
           AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')) AS rls_hides_rows,
       greatest(c.reltuples, 0)::bigint AS about_rows
FROM jsonb_to_recordset(%(sources)s) AS s (kind text, schema text, "table" text)
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = s.schema
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = s."table"
LEFT JOIN pg_catalog.pg_roles r ON r.rolname = current_user

-- columns --
SELECT c.relname AS "table", a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- required_columns --
-- Columns that a new row must be given a value for.
SELECT a.attname AS "column" FROM pg_catalog.pg_attribute a
WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
ORDER BY a.attnum

-- probe --
-- Whether the table can be read as mapped, each field as what it should be; reads no row.
SELECT FROM {rows} AS probed LIMIT 0

-- defects --
-- Everything wrong with the rows themselves: what, how many, the first ten. Nothing here stops the move.
WITH scope AS (
    SELECT * FROM {configurations} AS c
    WHERE %(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[])
), of_calls AS (
    SELECT * FROM {calls} AS c
    WHERE %(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[])
), found (code, subject) AS (
    SELECT 'config_without_business', id::text FROM scope WHERE business_id IS NULL
    UNION ALL
    SELECT 'config_with_unknown_business', s.id::text FROM scope s
    WHERE s.business_id IS NOT NULL AND NOT EXISTS (SELECT FROM {tenants} AS t WHERE t.id = s.business_id)
    UNION ALL
    SELECT 'config_without_vertical', s.id::text
    FROM scope s JOIN {tenants} AS t ON t.id = s.business_id
    WHERE t.vertical IS NULL OR btrim(t.vertical, {white_space}) = ''
    UNION ALL
    SELECT 'config_without_id', coalesce(business_id::text, '') FROM scope WHERE id IS NULL
    UNION ALL
    SELECT 'duplicate_config_id', id::text FROM scope WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1
    UNION ALL
    SELECT 'duplicate_business_id', t.id::text FROM {tenants} AS t
    WHERE %(tenant_ids)s::uuid[] IS NULL OR t.id = ANY (%(tenant_ids)s::uuid[])
    GROUP BY t.id HAVING count(*) > 1
    UNION ALL
    SELECT 'duplicate_phone_number', phone_number_id FROM scope
    WHERE phone_number_id <> '' AND is_active GROUP BY phone_number_id HAVING count(*) > 1
    UNION ALL
    SELECT 'duplicate_assistant', vapi_assistant_id FROM scope
    WHERE vapi_assistant_id <> '' AND is_active GROUP BY vapi_assistant_id HAVING count(*) > 1
    UNION ALL
    SELECT 'several_active_configs', business_id::text FROM scope
    WHERE is_active AND business_id IS NOT NULL GROUP BY business_id HAVING count(*) > 1
    UNION ALL
    SELECT 'call_without_business', id FROM {calls} AS c
    WHERE business_id IS NULL AND %(tenant_ids)s::uuid[] IS NULL
    UNION ALL
    SELECT 'call_with_unknown_business', c.id FROM of_calls c
    WHERE c.business_id IS NOT NULL AND NOT EXISTS (SELECT FROM {tenants} AS t WHERE t.id = c.business_id)
    UNION ALL
    SELECT 'duplicate_vapi_call_id', vapi_call_id FROM of_calls
    WHERE vapi_call_id <> '' GROUP BY vapi_call_id HAVING count(*) > 1
), ranked AS (
    SELECT code, subject, count(*) OVER (PARTITION BY code) AS many,
           row_number() OVER (PARTITION BY code ORDER BY subject COLLATE "C") AS rank
    FROM found
)
SELECT code, many, array_agg(subject ORDER BY rank) AS first
FROM ranked WHERE rank <= 10 GROUP BY code, many ORDER BY code

-- verticals_without_rules --
SELECT t.vertical AS vertical, count(*) AS many
FROM {tenants} AS t
WHERE EXISTS (SELECT FROM {configurations} AS c WHERE c.business_id = t.id)
  AND (%(tenant_ids)s::uuid[] IS NULL OR t.id = ANY (%(tenant_ids)s::uuid[]))
  AND btrim(t.vertical, {white_space}) <> ''
  AND NOT (t.vertical COLLATE "C" = ANY (%(known)s::text[]))
GROUP BY t.vertical ORDER BY t.vertical COLLATE "C"

-- verticals_known --
SELECT vertical FROM relevo.rule_verticals WHERE version = relevo.current_rules() AND vertical <> '*'

-- v2_rows --
-- What v2 holds already, and whose it is.
SELECT count(*) FILTER (WHERE o.config_id IS NOT NULL) AS by_relevo,
       count(*) FILTER (WHERE o.config_id IS NULL) AS by_others
FROM public.voice_assistant_configs v
LEFT JOIN relevo.config_origins o ON o.config_id = v.id
WHERE %(tenant_ids)s::uuid[] IS NULL OR v.business_id = ANY (%(tenant_ids)s::uuid[])

-- unknown_tenants --
SELECT wanted AS id FROM unnest(%(tenant_ids)s::uuid[]) AS wanted
WHERE NOT EXISTS (SELECT FROM {tenants} AS t WHERE t.id = wanted)
  AND NOT EXISTS (SELECT FROM {configurations} AS c WHERE c.business_id = wanted)

-- some_tenants --
SELECT id::text AS id FROM {tenants} AS t LIMIT 100000

-- open_run --
SELECT id, started_at, tenant_ids, config_ids, batch_size, workers, rule_version, backup_id, skip_backup, backup_calls
FROM relevo.runs WHERE state = 'running'

-- start_run --
INSERT INTO relevo.runs (started_at, actor, reason, tenant_ids, config_ids, batch_size, workers, rule_version,
                         skip_backup, backup_calls)
VALUES (%(now)s, %(actor)s, %(reason)s, %(tenant_ids)s, %(config_ids)s, %(batch_size)s, %(workers)s,
        relevo.current_rules(), %(skip_backup)s, %(backup_calls)s)
RETURNING id, started_at, tenant_ids, config_ids, batch_size, workers, rule_version, backup_id, skip_backup, backup_calls

-- finish_run --
UPDATE relevo.runs SET state = %(state)s, finished_at = %(now)s, result = %(result)s WHERE id = %(run_id)s

-- step --
SELECT worker, cursor, finished_at FROM relevo.run_steps
WHERE run_id = %(run_id)s AND step = %(step)s ORDER BY worker

-- save_step --
INSERT INTO relevo.run_steps AS s (run_id, step, worker, cursor, finished_at)
VALUES (%(run_id)s, %(step)s, %(worker)s, %(cursor)s, CASE WHEN %(finished)s THEN %(now)s::timestamptz END)
ON CONFLICT (run_id, step, worker) DO UPDATE SET cursor = excluded.cursor, finished_at = excluded.finished_at

-- set_run_backup --
UPDATE relevo.runs SET backup_id = %(backup_id)s WHERE id = %(run_id)s

-- audit --
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, %(action)s, %(subject)s, %(reason)s, %(details)s)

-- add_types --
-- A vertical without rules joins the catalogue with its basic type. Returns what was added.
INSERT INTO public.voice_assistant_types (id, vertical, name)
SELECT DISTINCT t.vertical || '_basic', t.vertical, initcap(t.vertical) || ' basic'
FROM {tenants} AS t
WHERE EXISTS (SELECT FROM {configurations} AS c WHERE c.business_id = t.id)
  AND (%(tenant_ids)s::uuid[] IS NULL OR t.id = ANY (%(tenant_ids)s::uuid[]))
  AND btrim(t.vertical, relevo.white_space()) <> ''
  AND NOT EXISTS (SELECT FROM relevo.rule_types r
                  WHERE r.version = %(rule_version)s AND r.vertical = t.vertical COLLATE "C")
ON CONFLICT (id) DO NOTHING
RETURNING id

-- record_types --
UPDATE relevo.runs SET types_added = types_added || %(types)s::text[] WHERE id = %(run_id)s

-- count_configurations --
SELECT count(*) AS total FROM {configurations} AS c
WHERE c.id IS NOT NULL AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
  AND (%(config_ids)s::uuid[] IS NULL OR c.id = ANY (%(config_ids)s::uuid[]))

-- split_configurations --
-- The keys that end each of some ranges of equal size; the last range has no end.
SELECT percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY c.id)::text[] AS ends FROM {configurations} AS c
WHERE c.id IS NOT NULL AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
  AND (%(config_ids)s::uuid[] IS NULL OR c.id = ANY (%(config_ids)s::uuid[]))

-- copy_batch --
-- One batch of configurations by key: those absent from v2 are derived and inserted, defective ones are set
-- aside, those already there, or deleted there, are left alone. The v1 rows are held FOR SHARE until the commit, so that no edit
-- or deletion falls between reading and writing.
WITH batch AS MATERIALIZED (
    SELECT c.* FROM {configurations} AS c
    WHERE c.id IS NOT NULL AND (%(after)s::uuid IS NULL OR c.id > %(after)s::uuid)
      AND (%(until)s::uuid IS NULL OR c.id <= %(until)s::uuid)
      AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
      AND (%(config_ids)s::uuid[] IS NULL OR c.id = ANY (%(config_ids)s::uuid[]))
    ORDER BY c.id
    LIMIT %(batch_size)s
    FOR SHARE OF c
), present AS MATERIALIZED (
    -- By array: looked up by key. Joined, the planner would read all of v2 for each batch.
    SELECT v.id FROM public.voice_assistant_configs v WHERE v.id = ANY (ARRAY(SELECT b.id FROM batch b))
), derived AS MATERIALIZED (
    SELECT * FROM ({derive}) AS d
    WHERE NOT EXISTS (SELECT FROM present v WHERE v.id = d.id)
      -- relevo.awaits_deletion, written out: called, it would be asked anew for each row.
      AND NOT EXISTS (SELECT FROM relevo.mirror_queue q
                      WHERE q.config_id = d.id AND q.written_on = 'v2' AND q.operation = 'delete')
), inserted AS (
    INSERT INTO public.voice_assistant_configs
           (id, business_id, assistant_type_id, vapi_assistant_id, phone_number_id, voice_id, voice_speed,
            personality_type, special_instructions, enabled_capabilities, template_version, is_active,
            created_at, updated_at, migrated_from_v1, migrated_at, original_prompt_hash)
    SELECT id, business_id, assistant_type_id, vapi_assistant_id, phone_number_id, voice_id, voice_speed,
           personality_type, special_instructions, enabled_capabilities, template_version, is_active,
           created_at, updated_at, migrated_from_v1, %(now)s, original_prompt_hash
    FROM derived WHERE defect IS NULL
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), archived AS (
    INSERT INTO relevo.config_origins (config_id, run_id, rule_version, prompt, provenance, review)
    SELECT d.id, %(run_id)s, %(rule_version)s, d.prompt, d.provenance, d.review
    FROM derived d JOIN inserted USING (id)
    ON CONFLICT (config_id) DO NOTHING
), released AS (
    DELETE FROM relevo.quarantine q USING inserted WHERE q.config_id = inserted.id::text
), set_aside AS (
    INSERT INTO relevo.quarantine (config_id, run_id, business_id, reason, detail)
    SELECT id::text, %(run_id)s, business_id::text, defect, relevo.defect_in_words(defect, business_id)
    FROM derived WHERE defect IS NOT NULL
    ON CONFLICT (config_id) DO UPDATE
    SET reason = excluded.reason, detail = excluded.detail, business_id = excluded.business_id
)
SELECT count(*) AS seen,
       (SELECT count(*) FROM inserted) AS migrated,
       (SELECT count(*) FROM derived WHERE defect IS NOT NULL) AS quarantined,
       (SELECT max(id::text COLLATE "C") FROM batch) AS last
FROM batch

-- quarantine_one --
INSERT INTO relevo.quarantine (config_id, run_id, business_id, reason, detail)
VALUES (%(config_id)s, %(run_id)s, NULL, %(reason)s, %(detail)s)
ON CONFLICT (config_id) DO UPDATE SET reason = excluded.reason, detail = excluded.detail

-- dry_run --
-- What a run would do with each configuration in scope, counted.
SELECT count(*) FILTER (WHERE d.defect IS NULL AND v.id IS NULL) AS migrated,
       count(*) FILTER (WHERE v.id IS NOT NULL) AS skipped,
       count(*) FILTER (WHERE d.defect IS NOT NULL AND v.id IS NULL) AS quarantined,
       count(*) FILTER (WHERE cardinality(CASE WHEN v.id IS NULL THEN d.review ELSE o.review END) > 0) AS review
FROM ({derive}) AS d
LEFT JOIN public.voice_assistant_configs v ON v.id = d.id
LEFT JOIN relevo.config_origins o ON o.config_id = v.id
WHERE d.id IS NOT NULL AND (%(tenant_ids)s::uuid[] IS NULL OR d.business_id = ANY (%(tenant_ids)s::uuid[]))

-- review_count --
SELECT count(*) AS many
FROM relevo.config_origins o JOIN public.voice_assistant_configs v ON v.id = o.config_id
WHERE cardinality(o.review) > 0
  AND (%(tenant_ids)s::uuid[] IS NULL OR v.business_id = ANY (%(tenant_ids)s::uuid[]))

-- expected_batch --
-- One batch of verification: each v1 configuration by key, re-derived by the rules that made its v2 row and
-- compared field by field. What somebody edited on v2, or what waits for repair, is no drift. A configuration born
-- on v2 shares with v1 only what both have.
WITH batch AS MATERIALIZED (
    SELECT c.* FROM {configurations} AS c
    WHERE c.id IS NOT NULL AND (%(after)s::uuid IS NULL OR c.id > %(after)s::uuid)
      AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
      AND (%(config_ids)s::uuid[] IS NULL OR c.id = ANY (%(config_ids)s::uuid[]))
    ORDER BY c.id
    LIMIT %(batch_size)s
), compared AS (
    SELECT e.id, e.business_id, v.id IS NULL AS missing, q.config_id IS NOT NULL AS quarantined,
           array_remove(ARRAY[
               CASE WHEN v.business_id IS DISTINCT FROM e.business_id THEN 'business_id' END,
               CASE WHEN v.assistant_type_id IS DISTINCT FROM e.assistant_type_id THEN 'assistant_type_id' END,
               CASE WHEN v.vapi_assistant_id IS DISTINCT FROM e.vapi_assistant_id THEN 'vapi_assistant_id' END,
               CASE WHEN v.phone_number_id IS DISTINCT FROM e.phone_number_id THEN 'phone_number_id' END,
               CASE WHEN v.voice_id IS DISTINCT FROM e.voice_id THEN 'voice_id' END,
               CASE WHEN v.voice_speed IS DISTINCT FROM e.voice_speed THEN 'voice_speed' END,
               CASE WHEN v.personality_type IS DISTINCT FROM e.personality_type THEN 'personality_type' END,
               CASE WHEN v.special_instructions IS DISTINCT FROM e.special_instructions THEN 'special_instructions' END,
               CASE WHEN v.enabled_capabilities IS DISTINCT FROM e.enabled_capabilities THEN 'enabled_capabilities' END,
               CASE WHEN v.template_version IS DISTINCT FROM e.template_version THEN 'template_version' END,
               CASE WHEN v.is_active IS DISTINCT FROM e.is_active THEN 'is_active' END,
               CASE WHEN v.created_at IS DISTINCT FROM e.created_at THEN 'created_at' END,
               CASE WHEN v.updated_at IS DISTINCT FROM e.updated_at THEN 'updated_at' END], NULL)
           || CASE WHEN o.rendered IS NOT NULL THEN '{{}}' ELSE array_remove(ARRAY[
               CASE WHEN v.migrated_from_v1 IS DISTINCT FROM e.migrated_from_v1 THEN 'migrated_from_v1' END,
               CASE WHEN v.original_prompt_hash IS DISTINCT FROM e.original_prompt_hash THEN 'original_prompt_hash' END,
               CASE WHEN o.config_id IS NULL THEN 'origin' END,
               CASE WHEN o.config_id IS NOT NULL AND o.prompt IS DISTINCT FROM e.prompt THEN 'archived_prompt' END,
               CASE WHEN o.config_id IS NOT NULL AND o.provenance IS DISTINCT FROM e.provenance THEN 'provenance' END
           ], NULL) END AS fields,
           coalesce((SELECT array_agg(m.field) FROM relevo.v2_edits m WHERE m.config_id = e.id), '{{}}') AS edited,
           EXISTS (SELECT FROM relevo.mirror_queue w WHERE w.config_id = e.id) AS queued
    FROM ({derive}) AS e
    -- By array, as in the copy: looked up by key, however large the tables are.
    LEFT JOIN (SELECT * FROM public.voice_assistant_configs
               WHERE id = ANY (ARRAY(SELECT b.id FROM batch b))) AS v ON v.id = e.id
    LEFT JOIN (SELECT * FROM relevo.config_origins
               WHERE config_id = ANY (ARRAY(SELECT b.id FROM batch b))) AS o ON o.config_id = e.id
    LEFT JOIN (SELECT * FROM relevo.quarantine
               WHERE config_id = ANY (ARRAY(SELECT b.id::text FROM batch b))) AS q ON q.config_id = e.id::text
), judged AS (
    SELECT id, business_id, CASE WHEN missing THEN '{{}}' ELSE fields END AS fields,
           CASE WHEN quarantined THEN 'quarantined'
                WHEN queued THEN 'queued'
                WHEN missing THEN 'missing'
                WHEN fields = '{{}}' THEN 'matched'
                WHEN fields <@ edited THEN 'edited_on_v2'
                ELSE 'drifted' END AS state
    FROM compared
)
SELECT count(*) AS seen,
       coalesce(jsonb_agg(to_jsonb(judged)), '[]') AS judged,
       (SELECT max(id::text COLLATE "C") FROM batch) AS last
FROM judged

-- record_verification --
-- Only what changed is written: a thousandth verification of the same rows costs no more than reading them.
INSERT INTO relevo.verifications AS known (config_id, business_id, state, fields, verified_at)
SELECT id, business_id, state, fields, %(now)s
FROM jsonb_to_recordset(%(judged)s) AS j (id uuid, business_id uuid, state text, fields text[])
ON CONFLICT (config_id) DO UPDATE
SET business_id = excluded.business_id, state = excluded.state, fields = excluded.fields,
    verified_at = excluded.verified_at
WHERE (known.business_id, known.state, known.fields)
      IS DISTINCT FROM (excluded.business_id, excluded.state, excluded.fields)

-- orphaned --
-- Configurations of v2 that come from nowhere: no v1 row bears their id; and whether that waits for repair.
SELECT v.id::text AS id, EXISTS (SELECT FROM relevo.mirror_queue w WHERE w.config_id = v.id) AS queued
FROM public.voice_assistant_configs v
WHERE (%(tenant_ids)s::uuid[] IS NULL OR v.business_id = ANY (%(tenant_ids)s::uuid[]))
  AND NOT EXISTS (SELECT FROM {configurations} AS c WHERE c.id = v.id)
ORDER BY v.id

-- businesses_without_metrics --
SELECT count(*) AS many FROM (SELECT DISTINCT business_id FROM {calls} AS c) AS seen
WHERE business_id IS NOT NULL
  AND (%(tenant_ids)s::uuid[] IS NULL OR business_id = ANY (%(tenant_ids)s::uuid[]))
  AND NOT EXISTS (SELECT FROM public.voice_assistant_metrics m WHERE m.business_id = seen.business_id)

-- call_columns --
SELECT count(*) FILTER (WHERE attname = 'outcome') > 0 AS outcome,
       count(*) FILTER (WHERE attname = 'agent_version') > 0 AS agent_version
FROM pg_catalog.pg_attribute
WHERE attrelid = format('%%I.%%I', %(schema)s::text, %(table)s::text)::regclass AND attnum > 0 AND NOT attisdropped

-- add_call_columns --
-- Constant defaults: the table is not rewritten, the lock lasts as long as the catalogue needs. What v1's code
-- inserts from now on says v1 by itself.
ALTER TABLE {calls_table}
    ADD COLUMN IF NOT EXISTS outcome text,
    ADD COLUMN IF NOT EXISTS agent_version text DEFAULT 'v1'

-- remember_call_columns --
INSERT INTO relevo.added_columns (schema, "table", "column")
SELECT %(schema)s, %(table)s, added FROM unnest(%(columns)s::text[]) AS added
ON CONFLICT DO NOTHING

-- leaves --
-- The physical tables behind a relation, itself or its partitions, with their size in pages.
SELECT n.nspname AS schema, c.relname AS "table",
       pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages
FROM (SELECT format('%%I.%%I', %(schema)s::text, %(table)s::text)::regclass AS oid) AS root
JOIN pg_catalog.pg_class c
  ON c.relkind = 'r' AND (c.oid = root.oid OR c.oid IN (SELECT t.relid FROM pg_partition_tree(root.oid) AS t WHERE t.isleaf))
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.oid

-- outcome_column --
-- What the platform's own outcome column takes: its type, an enum's words, and CHECKs on it alone.
SELECT format_type(a.atttypid, a.atttypmod) AS type,
       (SELECT array_agg(e.enumlabel::text) FROM pg_catalog.pg_enum e WHERE e.enumtypid = a.atttypid) AS words,
       (SELECT array_agg(pg_get_expr(c.conbin, c.conrelid)) FROM pg_catalog.pg_constraint c
        WHERE c.conrelid = a.attrelid AND c.contype = 'c' AND c.conkey = ARRAY[a.attnum]) AS checks
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
  AND a.attname = 'outcome' AND NOT a.attisdropped

-- outcome_words --
-- Every outcome that calls without one would get, and how many.
SELECT relevo.outcome_from_status(c.status) AS word, count(*) AS many FROM {calls_with_outcome} AS c
WHERE c.outcome IS NULL AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
GROUP BY 1 ORDER BY 1

-- words_taken --
-- Those of some words that the column takes: a text that stays itself as the column's type, and passes its CHECKs.
SELECT array_agg(outcome::text) AS words
FROM (SELECT word::{type} AS outcome, word FROM unnest(%(words)s::text[]) AS word
      WHERE %(labels)s::text[] IS NULL OR word = ANY (%(labels)s::text[])) AS v1
WHERE outcome::text = word AND {checks}

-- outcome_batch --
-- The outcome of every call within a range of pages that has none, remembering which calls were touched. Words that
-- the column would refuse are left out.
WITH touched AS (
    UPDATE ONLY {leaf} AS v1 SET outcome = relevo.outcome_from_status({status})::{type}
    WHERE v1.ctid >= %(from)s::tid AND v1.ctid < %(to)s::tid AND v1.outcome IS NULL
      AND (%(words)s::text[] IS NULL OR relevo.outcome_from_status({status}) = ANY (%(words)s::text[]))
      AND (%(tenant_ids)s::uuid[] IS NULL OR {business_id} = ANY (%(tenant_ids)s::uuid[]))
    RETURNING {id} AS id
), recorded AS (
    INSERT INTO relevo.run_calls (run_id, calls)
    SELECT %(run_id)s, array_agg(id) FROM touched HAVING count(*) > 0
)
SELECT count(*) AS updated FROM touched

-- calls_without_outcome --
SELECT count(*) AS many FROM {calls_table} AS v1
WHERE v1.outcome IS NULL
  AND (%(words)s::text[] IS NULL OR relevo.outcome_from_status({status}) = ANY (%(words)s::text[]))
  AND (%(tenant_ids)s::uuid[] IS NULL OR {business_id} = ANY (%(tenant_ids)s::uuid[]))

-- count_calls --
SELECT count(*) AS many FROM {calls} AS c
WHERE %(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[])

-- metrics --
-- Thirty days of each business that ever had a call, in one pass. Averages and percentiles (nearest rank) are
-- over calls that lasted, or were measured; 0 where there was none. A business keeps its first figures.
WITH figures AS (
    SELECT c.business_id,
           count(*) FILTER (WHERE c.recent) AS total_calls,
           count(*) FILTER (WHERE c.recent AND c.status = 'completed') AS successful_calls,
           count(*) FILTER (WHERE c.recent AND c.status = 'failed') AS failed_calls,
           avg(c.duration_seconds) FILTER (WHERE c.recent AND c.duration_seconds > 0) AS avg_duration_seconds,
           avg(c.avg_latency_ms) FILTER (WHERE c.recent AND c.avg_latency_ms > 0) AS avg_latency_ms,
           percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY c.avg_latency_ms)
               FILTER (WHERE c.recent AND c.avg_latency_ms > 0) AS percentiles,
           count(*) FILTER (WHERE c.recent AND c.outcome = 'reservation_created') AS reservations_created,
           count(*) FILTER (WHERE c.recent AND c.outcome = 'appointment_created') AS appointments_created,
           count(*) FILTER (WHERE c.recent AND c.outcome = 'order_created') AS orders_created,
           count(*) FILTER (WHERE c.recent AND c.outcome = 'transferred_to_human') AS human_transfers
    FROM (SELECT *, started_at >= %(period_start)s AND started_at <= %(period_end)s AS recent
          FROM {calls_with_outcome} AS every) AS c
    WHERE c.business_id IS NOT NULL
      AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
    GROUP BY c.business_id
), inserted AS (
    INSERT INTO public.voice_assistant_metrics
           (business_id, period_start, period_end, total_calls, successful_calls, failed_calls,
            avg_duration_seconds, avg_latency_ms, p50_latency_ms, p95_latency_ms,
            reservations_created, appointments_created, orders_created, human_transfers)
    SELECT business_id, %(period_start)s, %(period_end)s, total_calls, successful_calls, failed_calls,
           coalesce(avg_duration_seconds, 0), coalesce(avg_latency_ms, 0),
           coalesce(percentiles[1], 0), coalesce(percentiles[2], 0),
           reservations_created, appointments_created, orders_created, human_transfers
    FROM figures f
    WHERE NOT EXISTS (SELECT FROM public.voice_assistant_metrics m
                      JOIN relevo.run_metrics r ON r.metrics_id = m.id WHERE m.business_id = f.business_id)
    ON CONFLICT (business_id, period_start, period_end) DO NOTHING
    RETURNING id
), recorded AS (
    INSERT INTO relevo.run_metrics (metrics_id, run_id) SELECT id, %(run_id)s FROM inserted
)
SELECT count(*) AS inserted FROM inserted

-- metrics_due --
SELECT count(DISTINCT c.business_id) AS many FROM {calls} AS c
WHERE c.business_id IS NOT NULL
  AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
  AND NOT EXISTS (SELECT FROM public.voice_assistant_metrics m
                  JOIN relevo.run_metrics r ON r.metrics_id = m.id WHERE m.business_id = c.business_id)

-- forget_touched_calls --
DELETE FROM relevo.run_calls WHERE run_id = %(run_id)s

-- undo_configurations --
DELETE FROM public.voice_assistant_configs v
USING relevo.config_origins o
WHERE o.config_id = v.id AND o.run_id = %(run_id)s
  -- What somebody has edited there since is not the run's any more.
  AND NOT EXISTS (SELECT FROM relevo.v2_edits e WHERE e.config_id = v.id)

-- undo_metrics --
WITH written AS (DELETE FROM relevo.run_metrics WHERE run_id = %(run_id)s RETURNING metrics_id)
DELETE FROM public.voice_assistant_metrics m USING written WHERE m.id = written.metrics_id

-- undo_calls --
UPDATE {calls_table} AS v1 SET outcome = NULL
FROM (SELECT DISTINCT unnest(calls) AS touched_call FROM relevo.run_calls WHERE run_id = %(run_id)s) AS touched
WHERE {id} = touched_call

-- undo_quarantine --
DELETE FROM relevo.quarantine WHERE run_id = %(run_id)s

-- undo_types --
DELETE FROM public.voice_assistant_types t
USING relevo.runs r
WHERE r.id = %(run_id)s AND t.id = ANY (r.types_added)
  AND NOT EXISTS (SELECT FROM public.voice_assistant_configs v WHERE v.assistant_type_id = t.id)

-- next_key --
SELECT c.id::text AS id FROM {configurations} AS c
WHERE c.id IS NOT NULL AND (%(after)s::uuid IS NULL OR c.id > %(after)s::uuid)
  AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
  AND (%(config_ids)s::uuid[] IS NULL OR c.id = ANY (%(config_ids)s::uuid[]))
ORDER BY c.id LIMIT 1

-- verticals_in_catalogue --
SELECT DISTINCT vertical FROM public.voice_assistant_types ORDER BY vertical

-- explain --
SELECT i.assistant_type_id, i.enabled_capabilities, i.special_instructions, i.truncated, i.low_confidence,
       i.provenance, relevo.uncovered(%(prompt)s, relevo.current_rules(), i) AS uncovered
FROM relevo.infer(%(prompt)s, %(vertical)s, relevo.current_rules()) AS i

-- load --
-- Who waits for a lock, and how far the replicas are behind, as far as this role may see.
SELECT (SELECT count(DISTINCT l.pid) FROM pg_catalog.pg_locks l
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE NOT l.granted AND a.application_name IS DISTINCT FROM 'relevo') AS waiting,
       coalesce((SELECT extract(epoch FROM max(r.replay_lag)) FROM pg_catalog.pg_stat_replication r), 0) AS lag_s

-- override_targets --
SELECT lower(wanted) AS key, c.id AS config_id
FROM unnest(%(ids)s::text[]) AS wanted
JOIN {configurations} AS c ON lower(wanted) IN (c.id::text, c.business_id::text)

-- override_names --
SELECT (SELECT array_agg(id ORDER BY id) FROM public.voice_assistant_types) AS types,
       (SELECT array_agg(DISTINCT capability::text) || ARRAY['basic'] FROM relevo.rule_capabilities
        WHERE version = relevo.current_rules()) AS capabilities

-- store_override --
WITH replaced AS (
    INSERT INTO relevo.run_overrides (run_id, config_id, decision, row)
    SELECT %(run_id)s, %(config_id)s,
           (SELECT to_jsonb(o) FROM relevo.overrides o WHERE o.config_id = %(config_id)s),
           (SELECT to_jsonb(v) || jsonb_build_object('provenance', o.provenance, 'review', o.review)
            FROM public.voice_assistant_configs v JOIN relevo.config_origins o ON o.config_id = v.id
            WHERE v.id = %(config_id)s)
    ON CONFLICT (run_id, config_id) DO NOTHING
)
INSERT INTO relevo.overrides AS w (config_id, fields, assistant_type_id, enabled_capabilities, special_instructions,
                              actor, reason)
VALUES (%(config_id)s, %(fields)s, %(assistant_type_id)s, %(enabled_capabilities)s, %(special_instructions)s,
        %(actor)s, %(reason)s)
ON CONFLICT (config_id) DO UPDATE
-- What was decided before and is not decided anew, stays decided.
SET fields = ARRAY(SELECT unnest(w.fields) UNION SELECT unnest(excluded.fields) ORDER BY 1),
    assistant_type_id = coalesce(excluded.assistant_type_id, w.assistant_type_id),
    enabled_capabilities = coalesce(excluded.enabled_capabilities, w.enabled_capabilities),
    special_instructions = CASE WHEN 'special_instructions' = ANY (excluded.fields) THEN excluded.special_instructions
                                ELSE w.special_instructions END,
    actor = excluded.actor, reason = excluded.reason, decided_at = now()

-- apply_overrides --
UPDATE public.voice_assistant_configs v
SET assistant_type_id = CASE WHEN 'assistant_type_id' = ANY (w.fields) THEN w.assistant_type_id
                             ELSE v.assistant_type_id END,
    enabled_capabilities = CASE WHEN 'enabled_capabilities' = ANY (w.fields) THEN w.enabled_capabilities
                                ELSE v.enabled_capabilities END,
    special_instructions = CASE WHEN 'special_instructions' = ANY (w.fields) THEN w.special_instructions
                                ELSE v.special_instructions END
FROM relevo.overrides w JOIN relevo.run_overrides r ON r.config_id = w.config_id
WHERE r.run_id = %(run_id)s AND v.id = w.config_id AND v.migrated_from_v1

-- note_overrides --
UPDATE relevo.config_origins o
SET provenance = o.provenance || jsonb_build_object('overridden', w.fields),
    review = array_remove(CASE WHEN 'special_instructions' = ANY (w.fields) THEN array_remove(o.review, 'truncated')
                               ELSE o.review END, 'low_confidence')
FROM relevo.overrides w JOIN relevo.run_overrides r ON r.config_id = w.config_id
WHERE r.run_id = %(run_id)s AND o.config_id = w.config_id

-- undo_applied_overrides --
UPDATE public.voice_assistant_configs v
SET assistant_type_id = was.assistant_type_id, enabled_capabilities = was.enabled_capabilities,
    special_instructions = was.special_instructions
FROM relevo.run_overrides r,
     LATERAL jsonb_to_record(r.row) AS was (assistant_type_id text, enabled_capabilities text[], special_instructions text)
WHERE r.run_id = %(run_id)s AND r.row IS NOT NULL AND v.id = r.config_id

-- undo_noted_overrides --
UPDATE relevo.config_origins o
SET provenance = r.row -> 'provenance', review = was.review
FROM relevo.run_overrides r, LATERAL jsonb_to_record(r.row) AS was (review text[])
WHERE r.run_id = %(run_id)s AND r.row IS NOT NULL AND o.config_id = r.config_id

-- undo_overrides --
WITH taken_back AS (
    DELETE FROM relevo.overrides w USING relevo.run_overrides r
    WHERE r.run_id = %(run_id)s AND w.config_id = r.config_id AND r.decision IS NULL
)
UPDATE relevo.overrides w
SET fields = was.fields, assistant_type_id = was.assistant_type_id, enabled_capabilities = was.enabled_capabilities,
    special_instructions = was.special_instructions, actor = was.actor, reason = was.reason, decided_at = was.decided_at
FROM relevo.run_overrides r, LATERAL jsonb_populate_record(NULL::relevo.overrides, r.decision) AS was
WHERE r.run_id = %(run_id)s AND w.config_id = r.config_id AND r.decision IS NOT NULL

-- overrides_foretold --
-- The decisions in force, as if those handed over were stored already.
(SELECT config_id, ARRAY(SELECT unnest(o.fields) UNION SELECT unnest(n.fields)) AS fields,
        coalesce(n.assistant_type_id, o.assistant_type_id) AS assistant_type_id,
        coalesce(n.enabled_capabilities, o.enabled_capabilities) AS enabled_capabilities,
        CASE WHEN 'special_instructions' = ANY (n.fields) THEN n.special_instructions
             ELSE o.special_instructions END AS special_instructions
 FROM (SELECT config_id, fields, assistant_type_id, enabled_capabilities, special_instructions
       FROM relevo.overrides) AS o
 FULL JOIN jsonb_to_recordset(%(foretold)s) AS n (config_id uuid, fields text[], assistant_type_id text,
                                                  enabled_capabilities text[], special_instructions text)
     USING (config_id))

-- set_aside --
SELECT q.config_id, q.business_id, q.reason, q.detail, q.set_aside_at, q.run_id,
       EXISTS (SELECT FROM {configurations} AS c WHERE c.id = q.config_id::uuid) AS in_v1
FROM relevo.quarantine q ORDER BY q.reason, q.config_id

-- forget_deleted --
DELETE FROM relevo.quarantine q WHERE NOT EXISTS (SELECT FROM {configurations} AS c WHERE c.id = q.config_id::uuid)

-- review_batch --
-- One batch of what a person should look at before it goes live, prompt beside result.
WITH batch AS MATERIALIZED (
    SELECT c.* FROM {configurations} AS c
    WHERE c.id IS NOT NULL AND (%(after)s::uuid IS NULL OR c.id > %(after)s::uuid)
      AND (%(tenant_ids)s::uuid[] IS NULL OR c.business_id = ANY (%(tenant_ids)s::uuid[]))
    ORDER BY c.id
    LIMIT %(batch_size)s
)
SELECT d.id, d.business_id, d.business_name, d.vertical, d.assistant_name, d.first_message, d.prompt,
       d.assistant_type_id, d.enabled_capabilities, d.special_instructions, d.provenance, d.review, d.defect
FROM ({derive}) AS d ORDER BY d.id

-- uncovered --
SELECT relevo.uncovered(%(prompt)s, relevo.current_rules(), i) AS passages
FROM relevo.infer(%(prompt)s, %(vertical)s, relevo.current_rules()) AS i

-- timeouts --
-- What the role is given when a session begins, before Relevo lifts it.
SELECT coalesce((SELECT reset_val || unit FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'
                   AND reset_val <> '0'), '0') AS statement_timeout

-- exposed --
SELECT c.oid::regclass::text AS name, r.rolname AS role
FROM unnest(%(tables)s::text[]) AS named
JOIN pg_catalog.pg_class c ON c.oid = named::regclass
JOIN pg_catalog.pg_roles r ON r.rolname IN ('anon', 'authenticated')
WHERE NOT c.relrowsecurity AND has_table_privilege(r.oid, c.oid, 'SELECT')
  AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
ORDER BY 1, 2

-- triggers --
-- Triggers of others that the move would fire: on calls when they change, on v2's tables when rows arrive.
SELECT t.tgname AS trigger, c.oid::regclass::text AS name, t.tgfoid::regproc::text AS calls
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname NOT LIKE 'relevo%%'
  AND (c.oid = %(calls)s::regclass AND t.tgtype::integer & 16 <> 0
       OR c.oid = to_regclass('public.voice_assistant_configs') AND t.tgtype::integer & 4 <> 0)
ORDER BY 2, 1

-- sizes --
-- What a backup of these tables would copy, and about how many rows the last of them has.
SELECT coalesce(sum(pg_table_size(leaf.oid)), 0)::bigint AS bytes,
       coalesce(sum(greatest(leaf.reltuples, 0)) FILTER (WHERE named.place = cardinality(%(tables)s::text[])), 0)::bigint
           AS calls
FROM unnest(%(tables)s::text[]) WITH ORDINALITY AS named (name, place)
JOIN pg_catalog.pg_class leaf ON leaf.oid = named.name::regclass
   OR leaf.oid IN (SELECT p.relid FROM pg_partition_tree(named.name::regclass) AS p WHERE p.isleaf)

-- all_columns --
SELECT n.nspname || '.' || c.relname AS "table", a.attname AS "column", format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND NOT c.relispartition
  AND n.nspname NOT IN ('information_schema', 'relevo', 'relevo_backup', 'auth', 'storage', 'realtime', 'vault')
ORDER BY n.nspname <> 'public', 1, a.attnum
