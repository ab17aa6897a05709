-- Incidents: what is wrong, from when to when. One per cause at a time; it is told when it opens, worsens and is over.

CREATE TABLE relevo.incidents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cause       text NOT NULL CHECK (cause <> ''),  -- v2.error_rate
    severity    text NOT NULL CHECK (severity IN ('warning', 'critical')),  -- the highest so far
    title       text NOT NULL,
    message     text NOT NULL,                      -- as of the last look that found something wrong
    action      text,
    details     jsonb NOT NULL DEFAULT '{}',        -- figures behind the message
    opened_at   timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL,               -- the last look that found something wrong
    quiet_since timestamptz,                        -- since when no look has; null: it goes on
    resolved_at timestamptz,
    resolved_why text,
    acked_at    timestamptz,
    acked_by    text CHECK (acked_by <> ''),
    CHECK (seen_at >= opened_at),
    CHECK (resolved_at >= opened_at),
    CHECK ((resolved_at IS NULL) = (resolved_why IS NULL)),
    CHECK ((acked_at IS NULL) = (acked_by IS NULL))
);
CREATE UNIQUE INDEX incidents_one_open ON relevo.incidents (cause) WHERE resolved_at IS NULL;
ALTER TABLE relevo.incidents ENABLE ROW LEVEL SECURITY;

-- What is wrong becomes no less wrong while it lasts, and what is over stays over.
CREATE FUNCTION relevo.keep_incident() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF OLD.resolved_at IS NOT NULL OR (OLD.severity = 'critical' AND NEW.severity = 'warning') THEN
        RAISE EXCEPTION 'an incident neither softens nor begins again' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_incident BEFORE UPDATE ON relevo.incidents
FOR EACH ROW WHEN (OLD.resolved_at IS NOT NULL OR OLD.severity IS DISTINCT FROM NEW.severity)
EXECUTE FUNCTION relevo.keep_incident();
