-- What the mirror does with a write: bring it to the other side as one statement, else by halves, else queue it.
-- It calls what is generated from the mapping: relevo.derived (the one transform), v1_by_id, v1_insert, v1_update,
-- v1_delete, v1_writable.

-- Brings changes of v1 to v2. A field is set only where it changed and differs, so an echo ends by itself. Returns the
-- configurations that are still not the same on both sides: a snapshot hides the row, or a trigger there overruled us.
CREATE FUNCTION relevo.bring_across(changes relevo.v1_change[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    gone      uuid[] := ARRAY(SELECT (c.was).id FROM unnest(changes) AS c WHERE (c.now).id IS NULL);
    written   relevo.v1_change[] := ARRAY(SELECT c FROM unnest(changes) AS c WHERE (c.now).id IS NOT NULL);
    ids       uuid[] := ARRAY(SELECT (c.now).id FROM unnest(written) AS c);
    present   uuid[];
    special   uuid[];
    to_derive uuid[];
    homeless  uuid[] := '{}';
    touched   integer := 0;
BEGIN
    -- In one order, whoever writes.
    present := ARRAY(SELECT v.id FROM public.voice_assistant_configs v
                     WHERE v.id = ANY (gone || ids) ORDER BY v.id FOR UPDATE);
    IF cardinality(gone) > 0 THEN
        homeless := relevo.delete_from_v2(gone) || relevo.unequal(gone);
    END IF;
    IF cardinality(written) = 0 THEN
        RETURN homeless;
    END IF;
    IF EXISTS (SELECT FROM unnest(written) AS c WHERE 'vertical' = ANY (c.changed)) THEN
        -- The tenant was written, not these: they are as they stand now that nobody else can bring them across.
        written := ARRAY(SELECT ROW(v1, v1, ARRAY['vertical'])::relevo.v1_change FROM relevo.v1_by_id(ids) AS v1);
    END IF;
    special := ARRAY(SELECT q.config_id::uuid FROM relevo.quarantine q WHERE q.config_id = ANY (ids::text[])
                     UNION ALL
                     SELECT e.config_id FROM relevo.known_edits e
                     WHERE e.config_id = ANY (ids) AND e.field = ANY (relevo.shared_fields()));
    to_derive := ARRAY(
        SELECT (c.now).id FROM unnest(written) AS c
        WHERE c.changed && ARRAY['system_prompt', 'assistant_name', 'first_message', 'business_id', 'vertical']
           OR (c.now).id <> ALL (present) OR (c.now).id = ANY (special));
    IF cardinality(to_derive) < cardinality(written) THEN
        touched := relevo.carry_to_v2(ARRAY(SELECT c FROM unnest(written) AS c WHERE (c.now).id <> ALL (to_derive)));
    END IF;
    IF cardinality(to_derive) > 0 THEN
        homeless := homeless || relevo.derive_to_v2(
            ARRAY(SELECT c FROM unnest(written) AS c WHERE (c.now).id = ANY (to_derive)));
    ELSIF touched = 0 THEN
        RETURN homeless;
    END IF;
    RETURN homeless || relevo.unequal(ids);
END $$;

-- The fields that both sides have, for rows of which nothing else changed. Returns how many rows had to be written,
-- whether or not a trigger there let them be.
CREATE FUNCTION relevo.carry_to_v2(written relevo.v1_change[]) RETURNS integer
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    touched integer;
BEGIN
    WITH image AS (
        SELECT o AS v, o.id,
               CASE WHEN 'vapi_assistant_id' = ANY (changed) THEN (now).vapi_assistant_id ELSE o.vapi_assistant_id
               END AS vapi_assistant_id,
               CASE WHEN 'phone_number_id' = ANY (changed) THEN (now).phone_number_id ELSE o.phone_number_id
               END AS phone_number_id,
               CASE WHEN 'voice_id' = ANY (changed) THEN relevo.voice_of((now).voice_id) ELSE o.voice_id
               END AS voice_id,
               CASE WHEN 'is_active' = ANY (changed) THEN (now).is_active ELSE o.is_active END AS is_active,
               CASE WHEN 'created_at' = ANY (changed) THEN (now).created_at ELSE o.created_at END AS created_at,
               CASE WHEN 'updated_at' = ANY (changed) THEN (now).updated_at ELSE o.updated_at END AS updated_at
        FROM unnest(written) AS c JOIN public.voice_assistant_configs o ON o.id = (c.now).id
    ), wanted AS MATERIALIZED (
        SELECT * FROM image
        WHERE ((v).vapi_assistant_id, (v).phone_number_id, (v).voice_id, (v).is_active, (v).created_at, (v).updated_at)
              IS DISTINCT FROM (vapi_assistant_id, phone_number_id, voice_id, is_active, created_at, updated_at)
    ), updated AS (
        UPDATE public.voice_assistant_configs v
        SET vapi_assistant_id = w.vapi_assistant_id, phone_number_id = w.phone_number_id, voice_id = w.voice_id,
            is_active = w.is_active, created_at = w.created_at, updated_at = w.updated_at
        FROM wanted w WHERE v.id = w.id
    )
    SELECT count(*) FROM wanted INTO touched;
    RETURN touched;
END $$;

-- Of some configurations, those whose shared fields differ or that one side lacks, and of which nobody knows: no write
-- of the field waits, it is no edit of v2, the row is not set aside.
CREATE FUNCTION relevo.unequal(ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RETURN ARRAY(
        SELECT both_sides.id
        FROM (SELECT coalesce(one.id, two.id) AS id, relevo.differing(one, two) AS fields
              FROM relevo.v1_by_id(ids) AS one
              FULL JOIN (SELECT * FROM public.voice_assistant_configs v WHERE v.id = ANY (ids)) AS two
                ON two.id = one.id) AS both_sides
        WHERE cardinality(fields) > 0
          AND NOT EXISTS (SELECT FROM relevo.quarantine q WHERE q.config_id = both_sides.id::text)
          AND NOT fields <@ ARRAY(SELECT e.field FROM relevo.known_edits e WHERE e.config_id = both_sides.id
                                  UNION ALL
                                  SELECT CASE q.operation WHEN 'update' THEN f ELSE all_shared END
                                  FROM relevo.mirror_queue q
                                  CROSS JOIN unnest(relevo.shared_fields()) AS all_shared
                                  LEFT JOIN unnest(q.fields) AS f ON q.operation = 'update'
                                  WHERE q.config_id = both_sides.id));
END $$;

-- What v1 makes of rows whose prompt, tenant or place is new. Fields that somebody edited on v2 stay, and both values
-- are kept. Returns the configurations that found no place on v2.
CREATE FUNCTION relevo.derive_to_v2(changes relevo.v1_change[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    written  relevo.v1_config[] := ARRAY(SELECT c.now FROM unnest(changes) AS c);
    before   relevo.v1_config[];
    homeless uuid[];
BEGIN
    -- What v1 said before matters only where v2 was edited.
    before := ARRAY(SELECT c.was FROM unnest(changes) AS c
                    WHERE (c.was).id IS NOT NULL
                      AND EXISTS (SELECT FROM relevo.known_edits e WHERE e.config_id = (c.now).id));
    WITH image AS MATERIALIZED (
        -- What was set aside missed whatever was written meanwhile.
        SELECT (c.now).id, c.changed || CASE WHEN q.config_id IS NOT NULL THEN ARRAY(
                   SELECT 'system_prompt' UNION ALL SELECT unnest(relevo.shared_fields())
                   EXCEPT ALL SELECT unnest(w.fields) FROM relevo.mirror_queue w
                              WHERE w.config_id = (c.now).id AND w.written_on = 'v2') END AS changed
        FROM unnest(changes) AS c LEFT JOIN relevo.quarantine q ON q.config_id = (c.now).id::text
    ), derived AS MATERIALIZED (
        SELECT d.*, c.changed,
               c.changed && ARRAY['system_prompt', 'business_id', 'vertical'] AS may_infer
        FROM relevo.derived(written) AS d JOIN image AS c ON c.id = d.id
    ), compared AS MATERIALIZED (
        SELECT d.id, v.migrated_from_v1,
               d.may_infer AND o.rendered IS DISTINCT FROM d.original_prompt_hash AS infer,
               ARRAY(SELECT e.field FROM relevo.known_edits e WHERE e.config_id = d.id) AS edited,
               array_remove(ARRAY[
                   CASE WHEN v.business_id IS DISTINCT FROM d.business_id THEN 'business_id' END,
                   CASE WHEN v.vapi_assistant_id IS DISTINCT FROM d.vapi_assistant_id THEN 'vapi_assistant_id' END,
                   CASE WHEN v.phone_number_id IS DISTINCT FROM d.phone_number_id THEN 'phone_number_id' END,
                   CASE WHEN v.voice_id IS DISTINCT FROM d.voice_id THEN 'voice_id' END,
                   CASE WHEN v.is_active IS DISTINCT FROM d.is_active THEN 'is_active' END,
                   CASE WHEN v.created_at IS DISTINCT FROM d.created_at THEN 'created_at' END,
                   CASE WHEN v.updated_at IS DISTINCT FROM d.updated_at THEN 'updated_at' END], NULL) AS shared,
               array_remove(ARRAY[
                   CASE WHEN v.assistant_type_id IS DISTINCT FROM d.assistant_type_id THEN 'assistant_type_id' END,
                   CASE WHEN v.enabled_capabilities IS DISTINCT FROM d.enabled_capabilities
                        THEN 'enabled_capabilities' END,
                   CASE WHEN v.special_instructions IS DISTINCT FROM d.special_instructions
                        THEN 'special_instructions' END,
                   CASE WHEN v.voice_speed IS DISTINCT FROM d.voice_speed THEN 'voice_speed' END,
                   CASE WHEN v.personality_type IS DISTINCT FROM d.personality_type THEN 'personality_type' END,
                   CASE WHEN v.template_version IS DISTINCT FROM d.template_version THEN 'template_version' END],
                   NULL) AS own,
               v.original_prompt_hash IS DISTINCT FROM d.original_prompt_hash AS other_prompt
        FROM derived d
        JOIN public.voice_assistant_configs v ON v.id = d.id
        LEFT JOIN relevo.config_origins o ON o.config_id = d.id
        WHERE d.defect IS NULL
    ), wanted AS MATERIALIZED (
        SELECT c.id, c.edited,
               ARRAY(SELECT f FROM unnest(c.shared) AS f WHERE f = ANY (d.changed)
                     UNION ALL SELECT f FROM unnest(c.own) AS f WHERE c.infer) AS fields,
               c.infer AND c.other_prompt AND c.migrated_from_v1 AS new_hash
        FROM compared c JOIN derived d USING (id)
    ), typed AS (
        INSERT INTO public.voice_assistant_types (id, vertical, name)
        SELECT DISTINCT d.assistant_type_id, d.vertical, initcap(d.vertical) || ' basic'
        FROM derived d
        WHERE d.defect IS NULL
          AND NOT EXISTS (SELECT FROM public.voice_assistant_types t WHERE t.id = d.assistant_type_id)
        ON CONFLICT (id) DO NOTHING
    ), updated AS (
        UPDATE public.voice_assistant_configs v
        SET business_id = CASE WHEN 'business_id' = ANY (w.fields) THEN d.business_id ELSE v.business_id END,
            vapi_assistant_id = CASE WHEN 'vapi_assistant_id' = ANY (w.fields) THEN d.vapi_assistant_id
                                     ELSE v.vapi_assistant_id END,
            phone_number_id = CASE WHEN 'phone_number_id' = ANY (w.fields) THEN d.phone_number_id
                                   ELSE v.phone_number_id END,
            voice_id = CASE WHEN 'voice_id' = ANY (w.fields) THEN d.voice_id ELSE v.voice_id END,
            is_active = CASE WHEN 'is_active' = ANY (w.fields) THEN d.is_active ELSE v.is_active END,
            created_at = CASE WHEN 'created_at' = ANY (w.fields) THEN d.created_at ELSE v.created_at END,
            updated_at = CASE WHEN 'updated_at' = ANY (w.fields) THEN d.updated_at ELSE v.updated_at END,
            assistant_type_id = CASE WHEN 'assistant_type_id' = ANY (w.fields) THEN d.assistant_type_id
                                     ELSE v.assistant_type_id END,
            enabled_capabilities = CASE WHEN 'enabled_capabilities' = ANY (w.fields) THEN d.enabled_capabilities
                                        ELSE v.enabled_capabilities END,
            special_instructions = CASE WHEN 'special_instructions' = ANY (w.fields) THEN d.special_instructions
                                        ELSE v.special_instructions END,
            voice_speed = CASE WHEN 'voice_speed' = ANY (w.fields) THEN d.voice_speed ELSE v.voice_speed END,
            personality_type = CASE WHEN 'personality_type' = ANY (w.fields) THEN d.personality_type
                                    ELSE v.personality_type END,
            template_version = CASE WHEN 'template_version' = ANY (w.fields) THEN d.template_version
                                    ELSE v.template_version END,
            original_prompt_hash = CASE WHEN w.new_hash THEN d.original_prompt_hash ELSE v.original_prompt_hash END
        FROM derived d,
             (SELECT id, new_hash, ARRAY(SELECT f FROM unnest(fields) AS f WHERE f <> ALL (edited)) AS fields
              FROM wanted) AS w
        WHERE v.id = d.id AND w.id = d.id AND (w.new_hash OR cardinality(w.fields) > 0)
    ), clashed AS (
        INSERT INTO relevo.mirror_conflicts AS known
               (config_id, field, v1_value, v1_writer, v2_value, v2_writer, kept)
        SELECT w.id, f, to_jsonb(d) -> f, relevo.writer(), to_jsonb(v) -> f,
               (SELECT max(e.edited_by) FROM relevo.known_edits e WHERE e.config_id = w.id AND e.field = f), 'v2'
        FROM wanted w
        CROSS JOIN unnest(w.fields) AS f
        JOIN derived d ON d.id = w.id
        JOIN public.voice_assistant_configs v ON v.id = w.id
        LEFT JOIN relevo.derived(before) AS b ON b.id = w.id
        WHERE f = ANY (w.edited) AND (to_jsonb(b) -> f) IS DISTINCT FROM (to_jsonb(d) -> f)
        ON CONFLICT (config_id, field) WHERE resolved_at IS NULL DO UPDATE
        SET v1_value = excluded.v1_value, v1_writer = excluded.v1_writer,
            v2_value = excluded.v2_value, v2_writer = excluded.v2_writer, found_at = excluded.found_at
    ), inserted AS (
        INSERT INTO public.voice_assistant_configs
               (id, business_id, assistant_type_id, vapi_assistant_id, phone_number_id, voice_id, voice_speed,
                personality_type, special_instructions, enabled_capabilities, template_version, is_active,
                created_at, updated_at, migrated_from_v1, migrated_at, original_prompt_hash)
        SELECT id, business_id, assistant_type_id, vapi_assistant_id, phone_number_id, voice_id, voice_speed,
               personality_type, special_instructions, enabled_capabilities, template_version, is_active,
               created_at, updated_at, migrated_from_v1, now(), original_prompt_hash
        FROM derived d
        WHERE defect IS NULL AND NOT EXISTS (SELECT FROM compared c WHERE c.id = d.id)
          AND NOT relevo.awaits_deletion(d.id, 'v2')
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    ), archived AS (
        INSERT INTO relevo.config_origins AS o (config_id, rule_version, prompt, provenance, review)
        SELECT d.id, relevo.current_rules(), d.prompt, d.provenance, d.review
        FROM derived d
        WHERE d.id IN (SELECT i.id FROM inserted i)
           OR d.id IN (SELECT c.id FROM compared c WHERE c.migrated_from_v1)
        ON CONFLICT (config_id) DO UPDATE
        SET prompt = excluded.prompt, provenance = excluded.provenance, review = excluded.review
        WHERE o.rendered IS NULL
          AND (o.prompt, o.provenance, o.review) IS DISTINCT FROM (excluded.prompt, excluded.provenance, excluded.review)
    ), released AS (
        DELETE FROM relevo.quarantine q USING derived d WHERE q.config_id = d.id::text AND d.defect IS NULL
    ), set_aside AS (
        INSERT INTO relevo.quarantine (config_id, business_id, reason, detail)
        SELECT id::text, business_id::text, defect, relevo.defect_in_words(defect, business_id)
        FROM derived WHERE defect IS NOT NULL
        ON CONFLICT (config_id) DO UPDATE
        SET reason = excluded.reason, detail = excluded.detail, business_id = excluded.business_id
    )
    SELECT ARRAY(
        SELECT d.id FROM derived d
        WHERE d.defect IS NULL AND d.id NOT IN (SELECT id FROM inserted) AND d.id NOT IN (SELECT id FROM compared))
    INTO homeless;
    RETURN homeless;
END $$;

-- Deletes configurations from v2 because v1 did, keeping them whole in relevo.deleted_configs. Returns those that a
-- snapshot may have hidden.
CREATE FUNCTION relevo.delete_from_v2(gone uuid[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    deleted uuid[];
BEGIN
    WITH dead AS (
        DELETE FROM public.voice_assistant_configs v WHERE v.id = ANY (gone) RETURNING v.*
    ), kept AS (
        INSERT INTO relevo.deleted_configs (config_id, side, row, deleted_by)
        SELECT d.id, 'v2', to_jsonb(d), relevo.writer() FROM dead d
    )
    SELECT array_agg(id) FROM dead INTO deleted;
    DELETE FROM relevo.quarantine q WHERE q.config_id = ANY (gone::text[]);
    DELETE FROM relevo.verifications v WHERE v.config_id = ANY (gone);
    IF current_setting('transaction_isolation') = 'read committed' THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY(SELECT g FROM unnest(gone) AS g WHERE g <> ALL (coalesce(deleted, '{}')));
END $$;

CREATE FUNCTION relevo.defect_in_words(defect text, business_id uuid) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN CASE defect
    WHEN 'no_business' THEN 'the configuration names no business'
    WHEN 'unknown_business' THEN 'its business ' || business_id || ' does not exist'
    WHEN 'no_vertical' THEN 'its business has no vertical, so no assistant type fits'
END;

-- Brings changes of v2 to v1: shared fields where v1 differs and can be written; a row that v1 lacks is born there
-- with the rendered prompt. What v1 cannot carry is remembered as an edit. A prompt that people wrote is never touched.
-- Returns the configurations that are still not the same on both sides.
CREATE FUNCTION relevo.bring_across(changes relevo.v2_change[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    gone    uuid[] := ARRAY(SELECT (c.was).id FROM unnest(changes) AS c WHERE (c.now).id IS NULL);
    written relevo.v2_change[] := ARRAY(SELECT c FROM unnest(changes) AS c WHERE (c.now).id IS NOT NULL);
    ids     uuid[] := ARRAY(SELECT (c.now).id FROM unnest(written) AS c);
    present relevo.v1_config[];
    born    public.voice_assistant_configs[];
    writes  relevo.v1_write[];
BEGIN
    IF cardinality(gone) > 0 THEN
        INSERT INTO relevo.deleted_configs (config_id, side, row, deleted_by)
        SELECT d.id, 'v1', d.row, relevo.writer() FROM relevo.v1_delete(gone) AS d;
        DELETE FROM relevo.quarantine q WHERE q.config_id = ANY (gone::text[]);
    END IF;
    IF cardinality(written) = 0 THEN
        RETURN relevo.unequal(gone);
    END IF;
    -- Held before it is read: what somebody is writing there now would be compared as it was. What the move brings was
    -- read under a lock already, and what is v2's own is not written to v1.
    PERFORM relevo.v1_hold(ARRAY(
        SELECT (c.now).id FROM unnest(written) AS c
        WHERE ((c.was).id IS NOT NULL OR NOT (c.now).migrated_from_v1)
          AND (c.changed && relevo.shared_fields()
               OR EXISTS (SELECT FROM relevo.config_origins o
                          WHERE o.config_id = (c.now).id AND o.rendered IS NOT NULL))));
    present := ARRAY(SELECT v1 FROM relevo.v1_by_id(ids) AS v1);
    PERFORM relevo.note_edits(written, present);
    born := ARRAY(SELECT c.now FROM unnest(written) AS c
                  WHERE NOT EXISTS (SELECT FROM unnest(present) AS p WHERE p.id = (c.now).id)
                    AND NOT relevo.awaits_deletion((c.now).id, 'v1')
                  ORDER BY (c.now).id);
    IF cardinality(born) > 0 THEN
        PERFORM relevo.bear_on_v1(born);
    END IF;
    writes := relevo.shared_writes(written, present);
    IF cardinality(writes) > 0 THEN
        PERFORM relevo.v1_update(writes);
    END IF;
    PERFORM relevo.render_anew(written, present);
    IF cardinality(writes) = 0 AND cardinality(gone) = 0 AND cardinality(present) = cardinality(ids) THEN
        RETURN '{}';
    END IF;
    -- A row that is not there awaits its deletion on this side: what was written to it waits behind that.
    RETURN relevo.unequal(gone || ids) || ARRAY(
        SELECT i FROM unnest(ids) AS i
        WHERE relevo.awaits_deletion(i, 'v1') AND NOT EXISTS (SELECT FROM unnest(present) AS p WHERE p.id = i));
END $$;

-- Remembers which fields of v2 no longer say what v1 would make of them; one edited back is forgotten.
CREATE FUNCTION relevo.note_edits(written relevo.v2_change[], present relevo.v1_config[]) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    unwritable text[] := ARRAY(SELECT f FROM unnest(relevo.shared_fields()) AS f WHERE f <> ALL (relevo.v1_writable()));
    -- A row that the move brings is as derived.
    edited relevo.v2_change[] := ARRAY(
        SELECT c FROM unnest(written) AS c
        WHERE c.changed && (relevo.own_fields() || unwritable)
          AND ((c.was).id IS NOT NULL OR NOT (c.now).migrated_from_v1));
BEGIN
    IF cardinality(edited) = 0 THEN
        RETURN;
    END IF;
    WITH field AS MATERIALIZED (
        SELECT (c.now).id, f AS name,
               e.id IS NULL OR (to_jsonb(c.now) -> f) IS DISTINCT FROM (to_jsonb(e) -> f) AS differs
        FROM unnest(edited) AS c
        CROSS JOIN unnest(c.changed) AS f
        LEFT JOIN relevo.derived(ARRAY(SELECT p FROM unnest(present) AS p WHERE p.id IN (
                      SELECT (c.now).id FROM unnest(edited) AS c))) AS e ON e.id = (c.now).id
        WHERE f = ANY (relevo.own_fields() || unwritable)
    ), marked AS (
        INSERT INTO relevo.v2_edits (config_id, field, edited_by)
        SELECT id, name, relevo.writer() FROM field WHERE differs
        ON CONFLICT (config_id, field) DO UPDATE SET edited_at = excluded.edited_at, edited_by = excluded.edited_by
    )
    DELETE FROM relevo.v2_edits e USING field
    WHERE e.config_id = field.id AND e.field = field.name AND NOT field.differs;
END $$;

-- Gives v1 the rows it lacks, with the prompt that v2 would speak by, so that going back leaves nobody without an answer.
CREATE FUNCTION relevo.bear_on_v1(born public.voice_assistant_configs[]) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    rendered relevo.v1_config[] := ARRAY(
        SELECT ROW(n.id, n.business_id, n.vapi_assistant_id, n.phone_number_id, r.assistant_name, r.system_prompt,
                   n.voice_id, r.first_message, n.is_active, n.created_at, n.updated_at)::relevo.v1_config
        FROM unnest(born) AS n
        CROSS JOIN LATERAL relevo.render(n) AS r);
BEGIN
    INSERT INTO relevo.config_origins AS o (config_id, rule_version, provenance, review, rendered)
    SELECT r.id, relevo.current_rules(), '{}', '{}', relevo.fingerprint(r.system_prompt) FROM unnest(rendered) AS r
    ON CONFLICT (config_id) DO UPDATE SET rendered = excluded.rendered;
    PERFORM relevo.v1_insert(rendered);
END $$;

CREATE FUNCTION relevo.fingerprint(prompt text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(coalesce(prompt, ''), 'UTF8')), 'hex');

-- What v1 should be given of some rows of v2: shared fields that changed and differ there.
CREATE FUNCTION relevo.shared_writes(written relevo.v2_change[], present relevo.v1_config[])
RETURNS relevo.v1_write[] LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RETURN ARRAY(
        SELECT ROW(ROW(p.id, (c.now).business_id, (c.now).vapi_assistant_id, (c.now).phone_number_id,
                       p.assistant_name, p.system_prompt, (c.now).voice_id, p.first_message,
                       (c.now).is_active, (c.now).created_at, (c.now).updated_at)::relevo.v1_config,
                   d.fields)::relevo.v1_write
        FROM unnest(written) AS c
        JOIN unnest(present) AS p ON p.id = (c.now).id
        CROSS JOIN LATERAL (SELECT ARRAY(
            SELECT f FROM unnest(relevo.differing(p, c.now)) AS f
            WHERE f = ANY (c.changed) AND f = ANY (relevo.v1_writable()))) AS d (fields)
        WHERE cardinality(d.fields) > 0
        ORDER BY p.id);
END $$;

-- Where v1 still holds a prompt of ours, and v2 now says something else, v1 is given the prompt rendered anew.
CREATE FUNCTION relevo.render_anew(written relevo.v2_change[], present relevo.v1_config[]) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    writes relevo.v1_write[];
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(present) AS p JOIN relevo.config_origins o ON o.config_id = p.id
                   WHERE o.rendered IS NOT NULL) THEN
        RETURN;
    END IF;
    WITH image AS MATERIALIZED (
        SELECT p AS v1, ROW(p.id, p.business_id, p.vapi_assistant_id, p.phone_number_id,
                   CASE WHEN p.assistant_name = old.assistant_name THEN new.assistant_name ELSE p.assistant_name END,
                   new.system_prompt, p.voice_id,
                   CASE WHEN p.first_message = old.first_message THEN new.first_message ELSE p.first_message END,
                   p.is_active, p.created_at, p.updated_at)::relevo.v1_config AS config
        FROM unnest(written) AS c
        JOIN unnest(present) AS p ON p.id = (c.now).id
        JOIN relevo.config_origins o ON o.config_id = p.id AND o.rendered = relevo.fingerprint(p.system_prompt)
        CROSS JOIN LATERAL relevo.render(c.now) AS new
        CROSS JOIN LATERAL relevo.render(coalesce(c.was, c.now)) AS old
    ), wanted AS MATERIALIZED (
        SELECT config, ARRAY(SELECT f FROM unnest(relevo.changed_fields(v1, config)) AS f
                             WHERE f = ANY (relevo.v1_writable())) AS fields
        FROM image
    ), remembered AS (
        UPDATE relevo.config_origins o SET rendered = relevo.fingerprint((w.config).system_prompt)
        FROM wanted w WHERE o.config_id = (w.config).id AND 'system_prompt' = ANY (w.fields)
    )
    SELECT array_agg(ROW(config, fields)::relevo.v1_write ORDER BY (config).id)
    FROM wanted WHERE cardinality(fields) > 0 INTO writes;
    IF writes IS NOT NULL THEN
        PERFORM relevo.v1_update(writes);
    END IF;
END $$;

-- What the triggers call first, without a net: all to the other side; what it does not hold afterwards is queued. Changes
-- of v1 and of v2 take the same way; which of the two they are decides whose bring_across and queue_writes it is.
CREATE FUNCTION relevo.bring(changes anyarray) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    homeless uuid[];
BEGIN
    IF pg_catalog.pg_trigger_depth() > 16 THEN
        PERFORM relevo.queue_writes(changes, 'triggers of both sides change what the other has just written');
        RETURN;
    END IF;
    homeless := relevo.bring_across(changes);
    IF cardinality(homeless) = 0 THEN
        RETURN;
    ELSIF relevo.mirror_is_strict() THEN
        RAISE EXCEPTION '%', relevo.why_homeless() USING ERRCODE = 'serialization_failure';
    END IF;
    PERFORM relevo.queue_writes(
        ARRAY(SELECT c FROM unnest(changes) AS c WHERE coalesce((c.now).id, (c.was).id) = ANY (homeless)),
        relevo.why_homeless());
END $$;

-- What they call where that failed: the halves of a part, and of those that fail the halves again; single rows that
-- fail are queued, and all that is left once the budget is spent. Returns what is left of it.
CREATE FUNCTION relevo.bring_by_halves(changes anyarray, budget relevo.mirror_budget, why text)
RETURNS relevo.mirror_budget LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    middle integer := cardinality(changes) / 2;
    part   changes%TYPE;
BEGIN
    IF middle = 0 OR budget.attempts <= 0 OR budget.waits <= 0 THEN
        PERFORM relevo.queue_writes(changes, why);
        RETURN budget;
    END IF;
    FOR half IN 1..2 LOOP
        part := CASE half WHEN 1 THEN changes[:middle] ELSE changes[middle + 1:] END;
        budget.attempts := budget.attempts - 1;
        BEGIN
            PERFORM relevo.bring(part);
            CONTINUE;
        EXCEPTION
            WHEN lock_not_available THEN
                budget.waits := budget.waits - 1;
                why := SQLERRM;
            WHEN OTHERS THEN
                why := SQLERRM;
        END;
        budget := relevo.bring_by_halves(part, budget, why);
    END LOOP;
    RETURN budget;
END $$;

CREATE FUNCTION relevo.why_homeless() RETURNS text
LANGUAGE sql IMMUTABLE
RETURN 'the other side does not hold it: its row is too new for this transaction to see, or a trigger there overruled it';
