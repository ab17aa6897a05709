-- What is to be said, and to whom: written in the transaction of what it tells of, carried out by whoever delivers.

CREATE TABLE relevo.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dedup_key  text NOT NULL UNIQUE CHECK (dedup_key <> '' AND char_length(dedup_key) <= 500),
    channel    text NOT NULL CHECK (channel IN ('slack', 'pagerduty', 'email')),
    notice     text NOT NULL CHECK (notice <> ''),   -- which text
    thread     text CHECK (thread <> ''),            -- messages of one thread arrive in order; null: it stands alone
    tenant_id  text CHECK (tenant_id <> ''),         -- whom it is about; null: nobody in particular
    recipient  text CHECK (recipient <> ''),         -- an e-mail address
    variables  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(variables) = 'object'),  -- what the text is filled with
    created_at timestamptz NOT NULL,
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    due_at     timestamptz NOT NULL,                 -- not to be tried before
    attempts   integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error text,                                 -- why the last attempt failed, or why it is dead
    settled_at timestamptz,                          -- when it was sent, or given up
    CHECK ((state = 'waiting') = (settled_at IS NULL)),
    CHECK (state <> 'dead' OR last_error IS NOT NULL),
    CHECK ((channel = 'email') = (recipient IS NOT NULL)),
    CHECK (char_length(last_error) <= 1000)
);
CREATE INDEX outbox_waiting ON relevo.outbox (channel, due_at, id) WHERE state = 'waiting';
CREATE INDEX outbox_thread ON relevo.outbox (thread, id) WHERE state = 'waiting' AND thread IS NOT NULL;
CREATE INDEX outbox_settled ON relevo.outbox (settled_at) WHERE channel <> 'email';
CREATE INDEX outbox_notice ON relevo.outbox (notice, tenant_id);
ALTER TABLE relevo.outbox ENABLE ROW LEVEL SECURITY;

-- Says something once: what was said before under the same key is not said again. True: it is said now.
CREATE FUNCTION relevo.tell(
    dedup_key text, channel text, notice text, variables jsonb, at timestamptz,
    thread text DEFAULT NULL, tenant_id text DEFAULT NULL, recipient text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    INSERT INTO relevo.outbox (dedup_key, channel, notice, variables, created_at, due_at, thread, tenant_id, recipient)
    VALUES (tell.dedup_key, tell.channel, tell.notice, tell.variables, tell.at, tell.at, tell.thread, tell.tenant_id,
            tell.recipient)
    ON CONFLICT ON CONSTRAINT outbox_dedup_key_key DO NOTHING;
    RETURN FOUND;
END $$;

-- What the team hears of a rollout, whoever did it, in that one's transaction. What goes back is told as a rollback; what
-- only repeats itself every few minutes is not told. To tell is never a reason to fail, or to wait.
CREATE FUNCTION relevo.tell_rollout() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '200ms' AS $$
DECLARE
    phase relevo.rollout_phases;
    total bigint;
    on_v2 bigint;
    facts jsonb;
BEGIN
    SELECT * INTO phase FROM relevo.rollout_phases AS p WHERE p.rollout_id = NEW.rollout_id AND p.ordinal = NEW.phase;
    BEGIN
        SELECT s.total, s.on_v2 INTO total, on_v2 FROM relevo.tenants_standing() AS s;
    EXCEPTION WHEN lock_not_available THEN  -- somebody holds v1, as a restore does: then who was planned to join
        SELECT max(p.tenants) INTO total FROM relevo.rollout_phases AS p WHERE p.rollout_id = NEW.rollout_id;
        SELECT CASE WHEN NOT f.enabled THEN 0 WHEN f.percentage = 100 THEN total
                    ELSE cardinality(f.enabled_tenants) END INTO on_v2
        FROM public.feature_flags AS f WHERE f.name = 'voice_agent_v2';
    END;
    facts := jsonb_build_object(
        'at', to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'), 'actor', NEW.actor,
        'tenants_on_v2', on_v2, 'total_tenants', total,
        'percentage', CASE WHEN total > 0 THEN round(100.0 * on_v2 / total) ELSE 0 END);
    IF NEW.event IN ('roll_back', 'abort', 'shrink', 'single_out') THEN
        PERFORM relevo.tell('rollout-transition:' || NEW.id, 'slack', 'team_rollback', facts || jsonb_build_object(
            'trigger', coalesce(NEW.why, 'no reason given'),
            'action', CASE NEW.event WHEN 'single_out' THEN 'Tenant ' || coalesce(NEW.details ->> 'tenant', '?') || ' back on V1'
                                     WHEN 'abort' THEN 'Ended by hand; rolled back to 0%'
                                     ELSE 'Rolled back to ' || (facts ->> 'percentage') || '%' END),
            NEW.at, 'rollout:' || NEW.rollout_id);
    ELSE
        PERFORM relevo.tell('rollout-transition:' || NEW.id, 'slack', 'team_phase', facts || jsonb_build_object(
            'state', NEW.target, 'event', replace(NEW.event, '_', ' '), 'why', NEW.why,
            'phase', coalesce(phase.name, '?'), 'number', NEW.phase + 1,
            'phases', (SELECT count(*) FROM relevo.rollout_phases AS p WHERE p.rollout_id = NEW.rollout_id)),
            NEW.at, 'rollout:' || NEW.rollout_id);
    END IF;
    RETURN NULL;
EXCEPTION WHEN others THEN
    RAISE WARNING 'what rollout % did could not be told: %', NEW.rollout_id, SQLERRM;
    RETURN NULL;
END $$;
-- At the end of the transaction, when the phases and the flag are as they will be.
CREATE CONSTRAINT TRIGGER told AFTER INSERT ON relevo.rollout_transitions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.event NOT IN ('reach', 'pass', 'relapse', 'heal')) EXECUTE FUNCTION relevo.tell_rollout();
