-- The rollout: where it is, who joins in which order, what the gate said, and what was done. One is open at a time.

-- Every arrow between two states; relevo/rollout/state.py holds the same, with a sentence for each.
CREATE TABLE relevo.rollout_arrows (
    source text NOT NULL,
    event  text NOT NULL,
    target text NOT NULL,
    PRIMARY KEY (source, event),
    UNIQUE (source, event, target)
);
INSERT INTO relevo.rollout_arrows (event, target, source)
SELECT a.event, a.target, unnest(a.sources)
FROM (VALUES
    ('reach', 'Progressing', '{Pending}'::text[]),
    ('pass', 'Healthy', '{Progressing}'),
    ('relapse', 'Progressing', '{Healthy}'),
    ('degrade', 'Degraded', '{Progressing,Healthy}'),
    ('heal', 'Progressing', '{Degraded}'),
    ('promote', 'Pending', '{Healthy}'),
    ('force', 'Pending', '{Progressing,Healthy,Paused}'),
    ('finish', 'Complete', '{Progressing,Healthy,Paused}'),
    ('pause', 'Paused', '{Pending,Progressing,Healthy,Degraded}'),
    ('overrule', 'Paused', '{Pending,Progressing,Healthy,Degraded,Paused}'),
    ('expire', 'Paused', '{Progressing}'),
    ('resume', 'Pending', '{Paused}'),
    ('single_out', 'Pending', '{Pending,Progressing,Healthy,Degraded}'),
    ('single_out', 'Paused', '{Paused}'),
    ('shrink', 'Paused', '{Pending,Progressing,Healthy,Degraded,Paused}'),
    ('roll_back', 'RolledBack', '{Pending,Progressing,Healthy,Degraded,Paused}'),
    ('abort', 'RolledBack', '{Pending,Progressing,Healthy,Degraded,Paused}'),
    ('undo', 'Paused', '{RolledBack}')) AS a (event, target, sources);

CREATE TABLE relevo.rollouts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan          text NOT NULL,      -- TOML, with nothing left to defaults
    state         text NOT NULL DEFAULT 'Pending' CHECK (state IN ('Pending', 'Progressing', 'Paused', 'Degraded',
                                                                   'Healthy', 'RolledBack', 'Complete')),
    phase         integer NOT NULL DEFAULT 0 CHECK (phase >= 0),  -- asked for
    phases        integer NOT NULL CHECK (phases > phase),
    flag_version  bigint NOT NULL,    -- that the last change of the cohort made; who is behind it has not obeyed yet
    judged_from   timestamptz NOT NULL,  -- a whole minute after the cohort last changed: what the gate looks at
    gathered_from timestamptz NOT NULL,  -- from when evidence adds up over phases
    hold_until    timestamptz,        -- the phase's shortest hold; null until it is reached
    expires_at    timestamptz,        -- its longest
    due_at        timestamptz,        -- the next evaluation that can promote
    paused_at     timestamptz,
    cause         text CHECK (cause IN ('operator', 'flag', 'max_hold', 'rollback', 'undo')),
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    actor         text NOT NULL,
    reason        text,
    revision      bigint NOT NULL DEFAULT 1,  -- rises with each change: who changes it says which it saw
    CHECK ((state = 'Paused') = (paused_at IS NOT NULL)),
    CHECK ((state = 'Paused') = (cause IS NOT NULL)),
    CHECK ((state IN ('RolledBack', 'Complete')) = (finished_at IS NOT NULL)),
    CHECK ((hold_until IS NULL) = (expires_at IS NULL)),
    CHECK (expires_at >= hold_until),
    CHECK (state NOT IN ('Progressing', 'Healthy', 'Degraded') OR hold_until IS NOT NULL)
);
CREATE UNIQUE INDEX rollouts_one_open ON relevo.rollouts ((true)) WHERE state NOT IN ('RolledBack', 'Complete');

CREATE TABLE relevo.rollout_phases (
    rollout_id bigint NOT NULL REFERENCES relevo.rollouts,
    ordinal    integer NOT NULL,
    name       text NOT NULL,
    percent    numeric,                -- of active tenants; null: the named ones
    tenants    integer NOT NULL,       -- on v2 in it, as planned
    asked_at   timestamptz,            -- null: not yet
    reached_at timestamptz CHECK (reached_at >= asked_at),
    ended_at   timestamptz,
    PRIMARY KEY (rollout_id, ordinal)
);

-- Who joins, first to last. Growing takes the next, shrinking gives back the last.
CREATE TABLE relevo.rollout_cohort (
    rollout_id     bigint NOT NULL REFERENCES relevo.rollouts,
    place          integer NOT NULL CHECK (place > 0),
    tenant_id      text NOT NULL,
    phase          integer NOT NULL,
    why            text NOT NULL,
    singled_out_at timestamptz,        -- sent back alone; it joins no more
    PRIMARY KEY (rollout_id, place),
    UNIQUE (rollout_id, tenant_id),
    FOREIGN KEY (rollout_id, phase) REFERENCES relevo.rollout_phases (rollout_id, ordinal)
);

-- What the gate said, whole: figures, limits, intervals, and why.
CREATE TABLE relevo.rollout_evaluations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rollout_id   bigint NOT NULL REFERENCES relevo.rollouts,
    phase        integer NOT NULL,
    at           timestamptz NOT NULL,
    verdict      text NOT NULL CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    level        integer CHECK (level BETWEEN 1 AND 3),
    flag_version bigint NOT NULL,
    details      jsonb NOT NULL,
    CHECK (level IS NULL OR verdict = 'fail')
);
CREATE INDEX rollout_evaluations_of ON relevo.rollout_evaluations (rollout_id, id DESC);

CREATE TABLE relevo.rollout_transitions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rollout_id bigint NOT NULL REFERENCES relevo.rollouts,
    at         timestamptz NOT NULL,
    source     text,                   -- null: it began
    event      text NOT NULL,
    target     text NOT NULL,
    phase      integer NOT NULL,       -- asked for afterwards
    actor      text NOT NULL,
    why        text,
    details    jsonb NOT NULL DEFAULT '{}',
    FOREIGN KEY (source, event, target) REFERENCES relevo.rollout_arrows (source, event, target)
);
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE OR DELETE OR TRUNCATE ON relevo.rollout_evaluations
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_rewriting();
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE OR DELETE OR TRUNCATE ON relevo.rollout_transitions
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_rewriting();

-- No state follows another without an arrow, whoever writes.
CREATE FUNCTION relevo.follow_arrows() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT EXISTS (SELECT FROM relevo.rollout_arrows AS a
                                              WHERE a.source = OLD.state AND a.target = NEW.state) THEN
        RAISE EXCEPTION 'a rollout does not go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER follow_arrows BEFORE UPDATE ON relevo.rollouts FOR EACH ROW EXECUTE FUNCTION relevo.follow_arrows();

-- Who is on v2 when at least and at most so many shall be: of those who are, the first of the order, then who was put there by
-- hand; then the next of the order who may live on v2 now. Without a least nobody joins, without a most nobody leaves.
CREATE FUNCTION relevo.cohort_of(rollout bigint, at_least integer, at_most integer, enabled text[], disabled text[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = ''
RETURN (
    WITH place AS MATERIALIZED (
        SELECT u.id AS tenant_id, c.place, false AS joins, u.nth
        FROM unnest(enabled) WITH ORDINALITY AS u (id, nth)
        LEFT JOIN relevo.rollout_cohort c ON c.rollout_id = rollout AND c.tenant_id = u.id
        UNION ALL
        SELECT c.tenant_id, c.place, true, 0 FROM relevo.rollout_cohort c
        WHERE at_least > cardinality(enabled) AND c.rollout_id = rollout AND c.singled_out_at IS NULL
          AND c.tenant_id <> ALL (enabled) AND c.tenant_id <> ALL (disabled)
    ), may AS (
        SELECT * FROM place p
        WHERE NOT p.joins OR p.tenant_id NOT IN (
            SELECT n.tenant_id FROM relevo.unverified_tenants(ARRAY(SELECT i.tenant_id FROM place i WHERE i.joins)) AS n)
        ORDER BY p.joins, p.place NULLS LAST, p.nth
        LIMIT CASE WHEN at_least > cardinality(enabled) THEN at_least ELSE at_most END
    )
    SELECT coalesce(array_agg(m.tenant_id ORDER BY m.joins, m.place NULLS LAST, m.nth), '{}') FROM may AS m
);

-- ⌈p·N⌉ of the tenants with an active configuration.
CREATE FUNCTION relevo.tenants_at(percent numeric) RETURNS integer
LANGUAGE sql STABLE SET search_path = ''
RETURN (SELECT ceil(percent * count(*) / 100)::integer FROM relevo.active_tenants());

-- How many tenants have an active configuration, and how many of them the flag's row puts on v2: its four steps, each list
-- read once. Whoever says "so many of so many" says these.
CREATE FUNCTION relevo.tenants_standing(OUT total bigint, OUT on_v2 bigint)
LANGUAGE sql STABLE SET search_path = ''
BEGIN ATOMIC
    WITH flag AS (
        SELECT f.* FROM public.feature_flags AS f WHERE f.name = 'voice_agent_v2'
    ), enabled AS (
        SELECT unnest(f.enabled_tenants) AS id FROM flag AS f
    ), disabled AS (
        SELECT unnest(f.disabled_tenants) AS id FROM flag AS f
    )
    SELECT count(*), count(*) FILTER (WHERE f.enabled AND d.id IS NULL AND (
        e.id IS NOT NULL OR f.percentage = 100
        OR f.percentage > 0 AND public.voice_agent_v2_percentile(t.id) < f.percentage))
    FROM relevo.active_tenants() AS t (id)
    LEFT JOIN flag AS f ON true
    LEFT JOIN enabled AS e ON e.id = t.id
    LEFT JOIN disabled AS d ON d.id = t.id;
END;

-- How many tenants the flag's list may hold; relevo/rollout/plan.py has the same number. A larger phase is a percentage.
CREATE FUNCTION relevo.largest_list() RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = ''
RETURN 20000;

-- What a phase asks of the flag's row: so many on its list and no share; or, where they are more than a list holds, a share
-- beside the list as it is, and no size. The named ones are as many as were named, the others a part of those active now.
CREATE FUNCTION relevo.phase_asks(rollout bigint, phase integer, OUT size integer, OUT share integer)
LANGUAGE sql STABLE SET search_path = ''
BEGIN ATOMIC
    SELECT CASE WHEN n.many <= relevo.largest_list() THEN n.many END,
           CASE WHEN n.many <= relevo.largest_list() THEN 0 ELSE ceil(p.percent) END
    FROM relevo.rollout_phases AS p
    CROSS JOIN LATERAL (SELECT CASE WHEN p.percent IS NULL THEN p.tenants ELSE relevo.tenants_at(p.percent) END) AS n (many)
    WHERE p.rollout_id = rollout AND p.ordinal = phase;
END;

CREATE FUNCTION relevo.open_rollout() RETURNS bigint
LANGUAGE sql STABLE SET search_path = ''
RETURN (SELECT r.id FROM relevo.rollouts AS r WHERE r.state NOT IN ('RolledBack', 'Complete'));

-- While a rollout runs, the flag's percentage is 0 and its list the cohort, as far as a list can hold it. A percentage written by anybody else than
-- the controller, old code, psql or a button, means that share of the tenants; 0 means nobody, also where it was 0
-- before. A writer of whole rows, who hands back the old percentage beside a new list, means the list.
CREATE FUNCTION relevo.resize_cohort() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    rollout bigint := relevo.open_rollout();
BEGIN
    IF rollout IS NULL OR current_setting('relevo.rollout', true) = 'controller'
       OR current_setting('relevo.rollback', true) <> ''  -- relevo rollback says itself who stays
       OR coalesce(NEW.percentage, 0) NOT BETWEEN 0 AND 100
       OR NEW.percentage > 0 AND relevo.tenants_at(NEW.percentage) > relevo.largest_list()  -- 0 asks nobody, v1 may be locked
       OR NEW.percentage = OLD.percentage AND (NEW.enabled_tenants IS DISTINCT FROM OLD.enabled_tenants
                                               OR NEW.disabled_tenants IS DISTINCT FROM OLD.disabled_tenants) THEN
        RETURN NEW;
    END IF;
    NEW.enabled_tenants := CASE coalesce(NEW.percentage, 0) WHEN 0 THEN '{}'
        ELSE (SELECT relevo.cohort_of(rollout, n.many, n.many, OLD.enabled_tenants, NEW.disabled_tenants)
              FROM relevo.tenants_at(NEW.percentage) AS n (many)) END;
    NEW.percentage := 0;
    RETURN NEW;
END $$;
-- By the order of names before voice_agent_v2_normalise. Of a column, so that writing the same 0 again is seen.
CREATE TRIGGER voice_agent_v2_cohort BEFORE UPDATE OF percentage ON public.feature_flags
FOR EACH ROW WHEN (NEW.name = 'voice_agent_v2') EXECUTE FUNCTION relevo.resize_cohort();

-- A rehearsal compresses time: what it calls the present is written here, so that also what a trigger writes down, for
-- whoever changes the flag by hand, is in its time. Without a row, as everywhere else, the present is the transaction's.
CREATE TABLE relevo.compressed_time (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    real_since timestamptz NOT NULL,
    since      timestamptz NOT NULL,  -- what that moment is called
    times      float8 NOT NULL CHECK (times > 0)
);

CREATE FUNCTION relevo.present() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = ''
RETURN coalesce((SELECT t.since + (clock_timestamp() - t.real_since) * t.times FROM relevo.compressed_time AS t), now());

-- Any change of the flag by somebody else than the controller pauses the rollout, in that writer's own transaction. A
-- total rollback ends it; undoing one takes it up again, paused.
CREATE FUNCTION relevo.overrule_rollout() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    was relevo.rollouts;
    arrow relevo.rollout_arrows;
    present timestamptz := relevo.present();
    who text := relevo.writer();
    said text := coalesce(nullif(current_setting('relevo.reason', true), ''), 'the flag was changed by hand');
    act text := CASE current_setting('relevo.rollback', true) WHEN 'total' THEN 'abort' WHEN 'undo' THEN 'undo'
                     ELSE 'overrule' END;
BEGIN
    IF current_setting('relevo.rollout', true) = 'controller' THEN
        RETURN NULL;
    END IF;
    SELECT * INTO was FROM relevo.rollouts WHERE state NOT IN ('RolledBack', 'Complete') FOR UPDATE;
    IF FOUND AND act = 'undo' THEN
        act := 'overrule';
    ELSIF NOT FOUND AND act = 'undo' THEN
        SELECT * INTO was FROM relevo.rollouts WHERE state = 'RolledBack' AND flag_version = OLD.version FOR UPDATE;
    END IF;
    IF was.id IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO STRICT arrow FROM relevo.rollout_arrows AS a WHERE a.source = was.state AND a.event = act;
    UPDATE relevo.rollouts
    SET state = arrow.target, flag_version = NEW.version,
        cause = CASE WHEN arrow.target = 'Paused' THEN CASE act WHEN 'undo' THEN 'undo' ELSE 'flag' END END,
        paused_at = CASE WHEN arrow.target = 'Paused' THEN coalesce(was.paused_at, was.finished_at, present) END,
        finished_at = CASE WHEN arrow.target = 'RolledBack' THEN present END,
        judged_from = greatest(was.judged_from, date_trunc('minute', present, 'UTC') + interval '1 minute')
    WHERE id = was.id;
    INSERT INTO relevo.rollout_transitions (rollout_id, at, source, event, target, phase, actor, why, details)
    VALUES (was.id, present, was.state, act, arrow.target, was.phase, who, said,
            jsonb_build_object('flag_version', NEW.version));
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    VALUES (who, 'rollout.' || act, 'rollout ' || was.id, said,
            jsonb_build_object('source', was.state, 'target', arrow.target, 'flag_version', NEW.version));
    RETURN NULL;
END $$;
CREATE TRIGGER voice_agent_v2_overruled AFTER UPDATE ON public.feature_flags
FOR EACH ROW WHEN (NEW.name = 'voice_agent_v2' AND NEW.version IS DISTINCT FROM OLD.version)
EXECUTE FUNCTION relevo.overrule_rollout();

DO $$
DECLARE
    ours regclass;
BEGIN
    FOREACH ours IN ARRAY ARRAY['relevo.rollout_arrows', 'relevo.rollouts', 'relevo.rollout_phases',
                                'relevo.rollout_cohort', 'relevo.rollout_evaluations',
                                'relevo.rollout_transitions',
                                'relevo.compressed_time']::regclass[] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', ours);
    END LOOP;
END $$;
