-- Repair: what is queued for one configuration, brought to the other side in the order it was written.

-- Returns null when nothing waits any more, else why. Both rows are held first, so what is read is not stale when it is
-- written. Each write goes across in the name of who made it.
CREATE FUNCTION relevo.repair(of_config uuid) RETURNS text
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    entry  relevo.mirror_queue;
    on_v1  relevo.v1_config;
    on_v2  public.voice_assistant_configs;
    fields text[];
    actor  text := coalesce(current_setting('relevo.actor', true), '');
    why    text;
BEGIN
    PERFORM FROM public.voice_assistant_configs v WHERE v.id = of_config FOR UPDATE;
    PERFORM relevo.v1_hold(ARRAY[of_config]);
    FOR entry IN SELECT * FROM relevo.mirror_queue q WHERE q.config_id = of_config ORDER BY q.id FOR UPDATE LOOP
        SELECT * INTO on_v1 FROM relevo.v1_by_id(ARRAY[of_config]);
        SELECT * INTO on_v2 FROM public.voice_assistant_configs v WHERE v.id = of_config;
        fields := relevo.still_wanted(entry, on_v1, on_v2);
        PERFORM set_config('relevo.actor', entry.writer, true);
        BEGIN
            DELETE FROM relevo.mirror_queue q WHERE q.id = entry.id;
            IF cardinality(relevo.apply_entry(entry, fields, on_v1, on_v2)) > 0 THEN
                RAISE EXCEPTION '%', relevo.why_homeless();
            END IF;
        EXCEPTION WHEN OTHERS THEN
            why := SQLERRM;
        END;
        EXIT WHEN why IS NOT NULL;
    END LOOP;
    PERFORM set_config('relevo.actor', actor, true);
    -- Triggers of both sides may have answered each other until one write of theirs was queued.
    RETURN coalesce(why, (SELECT max(q.reason) FROM relevo.mirror_queue q WHERE q.config_id = of_config));
END $$;

-- The fields of a queued write that the other side did not write later. Where it did, both values are kept.
CREATE FUNCTION relevo.still_wanted(
    entry relevo.mirror_queue, on_v1 relevo.v1_config, on_v2 public.voice_assistant_configs) RETURNS text[]
LANGUAGE sql SET search_path = '' AS $$
WITH later AS MATERIALIZED (
    SELECT DISTINCT ON (f) f AS field, l.written_on, l.writer
    FROM relevo.mirror_queue l CROSS JOIN unnest(l.fields) AS f
    WHERE l.config_id = (entry).config_id AND l.id > (entry).id AND l.written_on <> (entry).written_on
      AND f = ANY ((entry).fields)
    ORDER BY f, l.id DESC
), lost AS (
    INSERT INTO relevo.mirror_conflicts AS known
           (config_id, field, v1_value, v1_writer, v2_value, v2_writer, kept)
    SELECT (entry).config_id, later.field, to_jsonb(on_v1) -> later.field,
           CASE (entry).written_on WHEN 'v1' THEN (entry).writer ELSE later.writer END,
           to_jsonb(on_v2) -> later.field,
           CASE (entry).written_on WHEN 'v2' THEN (entry).writer ELSE later.writer END,
           later.written_on
    FROM later
    WHERE later.field = ANY (relevo.differing(on_v1, on_v2)) AND (on_v1).id IS NOT NULL AND (on_v2).id IS NOT NULL
    ON CONFLICT (config_id, field) WHERE resolved_at IS NULL DO UPDATE
    SET v1_value = excluded.v1_value, v1_writer = excluded.v1_writer, v2_value = excluded.v2_value,
        v2_writer = excluded.v2_writer, kept = excluded.kept, found_at = excluded.found_at
)
SELECT ARRAY(SELECT f FROM unnest((entry).fields) AS f WHERE f NOT IN (SELECT field FROM later))
$$;

-- One queued write, as the rows stand now: a later write to the same side is part of it. A deletion stands unless the
-- other side made the row anew after it. Returns the configuration if it is still not the same on both sides.
CREATE FUNCTION relevo.apply_entry(
    entry relevo.mirror_queue, fields text[], on_v1 relevo.v1_config, on_v2 public.voice_assistant_configs)
RETURNS uuid[] LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    deleted boolean := entry.operation = 'delete' AND NOT EXISTS (
        SELECT FROM relevo.mirror_queue l
        WHERE l.config_id = entry.config_id AND l.id > entry.id AND l.written_on <> entry.written_on
          AND l.operation = 'insert');
BEGIN
    IF EXISTS (SELECT FROM relevo.mirror_queue l
               WHERE l.config_id = entry.config_id AND l.id > entry.id AND l.operation = 'delete') THEN
        RETURN '{}';  -- the row that is deleted next is kept with this in it
    ELSIF entry.written_on = 'v1' AND on_v1.id IS NOT NULL THEN
        RETURN relevo.bring_across(ARRAY[
            ROW(jsonb_populate_record(NULL::relevo.v1_config, entry.was), on_v1, fields)::relevo.v1_change]);
    ELSIF entry.written_on = 'v1' AND deleted AND on_v2.id IS NOT NULL THEN
        RETURN relevo.bring_across(ARRAY[
            ROW(jsonb_populate_record(NULL::relevo.v1_config, entry.was), NULL, '{}')::relevo.v1_change]);
    ELSIF entry.written_on = 'v2' AND on_v2.id IS NOT NULL THEN
        RETURN relevo.bring_across(ARRAY[ROW(
            CASE WHEN entry.operation <> 'insert' THEN on_v2 END, on_v2, fields)::relevo.v2_change]);
    ELSIF entry.written_on = 'v2' AND deleted AND on_v1.id IS NOT NULL THEN
        RETURN relevo.bring_across(ARRAY[ROW(
            jsonb_populate_record(NULL::public.voice_assistant_configs, entry.was), NULL, '{}')::relevo.v2_change]);
    ELSIF deleted AND on_v1.id IS NULL AND on_v2.id IS NULL THEN  -- both sides did, and neither row is kept elsewhere
        INSERT INTO relevo.deleted_configs (config_id, side, row, deleted_by)
        VALUES (entry.config_id, entry.written_on, entry.was, entry.writer);
    END IF;
    RETURN '{}';
END $$;
