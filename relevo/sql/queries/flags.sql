-- Statements of the flag.

-- act --
-- Who acts in this transaction, and why; the row's triggers write it down.
SELECT set_config('relevo.actor', %(actor)s::text, true),
       set_config('relevo.reason', coalesce(%(reason)s::text, ''), true),
       set_config('relevo.forced', CASE WHEN %(forced)s::boolean THEN 'true' ELSE '' END, true)

-- flag --
SELECT name, enabled, percentage, enabled_tenants, disabled_tenants, version
FROM public.feature_flags WHERE name = %(name)s

-- locked_flag --
SELECT name, enabled, percentage, enabled_tenants, disabled_tenants, version
FROM public.feature_flags WHERE name = %(name)s FOR NO KEY UPDATE

-- fresh_flag --
-- The row, its lists only when it was written since the reader looked. ``stamp`` is the writing transaction: it changes
-- even where somebody has switched the triggers off that count the versions. ``backend``: which process answers.
SELECT name, enabled, percentage, version, stamp, written, pg_backend_pid() AS backend,
       CASE WHEN written THEN enabled_tenants END AS enabled_tenants,
       CASE WHEN written THEN disabled_tenants END AS disabled_tenants
FROM (SELECT *, xmin::text AS stamp, xmin::text IS DISTINCT FROM %(stamp)s::text AS written
      FROM public.feature_flags WHERE name = %(name)s) AS f

-- switch --
UPDATE public.feature_flags SET enabled = %(enabled)s WHERE name = %(name)s

-- set_percentage --
UPDATE public.feature_flags SET percentage = %(percentage)s WHERE name = %(name)s

-- enable --
UPDATE public.feature_flags
SET disabled_tenants = relevo.without(disabled_tenants, %(tenants)s::text[]),
    enabled_tenants = enabled_tenants || %(tenants)s::text[]
WHERE name = %(name)s

-- disable --
-- As the specification's own emergency call; the row's trigger takes them off the enabled list.
UPDATE public.feature_flags SET disabled_tenants = disabled_tenants || %(tenants)s::text[] WHERE name = %(name)s

-- unverified --
SELECT tenant_id, why FROM relevo.unverified_tenants(%(tenants)s::text[])

-- strangers --
-- Those of the given tenants that exist nowhere; where Relevo knows no tenant at all, nobody is one.
WITH known AS MATERIALIZED (SELECT DISTINCT id FROM relevo.known_tenants())
SELECT asked.id FROM unnest(%(tenants)s::text[]) WITH ORDINALITY AS asked (id, place)
WHERE NOT EXISTS (SELECT FROM known WHERE known.id = asked.id) AND EXISTS (SELECT FROM known)
ORDER BY asked.place

-- known --
SELECT id, max(name) AS name FROM relevo.known_tenants() GROUP BY id ORDER BY id

-- history --
-- Newest first.
SELECT at, actor, action, reason, details FROM relevo.audit_log
WHERE subject = %(name)s AND action IN ('flag.change', 'flag.create')
ORDER BY id DESC LIMIT %(most)s

-- report_reader --
-- Which version a process answers by now, and that it is alive; who has been silent for a day is forgotten.
WITH gone AS (
    DELETE FROM relevo.flag_readers WHERE heartbeat_at < now() - interval '1 day'
)
INSERT INTO relevo.flag_readers AS r (reader, flag, version, mode, applied_at, heartbeat_at)
VALUES (%(reader)s, %(flag)s, %(version)s, %(mode)s, clock_timestamp(), clock_timestamp())
ON CONFLICT (reader, flag) DO UPDATE
SET version = excluded.version, mode = excluded.mode, heartbeat_at = excluded.heartbeat_at,
    applied_at = CASE WHEN r.version = excluded.version THEN r.applied_at ELSE excluded.applied_at END

-- readers --
SELECT reader, version, mode, applied_at, heartbeat_at FROM relevo.flag_readers
WHERE flag = %(name)s AND heartbeat_at > now() - interval '1 minute' ORDER BY reader

-- forget_reader --
DELETE FROM relevo.flag_readers WHERE reader = %(reader)s AND flag = %(flag)s

-- listen --
LISTEN relevo_flags
