-- Statements of the report. {calls_with_outcome} is the platform's table of calls through the source mapping.

-- first_v2_call --
SELECT min(starts_at) AS at FROM relevo.call_stats WHERE grain = 'hour' AND version = 'v2' AND calls > 0

-- has_outcome --
SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
                 AND a.attname = 'outcome' AND a.attnum > 0 AND NOT a.attisdropped) AS known

-- outcomes_of_calls --
-- Of the router's own calls.
SELECT tenant_id, outcome, count(*) AS calls FROM relevo.calls
WHERE version = %(version)s AND decided_at >= %(since)s AND decided_at < %(until)s AND outcome IS NOT NULL
  AND tenant_id IS NOT NULL AND NOT synthetic
GROUP BY tenant_id, outcome

-- outcomes_of_history --
-- Of v1's calls of before the router.
SELECT h.business_id::text AS tenant_id, h.outcome::text AS outcome, count(*) AS calls
FROM {calls_with_outcome} AS h
WHERE h.started_at >= %(since)s AND h.started_at < %(until)s AND h.outcome IS NOT NULL AND h.business_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM relevo.calls c WHERE c.call_id = h.vapi_call_id)
GROUP BY h.business_id, h.outcome

-- verticals --
SELECT t.id::text AS tenant_id, t.vertical FROM {tenants} AS t

-- timeline --
-- What happened, by the audit log: the latest of it, oldest first.
SELECT * FROM (
    SELECT at, actor, action, subject, reason FROM relevo.audit_log
    WHERE at >= %(since)s AND at < %(until)s
      AND split_part(action, '.', 1) IN ('flag', 'rollout', 'rollback', 'incident', 'migration', 'backup', 'breaker',
                                         'notice', 'complaint')
    ORDER BY id DESC LIMIT %(most)s) AS last
ORDER BY at

-- import_answers --
WITH added AS (
    INSERT INTO relevo.nps_answers (key, answered_at, score, tenant_id, imported_at)
    SELECT a.key, a.answered_at, a.score, a.tenant_id, %(now)s
    FROM jsonb_to_recordset(%(answers)s::jsonb) AS a (key text, answered_at timestamptz, score integer, tenant_id text)
    ON CONFLICT (key) DO NOTHING RETURNING key
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'nps.import', %(file)s::text, %(reason)s::text, jsonb_build_object('answers', count(*))
    FROM added HAVING count(*) > 0
)
SELECT count(*) AS added FROM added

-- answers --
-- Promoters, passives and detractors of a window.
SELECT count(*) FILTER (WHERE score >= 9) AS promoters, count(*) FILTER (WHERE score BETWEEN 7 AND 8) AS passives,
       count(*) FILTER (WHERE score <= 6) AS detractors
FROM relevo.nps_answers WHERE answered_at >= %(since)s AND answered_at < %(until)s
