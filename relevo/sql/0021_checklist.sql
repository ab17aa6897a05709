-- After the rollout: what was ticked or signed, and what the ticks rest on.

-- What of the checklist is done; of each rollout anew. What the machine found true it ticks as ``relevo``; what only
-- people know they sign with their name and a note. The first stands.
CREATE TABLE relevo.checklist_done (
    rollout_id bigint NOT NULL REFERENCES relevo.rollouts,
    item       text NOT NULL CHECK (item <> ''),
    at         timestamptz NOT NULL,
    name       text NOT NULL CHECK (name <> '' AND char_length(name) <= 200),
    note       text CHECK (note <> '' AND char_length(note) <= 2000),
    evidence   text CHECK (evidence <> ''),   -- what the machine saw
    PRIMARY KEY (rollout_id, item),
    CHECK ((name = 'relevo') = (evidence IS NOT NULL)),
    CHECK ((name = 'relevo') = (note IS NULL))
);
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE OR DELETE OR TRUNCATE ON relevo.checklist_done
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_rewriting();

-- Test calls of ours through the webhook, and what each step came to.
CREATE TABLE relevo.synthetic_calls (
    call_id   text PRIMARY KEY CHECK (call_id <> ''),
    at        timestamptz NOT NULL,
    tenant_id text NOT NULL,
    vertical  text NOT NULL,
    version   text CHECK (version IN ('v1', 'v2')),    -- who answered; null: nobody
    answered  boolean NOT NULL,
    outcome   text CHECK (outcome IN ('reservation_created', 'appointment_created', 'order_created')),  -- to be made; null: none
    booked    boolean NOT NULL,                         -- it was made
    removed   boolean NOT NULL,                         -- and removed again
    transfer  text,                                     -- where a person would have been reached; null: nowhere
    faults    text[] NOT NULL DEFAULT '{}',
    CHECK (booked OR NOT removed),
    CHECK (outcome IS NOT NULL OR NOT booked)
);
CREATE INDEX synthetic_calls_at ON relevo.synthetic_calls (at);

-- What relevo serve logged as an error, by the hour. The text is one of ours, without tenants or bodies.
CREATE TABLE relevo.logged_errors (
    hour   timestamptz NOT NULL,
    event  text NOT NULL CHECK (char_length(event) <= 200),
    errors bigint NOT NULL CHECK (errors > 0),
    PRIMARY KEY (hour, event)
);

ALTER TABLE relevo.checklist_done ENABLE ROW LEVEL SECURITY;
ALTER TABLE relevo.synthetic_calls ENABLE ROW LEVEL SECURITY;
ALTER TABLE relevo.logged_errors ENABLE ROW LEVEL SECURITY;

-- Cleanup -------------------------------------------------------------------------------------------------------------

-- Once v1 is retired the flag's row is history. Whoever changes it, be it by the panic statement, hears why that would be
-- no way back. (RV001: refused by a rule of ours, with its mending as hint.)
CREATE FUNCTION relevo.refuse_way_back() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    IF relevo.v1_is_retired() THEN
        RAISE EXCEPTION 'v1 is retired: the flag % is history, and rollback by it has ended', OLD.name
            USING ERRCODE = 'RV001', HINT = 'until v1 is dropped: relevo cleanup --stage flags --undo';
    END IF;
    RETURN NEW;
END $$;
-- By the order of names before voice_agent_v2_normalise.
CREATE TRIGGER voice_agent_v2_is_history BEFORE UPDATE ON public.feature_flags
FOR EACH ROW WHEN (OLD.name = 'voice_agent_v2' AND (OLD.enabled, OLD.percentage, OLD.enabled_tenants, OLD.disabled_tenants)
    IS DISTINCT FROM (NEW.enabled, NEW.percentage, NEW.enabled_tenants, NEW.disabled_tenants))
EXECUTE FUNCTION relevo.refuse_way_back();

-- What a writer on v1's table hears once it is deprecated; also through the view that has its name.
CREATE FUNCTION relevo.refuse_v1_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION 'v1 is deprecated: % takes no more writes', TG_ARGV[0]
        USING ERRCODE = 'RV001', HINT = 'write to public.voice_assistant_configs instead';
END $$;

-- What a reader of v1's table hears once it is dropped. Relevo itself finds it empty.
CREATE FUNCTION relevo.v1_is_gone(name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    IF current_setting('application_name', true) IS NOT DISTINCT FROM 'relevo' THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'v1 was dropped: there is no % any more', name
        USING ERRCODE = 'RV001', HINT = 'read public.voice_assistant_configs instead';
END $$;

-- What clients answered when they were asked how likely they are to recommend the service, as the team imported it.
CREATE TABLE relevo.nps_answers (
    key         text PRIMARY KEY,          -- the same answer imported twice is one
    answered_at timestamptz NOT NULL,
    score       integer NOT NULL CHECK (score BETWEEN 0 AND 10),
    tenant_id   text CHECK (tenant_id <> ''),
    imported_at timestamptz NOT NULL
);
CREATE INDEX nps_answers_at ON relevo.nps_answers (answered_at);
ALTER TABLE relevo.nps_answers ENABLE ROW LEVEL SECURITY;
