-- A rollout in its second phase, as far as pages read it: a tenth of %(tenants)s tenants on the flag's list.

SELECT set_config('relevo.rollout', 'controller', false);
UPDATE public.feature_flags
SET enabled = true, percentage = 0,
    enabled_tenants = ARRAY(SELECT b.id::text FROM businesses b JOIN relevo.verifications v ON v.business_id = b.id
                            WHERE v.state = 'matched' ORDER BY b.id LIMIT %(tenants)s / 10)
WHERE name = 'voice_agent_v2';
INSERT INTO relevo.rollouts (plan, state, phase, phases, flag_version, judged_from, gathered_from, hold_until, expires_at,
                             started_at, actor)
SELECT %(plan)s, 'Progressing', 1, 5, f.version, now() - interval '1 hour', now() - interval '6 hours',
       now() + interval '20 hours', now() + interval '40 hours', now() - interval '6 hours', 'bench'
FROM public.feature_flags f;
INSERT INTO relevo.rollout_phases (rollout_id, ordinal, name, percent, tenants, asked_at, reached_at)
SELECT r.id, p.ordinal, p.name, p.percent, p.percent * %(tenants)s / 100,
       CASE WHEN p.ordinal < 2 THEN now() - interval '6 hours' END, CASE WHEN p.ordinal < 2 THEN now() - interval '6 hours' END
FROM relevo.rollouts r, (VALUES (0, 'canary', 5), (1, 'early_adopters', 10), (2, 'expansion', 25), (3, 'majority', 50),
                                (4, 'complete', 100)) AS p (ordinal, name, percent);
