-- columns --
SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
  AND a.attnum > 0 AND NOT a.attisdropped

-- create_copy --
CREATE TABLE {copy} AS SELECT {columns} FROM {relation} WITH NO DATA

-- seclude_copy --
ALTER TABLE {copy} ENABLE ROW LEVEL SECURITY

-- fill_copy --
INSERT INTO {copy} ({columns}) SELECT {columns} FROM ONLY {leaf} AS v1
WHERE v1.ctid >= %(from)s::tid AND v1.ctid < %(to)s::tid AND ({scope})

-- checksum --
-- Rows and a checksum that does not depend on their order. The session's ways of writing values are pinned by
-- the transaction.
SELECT count(*) AS rows, coalesce(sum(hashtextextended(r::text, 0)), 0)::text AS checksum
FROM (SELECT {columns} FROM {relation} AS v1 WHERE ({scope})) AS r

-- record --
INSERT INTO public.migration_backups (id, created_at, tables, contents, tenant_ids, actor, reason)
VALUES (%(id)s, %(now)s, %(tables)s, %(contents)s, %(tenant_ids)s, %(actor)s, %(reason)s)

-- mark_verified --
UPDATE public.migration_backups SET verified_at = %(now)s WHERE id = %(id)s

-- list --
SELECT id, created_at, tables, contents, tenant_ids, actor, reason, verified_at
FROM public.migration_backups ORDER BY created_at DESC, id

-- touched_columns --
-- The key of a table of calls, and the columns that the move writes, as far as they are there.
SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), ARRAY[]::text[]) AS names,
       coalesce(bool_or(a.attnum = ANY (key.attnums)), false) AS has_key
FROM pg_catalog.pg_attribute a
LEFT JOIN LATERAL (
    SELECT i.indkey::int2[] AS attnums FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary
) AS key ON true
WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
  AND NOT a.attisdropped AND a.attnum > 0
  AND (a.attname IN ('outcome', 'agent_version') OR a.attnum = ANY (key.attnums))

-- present --
-- Which of these are tables, partitioned ones included.
SELECT n.nspname AS schema, c.relname AS "table"
FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS wanted (schema, "table")
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted."table" AND c.relkind IN ('r', 'p')

-- configs_of_tenants --
SELECT coalesce(array_agg(DISTINCT c.id::text), ARRAY[]::text[]) AS config_ids
FROM (SELECT c.id, c.business_id FROM {configurations} AS c
      UNION SELECT v.id, v.business_id FROM public.voice_assistant_configs v{more}) AS c
WHERE c.business_id = ANY (%(tenant_ids)s::uuid[])

-- hide_nothing --
SELECT set_config('row_security', 'off', true)
