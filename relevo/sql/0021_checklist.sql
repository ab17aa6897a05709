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

-- The cleanup's stages that are done. A stage that was undone has no row; the audit log has both.
CREATE TABLE relevo.cleanup_stages (
    stage   text PRIMARY KEY CHECK (stage IN ('flags', 'deprecate', 'drop', 'backups')),
    done_at timestamptz NOT NULL,
    actor   text NOT NULL CHECK (actor <> ''),
    reason  text,
    details jsonb NOT NULL DEFAULT '{}'  -- what was found, and what undoing needs
);
ALTER TABLE relevo.cleanup_stages ENABLE ROW LEVEL SECURITY;
