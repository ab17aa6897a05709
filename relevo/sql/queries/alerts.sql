-- Statements of incidents.

-- open_incidents --
SELECT * FROM relevo.incidents WHERE resolved_at IS NULL ORDER BY id FOR UPDATE

-- incidents --
-- Those that last first, then the newest.
SELECT * FROM relevo.incidents WHERE %(every)s::boolean OR resolved_at IS NULL
ORDER BY resolved_at IS NOT NULL, id DESC LIMIT %(most)s

-- open --
-- Opened by whoever is first; no row: it is open already.
INSERT INTO relevo.incidents (cause, severity, title, message, action, opened_at, seen_at)
VALUES (%(cause)s, %(severity)s, %(title)s, %(message)s, %(action)s, %(now)s, %(now)s)
ON CONFLICT (cause) WHERE resolved_at IS NULL DO NOTHING
RETURNING *

-- update --
UPDATE relevo.incidents
SET severity = %(severity)s, title = %(title)s, message = %(message)s, action = %(action)s, seen_at = %(now)s
WHERE id = %(id)s RETURNING *

-- resolve --
UPDATE relevo.incidents SET resolved_at = %(now)s WHERE id = %(id)s AND resolved_at IS NULL RETURNING *

-- ack --
WITH acked AS (
    UPDATE relevo.incidents SET acked_at = %(now)s, acked_by = %(actor)s
    WHERE id = %(id)s AND resolved_at IS NULL AND acked_at IS NULL RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'alert.ack', cause, %(reason)s, jsonb_build_object('id', id) FROM acked
)
SELECT * FROM acked

-- tell --
-- The platform's own table of alerts, and the audit log.
WITH told AS (
    INSERT INTO public.rollout_alerts (type, title, message, action)
    VALUES (%(severity)s, %(title)s, %(message)s, %(action)s)
)
INSERT INTO relevo.audit_log (actor, action, subject, details)
VALUES ('relevo', 'alert.' || %(event)s::text, %(cause)s,
        jsonb_build_object('id', %(id)s::bigint, 'severity', %(severity)s::text, 'message', %(message)s::text))
