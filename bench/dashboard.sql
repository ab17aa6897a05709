-- A platform of %(tenants)s tenants, and what pages read of %(calls)s calls in %(days)s days.

INSERT INTO businesses (id, name, vertical)
SELECT gen_random_uuid(), (ARRAY['Clínica', 'Restaurante', 'Taquería', 'Café', 'Dental'])[1 + n %% 5] || ' ' || md5(n::text),
       CASE n %% 2 WHEN 0 THEN 'restaurant' ELSE 'dental' END
FROM generate_series(1, %(tenants)s) AS n;

INSERT INTO voice_agent_config (id, business_id, vapi_assistant_id, phone_number_id, assistant_name, system_prompt,
                                voice_id, first_message)
SELECT gen_random_uuid(), b.id, 'asst', 'phone', 'Sofía', repeat('Eres la recepcionista. ', 50), 'elevenlabs-maria', 'Hola'
FROM businesses b;

INSERT INTO voice_assistant_configs (id, business_id, assistant_type_id, voice_id)
SELECT c.id, c.business_id, b.vertical || '_basic', c.voice_id
FROM voice_agent_config c JOIN businesses b ON b.id = c.business_id
JOIN voice_assistant_types t ON t.id = b.vertical || '_basic';
INSERT INTO voice_assistant_configs (id, business_id, assistant_type_id, voice_id)
SELECT c.id, c.business_id, (SELECT min(id) FROM voice_assistant_types), c.voice_id
FROM voice_agent_config c WHERE NOT EXISTS (SELECT FROM voice_assistant_configs v WHERE v.id = c.id);

INSERT INTO relevo.verifications (config_id, business_id, state, fields, verified_at)
SELECT id, business_id, CASE WHEN get_byte(uuid_send(id), 0) = 7 THEN 'drifted' ELSE 'matched' END, '{}', now()
FROM voice_assistant_configs;

-- Minutes of two days, hours of all days, and what they add up to; each tenant's hours of two days.
INSERT INTO relevo.call_stats
SELECT grain, 'calls', starts_at, version, '', calls, calls, calls / 50, calls / 100, 0, 0, 0, calls, calls * 600000
FROM (SELECT 'minute' AS grain, at AS starts_at, %(calls)s::bigint / %(days)s / 1440 / 2 AS calls
      FROM generate_series(date_trunc('minute', now()) - interval '48 hours', date_trunc('minute', now()), interval '1 minute') AS at
      UNION ALL
      SELECT 'hour', at, %(calls)s::bigint / %(days)s / 24 / 2
      FROM generate_series(date_trunc('hour', now()) - %(days)s * interval '1 day', date_trunc('hour', now()), interval '1 hour') AS at
     ) AS made CROSS JOIN (VALUES ('v1'), ('v2')) AS v (version);
INSERT INTO relevo.call_latencies
SELECT s.grain, s.source, s.starts_at, s.version, '', 300 + b, greatest(1, s.calls / 100)
FROM relevo.call_stats s CROSS JOIN generate_series(1, 100) AS b;
INSERT INTO relevo.call_stats
SELECT g.grain, 'calls', date_bin(g.width, s.starts_at, 'epoch'), s.version, '', sum(s.calls), sum(s.finished), sum(s.failed),
       sum(s.errors), 0, 0, 0, sum(s.measured), sum(s.latency_us)
FROM relevo.call_stats s JOIN relevo.grains g ON (g.grain, s.grain) IN (('ten', 'minute'), ('day', 'hour')) GROUP BY 1, 3, 4;
INSERT INTO relevo.call_latencies
SELECT g.grain, 'calls', date_bin(g.width, l.starts_at, 'epoch'), l.version, '', l.bucket, sum(l.calls)
FROM relevo.call_latencies l JOIN relevo.grains g ON (g.grain, l.grain) IN (('ten', 'minute'), ('day', 'hour'))
GROUP BY 1, 3, 4, 6;
INSERT INTO relevo.call_stats
SELECT 'tenant', 'calls', date_trunc('hour', now()) - (m %% 48) * interval '1 hour', 'v' || 1 + m %% 2, b.id::text, 1, 1, 0, 0, 0,
       0, 0, 1, 600000
FROM (SELECT id, row_number() OVER () AS n FROM businesses) AS b
CROSS JOIN generate_series(1, %(calls)s / %(days)s * 2 / %(tenants)s) AS k
CROSS JOIN LATERAL (SELECT b.n * 31 + k * 7 AS m) AS x
ON CONFLICT DO NOTHING;

-- The newest two minutes' calls, with the differences that they leave unfolded; then all the others, which the sums above
-- stand for, with as many errors, and one order in 50,000.
INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked, stage, ending, report)
SELECT 'call ' || nth, b.id::text, 'v' || 1 + nth %% 2, 'v' || 1 + nth %% 2, now() - nth * interval '0.26 seconds', 'flag', true, 6,
       ROW (4, now(), 'customer-ended-call')::relevo.ending,
       ROW (4, now(), NULL, NULL, 60000, 600, NULL, NULL, NULL)::relevo.report
FROM generate_series(1, 450) AS call (nth)
JOIN (SELECT id, row_number() OVER () AS n FROM businesses) AS b ON b.n = 1 + nth * 7919 %% %(tenants)s;

ALTER TABLE relevo.calls DISABLE TRIGGER USER;
SET work_mem = '256MB';  -- the join in one piece, so that calls lie in the order of time, as they come
CREATE TEMP TABLE built AS
SELECT pg_get_indexdef(indexrelid) AS again FROM pg_index
WHERE indrelid = 'relevo.calls'::regclass AND NOT indisprimary;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'relevo.calls'::regclass AND NOT indisprimary LOOP
        EXECUTE 'DROP INDEX ' || name;
    END LOOP;
END $$;
INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked, stage, ending, report,
                          status, outcome, our_fault, started_at, ended_at, duration_ms, latency_ms)
SELECT 'call ' || nth, b.id, v, v, at, 'flag', true, 6, ROW (4, at, 'customer-ended-call')::relevo.ending,
       ROW (4, at, NULL, NULL, 60000, 600, NULL, NULL, NULL)::relevo.report,
       CASE WHEN nth %% 50 = 7 THEN 'failed' ELSE 'completed' END,
       CASE WHEN nth %% 50 = 7 THEN 'failed' WHEN nth %% 50000 = 8 THEN 'order_created' ELSE 'customer_hangup' END,
       nth %% 100 = 7, at, at + interval '1 minute', 60000, 600
FROM (SELECT nth, 'v' || 1 + nth %% 2 AS v, now() - nth * (%(days)s * interval '1 day' / %(calls)s) AS at,
             1 + nth * 7919::bigint %% %(tenants)s AS n
      FROM generate_series(451, %(calls)s) AS call (nth)) AS made
JOIN (SELECT id::text AS id, row_number() OVER () AS n FROM businesses) AS b USING (n);
DO $$
DECLARE
    definition text;
BEGIN
    FOR definition IN SELECT again FROM built LOOP
        EXECUTE definition;
    END LOOP;
END $$;
RESET work_mem;
ALTER TABLE relevo.calls ENABLE TRIGGER USER;
DROP TABLE built;
