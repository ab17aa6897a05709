-- Statements of incidents.

-- open_incident --
-- The one of a cause that is not over, held; of two processes that look at once, one waits.
SELECT id, cause, severity, title, message, action, details, opened_at, seen_at, quiet_since, resolved_at, resolved_why,
       acked_at, acked_by
FROM relevo.incidents WHERE cause = %(cause)s AND resolved_at IS NULL FOR UPDATE

-- incidents --
SELECT id, cause, severity, title, message, action, details, opened_at, seen_at, quiet_since, resolved_at, resolved_why,
       acked_at, acked_by
FROM relevo.incidents WHERE %(every)s::boolean OR resolved_at IS NULL
ORDER BY resolved_at IS NOT NULL, severity, opened_at DESC, id DESC LIMIT %(most)s

-- open --
-- No row where another process was first.
WITH opened AS (
    INSERT INTO relevo.incidents (cause, severity, title, message, action, details, opened_at, seen_at)
    VALUES (%(cause)s, %(severity)s, %(title)s, %(message)s, %(action)s, %(details)s, %(now)s, %(now)s)
    ON CONFLICT (cause) WHERE resolved_at IS NULL DO NOTHING
    RETURNING *
), alerted AS (
    INSERT INTO public.rollout_alerts (type, title, message, action, created_at)
    SELECT severity, title, message, action, opened_at FROM opened
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT 'relevo', 'incident.open', cause, message, jsonb_build_object('id', id, 'severity', severity) FROM opened
)
SELECT * FROM opened

-- worsen --
WITH worse AS (
    UPDATE relevo.incidents
    SET severity = 'critical', title = %(title)s, message = %(message)s, action = %(action)s, details = %(details)s,
        seen_at = %(now)s, quiet_since = NULL
    WHERE id = %(id)s RETURNING *
), alerted AS (
    INSERT INTO public.rollout_alerts (type, title, message, action, created_at)
    SELECT severity, title, message, action, seen_at FROM worse
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT 'relevo', 'incident.worsen', cause, message, jsonb_build_object('id', id, 'severity', severity) FROM worse
)
SELECT * FROM worse

-- go_on --
UPDATE relevo.incidents SET message = %(message)s, details = %(details)s, seen_at = %(now)s, quiet_since = NULL
WHERE id = %(id)s

-- calm --
UPDATE relevo.incidents SET quiet_since = %(now)s WHERE id = %(id)s AND quiet_since IS NULL

-- resolve --
WITH over AS (
    UPDATE relevo.incidents SET resolved_at = %(now)s, resolved_why = %(why)s WHERE id = %(id)s RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT 'relevo', 'incident.resolve', cause, %(why)s, jsonb_build_object('id', id) FROM over
)
SELECT * FROM over

-- acknowledge --
-- By the first who does; no row for one that is over, or does not exist.
WITH acked AS (
    UPDATE relevo.incidents SET acked_at = %(now)s, acked_by = %(actor)s
    WHERE id = %(id)s AND resolved_at IS NULL AND acked_at IS NULL RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'incident.acknowledge', cause, %(reason)s, jsonb_build_object('id', id) FROM acked
)
SELECT * FROM acked

-- incident --
SELECT * FROM relevo.incidents WHERE id = %(id)s

-- drift_on_v2 --
-- Tenants on v2 whose data verification last found wrong, or could not be made equal yet.
WITH wrong AS MATERIALIZED (
    SELECT v.business_id::text AS tenant_id FROM relevo.verifications v
    WHERE v.state IN ('drifted', 'missing') AND v.business_id IS NOT NULL
    UNION
    SELECT c.business_id::text FROM relevo.mirror_queue w JOIN public.voice_assistant_configs c ON c.id = w.config_id
    WHERE w.queued_at < %(before)s
)
SELECT count(*) AS tenants, min(tenant_id) AS first FROM wrong WHERE public.should_use_voice_agent_v2(tenant_id)
