-- Repair: what is queued for one configuration, brought to the other side in the order it was written.

-- Returns null when all went through, else why not; then nothing was changed. The row of v2 is held first: from then on
-- no write of v1 can reach v2 before us, so what is read of v1 is not stale when it is written.
CREATE FUNCTION relevo.repair(of_config uuid) RETURNS text
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    entry  relevo.mirror_queue;
    on_v1  relevo.v1_config;
    on_v2  public.voice_assistant_configs;
    fields text[];
    why    text;
BEGIN
    PERFORM FROM public.voice_assistant_configs v WHERE v.id = of_config FOR UPDATE;
    FOR entry IN SELECT * FROM relevo.mirror_queue q WHERE q.config_id = of_config ORDER BY q.id FOR UPDATE LOOP
        SELECT * INTO on_v1 FROM relevo.v1_by_id(ARRAY[of_config]);
        SELECT * INTO on_v2 FROM public.voice_assistant_configs v WHERE v.id = of_config;
        fields := relevo.still_wanted(entry, on_v1, on_v2);
        BEGIN
            why := relevo.apply_entry(entry, fields, on_v1, on_v2);
        EXCEPTION WHEN OTHERS THEN
            why := SQLERRM;
        END;
        IF why IS NOT NULL THEN
            RETURN why;
        END IF;
        DELETE FROM relevo.mirror_queue q WHERE q.id = entry.id;
    END LOOP;
    RETURN NULL;
END $$;

-- The fields of a queued write that the other side did not write later. Where it did, both values are kept.
CREATE FUNCTION relevo.still_wanted(
    entry relevo.mirror_queue, on_v1 relevo.v1_config, on_v2 public.voice_assistant_configs) RETURNS text[]
LANGUAGE sql SET search_path = '' AS $$
WITH later AS MATERIALIZED (
    SELECT f AS field, max(l.id) AS id
    FROM relevo.mirror_queue l CROSS JOIN unnest(l.fields) AS f
    WHERE l.config_id = (entry).config_id AND l.id > (entry).id AND l.written_on <> (entry).written_on
      AND f = ANY ((entry).fields)
    GROUP BY f
), lost AS (
    INSERT INTO relevo.mirror_conflicts AS known
           (config_id, field, v1_value, v1_writer, v2_value, v2_writer, kept)
    SELECT (entry).config_id, field, v1_value, v1_writer, v2_value, v2_writer, kept
    FROM (SELECT later.field,
                 CASE (entry).written_on WHEN 'v1' THEN (entry).values ELSE to_jsonb(on_v1) END -> later.field AS v1_value,
                 CASE (entry).written_on WHEN 'v1' THEN (entry).writer ELSE l.writer END AS v1_writer,
                 CASE (entry).written_on WHEN 'v2' THEN (entry).values ELSE to_jsonb(on_v2) END -> later.field AS v2_value,
                 CASE (entry).written_on WHEN 'v2' THEN (entry).writer ELSE l.writer END AS v2_writer,
                 l.written_on AS kept
          FROM later JOIN relevo.mirror_queue l USING (id)) AS both_sides
    WHERE v1_value IS DISTINCT FROM v2_value AND field = ANY (relevo.shared_fields())
    ON CONFLICT (config_id, field) WHERE resolved_at IS NULL DO UPDATE
    SET v1_value = excluded.v1_value, v1_writer = excluded.v1_writer, v2_value = excluded.v2_value,
        v2_writer = excluded.v2_writer, kept = excluded.kept, found_at = excluded.found_at
)
SELECT ARRAY(SELECT f FROM unnest((entry).fields) AS f WHERE f NOT IN (SELECT field FROM later))
$$;

-- One queued write, as the rows stand now: a later write to the same side is part of it.
CREATE FUNCTION relevo.apply_entry(
    entry relevo.mirror_queue, fields text[], on_v1 relevo.v1_config, on_v2 public.voice_assistant_configs) RETURNS text
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF (entry).written_on = 'v1' THEN
        IF (on_v1).id IS NOT NULL THEN
            IF cardinality(relevo.apply_to_v2(ARRAY[ROW(NULL, on_v1, fields)::relevo.v1_change])) > 0 THEN
                RETURN 'its row on v2 cannot be seen yet';
            END IF;
        ELSIF (entry).operation = 'delete' AND (on_v2).id IS NOT NULL THEN
            PERFORM relevo.delete_from_v2(ARRAY[(entry).config_id]);
        END IF;
    ELSIF (on_v2).id IS NOT NULL THEN
        PERFORM relevo.apply_to_v1(ARRAY[ROW(
            CASE WHEN (entry).operation = 'insert' THEN NULL ELSE on_v2 END, on_v2, fields)::relevo.v2_change]);
    ELSIF (entry).operation = 'delete' AND (on_v1).id IS NOT NULL THEN
        PERFORM relevo.apply_to_v1(ARRAY[ROW(
            jsonb_populate_record(NULL::public.voice_assistant_configs, (entry).was), NULL, '{}')::relevo.v2_change]);
    END IF;
    RETURN NULL;
END $$;
