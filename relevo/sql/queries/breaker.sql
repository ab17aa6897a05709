-- breakers --
SELECT * FROM relevo.breakers ORDER BY version, upstream

-- observe --
-- Adds what one process has seen to the shared window; a window that is over begins anew.
INSERT INTO relevo.breakers AS b (version, upstream, window_at, calls, failures, slow, changed_at)
VALUES (%(version)s, %(upstream)s, %(now)s::timestamptz, %(calls)s, %(failures)s, %(slow)s, %(now)s::timestamptz)
ON CONFLICT (version, upstream) DO UPDATE
SET (window_at, calls, failures, slow) = (
    SELECT w.window_at, w.calls + excluded.calls, w.failures + excluded.failures, w.slow + excluded.slow
    FROM (VALUES (true, b.window_at, b.calls, b.failures, b.slow), (false, excluded.window_at, 0, 0, 0))
        AS w (goes_on, window_at, calls, failures, slow)
    WHERE w.goes_on = (b.window_at > %(now)s::timestamptz - %(window)s::interval))
RETURNING *

-- change --
-- From one state to another, by whoever is first; a half-open breaker changes by the process whose probe it is.
UPDATE relevo.breakers AS b
SET state = %(to_state)s::text, opened_at = CASE WHEN %(to_state)s::text <> 'closed' THEN coalesce(b.opened_at, %(now)s::timestamptz) END,
    probe_at = CASE WHEN %(to_state)s::text = 'open' THEN %(probe_at)s::timestamptz END, probe_by = NULL,
    window_at = %(now)s::timestamptz, calls = 0, failures = 0, slow = 0,
    changed_by = %(holder)s::text, changed_why = %(why)s::text, changed_at = %(now)s::timestamptz
WHERE b.version = %(version)s AND b.upstream = %(upstream)s AND b.state = %(from_state)s::text AND NOT b.forced
  AND (b.state <> 'half_open' OR b.probe_by = %(holder)s::text)
RETURNING *

-- probe --
-- The one probe of an open breaker whose time has come; or of a half-open one whose prober was never heard of again.
UPDATE relevo.breakers AS b
SET state = 'half_open', probe_by = %(holder)s::text, probe_at = %(overdue_at)s,
    changed_by = %(holder)s::text, changed_why = 'probe', changed_at = %(now)s::timestamptz
WHERE b.version = %(version)s AND b.upstream = %(upstream)s AND b.state <> 'closed' AND NOT b.forced
  AND b.probe_at <= %(now)s::timestamptz
RETURNING *

-- force --
WITH forced AS (
    INSERT INTO relevo.breakers AS b (version, upstream, state, forced, window_at, opened_at, changed_by, changed_why,
                                      changed_at)
    VALUES (%(version)s, %(upstream)s, %(state)s::text, true, %(now)s::timestamptz, CASE WHEN %(state)s::text = 'open' THEN %(now)s::timestamptz END,
            %(actor)s::text, %(reason)s::text, %(now)s::timestamptz)
    ON CONFLICT (version, upstream) DO UPDATE
    SET state = excluded.state, forced = true, window_at = excluded.window_at, calls = 0, failures = 0, slow = 0,
        opened_at = CASE WHEN excluded.state = 'open' THEN coalesce(b.opened_at, excluded.opened_at) END,
        probe_at = NULL, probe_by = NULL, changed_by = excluded.changed_by, changed_why = excluded.changed_why,
        changed_at = excluded.changed_at
    RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s::text, 'breaker.force', version, %(reason)s::text, jsonb_build_object('upstream', upstream, 'state', state)
    FROM forced
)
SELECT * FROM forced

-- release --
-- By itself again, from the state it was forced into; an open one may be probed at once.
WITH released AS (
    UPDATE relevo.breakers AS b
    SET forced = false, probe_at = CASE WHEN b.state = 'open' THEN %(now)s::timestamptz END,
        changed_by = %(actor)s::text, changed_why = %(reason)s::text, changed_at = %(now)s::timestamptz
    WHERE b.version = %(version)s AND b.upstream = %(upstream)s AND b.forced
    RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s::text, 'breaker.release', version, %(reason)s::text, jsonb_build_object('upstream', upstream) FROM released
)
SELECT * FROM released
