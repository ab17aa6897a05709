-- What the dashboard reads. {configurations} and {tenants} are v1 through the source mapping.

-- standing --
-- How many tenants have an active configuration, and how many of them the flag's row puts on v2; the row itself, its
-- lists counted.
WITH flag AS (
    SELECT * FROM public.feature_flags WHERE name = %(name)s
), enabled AS (
    SELECT unnest(enabled_tenants) AS id FROM flag
), disabled AS (
    SELECT unnest(disabled_tenants) AS id FROM flag
), placed AS (
    SELECT count(*) AS total,
           count(*) FILTER (WHERE f.enabled AND d.id IS NULL AND CASE
               WHEN e.id IS NOT NULL OR f.percentage = 100 THEN true
               WHEN f.percentage = 0 THEN false
               ELSE public.voice_agent_v2_percentile(t.id) < f.percentage END) AS on_v2
    FROM relevo.active_tenants() AS t (id)
    CROSS JOIN flag AS f
    LEFT JOIN enabled AS e ON e.id = t.id
    LEFT JOIN disabled AS d ON d.id = t.id
)
SELECT placed.total, placed.on_v2, f.enabled, f.percentage, f.version, f.updated_at, f.updated_by::text AS updated_by,
       cardinality(f.enabled_tenants) AS listed, cardinality(f.disabled_tenants) AS refused
FROM flag AS f CROSS JOIN placed

-- active_tenants --
SELECT t.id FROM relevo.active_tenants() AS t (id) ORDER BY t.id

-- names --
SELECT t.id::text AS id, t.name FROM {tenants} AS t WHERE t.id::text = ANY (%(ids)s::text[]) ORDER BY t.name, t.id

-- names_of --
SELECT t.id::text AS id, t.name FROM {tenants} AS t WHERE t.id = ANY (%(ids)s::uuid[]) AND t.name IS NOT NULL

-- extend --
UPDATE public.feature_flags SET enabled = true, percentage = %(percentage)s WHERE name = %(name)s

-- size_at --
SELECT relevo.tenants_at(%(percentage)s) AS size

-- resized --
-- Who would be on v2 when so many shall be, by the rollout's order.
SELECT relevo.cohort_of(%(id)s, %(size)s, %(size)s, f.enabled_tenants, f.disabled_tenants) AS tenants
FROM public.feature_flags AS f WHERE f.name = 'voice_agent_v2'

-- promoted --
-- What the flag's row would say in a later phase.
SELECT greatest(f.percentage, a.share) AS percentage,
       relevo.cohort_of(%(id)s, a.size, NULL, f.enabled_tenants, f.disabled_tenants) AS tenants
FROM public.feature_flags AS f, relevo.phase_asks(%(id)s, %(phase)s) AS a WHERE f.name = 'voice_agent_v2'

-- alerts --
SELECT id, type, title, message, action, created_at FROM public.rollout_alerts
WHERE created_at >= %(since)s ORDER BY created_at DESC, id DESC LIMIT 20

-- series --
-- Both versions over time, with the latency bucket that 95 percent of the measured calls do not exceed, by nearest rank;
-- ``grain`` minute or hour, ``until`` null: with no end.
WITH tail AS MATERIALIZED (
    SELECT * FROM relevo.unfolded
    WHERE grain = %(grain)s AND starts_at >= %(since)s AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')
), counted AS (
    SELECT starts_at, version, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors
    FROM (SELECT starts_at, version, calls, errors FROM relevo.call_stats
          WHERE grain = %(grain)s AND starts_at >= %(since)s AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')
          UNION ALL
          SELECT starts_at, version, calls, errors FROM tail) AS both_parts
    GROUP BY starts_at, version
), measured AS (
    SELECT starts_at, version, bucket, sum(calls)::bigint AS calls
    FROM (SELECT starts_at, version, bucket, calls FROM relevo.call_latencies
          WHERE grain = %(grain)s AND starts_at >= %(since)s AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')
          UNION ALL
          SELECT starts_at, version, bucket, measured FROM tail WHERE bucket IS NOT NULL) AS both_parts
    GROUP BY starts_at, version, bucket HAVING sum(calls) > 0
), ranked AS (
    SELECT starts_at, version, bucket, sum(calls) OVER (PARTITION BY starts_at, version ORDER BY bucket) AS up_to,
           sum(calls) OVER (PARTITION BY starts_at, version) AS total
    FROM measured
), p95 AS (
    SELECT starts_at, version, min(bucket) AS bucket FROM ranked WHERE up_to * 100 >= total * 95 GROUP BY starts_at, version
)
SELECT starts_at, version, calls, errors, bucket FROM counted LEFT JOIN p95 USING (starts_at, version)
ORDER BY starts_at, version

-- newest_rollout --
SELECT * FROM relevo.rollouts ORDER BY id DESC LIMIT 1

-- newest_phases --
SELECT ordinal, name, percent, tenants, asked_at, reached_at, ended_at FROM relevo.rollout_phases
WHERE rollout_id = (SELECT max(id) FROM relevo.rollouts) ORDER BY ordinal

-- newest_evaluation --
SELECT * FROM relevo.rollout_evaluations WHERE rollout_id = (SELECT max(id) FROM relevo.rollouts)
ORDER BY id DESC LIMIT 1

-- newest_readers --
-- By which version of the flag processes answer that are alive.
SELECT version FROM relevo.flag_readers WHERE flag = 'voice_agent_v2' AND heartbeat_at > now() - interval '1 minute'

-- folded --
-- A word as names are compared; and which version the flag is at.
SELECT relevo.fold(%(word)s::text) AS folded, f.version FROM public.feature_flags AS f WHERE f.name = %(name)s

-- flag_version --
SELECT version FROM public.feature_flags WHERE name = %(name)s

-- directory --
-- Every tenant by name, those without one last, with what its state is but for the flag. What the states follow from is
-- told in states.sql; a test holds both to the same answer.
WITH config AS (
    SELECT coalesce(c.id, v2.id) AS id, coalesce(c.business_id, v2.business_id) AS tenant_id, v2.id IS NOT NULL AS in_v2
    FROM (SELECT id, business_id FROM {configurations} AS every) AS c
    FULL JOIN public.voice_assistant_configs AS v2 ON v2.id = c.id
), fact AS (
    SELECT config.tenant_id, string_agg(config.id::text, ' ') AS configs, bool_or(q.config_id IS NOT NULL) AS quarantined,
           bool_or(NOT in_v2 AND q.config_id IS NULL) AS absent, bool_or(v.state NOT IN ('matched', 'edited_on_v2')) AS drifted,
           bool_or(w.config_id IS NOT NULL) AS waiting, bool_or(in_v2 AND v.config_id IS NULL) AS unverified
    FROM config
    LEFT JOIN relevo.quarantine q ON q.config_id = config.id::text
    LEFT JOIN relevo.verifications v ON v.config_id = config.id
    LEFT JOIN (SELECT DISTINCT config_id FROM relevo.mirror_queue) AS w ON w.config_id = config.id
    WHERE config.tenant_id IS NOT NULL GROUP BY config.tenant_id
)
SELECT coalesce(t.id, fact.tenant_id)::text AS id, coalesce(relevo.fold(t.name), '') AS name,
       CASE WHEN fact.tenant_id IS NULL THEN 'unconfigured' WHEN quarantined THEN 'quarantined' WHEN absent THEN 'pending'
            WHEN drifted THEN 'drifted' WHEN waiting THEN 'waiting' WHEN unverified THEN 'copied' ELSE 'verified' END AS state,
       coalesce(fact.configs, '') AS configs,
       CASE WHEN %(by_hash)s::boolean THEN public.voice_agent_v2_percentile(coalesce(t.id, fact.tenant_id)::text) END AS percentile
FROM (SELECT id, name FROM {tenants} AS every) AS t
FULL JOIN fact ON fact.tenant_id = t.id
ORDER BY t.name NULLS LAST, id

-- volumes --
-- Calls and errors of some tenants since an hour, on each version they had calls on.
SELECT tenant_id, version, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors
FROM (SELECT s.tenant_id, s.version, s.calls, s.errors FROM relevo.call_stats s
      WHERE s.grain = 'tenant' AND s.tenant_id = ANY (%(ids)s::text[]) AND s.starts_at >= %(since)s
      UNION ALL
      SELECT d.tenant_id, d.version, d.calls, d.errors FROM relevo.call_deltas d
      WHERE d.tenant_id = ANY (%(ids)s::text[]) AND d.minute >= %(since)s) AS both_parts
GROUP BY tenant_id, version ORDER BY tenant_id, version

-- origins --
-- How the fields of one tenant's configurations on v2 came about.
SELECT o.config_id, o.rule_version, o.provenance, o.review, d.fields AS decided, d.actor AS decided_by, d.decided_at
FROM relevo.config_origins o
JOIN public.voice_assistant_configs v ON v.id = o.config_id
LEFT JOIN relevo.overrides d ON d.config_id = o.config_id
WHERE v.business_id = %(tenant_id)s::uuid ORDER BY o.config_id

-- calls --
-- The newest calls before one of them, of each version by its key; ``fault`` null: whoever's.
SELECT found.* FROM unnest(%(versions)s::text[]) AS v (version) CROSS JOIN LATERAL (
    SELECT call_id, tenant_id, c.version, served_version, decided_at, decided_by, status, outcome, our_fault, fallback,
           duration_ms, latency_ms, synthetic
    FROM relevo.calls AS c
    WHERE c.version = v.version AND decided_at >= %(since)s AND decided_at <= %(before)s
      AND (decided_at, call_id) < (%(before)s, %(before_id)s)
      AND (%(outcome)s::text IS NULL OR coalesce(outcome, status) = %(outcome)s)
      AND (%(fault)s::boolean IS NULL OR our_fault = %(fault)s)
    ORDER BY decided_at DESC, call_id DESC LIMIT %(most)s) AS found
ORDER BY decided_at DESC, call_id DESC LIMIT %(most)s

-- calls_of_tenant --
SELECT call_id, tenant_id, version, served_version, decided_at, decided_by, status, outcome, our_fault, fallback,
       duration_ms, latency_ms, synthetic
FROM relevo.calls
WHERE tenant_id = %(tenant_id)s AND decided_at >= %(since)s AND decided_at <= %(before)s
  AND (decided_at, call_id) < (%(before)s, %(before_id)s) AND version = ANY (%(versions)s::text[])
  AND (%(outcome)s::text IS NULL OR coalesce(outcome, status) = %(outcome)s)
  AND (%(fault)s::boolean IS NULL OR our_fault = %(fault)s)
ORDER BY decided_at DESC, call_id DESC LIMIT %(most)s

-- reach --
-- The hour, going back, in which so many calls have been decided; null where they are fewer.
SELECT max(starts_at) AS since
FROM (SELECT starts_at, sum(sum(calls)) OVER (ORDER BY starts_at DESC) AS calls FROM relevo.call_stats
      WHERE grain = 'hour' AND source = 'calls' AND version = ANY (%(versions)s::text[])
        AND starts_at >= %(since)s AND starts_at < %(before)s
      GROUP BY starts_at) AS hour
WHERE calls > %(looked_through)s

-- call --
SELECT * FROM relevo.calls WHERE call_id = %(call_id)s

-- runs --
SELECT r.id, r.state, r.started_at, r.finished_at, r.actor, r.reason, r.result,
       cardinality(r.tenant_ids) AS tenants, r.batch_size, r.backup_id
FROM relevo.runs r ORDER BY r.started_at DESC LIMIT 20

-- run_steps --
SELECT step, worker, cursor, finished_at FROM relevo.run_steps WHERE run_id = %(run_id)s
ORDER BY array_position(ARRAY['backup', 'validate', 'configurations', 'calls', 'verify'], step), worker

-- quarantine --
SELECT config_id, business_id, reason, detail, set_aside_at FROM relevo.quarantine
ORDER BY set_aside_at DESC, config_id LIMIT 100

-- review --
SELECT v.id AS config_id, v.business_id, t.name, v.assistant_type_id, o.review
FROM relevo.config_origins o JOIN public.voice_assistant_configs v ON v.id = o.config_id
LEFT JOIN {tenants} AS t ON t.id = v.business_id
WHERE cardinality(o.review) > 0 ORDER BY v.id LIMIT 100

-- tenant_of_config --
SELECT business_id FROM public.voice_assistant_configs WHERE id = %(id)s

-- tool_calls --
-- What the built-in back end was asked to do in a call, oldest first.
SELECT name, arguments, result, error, at FROM relevo.tool_calls WHERE call_id = %(call_id)s ORDER BY at, tool_call_id

-- backups --
SELECT id, created_at, tables, contents, cardinality(tenant_ids) AS tenants, actor, reason, verified_at
FROM public.migration_backups ORDER BY created_at DESC LIMIT 20

-- audit --
-- Newest first; ``before`` null: from the newest on.
SELECT id, at, actor, action, subject, reason, details FROM relevo.audit_log
WHERE (%(before)s::bigint IS NULL OR id < %(before)s)
  AND (%(word)s::text IS NULL OR position(lower(%(word)s::text) IN lower(concat_ws(' ', actor, action, subject, reason))) > 0)
ORDER BY id DESC LIMIT %(most)s

-- pulse --
-- What changes when something worth looking at again has happened.
SELECT (SELECT version FROM public.feature_flags WHERE name = %(name)s) AS flag,
       (SELECT max(id) FROM relevo.audit_log) AS audit,
       (SELECT md5(coalesce((SELECT max(id) FROM public.rollout_alerts)::text, '')
                   || coalesce(string_agg(i.id || i.severity || (i.acked_at IS NOT NULL), ',' ORDER BY i.id), ''))
        FROM relevo.incidents AS i WHERE i.resolved_at IS NULL) AS alerts,
       (SELECT r.id || '.' || r.revision FROM relevo.rollouts AS r ORDER BY r.id DESC LIMIT 1) AS rollout,
       (SELECT md5(string_agg(s.step || s.cursor::text || (s.finished_at IS NOT NULL), ',' ORDER BY s.step, s.worker))
        FROM relevo.run_steps s JOIN relevo.runs r ON r.id = s.run_id WHERE r.state = 'running') AS run
