-- Statements of the checklist: what it is reckoned from, what is done, and what the machine can see.

-- completed --
-- The rollout that put everybody on v2; none while the flag is off, for then v2 is not what callers hear. Once the
-- flag is retired, it is history.
SELECT r.id, r.finished_at FROM relevo.rollouts r
WHERE r.state = 'Complete' AND EXISTS (SELECT FROM public.feature_flags f WHERE f.name = 'voice_agent_v2' AND f.enabled)
ORDER BY r.id DESC LIMIT 1

-- done --
SELECT item, at, name, note, evidence FROM relevo.checklist_done WHERE rollout_id = %(rollout_id)s

-- sign --
-- No row where it was done before.
WITH signed AS (
    INSERT INTO relevo.checklist_done (rollout_id, item, at, name, note, evidence)
    VALUES (%(rollout_id)s, %(item)s::text, %(now)s, %(name)s, %(note)s::text, %(evidence)s::text)
    ON CONFLICT DO NOTHING RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, CASE WHEN evidence IS NULL THEN 'checklist.sign' ELSE 'checklist.tick' END, item, %(reason)s::text,
           jsonb_strip_nulls(jsonb_build_object('rollout', rollout_id, 'name', name, 'note', note, 'evidence', evidence))
    FROM signed
)
SELECT item, at, name, note, evidence FROM signed

-- wrong --
-- Incidents that are not over, but for the checklist's own.
SELECT title, severity FROM relevo.incidents
WHERE resolved_at IS NULL AND NOT starts_with(cause, 'checklist.') ORDER BY severity, opened_at

-- breakers_open --
SELECT version, upstream, state FROM relevo.breakers
WHERE state <> 'closed' AND (version = 'v2' OR NOT %(v1_retired)s::boolean) ORDER BY version, upstream

-- logged --
SELECT event, sum(errors)::bigint AS errors FROM relevo.logged_errors
WHERE hour > %(since)s::timestamptz - interval '1 hour' GROUP BY event ORDER BY 2 DESC, event

-- log_errors --
INSERT INTO relevo.logged_errors AS l (hour, event, errors)
SELECT date_trunc('hour', %(now)s::timestamptz, 'UTC'), e.event, e.errors
FROM unnest(%(events)s::text[], %(errors)s::bigint[]) AS e (event, errors)
ON CONFLICT (hour, event) DO UPDATE SET errors = l.errors + excluded.errors

-- servers --
-- Processes that serve, by their readers of the flag.
SELECT count(DISTINCT left(reader, length(reader) - strpos(reverse(reader), ':'))) AS servers FROM relevo.flag_readers
WHERE heartbeat_at > %(now)s::timestamptz - interval '2 minutes'

-- lines --
-- Whom to call: of each vertical, and of each kind of booking in it, one tenant on v2; whoever has a line to a person
-- first.
SELECT DISTINCT ON (vertical, outcome) tenant_id, vertical, number_id, number, outcome, transfers
FROM (
    SELECT c.business_id::text AS tenant_id, t.vertical, c.phone_number_id AS number_id, t.phone_number AS number,
           CASE WHEN 'reservations' = ANY (c.enabled_capabilities) THEN 'reservation_created'
                WHEN 'appointments' = ANY (c.enabled_capabilities) THEN 'appointment_created'
                WHEN 'orders' = ANY (c.enabled_capabilities) THEN 'order_created' END AS outcome,
           'human_transfer' = ANY (c.enabled_capabilities) AS transfers, 
           relevo.human_line(n.fallback, t.human_phone_number) AS human_line, c.id
    FROM public.voice_assistant_configs c
    JOIN relevo.tenants_as_they_are() AS t ON t.id = c.business_id
    LEFT JOIN relevo.vapi_numbers n ON n.id = c.phone_number_id
    WHERE c.is_active AND c.phone_number_id <> '' AND t.vertical IS NOT NULL
      AND public.should_use_voice_agent_v2(c.business_id::text)
      AND NOT EXISTS (SELECT FROM public.voice_assistant_configs o
                      WHERE o.phone_number_id = c.phone_number_id AND o.business_id <> c.business_id)
) AS line
ORDER BY vertical, outcome, (transfers AND human_line IS NOT NULL) DESC, transfers DESC, tenant_id, id

-- played_call --
-- What the router made of a test call.
SELECT c.version, c.served_version, c.synthetic, c.tenant_id, c.outcome, c.stage FROM relevo.calls c
WHERE c.call_id = %(call_id)s

-- take_back --
-- The built-in back end's note of a test call's booking, and nobody else's.
DELETE FROM relevo.tool_calls t USING relevo.calls c
WHERE t.call_id = %(call_id)s AND c.call_id = t.call_id AND c.synthetic RETURNING t.outcome

-- keep_call --
INSERT INTO relevo.synthetic_calls (call_id, at, tenant_id, vertical, version, answered, outcome, booked, removed,
                                    transfer, faults)
VALUES (%(call_id)s, %(now)s, %(tenant_id)s, %(vertical)s, %(version)s, %(answered)s, %(outcome)s, %(booked)s,
        %(removed)s, %(transfer)s, %(faults)s)

-- test_calls --
-- The newest of each vertical and kind of booking.
SELECT DISTINCT ON (vertical, outcome) call_id, at, tenant_id, vertical, version, answered, outcome, booked, removed,
       transfer, faults
FROM relevo.synthetic_calls WHERE at >= %(since)s ORDER BY vertical, outcome, at DESC

-- backups --
SELECT count(*) AS backups, min(created_at) AS oldest FROM public.migration_backups

-- stages --
SELECT stage, done_at FROM relevo.cleanup_stages
