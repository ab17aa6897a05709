-- Statements of going back by the flag: levels tenant, partial and total, and undoing them.

-- act --
-- Who goes back, why, and how far: the row's triggers write it down, and end a rollout or pause it.
SELECT set_config('relevo.actor', %(actor)s::text, true),
       set_config('relevo.reason', coalesce(%(reason)s::text, ''), true),
       set_config('relevo.rollback', %(level)s::text, true)

-- locked_flag --
SELECT name, enabled, percentage, enabled_tenants, disabled_tenants, version
FROM public.feature_flags WHERE name = 'voice_agent_v2' FOR NO KEY UPDATE

-- active --
SELECT t.id FROM relevo.active_tenants() AS t (id)

-- tenant --
UPDATE public.feature_flags SET disabled_tenants = disabled_tenants || %(tenants)s::text[]
WHERE name = 'voice_agent_v2'
RETURNING name, enabled, percentage, enabled_tenants, disabled_tenants, version

-- size_at --
SELECT relevo.tenants_at(%(percentage)s) AS size

-- partial --
-- The last to join leave; a share by hash never grows by going back.
UPDATE public.feature_flags
SET percentage = least(percentage, %(percentage)s), enabled_tenants = enabled_tenants[1:%(size)s]
WHERE name = 'voice_agent_v2'
RETURNING name, enabled, percentage, enabled_tenants, disabled_tenants, version

-- total --
-- The panic statement of docs/runbook.md does the same to the row.
UPDATE public.feature_flags SET enabled = false, percentage = 0, enabled_tenants = ARRAY[]::text[]
WHERE name = 'voice_agent_v2'
RETURNING name, enabled, percentage, enabled_tenants, disabled_tenants, version

-- undo --
-- The row as it was, as far as those who were on v2 may still live there.
UPDATE public.feature_flags AS f
SET enabled = %(enabled)s, percentage = %(percentage)s,
    enabled_tenants = ARRAY(SELECT u.id FROM unnest(%(enabled_tenants)s::text[]) WITH ORDINALITY AS u (id, place)
                            WHERE u.id NOT IN (SELECT n.tenant_id
                                               FROM relevo.unverified_tenants(%(enabled_tenants)s::text[]) AS n)
                            ORDER BY u.place)
WHERE f.name = 'voice_agent_v2'
RETURNING name, enabled, percentage, enabled_tenants, disabled_tenants, version

-- audit --
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, %(action)s, 'voice_agent_v2', %(reason)s, %(details)s::jsonb)
RETURNING id, clock_timestamp() AS changed_at

-- done_by --
-- What an entry of the audit log did, where it went back by the flag.
SELECT id, action, details FROM relevo.audit_log
WHERE id = %(id)s AND action IN ('rollback.partial', 'rollback.total', 'rollback.undo', 'rollout.shrink', 'rollout.roll_back',
                                 'rollout.abort') AND jsonb_exists(details, 'before')

-- obeyed --
-- The living processes that answer by the flag: how many lag behind a version, and since when the slowest does not.
SELECT count(*) AS readers, count(*) FILTER (WHERE version < %(version)s) AS behind,
       coalesce(array_agg(reader ORDER BY reader) FILTER (WHERE version < %(version)s), '{{}}') AS lagging,
       greatest(0, extract(epoch FROM max(applied_at) FILTER (WHERE version >= %(version)s)
                                      - %(changed_at)s::timestamptz) * 1000)::float8 AS propagation_ms
FROM relevo.flag_readers WHERE flag = 'voice_agent_v2' AND heartbeat_at > now() - interval '1 minute'

-- in_progress --
-- Calls of tenants that are going on with v2: they stay with it to their end.
SELECT count(*) AS calls FROM relevo.calls
WHERE stage < 6 AND version = 'v2' AND NOT synthetic AND tenant_id = ANY (%(tenants)s::text[])
  AND decided_at >= %(since)s

-- calls_of_v2 --
-- Calls that are going on with v2, of the tenants named, or of all that the flag does not put there any more; and by
-- number at Vapi where a person of the business answers.
WITH line AS (
    SELECT c.business_id::text AS tenant_id,
           jsonb_object_agg(c.phone_number_id, relevo.human_line(n.fallback, t.human_phone_number)) AS lines
    FROM public.voice_assistant_configs c
    LEFT JOIN relevo.tenants_as_they_are() AS t ON t.id = c.business_id
    LEFT JOIN relevo.vapi_numbers n ON n.id = c.phone_number_id
    WHERE c.phone_number_id <> '' AND relevo.human_line(n.fallback, t.human_phone_number) IS NOT NULL
    GROUP BY c.business_id
)
SELECT c.call_id, c.tenant_id, l.lines AS human_lines
FROM relevo.calls c LEFT JOIN line l ON l.tenant_id = c.tenant_id
WHERE c.stage < 6 AND c.served_version = 'v2' AND NOT c.synthetic AND c.decided_at >= %(since)s
  AND (c.tenant_id = ANY (%(tenants)s::text[])
       OR %(tenants)s::text[] IS NULL AND NOT public.should_use_voice_agent_v2(c.tenant_id))
ORDER BY c.decided_at, c.call_id

-- note_cut --
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, 'call.cut', 'call ' || %(call_id)s::text, %(reason)s, %(details)s::jsonb)

-- edits --
-- What was edited on v2 and v1 will not say.
SELECT c.business_id::text AS tenant_id, e.config_id, e.field, e.edited_by, e.edited_at
FROM relevo.v2_edits e JOIN public.voice_assistant_configs c ON c.id = e.config_id
WHERE c.business_id::text = ANY (%(tenants)s::text[])
ORDER BY 1, 2, 3
