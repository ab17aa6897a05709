-- pins_of --
SELECT * FROM relevo.pins_of(%(call_ids)s::text[])

-- pin_calls --
SELECT relevo.pin_calls($1::jsonb) AS pin

-- record_messages --
SELECT * FROM relevo.record_messages(%(messages)s::jsonb)

-- record_shadow --
UPDATE relevo.calls SET shadow = %(shadow)s::jsonb WHERE call_id = %(call_id)s

-- repair_voice_calls --
SELECT relevo.repair_voice_calls(%(now)s, %(at_most)s) AS done

-- call_faults --
SELECT count(*) AS many, min(first_at) AS oldest,
       (SELECT fault FROM relevo.call_faults ORDER BY last_at DESC LIMIT 1) AS last_fault
FROM relevo.call_faults

-- overdue --
-- Calls that nobody ever said the end of, the oldest first.
SELECT call_id FROM relevo.calls WHERE stage < 6 AND decided_at < %(before)s ORDER BY decided_at LIMIT %(at_most)s

-- unreported --
-- Calls that ended without a report, in a stretch of time: what may be looked up.
SELECT call_id FROM relevo.calls
WHERE decided_at >= %(since)s AND decided_at < %(before)s AND stage = 6 AND report IS NULL AND NOT synthetic
ORDER BY decided_at LIMIT %(at_most)s

-- fold --
-- Takes some differences away and adds them to the sums, all or nothing. Two at once take different ones; both go
-- through the sums in the same order.
WITH taken AS (
    DELETE FROM relevo.call_deltas
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM relevo.call_deltas LIMIT %(at_most)s FOR UPDATE SKIP LOCKED))
    RETURNING *
), summed AS (  -- once, before they are spread over the grains
    SELECT minute, version, tenant_id, bucket, count(*) AS differences, sum(calls) AS calls, sum(finished) AS finished,
           sum(failed) AS failed, sum(errors) AS errors, sum(unanswered) AS unanswered, sum(fallbacks) AS fallbacks,
           sum(crossed) AS crossed, sum(measured) AS measured, sum(latency_us) AS latency_us
    FROM taken GROUP BY minute, version, tenant_id, bucket
), minutes AS (
    SELECT minute, version, bucket, sum(calls) AS calls, sum(finished) AS finished, sum(failed) AS failed,
           sum(errors) AS errors, sum(unanswered) AS unanswered, sum(fallbacks) AS fallbacks, sum(crossed) AS crossed,
           sum(measured) AS measured, sum(latency_us) AS latency_us
    FROM summed GROUP BY minute, version, bucket
), spread AS (
    SELECT g.grain, date_bin(g.width, m.minute, 'epoch') AS starts_at, m.version, '' AS tenant_id, m.bucket,
           m.calls, m.finished, m.failed, m.errors, m.unanswered, m.fallbacks, m.crossed, m.measured, m.latency_us
    FROM minutes m JOIN relevo.grains g ON g.grain <> 'tenant'
    UNION ALL
    SELECT g.grain, date_bin(g.width, s.minute, 'epoch'), s.version, s.tenant_id, s.bucket,
           s.calls, s.finished, s.failed, s.errors, s.unanswered, s.fallbacks, s.crossed, s.measured, s.latency_us
    FROM summed s JOIN relevo.grains g ON g.grain = 'tenant'
), counted AS (
    INSERT INTO relevo.call_stats AS t (grain, source, starts_at, version, tenant_id, calls, finished, failed, errors,
                                        unanswered, fallbacks, crossed, measured, latency_us)
    SELECT grain, 'calls', starts_at, version, tenant_id, sum(calls), sum(finished), sum(failed), sum(errors),
           sum(unanswered), sum(fallbacks), sum(crossed), sum(measured), sum(latency_us)
    FROM spread GROUP BY grain, starts_at, version, tenant_id ORDER BY grain, starts_at, version, tenant_id
    ON CONFLICT (grain, starts_at, version, tenant_id, source) DO UPDATE
    SET calls = t.calls + excluded.calls, finished = t.finished + excluded.finished,
        failed = t.failed + excluded.failed, errors = t.errors + excluded.errors,
        unanswered = t.unanswered + excluded.unanswered, fallbacks = t.fallbacks + excluded.fallbacks,
        crossed = t.crossed + excluded.crossed, measured = t.measured + excluded.measured,
        latency_us = t.latency_us + excluded.latency_us
), measured AS (
    INSERT INTO relevo.call_latencies AS t (grain, source, starts_at, version, tenant_id, bucket, calls)
    SELECT grain, 'calls', starts_at, version, tenant_id, bucket, sum(measured)
    FROM spread WHERE bucket IS NOT NULL GROUP BY grain, starts_at, version, tenant_id, bucket HAVING sum(measured) <> 0
    ORDER BY grain, starts_at, version, tenant_id, bucket
    ON CONFLICT (grain, starts_at, version, tenant_id, source, bucket) DO UPDATE SET calls = t.calls + excluded.calls
)
SELECT coalesce(sum(differences), 0)::bigint AS folded FROM summed

-- forget_minutes --
-- Minutes, and tens of them, that no window asks for any more; their hours stay.
WITH stats AS (DELETE FROM relevo.call_stats WHERE grain IN ('minute', 'ten') AND starts_at < %(before)s RETURNING 1)
DELETE FROM relevo.call_latencies WHERE grain IN ('minute', 'ten') AND starts_at < %(before)s

-- health --
WITH span AS (
    SELECT * FROM unnest(%(grains)s::text[], %(since)s::timestamptz[], %(until)s::timestamptz[])
        AS s (grain, since, until)
), folded AS (
    SELECT t.version, sum(t.calls) AS calls, sum(t.finished) AS finished, sum(t.failed) AS failed,
           sum(t.errors) AS errors, sum(t.unanswered) AS unanswered, sum(t.fallbacks) AS fallbacks,
           sum(t.crossed) AS crossed, sum(t.measured) AS measured, sum(t.latency_us) AS latency_us
    FROM span s JOIN relevo.call_stats t
      ON t.grain = s.grain AND t.starts_at >= s.since AND t.starts_at < coalesce(s.until, 'infinity')
    GROUP BY t.version
), tail AS MATERIALIZED (
    SELECT * FROM relevo.call_deltas
    WHERE minute >= %(window_since)s AND minute < coalesce(%(window_until)s::timestamptz, 'infinity')
), counted AS (
    SELECT version, sum(calls) AS calls, sum(finished) AS finished, sum(failed) AS failed, sum(errors) AS errors,
           sum(unanswered) AS unanswered, sum(fallbacks) AS fallbacks, sum(crossed) AS crossed,
           sum(measured) AS measured, sum(latency_us) AS latency_us
    FROM (SELECT * FROM folded
          UNION ALL
          SELECT version, calls, finished, failed, errors, unanswered, fallbacks, crossed, measured, latency_us
          FROM tail) AS both_parts
    GROUP BY version
), bucket AS (
    SELECT version, bucket, sum(calls) AS calls
    FROM (SELECT t.version, t.bucket, sum(t.calls) AS calls
          FROM span s JOIN relevo.call_latencies t
            ON t.grain = s.grain AND t.starts_at >= s.since AND t.starts_at < coalesce(s.until, 'infinity')
          GROUP BY t.version, t.bucket
          UNION ALL
          SELECT version, bucket, measured FROM tail WHERE bucket IS NOT NULL) AS both_parts
    GROUP BY version, bucket
)
SELECT c.version, c.calls, c.finished, c.failed, c.errors, c.unanswered, c.fallbacks, c.crossed, c.measured,
       c.latency_us, b.buckets, b.bucket_calls,
       (SELECT count(*) FROM relevo.breaker_changes x
        WHERE x.version = c.version AND x.opening AND x.at >= %(window_since)s
          AND x.at < coalesce(%(window_until)s::timestamptz, 'infinity')) AS breaker_opens,
       (SELECT count(*) FROM relevo.complaints x
        WHERE x.version = c.version AND x.dismissed_at IS NULL AND x.at >= %(window_since)s
          AND x.at < coalesce(%(window_until)s::timestamptz, 'infinity')) AS complaints
FROM (SELECT v.version, coalesce(c.calls, 0) AS calls, coalesce(c.finished, 0) AS finished,
             coalesce(c.failed, 0) AS failed, coalesce(c.errors, 0) AS errors,
             coalesce(c.unanswered, 0) AS unanswered, coalesce(c.fallbacks, 0) AS fallbacks,
             coalesce(c.crossed, 0) AS crossed, coalesce(c.measured, 0) AS measured,
             coalesce(c.latency_us, 0) AS latency_us
      FROM (VALUES ('v1'), ('v2')) AS v (version) LEFT JOIN counted c ON c.version = v.version) AS c
LEFT JOIN (SELECT version, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(calls ORDER BY bucket) AS bucket_calls
           FROM bucket WHERE calls <> 0 GROUP BY version) AS b ON b.version = c.version
ORDER BY c.version

-- health_by_tenant --
WITH counted AS (
    SELECT version, tenant_id, sum(calls) AS calls, sum(finished) AS finished, sum(failed) AS failed,
           sum(errors) AS errors, sum(unanswered) AS unanswered, sum(fallbacks) AS fallbacks, sum(crossed) AS crossed,
           sum(measured) AS measured, sum(latency_us) AS latency_us
    FROM (SELECT version, tenant_id, calls, finished, failed, errors, unanswered, fallbacks, crossed, measured,
                 latency_us
          FROM relevo.call_stats WHERE grain = 'tenant' AND starts_at >= %(since)s
                                   AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')
          UNION ALL
          SELECT version, tenant_id, calls, finished, failed, errors, unanswered, fallbacks, crossed, measured,
                 latency_us
          FROM relevo.unfolded WHERE grain = 'tenant' AND starts_at >= %(since)s
                                 AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')) AS both_parts
    WHERE %(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s
    GROUP BY version, tenant_id
), bucket AS (
    SELECT version, tenant_id, bucket, sum(calls) AS calls
    FROM (SELECT version, tenant_id, bucket, calls FROM relevo.call_latencies
          WHERE grain = 'tenant' AND starts_at >= %(since)s
            AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')
          UNION ALL
          SELECT version, tenant_id, bucket, measured FROM relevo.unfolded
          WHERE grain = 'tenant' AND bucket IS NOT NULL AND starts_at >= %(since)s
            AND starts_at < coalesce(%(until)s::timestamptz, 'infinity')) AS both_parts
    WHERE %(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s
    GROUP BY version, tenant_id, bucket
)
SELECT c.*, b.buckets, b.bucket_calls, 0 AS breaker_opens,
       (SELECT count(*) FROM relevo.complaints x
        WHERE x.version = c.version AND x.tenant_id = c.tenant_id AND x.dismissed_at IS NULL AND x.at >= %(since)s
          AND x.at < coalesce(%(until)s::timestamptz, 'infinity')) AS complaints
FROM counted c
LEFT JOIN (SELECT version, tenant_id, array_agg(bucket ORDER BY bucket) AS buckets,
                  array_agg(calls ORDER BY bucket) AS bucket_calls
           FROM bucket WHERE calls <> 0 GROUP BY version, tenant_id) AS b USING (version, tenant_id)
WHERE c.calls <> 0
ORDER BY c.tenant_id, c.version

-- differences --
-- Where the sums, with their unfolded tail, are not what relevo.calls says; no row unless something is wrong. Between
-- whole hours; minutes from where they are kept.
WITH call AS (
    SELECT version, tenant_id, date_trunc('minute', decided_at, 'UTC') AS minute,
           ARRAY[1, (stage = 6)::integer, (status = 'failed')::integer, our_fault::integer, unanswered::integer,
                 (fallback IS NOT NULL)::integer, crossed::integer, (latency_ms IS NOT NULL)::integer,
                 coalesce(round(latency_ms * 1000)::bigint, 0)] AS figures,
           relevo.latency_bucket(latency_ms) AS bucket
    FROM relevo.calls
    WHERE tenant_id IS NOT NULL AND NOT synthetic AND decided_at >= %(since)s AND decided_at < %(until)s
), spread AS (
    SELECT g.grain, date_bin(g.width, c.minute, 'epoch') AS starts_at,
           c.version, CASE g.grain WHEN 'tenant' THEN c.tenant_id ELSE '' END AS tenant_id, c.figures, c.bucket
    FROM call c JOIN relevo.grains g ON g.grain IN ('minute', 'hour', 'tenant')
    WHERE g.grain <> 'minute' OR c.minute >= %(minutes_since)s
), tail AS (
    SELECT * FROM relevo.unfolded
    WHERE grain IN ('minute', 'hour', 'tenant') AND starts_at >= %(since)s AND starts_at < %(until)s
), folded AS (
    SELECT * FROM relevo.call_stats
    WHERE source = 'calls' AND grain IN ('minute', 'hour', 'tenant') AND starts_at >= %(since)s AND starts_at < %(until)s
), measured AS (
    SELECT * FROM relevo.call_latencies
    WHERE source = 'calls' AND grain IN ('minute', 'hour', 'tenant') AND starts_at >= %(since)s AND starts_at < %(until)s
), counted AS (  -- bucket -1 stands for what is counted without one
    SELECT grain, starts_at, version, tenant_id, -1 AS bucket, number, sum(figure) AS figure
    FROM spread, unnest(figures) WITH ORDINALITY AS f (figure, number) GROUP BY 1, 2, 3, 4, 5, 6
    UNION ALL
    SELECT grain, starts_at, version, tenant_id, bucket, 0, count(*) FROM spread WHERE bucket IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5
), told AS (
    SELECT grain, starts_at, version, tenant_id, -1 AS bucket, number, sum(figure) AS figure
    FROM (SELECT grain, starts_at, version, tenant_id, ARRAY[calls, finished, failed, errors, unanswered, fallbacks,
                                                             crossed, measured, latency_us] AS figures FROM folded
          UNION ALL
          SELECT grain, starts_at, version, tenant_id, ARRAY[calls, finished, failed, errors, unanswered, fallbacks,
                                                             crossed, measured, latency_us] FROM tail) AS both_parts,
         unnest(figures) WITH ORDINALITY AS f (figure, number)
    WHERE grain <> 'minute' OR starts_at >= %(minutes_since)s
    GROUP BY 1, 2, 3, 4, 5, 6
    UNION ALL
    SELECT grain, starts_at, version, tenant_id, bucket, 0, sum(calls)
    FROM (SELECT grain, starts_at, version, tenant_id, bucket, calls FROM measured
          UNION ALL
          SELECT grain, starts_at, version, tenant_id, bucket, measured FROM tail WHERE bucket IS NOT NULL) AS both_parts
    WHERE grain <> 'minute' OR starts_at >= %(minutes_since)s
    GROUP BY 1, 2, 3, 4, 5
)
SELECT grain, starts_at, version, nullif(tenant_id, '') AS tenant_id,
       CASE WHEN bucket <> -1 THEN 'latency bucket ' || bucket
            ELSE (ARRAY['calls', 'finished', 'failed', 'errors', 'unanswered', 'fallbacks', 'crossed', 'measured',
                        'latency_us'])[number] END AS figure,
       coalesce(t.figure, 0)::bigint AS told, coalesce(c.figure, 0)::bigint AS counted
FROM counted c FULL JOIN told t USING (grain, starts_at, version, tenant_id, bucket, number)
WHERE coalesce(t.figure, 0) <> coalesce(c.figure, 0)
ORDER BY 1, 2, 3, 4, 5

-- coarse_differences --
-- Where sums of ten minutes and of days are not those of their minutes and hours; no row unless something is wrong.
-- Both are written in one go, so that nothing unfolded stands between them.
WITH pair AS (
    SELECT c.grain, c.width, f.grain AS finer, f.since
    FROM relevo.grains c
    JOIN (VALUES ('ten', 'minute', date_bin('10 minutes', %(minutes_since)s::timestamptz, 'epoch') + interval '10 minutes'),
                 ('day', 'hour', '-infinity')) AS f (coarser, grain, since) ON f.coarser = c.grain
), figure AS (  -- bucket -1 stands for what is counted without one
    SELECT grain, source, starts_at, version, -1 AS bucket, number, figure
    FROM relevo.call_stats, unnest(ARRAY[calls, finished, failed, errors, unanswered, fallbacks, crossed, measured,
                                         latency_us]) WITH ORDINALITY AS f (figure, number)
    WHERE grain IN ('minute', 'ten', 'hour', 'day')
      AND starts_at >= date_bin('1 day', %(since)s::timestamptz, 'epoch')
      AND starts_at < date_bin('1 day', %(until)s::timestamptz, 'epoch') + interval '1 day'
    UNION ALL
    SELECT grain, source, starts_at, version, bucket, 0, calls
    FROM relevo.call_latencies
    WHERE grain IN ('minute', 'ten', 'hour', 'day')
      AND starts_at >= date_bin('1 day', %(since)s::timestamptz, 'epoch')
      AND starts_at < date_bin('1 day', %(until)s::timestamptz, 'epoch') + interval '1 day'
), fine AS (
    SELECT p.grain, f.source, date_bin(p.width, f.starts_at, 'epoch') AS starts_at, f.version, f.bucket, f.number,
           sum(f.figure) AS figure
    FROM figure f JOIN pair p ON p.finer = f.grain AND f.starts_at >= p.since GROUP BY 1, 2, 3, 4, 5, 6
), coarse AS (
    SELECT f.grain, f.source, f.starts_at, f.version, f.bucket, f.number, f.figure
    FROM figure f JOIN pair p ON p.grain = f.grain AND f.starts_at >= p.since
)
SELECT grain, starts_at, version, NULL::text AS tenant_id,
       CASE WHEN bucket <> -1 THEN 'latency bucket ' || bucket
            ELSE (ARRAY['calls', 'finished', 'failed', 'errors', 'unanswered', 'fallbacks', 'crossed', 'measured',
                        'latency_us'])[number] END AS figure,
       coalesce(c.figure, 0)::bigint AS told, coalesce(f.figure, 0)::bigint AS counted
FROM fine f FULL JOIN coarse c USING (grain, source, starts_at, version, bucket, number)
WHERE coalesce(c.figure, 0) <> coalesce(f.figure, 0)
ORDER BY 1, 2, 3, 5

-- reasons_unknown --
-- What calls ended with that no row of relevo.ended_reasons knows.
SELECT (c.ending).reason AS reason, count(*) AS calls FROM relevo.calls c
WHERE c.decided_at >= %(since)s AND c.decided_at < %(until)s AND (c.ending).reason IS NOT NULL
GROUP BY 1 HAVING NOT (relevo.judge_ending((c.ending).reason)).known ORDER BY 2 DESC, 1

-- history_days --
SELECT day::date AS day FROM generate_series(%(first)s::date, %(last)s::date, interval '1 day') AS day
WHERE NOT EXISTS (SELECT FROM relevo.history_days h WHERE h.day = day.day::date) ORDER BY day

-- forget_history --
WITH stats AS (
    DELETE FROM relevo.call_stats WHERE source = 'history' AND starts_at >= %(since)s AND starts_at < %(until)s
)
DELETE FROM relevo.call_latencies WHERE source = 'history' AND starts_at >= %(since)s AND starts_at < %(until)s

-- count_history --
-- Some days of v1's own calls, all at once; those that the router knows are counted as its own. Without an endedReason
-- a failed call is an error. A call of which nothing says that it is over is not finished.
WITH call AS MATERIALIZED (
    SELECT date_trunc('minute', h.started_at, 'UTC') AS minute, h.business_id::text AS tenant_id,
           h.status IS NOT NULL AND replace(h.status, '_', '-')
               <> ALL (ARRAY['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding']) AS finished,
           h.status IS NOT DISTINCT FROM 'failed' AS failed,
           CASE WHEN h.avg_latency_ms > 0 AND h.avg_latency_ms < 1e9 THEN h.avg_latency_ms::float8 END AS latency_ms
    FROM {calls} AS h
    WHERE h.started_at >= %(since)s AND h.started_at < %(until)s AND h.business_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM relevo.calls c WHERE c.call_id = h.vapi_call_id)
), summed AS (
    SELECT minute, tenant_id, relevo.latency_bucket(latency_ms) AS bucket, count(*) AS calls,
           count(*) FILTER (WHERE finished) AS finished, count(*) FILTER (WHERE failed) AS failed,
           count(latency_ms) AS measured, coalesce(sum(round(latency_ms * 1000)::bigint), 0) AS latency_us
    FROM call GROUP BY minute, tenant_id, bucket
), spread AS (
    SELECT g.grain, date_bin(g.width, s.minute, 'epoch') AS starts_at,
           CASE g.grain WHEN 'tenant' THEN s.tenant_id ELSE '' END AS tenant_id, s.bucket, s.calls, s.finished,
           s.failed, s.measured, s.latency_us
    FROM summed s CROSS JOIN relevo.grains g
    WHERE g.grain NOT IN ('minute', 'ten') OR s.minute >= %(minutes_since)s
), counted AS (
    INSERT INTO relevo.call_stats (grain, source, starts_at, version, tenant_id, calls, finished, failed, errors,
                                   unanswered, fallbacks, crossed, measured, latency_us)
    SELECT grain, 'history', starts_at, 'v1', tenant_id, sum(calls), sum(finished), sum(failed), sum(failed), 0, 0, 0,
           sum(measured), sum(latency_us)
    FROM spread GROUP BY grain, starts_at, tenant_id
), measured AS (
    INSERT INTO relevo.call_latencies (grain, source, starts_at, version, tenant_id, bucket, calls)
    SELECT grain, 'history', starts_at, 'v1', tenant_id, bucket, sum(measured)
    FROM spread WHERE bucket IS NOT NULL GROUP BY grain, starts_at, tenant_id, bucket
), done AS (  -- a day that is not over is counted again next time
    INSERT INTO relevo.history_days (day, calls, done_at)
    SELECT day::date, (SELECT count(*) FROM call c WHERE c.minute >= day.day AND c.minute < day.day + interval '1 day'),
           %(now)s
    FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '1 day', interval '1 day') AS day
    WHERE day.day + interval '1 day' <= %(now)s
    ON CONFLICT (day) DO UPDATE SET calls = excluded.calls, done_at = excluded.done_at
)
SELECT count(*) AS calls FROM call

-- add_complaint --
WITH added AS (
    INSERT INTO relevo.complaints (tenant_id, version, text, at, actor)
    SELECT %(tenant_id)s, coalesce(%(version)s::text,
               (SELECT c.version FROM relevo.calls c WHERE c.tenant_id = %(tenant_id)s AND NOT c.synthetic
                  AND c.decided_at >= %(now)s::timestamptz - interval '7 days' ORDER BY c.decided_at DESC LIMIT 1), 'v1'),
           %(text)s, %(now)s, %(actor)s
    RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'complaint.add', tenant_id, %(reason)s, jsonb_build_object('id', id, 'version', version) FROM added
)
SELECT id, tenant_id, version, text, at, actor, dismissed_at, dismissed_by FROM added

-- complaints --
SELECT id, tenant_id, version, text, at, actor, dismissed_at, dismissed_by FROM relevo.complaints
WHERE (%(every)s::boolean OR dismissed_at IS NULL) ORDER BY at DESC, id DESC

-- dismiss_complaint --
WITH dismissed AS (
    UPDATE relevo.complaints SET dismissed_at = %(now)s, dismissed_by = %(actor)s, dismissed_why = %(reason)s
    WHERE id = %(id)s AND dismissed_at IS NULL RETURNING *
), audited AS (
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    SELECT %(actor)s, 'complaint.dismiss', tenant_id, %(reason)s, jsonb_build_object('id', id) FROM dismissed
)
SELECT id, tenant_id, version, text, at, actor, dismissed_at, dismissed_by FROM dismissed

-- platform_columns --
-- What the platform's table of calls demands and what it can look up.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AS demanded,
       a.attgenerated <> '' OR a.attidentity = 'a' AS made_by_itself,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indpred IS NULL
               AND i.indkey[0] = a.attnum) AS indexed
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)) AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY a.attnum

-- writer_installed --
SELECT fingerprint FROM relevo.voice_calls_writer

-- writer_stored --
INSERT INTO relevo.voice_calls_writer (fingerprint) VALUES (%(fingerprint)s)
ON CONFLICT (only_one) DO UPDATE SET fingerprint = excluded.fingerprint, installed_at = DEFAULT

-- outcome_words --
-- Every outcome that a call may get.
SELECT outcome FROM relevo.ended_reasons
UNION SELECT unnest(ARRAY['reservation_created', 'appointment_created', 'order_created', 'unknown'])
ORDER BY outcome

-- count_calls --
SELECT count(*) AS calls FROM relevo.calls
WHERE tenant_id IS NOT NULL AND NOT synthetic AND decided_at >= %(since)s AND decided_at < %(until)s
