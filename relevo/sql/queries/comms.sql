-- Statements of the outbox and of what is told to clients.

-- tell --
SELECT relevo.tell(%(dedup_key)s, %(channel)s, %(notice)s, %(variables)s::jsonb, %(now)s::timestamptz, %(thread)s::text,
                   %(tenant_id)s::text, %(recipient)s::text) AS said

-- take --
-- The next message of a channel, held for this transaction alone: who dies lets it go. Of a thread only the first.
SELECT o.id, o.dedup_key, o.notice, o.thread, o.tenant_id, o.recipient, o.variables, o.created_at, o.attempts
FROM relevo.outbox o
WHERE o.channel = %(channel)s AND o.state = 'waiting' AND o.due_at <= %(now)s::timestamptz
  AND NOT EXISTS (SELECT FROM relevo.outbox e WHERE e.thread = o.thread AND e.id < o.id AND e.state = 'waiting')
ORDER BY o.due_at, o.id LIMIT 1 FOR UPDATE OF o SKIP LOCKED

-- due --
SELECT count(*) AS due FROM relevo.outbox WHERE channel = %(channel)s AND state = 'waiting' AND due_at <= %(now)s::timestamptz

-- became --
-- What became of a notice to clients; null tenants: to all of them.
SELECT count(*) FILTER (WHERE state = 'sent') AS sent, count(*) FILTER (WHERE state = 'waiting') AS waiting,
       count(*) FILTER (WHERE state = 'dead') AS dead
FROM relevo.outbox WHERE notice = %(notice)s AND tenant_id = ANY (%(tenants)s::text[])

-- sent --
UPDATE relevo.outbox SET state = 'sent', settled_at = %(now)s, attempts = attempts + 1, last_error = NULL
WHERE id = %(id)s

-- put_off --
UPDATE relevo.outbox SET due_at = %(due_at)s, attempts = attempts + 1, last_error = left(%(why)s::text, 1000)
WHERE id = %(id)s

-- give_up --
UPDATE relevo.outbox SET state = 'dead', settled_at = %(now)s, attempts = attempts + %(tried)s::integer,
                         last_error = left(%(why)s::text, 1000)
WHERE id = %(id)s

-- expire --
-- What nobody could deliver in time, be it that no process has the channel.
UPDATE relevo.outbox
SET state = 'dead', settled_at = %(now)s::timestamptz,
    last_error = left('not delivered in time; ' || coalesce(last_error, 'no process had this channel configured'), 1000)
WHERE id IN (SELECT o.id FROM relevo.outbox o
             WHERE o.channel = %(channel)s AND o.state = 'waiting' AND o.created_at <= %(before)s::timestamptz
             ORDER BY o.id LIMIT 1000 FOR UPDATE SKIP LOCKED)

-- counts --
SELECT channel, notice, state, count(*) AS messages, min(created_at) AS oldest, max(settled_at) AS newest
FROM relevo.outbox GROUP BY channel, notice, state ORDER BY channel, notice, state

-- troubled --
-- Dead ones, and those that failed and wait to be tried again; newest first.
SELECT id, channel, notice, tenant_id, recipient, state, created_at, due_at, attempts, last_error FROM relevo.outbox
WHERE state = 'dead' OR (state = 'waiting' AND last_error IS NOT NULL) ORDER BY id DESC LIMIT %(most)s

-- retry --
-- Dead messages once more, from the beginning; all of them where none is named. Not what would open a page again whose end
-- was told since: nobody would ever close it.
WITH dead AS MATERIALIZED (
    SELECT o.id, o.channel = 'pagerduty' AND o.variables ->> 'event_action' <> 'resolve' AND EXISTS (
               SELECT FROM relevo.outbox r
               WHERE r.channel = 'pagerduty' AND r.id > o.id AND r.variables ->> 'event_action' = 'resolve'
                 AND r.variables ->> 'incident' = o.variables ->> 'incident') AS over
    FROM relevo.outbox o
    WHERE o.state = 'dead' AND (%(ids)s::bigint[] IS NULL OR o.id = ANY (%(ids)s::bigint[])) FOR UPDATE OF o
), again AS (
    UPDATE relevo.outbox o
    SET state = 'waiting', settled_at = NULL, attempts = 0, created_at = %(now)s, due_at = %(now)s
    FROM dead d WHERE o.id = d.id AND NOT d.over RETURNING o.id
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'notice.retry', 'outbox', %(reason)s, jsonb_build_object('ids', jsonb_agg(id)) FROM again
    HAVING count(*) > 0
)
SELECT id, over FROM dead ORDER BY id

-- mapped --
SELECT EXISTS (SELECT FROM relevo.source_mapping) AS mapped

-- clients --
-- Clients with an active configuration, be they in v1's own list or not; or the named ones. Where each stands, and what
-- became of this notice.
WITH active AS MATERIALIZED (SELECT a.id FROM relevo.active_tenants() AS a (id))
SELECT c.id AS tenant_id, t.name, t.vertical, t.time_zone, nullif(btrim(t.email), '') AS email,
       public.should_use_voice_agent_v2(c.id) AS on_v2, o.state AS told
FROM active a FULL JOIN relevo.v1_tenants() AS t ON t.id::text = a.id
CROSS JOIN LATERAL (SELECT coalesce(t.id::text, a.id)) AS c (id)
LEFT JOIN relevo.outbox o ON o.dedup_key = %(notice)s::text || ':' || c.id
WHERE CASE WHEN %(tenants)s::text[] IS NULL THEN a.id IS NOT NULL ELSE c.id = ANY (%(tenants)s::text[]) END
ORDER BY c.id

-- tell_clients --
-- Each once, ever; who is dead is tried again, at the address of today.
WITH written AS (
    INSERT INTO relevo.outbox AS o (dedup_key, channel, notice, tenant_id, recipient, variables, created_at, due_at)
    SELECT %(notice)s::text || ':' || c.tenant_id, 'email', %(notice)s::text, c.tenant_id, c.recipient, c.variables,
           %(now)s::timestamptz, %(now)s::timestamptz
    FROM jsonb_to_recordset(%(clients)s::jsonb) AS c (tenant_id text, recipient text, variables jsonb)
    ON CONFLICT (dedup_key) DO UPDATE
    SET recipient = excluded.recipient, variables = excluded.variables, state = 'waiting', settled_at = NULL,
        attempts = 0, created_at = excluded.created_at, due_at = excluded.due_at
    WHERE o.state = 'dead'
    RETURNING o.tenant_id
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'notice.send', %(notice)s::text, %(reason)s::text, jsonb_build_object('clients', count(*))
    FROM written HAVING count(*) > 0
)
SELECT tenant_id FROM written ORDER BY tenant_id

-- completed --
-- The rollout that reached everybody lately.
SELECT id, finished_at FROM relevo.rollouts WHERE state = 'Complete' AND finished_at >= %(since)s ORDER BY id DESC LIMIT 1

-- singled_out --
-- Tenants that were lately sent back alone, each as of the last time.
SELECT t.details ->> 'tenant' AS tenant_id, max(t.at) AS at, max(t.id) AS id FROM relevo.rollout_transitions t
WHERE t.event = 'single_out' AND t.at >= %(since)s AND t.details ->> 'tenant' IS NOT NULL
GROUP BY 1 ORDER BY 3
