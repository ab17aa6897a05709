-- Statements of the webhook: what is known of configurations, what could not be placed, tool calls, numbers at Vapi.

-- keys --
SELECT id, secret FROM relevo.webhook_keys WHERE retired_at IS NULL

-- retired --
SELECT relevo.v1_is_retired() AS v1

-- directory_digests --
-- A number for each bucket of configurations, which changes when one of them does.
SELECT bucket, bit_xor(hashtextextended(each::text, 0)) AS digest FROM relevo.directory(%(now)s) AS each GROUP BY bucket

-- directory --
-- The configurations of these buckets.
SELECT * FROM relevo.directory(%(now)s) WHERE bucket = ANY (%(buckets)s::integer[])

-- said --
-- What both versions say to the callers of some configurations.
SELECT coalesce(v1.id, v2.id)::text AS config_id, v1.id IS NOT NULL AS in_v1, v2.id IS NOT NULL AS in_v2,
       v1.assistant_name AS v1_name, v1.system_prompt AS v1_prompt, v1.first_message AS v1_first_message,
       v1.voice_id AS v1_voice_id,
       said.assistant_name AS v2_name, said.system_prompt AS v2_prompt, said.first_message AS v2_first_message,
       said.voice_id AS v2_voice_id, said.voice_speed::float8 AS v2_voice_speed, v2.enabled_capabilities AS capabilities
FROM relevo.v1_as_it_is(%(config_ids)s::uuid[]) AS v1
FULL JOIN (SELECT * FROM public.voice_assistant_configs AS every
           WHERE every.id = ANY (%(config_ids)s::uuid[])) AS v2 ON v2.id = v1.id
LEFT JOIN relevo.tenants_as_they_are() AS tenant ON tenant.id = v2.business_id
LEFT JOIN LATERAL relevo.rendered(v2, tenant.name, tenant.vertical) AS said ON v2.id IS NOT NULL AND %(render)s

-- unplaced --
INSERT INTO relevo.unplaced_calls AS u (call_id, message_type, number_id, number, assistant_id, why, first_at, last_at)
VALUES (%(call_id)s, %(type)s, %(number_id)s, %(number)s, %(assistant_id)s, %(why)s, %(now)s, %(now)s)
ON CONFLICT (call_id) DO UPDATE SET messages = u.messages + 1, last_at = excluded.last_at,
    number_id = coalesce(u.number_id, excluded.number_id), number = coalesce(u.number, excluded.number),
    assistant_id = coalesce(u.assistant_id, excluded.assistant_id)

-- unplaced_calls --
SELECT * FROM relevo.unplaced_calls ORDER BY last_at DESC LIMIT %(at_most)s

-- tool_call --
-- Does a thing once: the first answer to a tool call stands, and is what every later one gets.
WITH done AS (
    INSERT INTO relevo.tool_calls (call_id, tool_call_id, tenant_id, version, name, arguments, result, error, outcome, at)
    VALUES (%(call_id)s, %(tool_call_id)s, %(tenant_id)s, %(version)s, %(name)s, %(arguments)s::jsonb, %(result)s,
            %(error)s, %(outcome)s, %(now)s)
    ON CONFLICT (call_id, tool_call_id) DO NOTHING
    RETURNING name, result, error, outcome
)
SELECT *, true AS new FROM done
UNION ALL
SELECT name, result, error, outcome, false FROM relevo.tool_calls
WHERE call_id = %(call_id)s AND tool_call_id = %(tool_call_id)s AND NOT EXISTS (SELECT FROM done)

-- see_number --
INSERT INTO relevo.vapi_numbers AS n (id, number, name, assistant_id, squad_id, workflow_id, fallback, server, seen_at)
VALUES (%(id)s, %(number)s, %(name)s, %(assistant_id)s, %(squad_id)s, %(workflow_id)s, %(fallback)s::jsonb,
        %(server)s::jsonb, %(now)s)
ON CONFLICT (id) DO UPDATE SET number = excluded.number, name = excluded.name, assistant_id = excluded.assistant_id,
    squad_id = excluded.squad_id, workflow_id = excluded.workflow_id, fallback = excluded.fallback,
    server = excluded.server, seen_at = excluded.seen_at
RETURNING *

-- forget_numbers --
DELETE FROM relevo.vapi_numbers WHERE seen_at < %(before)s AND adopted_at IS NULL

-- numbers --
-- The numbers at Vapi, with the tenants whose configurations name them, and where a person of the one answers.
WITH config AS MATERIALIZED (
    SELECT DISTINCT business_id::text AS tenant_id, phone_number_id
    FROM (SELECT business_id, phone_number_id FROM relevo.v1_as_it_is()
          UNION ALL
          SELECT business_id, phone_number_id FROM public.voice_assistant_configs) AS both_sides
    WHERE phone_number_id <> '' AND business_id IS NOT NULL
), named AS (
    SELECT n.id, array_agg(DISTINCT c.tenant_id ORDER BY c.tenant_id) AS tenants
    FROM (SELECT id, id AS told FROM relevo.vapi_numbers
          UNION SELECT id, number FROM relevo.vapi_numbers WHERE number IS NOT NULL) AS n
    JOIN config c ON c.phone_number_id = n.told
    GROUP BY n.id
), line AS MATERIALIZED (
    SELECT t.id::text AS tenant_id, relevo.human_line(NULL, t.human_phone_number) AS human_line
    FROM relevo.tenants_as_they_are() AS t
)
SELECT n.*, coalesce(named.tenants, '{{}}') AS tenants, line.human_line
FROM relevo.vapi_numbers n
LEFT JOIN named ON named.id = n.id
LEFT JOIN line ON cardinality(named.tenants) = 1 AND line.tenant_id = named.tenants[1]
ORDER BY n.number, n.id

-- adopt --
WITH adopted AS (
    UPDATE relevo.vapi_numbers SET adopted_at = %(now)s, adopted_by = %(actor)s, before = %(before)s::jsonb
    WHERE id = %(id)s AND adopted_at IS NULL RETURNING id, before
)
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
SELECT %(actor)s, 'number.adopt', id, %(reason)s, jsonb_build_object('before', before) FROM adopted

-- release_number --
WITH released AS (
    UPDATE relevo.vapi_numbers SET adopted_at = NULL, adopted_by = NULL, before = NULL
    WHERE id = %(id)s AND adopted_at IS NOT NULL RETURNING id
)
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
SELECT %(actor)s, 'number.release', id, %(reason)s, '{{}}' FROM released

-- tenant_calls --
-- Of one tenant: how its numbers are bound, the pins of calls that are not over, and the last fallback.
SELECT (SELECT coalesce(jsonb_agg(jsonb_build_object('id', n.id, 'number', n.number, 'bound', n.bound,
                                                     'adopted_at', n.adopted_at, 'seen_at', n.seen_at) ORDER BY n.id), '[]')
        FROM relevo.vapi_numbers n
        WHERE n.id IN (SELECT phone_number_id FROM public.voice_assistant_configs WHERE business_id = %(tenant_id)s::uuid
                       UNION SELECT c.phone_number_id FROM relevo.v1_as_it_is() AS c
                       WHERE c.business_id = %(tenant_id)s::uuid)) AS numbers,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('call_id', p.call_id, 'version', p.version,
                                                     'served_version', p.served_version, 'decided_by', p.decided_by,
                                                     'decided_at', p.decided_at, 'status', p.status)
                                  ORDER BY p.decided_at DESC), '[]')
        FROM (SELECT * FROM relevo.calls c WHERE c.stage < 6 AND c.tenant_id = %(tenant_id)s::text
              ORDER BY c.decided_at DESC LIMIT 20) AS p) AS open_calls,
       (SELECT jsonb_build_object('call_id', c.call_id, 'at', c.decided_at, 'why', c.fallback, 'version', c.version,
                                  'served_version', c.served_version)
        FROM relevo.calls c WHERE c.tenant_id = %(tenant_id)s::text AND c.fallback IS NOT NULL
        ORDER BY c.decided_at DESC LIMIT 1) AS last_fallback

-- open_calls --
-- Calls that are not over, decided in a stretch of time, the oldest first.
SELECT call_id FROM relevo.calls WHERE stage < 6 AND decided_at < %(before)s AND NOT synthetic
ORDER BY decided_at LIMIT %(at_most)s
