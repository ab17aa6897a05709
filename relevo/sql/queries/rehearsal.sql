-- Statements of the rehearsal: what it must come to. Each answers in one row: whether it holds, and what was found.

-- claim_one_version --
SELECT count(*) > 0 AND count(*) FILTER (WHERE crossed OR unanswered OR NOT asked) = 0 AS holds,
       format('%%s calls; %%s answered by v1, %%s by v2, %%s by two or by nobody', count(*),
              count(*) FILTER (WHERE served_version = 'v1'), count(*) FILTER (WHERE served_version = 'v2'),
              count(*) FILTER (WHERE crossed OR unanswered OR NOT asked)) AS found
FROM relevo.calls WHERE call_id LIKE 'sim-%%'

-- claim_same_numbers --
-- What the callers counted is what the database has.
SELECT (count(*), count(*) FILTER (WHERE served_version = 'v1'), count(*) FILTER (WHERE served_version = 'v2'))
       = (%(calls)s, %(v1)s, %(v2)s) AS holds,
       format('callers counted %%s (%%s, %%s), the database %%s (%%s, %%s)', %(calls)s::text, %(v1)s::text, %(v2)s::text,
              count(*), count(*) FILTER (WHERE served_version = 'v1'), count(*) FILTER (WHERE served_version = 'v2'))
           AS found
FROM relevo.calls WHERE call_id LIKE 'sim-%%'

-- claim_nothing_lost --
-- Every call has ended by its own report.
SELECT count(*) FILTER (WHERE (report).rank IS DISTINCT FROM 4) = 0 AS holds,
       format('%%s of %%s calls have their report', count(*) FILTER (WHERE (report).rank = 4), count(*)) AS found
FROM relevo.calls WHERE call_id LIKE 'sim-%%'

-- claim_told --
-- Everything that was to be said has arrived, as often as it was said.
SELECT count(*) FILTER (WHERE state <> 'sent') = 0
       AND (count(*) FILTER (WHERE channel = 'slack'), count(*) FILTER (WHERE channel = 'pagerduty'),
            count(*) FILTER (WHERE channel = 'email')) = (%(slack)s, %(pagerduty)s, %(email)s) AS holds,
       format('%%s messages, %%s not sent; arrived: Slack %%s, PagerDuty %%s, e-mail %%s', count(*),
              count(*) FILTER (WHERE state <> 'sent'), %(slack)s::text, %(pagerduty)s::text, %(email)s::text) AS found
FROM relevo.outbox

-- claim_data_in_step --
-- Dual write: nothing waits, nothing clashes.
SELECT (SELECT count(*) FROM relevo.mirror_queue) = 0 AS holds,
       format('%%s changes wait for the other side', (SELECT count(*) FROM relevo.mirror_queue)) AS found

-- claim_complete --
SELECT r.state = 'Complete' AND f.enabled AND f.percentage = 100 AND f.enabled_tenants = '{{}}' AS holds,
       format('rollout %%s is %%s; the flag is at %%s %%%%', r.id, r.state, f.percentage) AS found
FROM relevo.rollouts r, public.feature_flags f WHERE f.name = 'voice_agent_v2' ORDER BY r.id DESC LIMIT 1

-- claim_all_phases --
SELECT count(*) = cardinality(%(holds)s::interval[])
       AND bool_and(reached_at IS NOT NULL AND ended_at - reached_at >= (%(holds)s::interval[])[ordinal + 1]) AS holds,
       string_agg(format('%%s %%s h', name, round(extract(epoch FROM ended_at - reached_at) / 3600, 1)), ', ' ORDER BY ordinal)
           AS found
FROM relevo.rollout_phases WHERE rollout_id = (SELECT max(id) FROM relevo.rollouts)

-- claim_rolled_back --
-- Totally, by the controller, because of v2's errors, with the numbers kept.
SELECT t.event = 'roll_back' AND t.actor = 'rollout controller' AND NOT f.enabled AND f.percentage = 0
       AND f.enabled_tenants = '{{}}' AND e.verdict = 'fail' AND e.level = 3 AS holds,
       format('%%s by %%s: %%s', t.event, t.actor, t.why) AS found
FROM public.feature_flags f, (SELECT * FROM relevo.rollout_transitions ORDER BY id DESC LIMIT 1) AS t
LEFT JOIN LATERAL (SELECT * FROM relevo.rollout_evaluations e WHERE e.rollout_id = t.rollout_id ORDER BY id DESC LIMIT 1) AS e
    ON true
WHERE f.name = 'voice_agent_v2'

-- claim_shrunk --
SELECT count(*) > 0 AND (SELECT state = 'Paused' AND cause = 'rollback' FROM relevo.rollouts ORDER BY id DESC LIMIT 1)
       AND (SELECT cardinality(enabled_tenants) FROM public.feature_flags WHERE name = 'voice_agent_v2')
           = (SELECT p.tenants FROM relevo.rollout_phases p JOIN relevo.rollouts r ON r.id = p.rollout_id
              WHERE p.ordinal = r.phase ORDER BY r.id DESC LIMIT 1) AS holds,
       format('%%s: %%s; %%s tenants stay on v2', max(event), max(why),
              (SELECT cardinality(enabled_tenants) FROM public.feature_flags WHERE name = 'voice_agent_v2')) AS found
FROM relevo.rollout_transitions WHERE event = 'shrink' AND actor = 'rollout controller'

-- claim_singled_out --
-- The sick tenant alone is back on v1, and the rollout goes on with the others.
SELECT coalesce(array_agg(t.details ->> 'tenant'), '{{}}') = ARRAY[%(sick)s::text]
       AND (SELECT disabled_tenants = ARRAY[%(sick)s::text] AND enabled FROM public.feature_flags WHERE name = 'voice_agent_v2')
       AND (SELECT state FROM relevo.rollouts ORDER BY id DESC LIMIT 1) NOT IN ('RolledBack', 'Paused') AS holds,
       coalesce(string_agg(format('%%s: %%s', t.details ->> 'tenant', t.why), '; '), 'nobody was singled out') AS found
FROM relevo.rollout_transitions t WHERE t.event = 'single_out'

-- claim_client_told --
-- Their client was told that they are back, in an e-mail of their own, and no other client was.
SELECT coalesce(array_agg(o.tenant_id), '{{}}') = ARRAY[%(sick)s::text] AND coalesce(bool_and(o.state = 'sent'), false) AS holds,
       format('clients told: %%s: %%s', count(*), coalesce(string_agg(o.recipient, ', '), 'nobody')) AS found
FROM relevo.outbox o WHERE o.notice = 'client_returned'

-- claim_not_rolled_back --
-- Nobody was moved: v2 suffers as v1 does.
SELECT count(*) FILTER (WHERE event IN ('roll_back', 'shrink', 'single_out', 'abort')) = 0
       AND count(*) FILTER (WHERE event = 'degrade') > 0 AS holds,
       coalesce(string_agg(why, '; ') FILTER (WHERE event = 'degrade'), 'never degraded') AS found
FROM relevo.rollout_transitions

-- claim_paged --
-- Somebody was woken.
SELECT count(*) > 0 AS holds, coalesce(string_agg(DISTINCT variables ->> 'summary', '; '), 'nobody was paged') AS found
FROM relevo.outbox WHERE channel = 'pagerduty' AND variables ->> 'event_action' = 'trigger' AND state = 'sent'

-- claim_paged_when_critical --
-- Whatever became critical before v2 was taken back has woken somebody; how many calls that takes is left to chance.
SELECT critical.many = paged.many AS holds,
       CASE critical.many WHEN 0 THEN 'nothing was critical before v2 was taken back'
            ELSE format('%%s critical, %%s paged: %%s', critical.many, paged.many, paged.summaries) END AS found
FROM (SELECT count(*) AS many FROM relevo.incidents WHERE severity = 'critical') AS critical,
     (SELECT count(DISTINCT variables ->> 'incident') AS many,
             string_agg(DISTINCT variables ->> 'summary', '; ') AS summaries
      FROM relevo.outbox
      WHERE channel = 'pagerduty' AND variables ->> 'event_action' = 'trigger' AND state = 'sent') AS paged

-- claim_team_told_of_rollback --
SELECT count(*) > 0 AND coalesce(bool_and(state = 'sent'), false) AS holds,
       coalesce(string_agg(variables ->> 'action', '; '), 'nobody was told') AS found
FROM relevo.outbox WHERE notice = 'team_rollback'

-- claim_slack_waited --
-- Slack was away, and what waited for it was tried again; PagerDuty did not wait with it.
SELECT max(attempts) FILTER (WHERE channel = 'slack') > 1
       AND max(settled_at) FILTER (WHERE channel = 'pagerduty') < max(settled_at) FILTER (WHERE channel = 'slack') AS holds,
       format('Slack was asked up to %%s times for one message; PagerDuty had its own at %%s, Slack its last at %%s',
              max(attempts) FILTER (WHERE channel = 'slack'),
              to_char(max(settled_at) FILTER (WHERE channel = 'pagerduty'), 'DD HH24:MI'),
              to_char(max(settled_at) FILTER (WHERE channel = 'slack'), 'DD HH24:MI')) AS found
FROM relevo.outbox

-- claim_restarted --
-- Calls were pinned while the database was away, and stored once it was back.
SELECT pg_postmaster_start_time() > %(since)s::timestamptz AND count(*) > 0 AS holds,
       format('%%s calls came in while it was away; it runs since %%s', count(*),
              to_char(pg_postmaster_start_time(), 'HH24:MI:SS')) AS found
FROM relevo.calls
WHERE decided_at BETWEEN %(away_from)s::timestamptz AND %(away_until)s::timestamptz AND (report).rank = 4
      AND call_id LIKE 'sim-%%'

-- claim_human_kept --
-- What a human decided stood: the rollout paused at once, moved nobody until they resumed it, and then went on.
SELECT coalesce((SELECT p.event = 'overrule' AND p.target = 'Paused' AND p.actor = 'ana' AND n.event = 'resume' AND n.actor = 'ana'
                 FROM relevo.rollout_transitions p
                 JOIN LATERAL (SELECT * FROM relevo.rollout_transitions n WHERE n.id > p.id ORDER BY n.id LIMIT 1) AS n ON true
                 WHERE p.event = 'overrule'), false)
       AND (SELECT %(chosen)s::text = ANY (disabled_tenants) FROM public.feature_flags WHERE name = 'voice_agent_v2')
       AND NOT EXISTS (SELECT FROM relevo.calls c JOIN relevo.rollout_transitions p ON p.event = 'overrule'
                       WHERE c.tenant_id = %(chosen)s AND c.served_version = 'v2' AND c.decided_at > p.at + interval '1 hour')
           AS holds,
       (SELECT string_agg(format('%%s by %%s', event, actor), ', ' ORDER BY id) FROM relevo.rollout_transitions
        WHERE event IN ('overrule', 'resume', 'promote')) AS found

-- claim_timers_shifted --
-- By the pause, in the rehearsal's own time: the hold is as long as it was, and not longer.
SELECT r.hold_until - p.reached_at BETWEEN interval '24 hours' AND interval '24 hours' + (resumed.at - paused.at) + interval '3 hours'
           AS holds,
       format('the hold ends %%s h after its phase was reached; the pause lasted %%s h',
              round(extract(epoch FROM r.hold_until - p.reached_at) / 3600, 1),
              round(extract(epoch FROM resumed.at - paused.at) / 3600, 1)) AS found
FROM relevo.rollouts r JOIN relevo.rollout_phases p ON p.rollout_id = r.id AND p.ordinal = r.phase
JOIN relevo.rollout_transitions paused ON paused.event = 'overrule'
JOIN relevo.rollout_transitions resumed ON resumed.event = 'resume'

-- claim_repaired --
-- The restore put back what was spoilt, kept the calls, and can itself be undone.
SELECT (SELECT count(*) FROM public.voice_agent_config WHERE system_prompt = 'spoilt') = 0
       AND (SELECT count(*) FROM relevo.audit_log WHERE action = 'backup.restore') > 0 AS holds,
       format('spoilt prompts: %%s; restores in the audit log: %%s',
              (SELECT count(*) FROM public.voice_agent_config WHERE system_prompt = 'spoilt'),
              (SELECT count(*) FROM relevo.audit_log WHERE action = 'backup.restore')) AS found

-- claim_edits_on_both_sides --
-- What was written on either side is on both.
SELECT (SELECT voice_id FROM public.voice_assistant_configs WHERE business_id::text = %(chosen)s AND is_active LIMIT 1) = 'edited-on-v1'
       AND (SELECT voice_id FROM public.voice_agent_config WHERE business_id::text = %(sick)s AND is_active LIMIT 1) = 'edited-on-v2'
           AS holds,
       format('v2 says %%s, v1 says %%s',
              (SELECT voice_id FROM public.voice_assistant_configs WHERE business_id::text = %(chosen)s AND is_active LIMIT 1),
              (SELECT voice_id FROM public.voice_agent_config WHERE business_id::text = %(sick)s AND is_active LIMIT 1)) AS found

-- heard --
-- What callers heard, by who answered and how the call ended.
SELECT served_version AS version, coalesce((ending).reason, 'not over') AS ended, count(*) AS calls,
       count(DISTINCT tenant_id) AS tenants
FROM relevo.calls WHERE call_id LIKE 'sim-%%' GROUP BY 1, 2 ORDER BY 1, 3 DESC

-- spoil --
UPDATE public.voice_agent_config SET system_prompt = 'spoilt' WHERE is_active

-- edit_v1 --
UPDATE public.voice_agent_config SET voice_id = 'edited-on-v1' WHERE business_id::text = %(tenant)s AND is_active

-- edit_v2 --
UPDATE public.voice_assistant_configs SET voice_id = 'edited-on-v2' WHERE business_id::text = %(tenant)s AND is_active

-- unsent --
SELECT count(*) AS unsent FROM relevo.outbox WHERE state = 'waiting'
