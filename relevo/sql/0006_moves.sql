-- The move itself: runs, how far each step has come, what each row came from, and what was set aside.

CREATE TABLE relevo.runs (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'succeeded', 'undone')),
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    actor        text NOT NULL,
    reason       text,
    tenant_ids   uuid[],              -- null: all of them
    config_ids   uuid[],              -- null: all of theirs; else these alone, as when the quarantine is retried
    batch_size   integer NOT NULL CHECK (batch_size > 0),
    workers      integer NOT NULL DEFAULT 1 CHECK (workers BETWEEN 1 AND 16),
    rule_version integer NOT NULL REFERENCES relevo.rule_sets,
    backup_id    uuid,                -- null: skipped, or not made yet
    skip_backup  boolean NOT NULL DEFAULT false,
    backup_calls text NOT NULL DEFAULT 'all' CHECK (backup_calls IN ('all', 'touched')),
    types_added  text[] NOT NULL DEFAULT '{}',
    result       jsonb,
    CHECK ((state = 'running') = (finished_at IS NULL))
);
-- An interrupted run stays open; the next one picks it up instead of starting beside it.
CREATE UNIQUE INDEX runs_one_open ON relevo.runs ((true)) WHERE state = 'running';

CREATE TABLE relevo.run_steps (
    run_id      uuid NOT NULL REFERENCES relevo.runs,
    step        text NOT NULL CHECK (step IN ('backup', 'validate', 'configurations', 'calls', 'verify')),
    worker      integer NOT NULL DEFAULT 0,
    cursor      jsonb NOT NULL DEFAULT '{}',  -- how far the step has come and what it counted, in its own words
    finished_at timestamptz,
    PRIMARY KEY (run_id, step, worker)
);

-- Where a configuration of v2 came from, beside the row itself because it holds the full v1 prompt.
CREATE TABLE relevo.config_origins (
    config_id    uuid PRIMARY KEY,
    run_id       uuid NOT NULL,     -- a foreign key here, and on the next, would be a fifth of the copy's time
    rule_version integer NOT NULL,
    prompt       text,            -- the archive, until cleanup
    provenance   jsonb NOT NULL,  -- per inferred field: keyword, place, confidence
    review       text[] NOT NULL  -- why a person should look at it before it goes live
) WITH (toast_tuple_target = 4080);  -- two to a page; compressing an ordinary prompt is a seventh of the copy's time
CREATE INDEX config_origins_run ON relevo.config_origins (run_id);

-- An origin lives and dies with its configuration. (A foreign key would check every copied row.)
CREATE FUNCTION relevo.forget_origins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    DELETE FROM relevo.config_origins o USING gone WHERE o.config_id = gone.id;
    RETURN NULL;
END $$;
CREATE TRIGGER relevo_forget_origins AFTER DELETE ON public.voice_assistant_configs
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION relevo.forget_origins();

-- What a person decided instead of the rules. ``fields`` names the decided ones; the other columns are empty.
CREATE TABLE relevo.overrides (
    config_id            uuid PRIMARY KEY,
    fields               text[] NOT NULL CHECK (cardinality(fields) > 0 AND fields <@ ARRAY[
                             'assistant_type_id', 'enabled_capabilities', 'special_instructions']),
    assistant_type_id    text REFERENCES public.voice_assistant_types,
    enabled_capabilities text[] CHECK (cardinality(enabled_capabilities) > 0),
    special_instructions text CHECK (char_length(special_instructions) <= 1000),
    actor                text NOT NULL,
    reason               text,
    decided_at           timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT 'assistant_type_id' = ANY (fields) OR assistant_type_id IS NOT NULL),
    CHECK (NOT 'enabled_capabilities' = ANY (fields) OR enabled_capabilities IS NOT NULL)
);

-- What a run's overrides replaced: the decision before, if there was one, and the v2 row as it was.
CREATE TABLE relevo.run_overrides (
    run_id    uuid NOT NULL REFERENCES relevo.runs,
    config_id uuid NOT NULL,
    decision  jsonb,
    row       jsonb,
    PRIMARY KEY (run_id, config_id)
);

-- Which metrics rows and which calls a run wrote, so that exactly these can be taken back. The lists of
-- calls are emptied when the run succeeds.
CREATE TABLE relevo.run_metrics (
    metrics_id uuid PRIMARY KEY,
    run_id     uuid NOT NULL REFERENCES relevo.runs
);
CREATE TABLE relevo.run_calls (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES relevo.runs,
    calls  text[] NOT NULL
);
ALTER TABLE relevo.run_calls ALTER COLUMN calls SET STORAGE EXTERNAL;

-- The outcome of a call of which only the status is known.
CREATE FUNCTION relevo.outcome_from_status(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN status IS NULL OR status COLLATE "C" = 'completed' THEN 'unknown' ELSE status END;

CREATE TABLE relevo.quarantine (
    config_id   text PRIMARY KEY,
    run_id      uuid NOT NULL REFERENCES relevo.runs,
    business_id text,
    reason      text NOT NULL,   -- why, for machines: null_vertical
    detail      text NOT NULL,   -- why, for people
    set_aside_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX quarantine_run ON relevo.quarantine (run_id);

DO $$
DECLARE
    ours regclass;
BEGIN
    FOR ours IN SELECT oid FROM pg_catalog.pg_class
                WHERE relnamespace = 'relevo'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', ours);
    END LOOP;
END $$;
