-- Saying so: incidents, each told once, and the messages that wait to go out.

-- Messages are written with the change they tell of, in its transaction, as facts; how they look is decided when they
-- are sent. A message is sent once; only where a process dies between the answer and its commit, twice.
CREATE TABLE relevo.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel    text NOT NULL CHECK (channel IN ('slack', 'pagerduty')),
    kind       text NOT NULL,          -- noun.verb: incident.open, rollout.roll_back
    dedup_key  text NOT NULL UNIQUE CHECK (length(dedup_key) BETWEEN 1 AND 255),
    data       jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now(),
    tries      integer NOT NULL DEFAULT 0,
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    ended_at   timestamptz,
    fault      text,                   -- of the last try; no secret, no address
    CHECK ((state = 'waiting') = (ended_at IS NULL)),
    CHECK (state <> 'dead' OR fault IS NOT NULL)
);
CREATE INDEX outbox_waiting ON relevo.outbox (due_at) WHERE state = 'waiting';

-- One per cause while it lasts.
CREATE TABLE relevo.incidents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cause       text NOT NULL,
    severity    text NOT NULL CHECK (severity IN ('warning', 'critical')),  -- the worst so far
    title       text NOT NULL,
    message     text NOT NULL,         -- as of the last look
    action      text,
    opened_at   timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL,  -- last time that the cause was there
    resolved_at timestamptz,
    acked_at    timestamptz,
    acked_by    text,
    CHECK ((acked_at IS NULL) = (acked_by IS NULL))
);
CREATE UNIQUE INDEX incidents_one_open ON relevo.incidents (cause) WHERE resolved_at IS NULL;

-- What the team should hear of a rollout, whoever did it.
CREATE FUNCTION relevo.tell_rollout() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    INSERT INTO relevo.outbox (channel, kind, dedup_key, data)
    SELECT 'slack', 'rollout.' || NEW.event, 'rollout-transition-' || NEW.id,
           jsonb_build_object('event', NEW.event, 'at', to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'), 'target', NEW.target, 'actor', NEW.actor,
                              'why', NEW.why, 'tenant', NEW.details ->> 'tenant', 'phase', p.name,
                              'tenants_on_v2', cardinality(f.enabled_tenants), 'percentage', f.percentage)
    FROM public.feature_flags f
    LEFT JOIN relevo.rollout_phases p ON p.rollout_id = NEW.rollout_id AND p.ordinal = NEW.phase
    WHERE f.name = 'voice_agent_v2';
    RETURN NULL;
END $$;
CREATE TRIGGER told AFTER INSERT ON relevo.rollout_transitions FOR EACH ROW
WHEN (NEW.event NOT IN ('reach', 'pass', 'relapse', 'heal')) EXECUTE FUNCTION relevo.tell_rollout();

ALTER TABLE relevo.outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE relevo.incidents ENABLE ROW LEVEL SECURITY;
