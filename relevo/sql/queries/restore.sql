-- switch_mirror_off --
-- For this transaction alone: what is restored on one side is restored on the other.
SELECT set_config('relevo.mirror', 'off', true), set_config('row_security', 'off', true)

-- backup --
SELECT id, created_at, tables, contents, tenant_ids, actor, reason, verified_at
FROM public.migration_backups WHERE id = %(id)s

-- earlier_copies --
-- Where backups that were taken before this one keep a table.
SELECT b.contents -> %(table)s::text ->> 'copy' AS copy
FROM public.migration_backups b
WHERE b.number < (SELECT this.number FROM public.migration_backups this WHERE this.id = %(id)s)
  AND to_regclass(b.contents -> %(table)s::text ->> 'copy') IS NOT NULL
  AND b.contents -> %(table)s::text -> 'columns' @> to_jsonb(%(key)s::text[])

-- copies --
SELECT to_regclass(%(copy)s::text) IS NOT NULL AS present

-- lock_copy --
LOCK TABLE {copy} IN SHARE MODE

-- lock --
LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE

-- lock_exclusively --
LOCK TABLE {relation} IN ACCESS EXCLUSIVE MODE

-- columns --
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attgenerated::text <> '' AS generated, a.attidentity::text = 'a' AS always_identity
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = to_regclass(%(relation)s::text) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- key --
-- The columns that tell rows apart: of the primary key, else of the smallest other unique index without NULLs.
SELECT array_agg(a.attname::text ORDER BY place.n) AS names
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS place (attnum, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = place.attnum
WHERE i.indrelid = to_regclass(%(relation)s::text) AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL AND place.n <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts
HAVING bool_and(a.attnotnull)
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
LIMIT 1

-- tree --
-- A table and its partitions: whether policies hold for the owner too.
SELECT n.nspname AS schema, c.relname AS "table", c.relforcerowsecurity AS forced
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%(relation)s::text)
   OR c.oid IN (SELECT t.relid FROM pg_partition_tree(to_regclass(%(relation)s::text)) AS t)
ORDER BY c.oid

-- lift_policies --
ALTER TABLE {relation} NO FORCE ROW LEVEL SECURITY

-- put_policies_back --
ALTER TABLE {relation} FORCE ROW LEVEL SECURITY

-- triggers --
-- What people have hung on a table and its partitions and would fire: O by itself, A always, R on a replica.
SELECT n.nspname AS schema, c.relname AS "table", t.tgname AS trigger, t.tgenabled::text AS state
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (c.oid = to_regclass(%(relation)s::text)
       OR c.oid IN (SELECT p.relid FROM pg_partition_tree(to_regclass(%(relation)s::text)) AS p))
  AND NOT t.tgisinternal AND t.tgenabled <> 'D'
ORDER BY c.oid, t.tgname

-- disable_trigger --
ALTER TABLE ONLY {relation} DISABLE TRIGGER {trigger}

-- enable_trigger_O --
ALTER TABLE ONLY {relation} ENABLE TRIGGER {trigger}

-- enable_trigger_A --
ALTER TABLE ONLY {relation} ENABLE ALWAYS TRIGGER {trigger}

-- enable_trigger_R --
ALTER TABLE ONLY {relation} ENABLE REPLICA TRIGGER {trigger}

-- foreign_keys --
-- Every foreign key that points at these tables or their partitions, and from where.
WITH ours AS (
    SELECT to_regclass(each) AS root, coalesce(t.relid, to_regclass(each)) AS oid
    FROM unnest(%(relations)s::text[]) AS each
    LEFT JOIN LATERAL pg_partition_tree(to_regclass(each)) AS t ON true
)
SELECT k.conname AS name, k.confdeltype::text AS action, k.condeferrable AS deferrable,
       referenced.root::oid::bigint AS parent, coalesce(child.root, k.conrelid::regclass)::oid::bigint AS child,
       child.root IS NOT NULL AS inside,
       (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = k.conrelid) AS schema,
       (SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = k.conrelid) AS "table",
       (SELECT array_agg(a.attname::text ORDER BY place.n) FROM unnest(k.conkey) WITH ORDINALITY AS place (attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = place.attnum) AS columns,
       (SELECT array_agg(a.attname::text ORDER BY place.n) FROM unnest(k.confkey) WITH ORDINALITY AS place (attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = place.attnum) AS referenced
FROM pg_catalog.pg_constraint k
JOIN ours AS referenced ON referenced.oid = k.confrelid
LEFT JOIN ours AS child ON child.oid = k.conrelid
WHERE k.contype = 'f' AND k.conparentid = 0
ORDER BY k.conname, k.oid

-- oid_of --
SELECT to_regclass(%(relation)s::text)::oid::bigint AS oid

-- make_deferrable --
ALTER TABLE {relation} ALTER CONSTRAINT {constraint} DEFERRABLE INITIALLY DEFERRED

-- make_immediate --
ALTER TABLE {relation} ALTER CONSTRAINT {constraint} NOT DEFERRABLE

-- defer_constraints --
SET CONSTRAINTS ALL DEFERRED

-- check_constraints --
SET CONSTRAINTS ALL IMMEDIATE

-- count_hanging --
SELECT count(*) AS rows FROM {relation} AS v1 WHERE ({condition}) AND ({stays})

-- difference --
-- What a restore would do to a table. A row on both sides that changed hands between tenants in scope and tenants
-- outside is nobody's to restore.
SELECT count(*) FILTER (WHERE live.relevo_inside IS NULL AND saved.relevo_inside) AS missing,
       count(*) FILTER (WHERE live.relevo_inside AND saved.relevo_inside AND ({differs})) AS differing,
       count(*) FILTER (WHERE live.relevo_inside AND saved.relevo_inside IS NULL) AS extra,
       count(*) FILTER (WHERE live.relevo_inside <> saved.relevo_inside) AS moved,
       array_agg(DISTINCT coalesce(live.relevo_tenant, saved.relevo_tenant)) FILTER (WHERE {touched}) AS tenants
FROM {saved} AS saved FULL JOIN {live} AS live ON {match}

-- details --
-- The first rows of each kind by their key, and which columns differ.
SELECT d.kind, d.key, d.fields FROM (
    SELECT c.kind, c.key, c.fields, row_number() OVER (PARTITION BY c.kind ORDER BY c.key) AS number
    FROM (
        SELECT CASE WHEN live.relevo_inside IS NULL THEN 'insert' WHEN saved.relevo_inside IS NULL THEN 'extra'
                    ELSE 'update' END AS kind,
               coalesce(live.relevo_key, saved.relevo_key) AS key,
               CASE WHEN live.relevo_inside AND saved.relevo_inside THEN array_remove({fields}, NULL) END AS fields
        FROM {saved} AS saved FULL JOIN {live} AS live ON {match}
        WHERE (live.relevo_inside IS NULL AND saved.relevo_inside) OR (saved.relevo_inside IS NULL AND live.relevo_inside)
           OR (live.relevo_inside AND saved.relevo_inside AND ({differs}))
    ) AS c
) AS d
WHERE d.number <= %(most)s
ORDER BY d.kind, d.number

-- count_fields --
-- In how many rows each column differs.
SELECT differing.name, count(*) AS rows
FROM {saved} AS saved JOIN {live} AS live ON {match}
CROSS JOIN LATERAL unnest({fields}) AS differing (name)
WHERE live.relevo_inside AND saved.relevo_inside AND ({differs}) AND differing.name IS NOT NULL
GROUP BY differing.name ORDER BY differing.name

-- count_known --
-- Rows that the backup lacks and an earlier one holds: they are not newer, they had been deleted by then.
SELECT count(*) AS rows FROM {relation} AS v1 WHERE ({extra}) AND ({known})

-- lossy --
-- Values of a column that its present type would not give back.
SELECT count(*) AS rows FROM {copy} AS saved
WHERE ROW((saved.{column}::{new})::{old})::record OPERATOR(pg_catalog.*<>) ROW(saved.{column})::record

-- create_stage --
CREATE TEMPORARY TABLE IF NOT EXISTS relevo_restore (place tid, again boolean) ON COMMIT DROP

-- empty_stage --
TRUNCATE pg_temp.relevo_restore

-- stage_differing --
-- The places in the copy of the rows to put back; again: an update will not do, the row goes and comes anew.
INSERT INTO pg_temp.relevo_restore (place, again)
SELECT saved.relevo_place, {again} FROM {saved} AS saved JOIN {live} AS live ON {match}
WHERE saved.relevo_inside AND live.relevo_inside AND ({differs})

-- stage_missing --
INSERT INTO pg_temp.relevo_restore (place, again)
SELECT saved.relevo_place, true FROM {saved} AS saved LEFT JOIN {live} AS live ON {match}
WHERE saved.relevo_inside AND live.relevo_inside IS NULL

-- stage_pages --
SELECT pg_relation_size('pg_temp.relevo_restore') / current_setting('block_size')::bigint AS pages

-- replace_all --
UPDATE pg_temp.relevo_restore SET again = true

-- delete_extra --
DELETE FROM {relation} AS v1 WHERE {condition}

-- delete_replaced --
DELETE FROM {relation} AS v1 USING pg_temp.relevo_restore AS s, {copy} AS saved
WHERE s.again AND saved.ctid = s.place AND {match}

-- update --
UPDATE {relation} AS v1 SET {assignments}
FROM pg_temp.relevo_restore AS s, {copy} AS saved
WHERE NOT s.again AND s.ctid >= %(from)s::tid AND s.ctid < %(to)s::tid
  AND saved.ctid = s.place AND {match}

-- insert --
INSERT INTO {relation} ({columns}) OVERRIDING SYSTEM VALUE
SELECT {values} FROM pg_temp.relevo_restore AS s, {copy} AS saved
WHERE s.again AND s.ctid >= %(from)s::tid AND s.ctid < %(to)s::tid AND saved.ctid = s.place

-- sequences --
-- What numbers the rows of a table, by identity or by default.
SELECT a.attname::text AS name, format('%%I.%%I', n.nspname, s.relname) AS sequence
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.refobjid = to_regclass(%(relation)s::text) AND d.classid = 'pg_catalog.pg_class'::regclass
  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')

-- push_sequence --
-- Never back: numbers that were given out are not given out again.
SELECT setval(%(sequence)s::regclass, max(v1.{column})) FROM {relation} AS v1
HAVING max(v1.{column}) > coalesce(pg_sequence_last_value(%(sequence)s::regclass), 0)

-- open_restore --
SELECT id, backup_id, started_at, actor FROM relevo.restores WHERE state = 'running'

-- begin_restore --
INSERT INTO relevo.restores (backup_id, started_at, actor, reason, tenant_ids, discard_newer)
VALUES (%(backup_id)s, %(now)s, %(actor)s, %(reason)s, %(tenant_ids)s, %(discard_newer)s)
RETURNING id

-- finish_restore --
UPDATE relevo.restores SET state = 'done', finished_at = %(now)s, backup_before = %(backup_before)s
WHERE id = %(id)s AND state = 'running'

-- fail_restore --
UPDATE relevo.restores SET state = 'failed', finished_at = %(now)s WHERE id = %(id)s AND state = 'running'

-- audit --
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, %(action)s, %(subject)s, %(reason)s, %(details)s)
RETURNING id

-- enabled_on_v2 --
SELECT coalesce(bool_or(f.enabled AND (f.percentage > 0 OR cardinality(f.enabled_tenants) > 0)), false) AS live
FROM public.feature_flags f WHERE f.name = 'voice_agent_v2'

-- side --
-- One side of a comparison: a table or its copy, and of each row whether it is in scope and whose it is.
(SELECT v1.*, v1.ctid AS relevo_place, coalesce(({inside}), false) AS relevo_inside, {tenant} AS relevo_tenant,
        {key} AS relevo_key
 FROM {relation} AS v1)

-- extra --
coalesce(({inside}), false) AND NOT EXISTS (SELECT FROM {copy} AS saved WHERE {match})

-- known --
EXISTS (SELECT FROM ({copies}) AS saved WHERE {match})

-- keys_of --
SELECT {key} FROM {copy}

-- points_at --
({columns}) IN (SELECT {referenced} FROM {relation} AS v1 WHERE {condition})

-- staged_there --
EXISTS (SELECT FROM pg_temp.relevo_restore AS s, {copy} AS saved WHERE s.again AND saved.ctid = s.place AND {match})

-- ids_of --
(SELECT {id} AS id, {business_id} AS business_id FROM {copy} AS v1)

-- unknown_tenants --
SELECT wanted AS id FROM unnest(%(tenant_ids)s::uuid[]) AS wanted
WHERE NOT EXISTS (SELECT FROM {tenants} AS t WHERE t.id = wanted)
  AND NOT EXISTS (SELECT FROM {configurations} AS c WHERE c.business_id = wanted)
  AND NOT EXISTS (SELECT FROM {saved} AS s WHERE s.business_id = wanted)
