-- Statements of the rollout. {tenants} and {calls} are v1 through the source mapping.

-- candidates --
-- Active tenants, what they are, how many calls they have a day, and why one may not live on v2.
WITH active AS MATERIALIZED (
    SELECT t.id FROM relevo.active_tenants() AS t (id)
), volume AS (
    SELECT c.business_id::text AS id, count(*) AS calls FROM {calls} AS c
    WHERE c.started_at >= %(since)s AND c.started_at < %(until)s GROUP BY c.business_id
), unverified AS MATERIALIZED (
    SELECT u.tenant_id, u.why FROM relevo.unverified_tenants(ARRAY(SELECT a.id FROM active a)) AS u
)
SELECT a.id AS tenant_id, t.name, t.vertical, coalesce(v.calls, 0)::float8 / %(days)s AS calls_per_day,
       CASE WHEN u.why IS NOT NULL THEN u.why
            WHEN a.id IN (SELECT unnest(f.disabled_tenants) FROM public.feature_flags f WHERE f.name = 'voice_agent_v2')
                THEN 'is on the flag''s disabled list' END AS unverified
FROM active a
LEFT JOIN {tenants} AS t ON t.id::text = a.id
LEFT JOIN volume v ON v.id = a.id
LEFT JOIN unverified u ON u.tenant_id = a.id
ORDER BY a.id

-- open_rollout --
SELECT * FROM relevo.rollouts WHERE state NOT IN ('RolledBack', 'Complete')

-- last_rollout --
SELECT * FROM relevo.rollouts ORDER BY id DESC LIMIT 1

-- locked_rollout --
SELECT * FROM relevo.rollouts WHERE id = %(id)s AND revision = %(revision)s FOR UPDATE

-- locked_last --
SELECT * FROM relevo.rollouts ORDER BY id DESC LIMIT 1 FOR UPDATE

-- begin --
WITH begun AS (
    INSERT INTO relevo.rollouts (plan, phases, flag_version, started_at, judged_from, gathered_from, actor, reason)
    VALUES (%(plan)s, %(phases)s, %(flag_version)s, %(now)s, %(judged_from)s, %(judged_from)s, %(actor)s, %(reason)s)
    RETURNING *
), told AS (
    INSERT INTO relevo.rollout_transitions (rollout_id, at, event, target, phase, actor, why)
    SELECT id, started_at, 'start', state, 0, actor, reason FROM begun
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT actor, 'rollout.start', 'rollout ' || id, reason, %(details)s::jsonb FROM begun
)
SELECT * FROM begun

-- add_phases --
INSERT INTO relevo.rollout_phases (rollout_id, ordinal, name, percent, tenants, asked_at)
SELECT %(id)s, p.ordinal, p.name, p.percent, p.tenants, CASE p.ordinal WHEN 0 THEN %(now)s::timestamptz END
FROM unnest(%(ordinals)s::integer[], %(names)s::text[], %(percents)s::numeric[], %(tenants)s::integer[])
    AS p (ordinal, name, percent, tenants)

-- add_cohort --
INSERT INTO relevo.rollout_cohort (rollout_id, place, tenant_id, phase, why)
SELECT %(id)s, u.place, u.tenant_id, u.phase, u.why
FROM unnest(%(tenants)s::text[], %(phases)s::integer[], %(whys)s::text[])
    WITH ORDINALITY AS u (tenant_id, phase, why, place)

-- act --
-- Who writes the flag in this transaction, and that it is the rollout itself.
SELECT set_config('relevo.actor', %(actor)s::text, true),
       set_config('relevo.reason', coalesce(%(reason)s::text, ''), true),
       set_config('relevo.rollout', 'controller', true)

-- locked_flag --
SELECT name, enabled, percentage, enabled_tenants, disabled_tenants, version
FROM public.feature_flags WHERE name = 'voice_agent_v2' FOR NO KEY UPDATE

-- flag --
SELECT name, enabled, percentage, enabled_tenants, disabled_tenants, version
FROM public.feature_flags WHERE name = 'voice_agent_v2'

-- phase_with_fewer --
-- The last phase before one that has fewer tenants on v2 than are there now, and any; no row: there is none.
SELECT p.ordinal AS phase
FROM public.feature_flags f, relevo.rollout_phases p CROSS JOIN LATERAL relevo.phase_asks(p.rollout_id, p.ordinal) AS a
WHERE f.name = 'voice_agent_v2' AND f.enabled AND p.rollout_id = %(id)s AND p.ordinal < %(phase)s
  AND (f.percentage > a.share OR cardinality(f.enabled_tenants) > a.size)
  AND (least(f.percentage, a.share) > 0 OR least(cardinality(f.enabled_tenants), a.size) > 0)
ORDER BY p.ordinal DESC LIMIT 1

-- write_more --
-- Forwards: who is on v2 stays, and the next join.
UPDATE public.feature_flags AS f
SET enabled = true, percentage = greatest(f.percentage, a.share),
    enabled_tenants = relevo.cohort_of(%(id)s, a.size, NULL, f.enabled_tenants, f.disabled_tenants)
FROM relevo.phase_asks(%(id)s, %(phase)s) AS a
WHERE f.name = 'voice_agent_v2' RETURNING f.version, f.percentage, f.enabled_tenants

-- write_fewer --
-- Backwards: nobody joins, and the last to join leave; no row where nobody would.
UPDATE public.feature_flags AS f
SET percentage = least(f.percentage, a.share),
    enabled_tenants = relevo.cohort_of(%(id)s, NULL, a.size, f.enabled_tenants, f.disabled_tenants)
FROM relevo.phase_asks(%(id)s, %(phase)s) AS a
WHERE f.name = 'voice_agent_v2' AND (f.percentage > a.share OR cardinality(f.enabled_tenants) > a.size)
RETURNING f.version, f.enabled_tenants

-- write_everybody --
-- The end: the percentage selects all, and the row's trigger puts the unverified on the disabled list.
UPDATE public.feature_flags SET enabled = true, percentage = 100, enabled_tenants = ARRAY[]::text[]
WHERE name = 'voice_agent_v2' RETURNING version, enabled_tenants

-- write_nobody --
UPDATE public.feature_flags SET enabled = false, percentage = 0, enabled_tenants = ARRAY[]::text[]
WHERE name = 'voice_agent_v2' RETURNING version, enabled_tenants

-- write_without --
UPDATE public.feature_flags SET disabled_tenants = disabled_tenants || ARRAY[%(tenant)s::text]
WHERE name = 'voice_agent_v2' RETURNING version, enabled_tenants

-- single_out --
UPDATE relevo.rollout_cohort SET singled_out_at = %(now)s
WHERE rollout_id = %(id)s AND tenant_id = %(tenant)s AND singled_out_at IS NULL

-- move --
-- Along one arrow, by whoever saw the row as it is; no row: somebody was faster, or there is no such arrow.
WITH seen AS MATERIALIZED (
    SELECT r.*, a.target FROM relevo.rollouts r
    JOIN relevo.rollout_arrows a ON a.source = r.state AND a.event = %(event)s::text
    WHERE r.id = %(id)s AND r.revision = %(revision)s FOR UPDATE OF r
), moved AS (
    UPDATE relevo.rollouts r
    SET state = s.target, phase = %(phase)s, flag_version = %(flag_version)s, judged_from = %(judged_from)s,
        gathered_from = %(gathered_from)s, hold_until = %(hold_until)s, expires_at = %(expires_at)s, due_at = %(due_at)s,
        paused_at = CASE WHEN s.target = 'Paused' THEN coalesce(s.paused_at, %(now)s) END,
        cause = CASE WHEN s.target = 'Paused' THEN coalesce(%(cause)s::text, s.cause) END,
        finished_at = CASE WHEN s.target IN ('RolledBack', 'Complete') THEN %(now)s::timestamptz END
    FROM seen s WHERE r.id = s.id RETURNING r.*
), told AS (
    INSERT INTO relevo.rollout_transitions (rollout_id, at, source, event, target, phase, actor, why, details)
    SELECT s.id, %(now)s, s.state, %(event)s::text, m.state, m.phase, %(actor)s, %(why)s, %(details)s::jsonb
    FROM seen s JOIN moved m ON m.id = s.id
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'rollout.' || %(event)s::text, 'rollout ' || s.id, %(why)s,
           jsonb_build_object('source', s.state, 'target', m.state, 'phase', m.phase, 'flag_version', m.flag_version)
           || %(details)s::jsonb
    FROM seen s JOIN moved m ON m.id = s.id
)
SELECT * FROM moved

-- set_right --
-- Times that a clock which ran ahead had set too far; no row where somebody was faster.
WITH right_now AS (
    UPDATE relevo.rollouts
    SET judged_from = %(judged_from)s, gathered_from = %(gathered_from)s, hold_until = %(hold_until)s,
        expires_at = %(expires_at)s, due_at = %(due_at)s
    WHERE id = %(id)s AND revision = %(revision)s RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason)
    SELECT %(actor)s, 'timers.correct', 'rollout ' || id, 'they were further ahead than they can be' FROM right_now
)
SELECT * FROM right_now

-- phase_asked --
UPDATE relevo.rollout_phases SET asked_at = coalesce(asked_at, %(now)s), ended_at = NULL
WHERE rollout_id = %(id)s AND ordinal = %(phase)s

-- phase_reached --
UPDATE relevo.rollout_phases SET reached_at = coalesce(reached_at, greatest(%(now)s, asked_at))
WHERE rollout_id = %(id)s AND ordinal = %(phase)s

-- phase_ended --
UPDATE relevo.rollout_phases SET ended_at = %(now)s WHERE rollout_id = %(id)s AND ordinal = %(phase)s

-- looked --
-- An evaluation, and when the next one is due that can promote; nothing where somebody was faster.
WITH looked AS (
    UPDATE relevo.rollouts SET due_at = %(due_at)s WHERE id = %(id)s AND revision = %(revision)s RETURNING id
)
INSERT INTO relevo.rollout_evaluations (rollout_id, phase, at, verdict, level, flag_version, details)
SELECT id, %(phase)s, %(now)s, %(verdict)s, %(level)s, %(flag_version)s, %(details)s::jsonb FROM looked
RETURNING id

-- last_evaluation --
SELECT * FROM relevo.rollout_evaluations WHERE rollout_id = %(id)s ORDER BY id DESC LIMIT 1

-- evaluations --
SELECT id, phase, at, verdict, level, flag_version, details FROM relevo.rollout_evaluations
WHERE rollout_id = %(id)s ORDER BY id DESC LIMIT %(most)s

-- transitions --
SELECT at, source, event, target, phase, actor, why, details FROM relevo.rollout_transitions
WHERE rollout_id = %(id)s ORDER BY id DESC LIMIT %(most)s

-- phases --
SELECT ordinal, name, percent, tenants, asked_at, reached_at, ended_at FROM relevo.rollout_phases
WHERE rollout_id = %(id)s ORDER BY ordinal

-- zones --
-- Time zones of tenants, as v1 has them; null for who has none.
SELECT DISTINCT nullif(btrim(t.time_zone), '') AS time_zone
FROM relevo.tenants_as_they_are() AS t WHERE t.id::text = ANY (%(tenants)s::text[])

-- zones_joining --
-- The same of those who join after one phase, up to another.
SELECT DISTINCT nullif(btrim(t.time_zone), '') AS time_zone
FROM relevo.rollout_cohort c JOIN relevo.tenants_as_they_are() AS t ON t.id::text = c.tenant_id
WHERE c.rollout_id = %(id)s AND c.phase > %(phase)s AND c.phase <= %(until)s AND c.singled_out_at IS NULL

-- behind --
-- Processes that are alive and answer by an older version of the flag.
SELECT count(*) FILTER (WHERE version < %(version)s) AS behind, count(*) AS readers FROM relevo.flag_readers
WHERE flag = 'voice_agent_v2' AND heartbeat_at > now() - interval '1 minute'

-- standing_tenants --
-- Active tenants, and those of them that the row puts on v2.
SELECT total, on_v2 FROM relevo.tenants_standing()

-- by_index --
-- Figures are read by key, whatever the planner thinks of windows that it cannot see: 20 ms instead of 700.
SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)

-- strata --
-- Both versions hour by hour from a whole minute on: minutes up to the next whole hour, as long as minutes are kept.
WITH edge AS (
    SELECT date_trunc('hour', %(since)s::timestamptz + interval '59 minutes', 'UTC') AS whole
), part AS (
    SELECT date_trunc('hour', t.starts_at, 'UTC') AS hour, t.version, t.calls, t.errors, t.finished, t.failed,
           t.unanswered + t.crossed AS critical
    FROM relevo.call_stats t
    WHERE t.grain = 'minute' AND t.starts_at >= %(since)s AND t.starts_at < (SELECT whole FROM edge)
    UNION ALL
    SELECT t.starts_at, t.version, t.calls, t.errors, t.finished, t.failed, t.unanswered + t.crossed
    FROM relevo.call_stats t WHERE t.grain = 'hour' AND t.starts_at >= (SELECT whole FROM edge)
    UNION ALL
    SELECT date_trunc('hour', d.minute, 'UTC'), d.version, d.calls, d.errors, d.finished, d.failed,
           d.unanswered + d.crossed
    FROM relevo.call_deltas d WHERE d.minute >= %(since)s
), counted AS (
    SELECT hour, version, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors, sum(finished)::bigint AS finished,
           sum(failed)::bigint AS failed, sum(critical)::bigint AS critical
    FROM part GROUP BY hour, version
), measured AS (
    SELECT date_trunc('hour', t.starts_at, 'UTC') AS hour, t.version, t.bucket, t.calls
    FROM relevo.call_latencies t
    WHERE t.grain = 'minute' AND t.starts_at >= %(since)s AND t.starts_at < (SELECT whole FROM edge)
    UNION ALL
    SELECT t.starts_at, t.version, t.bucket, t.calls
    FROM relevo.call_latencies t WHERE t.grain = 'hour' AND t.starts_at >= (SELECT whole FROM edge)
    UNION ALL
    SELECT date_trunc('hour', d.minute, 'UTC'), d.version, d.bucket, d.measured
    FROM relevo.call_deltas d WHERE d.minute >= %(since)s AND d.bucket IS NOT NULL
), bucket AS (
    SELECT hour, version, bucket, sum(calls)::bigint AS calls FROM measured GROUP BY hour, version, bucket
    HAVING sum(calls) <> 0
)
SELECT c.*, b.buckets, b.bucket_calls
FROM counted c
LEFT JOIN (SELECT hour, version, array_agg(bucket) AS buckets, array_agg(calls) AS bucket_calls
           FROM bucket GROUP BY hour, version) AS b USING (hour, version)
ORDER BY c.hour, c.version

-- compress_time --
-- From now on this database's present is ``since``, and runs ``times`` as fast.
INSERT INTO relevo.compressed_time AS t (real_since, since, times) VALUES (clock_timestamp(), %(since)s, %(times)s)
ON CONFLICT (only_one) DO UPDATE SET real_since = excluded.real_since, since = excluded.since, times = excluded.times
