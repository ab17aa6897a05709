-- Dual write: what one side writes, the other side has at the same commit, or it is queued for repair.
-- Here is all that does not depend on what v1's tables look like; the triggers themselves, and what reads and
-- writes v1, are generated from the source mapping when the mirror is installed.

-- A row that the mirror brought has no run.
ALTER TABLE relevo.config_origins ALTER COLUMN run_id DROP NOT NULL;
ALTER TABLE relevo.quarantine ALTER COLUMN run_id DROP NOT NULL;
-- Of a configuration born on v2: fingerprint of the rendered prompt that its v1 row was given. While v1 holds just
-- that, nobody wrote it by hand, and an edit on v2 renders it anew.
ALTER TABLE relevo.config_origins ADD COLUMN rendered text;

CREATE TABLE relevo.mirror_settings (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    strict   boolean NOT NULL DEFAULT false  -- fail the writer's statement instead of queueing
);
INSERT INTO relevo.mirror_settings DEFAULT VALUES;

-- Writes that could not reach the other side.
CREATE TABLE relevo.mirror_queue (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    config_id   uuid NOT NULL,
    written_on  text NOT NULL CHECK (written_on IN ('v1', 'v2')),
    operation   text NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
    was         jsonb,                         -- the row before; null: it was inserted
    fields      text[] NOT NULL DEFAULT '{}',  -- what was changed
    values      jsonb,                         -- to what
    reason      text NOT NULL,
    writer      text NOT NULL,
    queued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    tried_at    timestamptz                    -- the last repair that failed
);
CREATE INDEX mirror_queue_config ON relevo.mirror_queue (config_id);

-- Fields of v2 that no longer say what v1 would make of them, because somebody edited them there.
CREATE TABLE relevo.v2_edits (
    config_id uuid NOT NULL,
    field     text NOT NULL,
    edited_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    edited_by text NOT NULL,
    PRIMARY KEY (config_id, field)
);

-- Both sides wrote the same field. Both values are kept; v2 keeps its own until somebody decides.
CREATE TABLE relevo.mirror_conflicts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    config_id   uuid NOT NULL,
    field       text NOT NULL,
    v1_value    jsonb NOT NULL,
    v1_writer   text NOT NULL,
    v2_value    jsonb NOT NULL,
    v2_writer   text NOT NULL,
    kept        text NOT NULL CHECK (kept IN ('v1', 'v2')),
    found_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    resolved_by text,
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL))
);
CREATE UNIQUE INDEX mirror_conflicts_open ON relevo.mirror_conflicts (config_id, field) WHERE resolved_at IS NULL;

-- Rows that the mirror deleted because the other side did, whole: until cleanup nothing is gone for good.
CREATE TABLE relevo.deleted_configs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    config_id  uuid NOT NULL,
    side       text NOT NULL CHECK (side IN ('v1', 'v2')),
    row        jsonb NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_by text NOT NULL
);

-- One row that was written: before, after, and which logical fields changed. No ``was``: inserted; no ``now``: deleted.
CREATE TYPE relevo.v1_change AS (was relevo.v1_config, now relevo.v1_config, changed text[]);
CREATE TYPE relevo.v2_change AS (
    was public.voice_assistant_configs, now public.voice_assistant_configs, changed text[]);
-- What a statement whose first attempt failed may still spend on the other side: attempts, for each is a sub-transaction
-- and more than 64 in one transaction slow every reader; and waits for locks, of 200 ms each.
CREATE TYPE relevo.mirror_budget AS (attempts integer, waits integer);
-- What to write into v1: the fields named, out of this image.
CREATE TYPE relevo.v1_write AS (config relevo.v1_config, fields text[]);

DO $$
DECLARE
    ours regclass;
BEGIN
    FOREACH ours IN ARRAY ARRAY['relevo.source_mapping', 'relevo.verifications', 'relevo.mirror_settings',
                                'relevo.mirror_queue', 'relevo.v2_edits', 'relevo.mirror_conflicts',
                                'relevo.deleted_configs']::regclass[] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', ours);
    END LOOP;
END $$;

CREATE FUNCTION relevo.mirror_is_strict() RETURNS boolean
LANGUAGE sql STABLE
RETURN (SELECT strict FROM relevo.mirror_settings);

-- Undo, restore and cleanup write one side alone: SELECT set_config('relevo.mirror', 'off', true). Only a role that
-- could drop the triggers as well is heard. Runs as the mirror's owner, hence session_user.
CREATE FUNCTION relevo.mirror_is_off() RETURNS boolean
LANGUAGE sql STABLE
RETURN current_setting('relevo.mirror', true) IS NOT DISTINCT FROM 'off'
       AND pg_catalog.pg_has_role(session_user, current_user, 'USAGE');

-- What goes with a configuration of v2 when it goes.
CREATE OR REPLACE FUNCTION relevo.forget_origins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    DELETE FROM relevo.config_origins o USING gone WHERE o.config_id = gone.id;
    DELETE FROM relevo.v2_edits e USING gone WHERE e.config_id = gone.id;
    DELETE FROM relevo.verifications v USING gone WHERE v.config_id = gone.id;
    RETURN NULL;
END $$;

CREATE FUNCTION relevo.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION '% is mirrored and cannot be truncated', TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Delete the rows, or switch dual write off before: relevo mirror remove';
END $$;

-- Which logical fields of a v1 configuration differ between two images of it; all of them where there was none.
CREATE FUNCTION relevo.changed_fields(was relevo.v1_config, now relevo.v1_config) RETURNS text[]
LANGUAGE sql IMMUTABLE
RETURN array_remove(ARRAY[
    CASE WHEN (was).business_id IS DISTINCT FROM (now).business_id THEN 'business_id' END,
    CASE WHEN (was).vapi_assistant_id IS DISTINCT FROM (now).vapi_assistant_id THEN 'vapi_assistant_id' END,
    CASE WHEN (was).phone_number_id IS DISTINCT FROM (now).phone_number_id THEN 'phone_number_id' END,
    CASE WHEN (was).assistant_name IS DISTINCT FROM (now).assistant_name THEN 'assistant_name' END,
    CASE WHEN (was).system_prompt IS DISTINCT FROM (now).system_prompt THEN 'system_prompt' END,
    CASE WHEN relevo.voice_of((was).voice_id) IS DISTINCT FROM relevo.voice_of((now).voice_id)
           OR (was).id IS NULL THEN 'voice_id' END,
    CASE WHEN (was).first_message IS DISTINCT FROM (now).first_message THEN 'first_message' END,
    CASE WHEN (was).is_active IS DISTINCT FROM (now).is_active THEN 'is_active' END,
    CASE WHEN (was).created_at IS DISTINCT FROM (now).created_at THEN 'created_at' END,
    CASE WHEN (was).updated_at IS DISTINCT FROM (now).updated_at THEN 'updated_at' END], NULL);
COMMENT ON FUNCTION relevo.changed_fields IS 'voice_id: an empty voice and the default one are the same';

-- The same of a v2 configuration, its own fields included.
CREATE FUNCTION relevo.changed_fields(was public.voice_assistant_configs, now public.voice_assistant_configs)
RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN array_remove(ARRAY[
    CASE WHEN (was).business_id IS DISTINCT FROM (now).business_id THEN 'business_id' END,
    CASE WHEN (was).vapi_assistant_id IS DISTINCT FROM (now).vapi_assistant_id THEN 'vapi_assistant_id' END,
    CASE WHEN (was).phone_number_id IS DISTINCT FROM (now).phone_number_id THEN 'phone_number_id' END,
    CASE WHEN (was).voice_id IS DISTINCT FROM (now).voice_id THEN 'voice_id' END,
    CASE WHEN (was).is_active IS DISTINCT FROM (now).is_active THEN 'is_active' END,
    CASE WHEN (was).created_at IS DISTINCT FROM (now).created_at THEN 'created_at' END,
    CASE WHEN (was).updated_at IS DISTINCT FROM (now).updated_at THEN 'updated_at' END,
    CASE WHEN (was).assistant_type_id IS DISTINCT FROM (now).assistant_type_id THEN 'assistant_type_id' END,
    CASE WHEN (was).enabled_capabilities IS DISTINCT FROM (now).enabled_capabilities
         THEN 'enabled_capabilities' END,
    CASE WHEN (was).special_instructions IS DISTINCT FROM (now).special_instructions
         THEN 'special_instructions' END,
    CASE WHEN (was).voice_speed IS DISTINCT FROM (now).voice_speed THEN 'voice_speed' END,
    CASE WHEN (was).personality_type IS DISTINCT FROM (now).personality_type THEN 'personality_type' END,
    CASE WHEN (was).template_version IS DISTINCT FROM (now).template_version THEN 'template_version' END], NULL);

-- The fields that both sides have.
CREATE FUNCTION relevo.shared_fields() RETURNS text[]
LANGUAGE sql IMMUTABLE
RETURN ARRAY['business_id', 'vapi_assistant_id', 'phone_number_id', 'voice_id', 'is_active', 'created_at', 'updated_at'];

-- Which of the fields that both sides have differ between them; all of them where one side lacks the row.
CREATE FUNCTION relevo.differing(one relevo.v1_config, two public.voice_assistant_configs) RETURNS text[]
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN (one).id IS NULL OR (two).id IS NULL THEN relevo.shared_fields() ELSE array_remove(ARRAY[
    CASE WHEN (one).business_id IS DISTINCT FROM (two).business_id THEN 'business_id' END,
    CASE WHEN (one).vapi_assistant_id IS DISTINCT FROM (two).vapi_assistant_id THEN 'vapi_assistant_id' END,
    CASE WHEN (one).phone_number_id IS DISTINCT FROM (two).phone_number_id THEN 'phone_number_id' END,
    CASE WHEN relevo.voice_of((one).voice_id) IS DISTINCT FROM relevo.voice_of((two).voice_id) THEN 'voice_id' END,
    CASE WHEN (one).is_active IS DISTINCT FROM (two).is_active THEN 'is_active' END,
    CASE WHEN (one).created_at IS DISTINCT FROM (two).created_at THEN 'created_at' END,
    CASE WHEN (one).updated_at IS DISTINCT FROM (two).updated_at THEN 'updated_at' END], NULL) END;

-- The fields that v2 has of its own, inferred from v1 or set to their defaults.
CREATE FUNCTION relevo.own_fields() RETURNS text[]
LANGUAGE sql IMMUTABLE
RETURN ARRAY['assistant_type_id', 'enabled_capabilities', 'special_instructions', 'voice_speed', 'personality_type',
             'template_version'];

-- Edits of v2 that v1 does not carry, those included that wait in the queue to be looked at.
CREATE VIEW relevo.known_edits WITH (security_invoker) AS
SELECT e.config_id, e.field, e.edited_by FROM relevo.v2_edits e
UNION ALL
SELECT q.config_id, f, q.writer
FROM relevo.mirror_queue q CROSS JOIN unnest(q.fields) AS f
WHERE q.written_on = 'v2' AND f <> ALL (relevo.v1_writable());

-- Whether a configuration was deleted on one side and is still on the other: until repair has deleted it there too, a
-- write to the one must not bring it back on the other.
CREATE FUNCTION relevo.awaits_deletion(config uuid, on_side text) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM relevo.mirror_queue q
               WHERE q.config_id = config AND q.written_on = on_side AND q.operation = 'delete');

-- Puts writes that could not reach the other side where repair will find them.
CREATE FUNCTION relevo.queue_writes(changes relevo.v1_change[], why text) RETURNS void
LANGUAGE sql SET search_path = '' AS $$
INSERT INTO relevo.mirror_queue (config_id, written_on, operation, was, fields, values, reason, writer)
SELECT coalesce((c.now).id, (c.was).id), 'v1',
       CASE WHEN (c.was).id IS NULL THEN 'insert' WHEN (c.now).id IS NULL THEN 'delete' ELSE 'update' END,
       CASE WHEN (c.was).id IS NOT NULL THEN to_jsonb(c.was) END, coalesce(c.changed, '{}'),
       CASE WHEN (c.now).id IS NOT NULL THEN to_jsonb(c.now) END, why, relevo.writer()
FROM unnest(changes) AS c
$$;
CREATE FUNCTION relevo.queue_writes(changes relevo.v2_change[], why text) RETURNS void
LANGUAGE sql SET search_path = '' AS $$
INSERT INTO relevo.mirror_queue (config_id, written_on, operation, was, fields, values, reason, writer)
SELECT coalesce((c.now).id, (c.was).id), 'v2',
       CASE WHEN (c.was).id IS NULL THEN 'insert' WHEN (c.now).id IS NULL THEN 'delete' ELSE 'update' END,
       CASE WHEN (c.was).id IS NOT NULL THEN to_jsonb(c.was) END, coalesce(c.changed, '{}'),
       CASE WHEN (c.now).id IS NOT NULL THEN to_jsonb(c.now) END, why, relevo.writer()
FROM unnest(changes) AS c
$$;
-- What goes with a configuration goes also where a session replays a backup.
ALTER TABLE public.voice_assistant_configs ENABLE ALWAYS TRIGGER relevo_forget_origins;
