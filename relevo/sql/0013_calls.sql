-- What the router knows of every call, and the figures that follow from it. All tables that grow with traffic have the
-- call id as first key column and join on it alone, so that they can be spread over machines.

-- What an endedReason means. Exact values win over patterns, in which * is any text; among patterns, the lowest ordinal.
CREATE TABLE relevo.ended_reasons (
    pattern text PRIMARY KEY,
    ordinal integer NOT NULL UNIQUE,
    status  text NOT NULL CHECK (status IN ('completed', 'no_answer', 'canceled', 'failed')),
    outcome text NOT NULL,
    fault   text NOT NULL CHECK (fault IN ('nobody', 'ours', 'assistant', 'carrier', 'provider', 'customer'))
);
INSERT INTO relevo.ended_reasons (ordinal, pattern, status, outcome, fault) VALUES
    (10, 'assistant-ended-call*',                  'completed', 'information_given', 'nobody'),
    (20, 'assistant-said-end-call-phrase*',        'completed', 'information_given', 'nobody'),
    (30, 'customer-ended-call',                    'completed', 'customer_hangup', 'nobody'),
    (40, '*twilio-completed-call',                 'completed', 'customer_hangup', 'nobody'),
    (50, '*sip-completed-call',                    'completed', 'customer_hangup', 'nobody'),
    (60, 'vonage-completed',                       'completed', 'customer_hangup', 'nobody'),
    (70, 'vonage-disconnected',                    'completed', 'customer_hangup', 'nobody'),
    (80, 'assistant-forwarded-call',               'completed', 'transferred_to_human', 'nobody'),
    (90, '*returned-forwarding-phone-number',      'completed', 'transferred_to_human', 'nobody'),
    (100, '*hook-executed-transfer',               'completed', 'transferred_to_human', 'nobody'),
    (110, '*error-transfer-failed',                'completed', 'transfer_failed', 'carrier'),
    (120, '*error-warm-transfer-*',                'completed', 'transfer_failed', 'carrier'),
    (130, 'call.forwarding.operator-busy',         'completed', 'transfer_failed', 'nobody'),
    (140, 'call.forwarding.no-answer',             'completed', 'transfer_failed', 'nobody'),
    (150, 'customer-ended-call-before-*transfer*', 'completed', 'transfer_failed', 'customer'),
    (151, 'customer-ended-call-during-*transfer*', 'completed', 'transfer_failed', 'customer'),
    (152, 'customer-ended-call-after-*transfer*',  'completed', 'transfer_failed', 'customer'),
    (160, 'silence-timed-out',                     'completed', 'timeout', 'nobody'),
    (170, 'exceeded-max-duration',                 'completed', 'timeout', 'nobody'),
    (180, 'voicemail',                             'completed', 'voicemail', 'nobody'),
    (190, 'customer-did-not-answer',               'no_answer', 'no_answer', 'customer'),
    (200, 'customer-busy',                         'no_answer', 'no_answer', 'customer'),
    (210, 'customer-did-not-give-microphone-permission', 'no_answer', 'no_answer', 'customer'),
    (220, 'vonage-rejected',                       'no_answer', 'no_answer', 'carrier'),
    (230, 'sip-outbound-*',                        'no_answer', 'no_answer', 'carrier'),
    (240, '*sip-408*',                             'no_answer', 'no_answer', 'carrier'),
    (250, '*sip-480*',                             'no_answer', 'no_answer', 'carrier'),
    (260, '*caller-hungup-before-call-connect',    'no_answer', 'no_answer', 'customer'),
    (270, 'manually-canceled',                     'canceled', 'canceled', 'nobody'),
    (280, 'scheduled-call-deleted',                'canceled', 'canceled', 'nobody'),
    (290, 'call-deleted',                          'canceled', 'canceled', 'nobody'),
    (300, 'assistant-request-failed',              'failed', 'failed', 'ours'),
    (310, 'assistant-request-returned-error',      'failed', 'failed', 'ours'),
    (320, 'assistant-request-returned-unspeakable-error', 'failed', 'failed', 'ours'),
    (330, 'assistant-request-returned-invalid-assistant', 'failed', 'failed', 'ours'),
    (340, 'assistant-request-returned-no-assistant', 'failed', 'failed', 'ours'),
    (350, 'assistant-not-found',                   'failed', 'failed', 'ours'),
    (360, 'assistant-not-valid',                   'failed', 'failed', 'ours'),
    (370, '*did-not-receive-customer-audio',       'completed', 'no_audio', 'customer'),
    (380, 'pipeline-error-*',                      'failed', 'failed', 'assistant'),
    (390, 'call.in-progress.error-*',              'failed', 'failed', 'provider'),
    (400, 'call.start.*',                          'failed', 'failed', 'provider'),
    (410, 'call.ringing.error-*',                  'failed', 'failed', 'provider'),
    (420, 'worker-shutdown',                       'failed', 'failed', 'provider'),
    (430, 'phone-call-provider-*',                 'failed', 'failed', 'carrier'),
    (440, '*failed-to-connect-call',               'failed', 'failed', 'carrier'),
    (450, 'assistant-join-timed-out',              'failed', 'failed', 'provider'),
    -- Ours: nobody ever said how the call ended, and it is past its longest duration.
    (500, 'relevo-overdue',                        'failed', 'unknown', 'ours');

-- How a call ended by its reason; ``known`` is false where no row says so and the words themselves had to be read.
CREATE FUNCTION relevo.judge_ending(reason text, OUT status text, OUT outcome text, OUT fault text, OUT known boolean)
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    IF reason IS NOT NULL THEN
        SELECT e.status, e.outcome, e.fault INTO status, outcome, fault
        FROM relevo.ended_reasons e WHERE e.pattern = reason;
        IF NOT FOUND THEN
            SELECT e.status, e.outcome, e.fault INTO status, outcome, fault
            FROM relevo.ended_reasons e
            WHERE strpos(e.pattern, '*') > 0
              AND reason LIKE replace(replace(replace(e.pattern, '\', '\\'), '_', '\_'), '*', '%')
            ORDER BY e.ordinal LIMIT 1;
        END IF;
        known := FOUND;
    ELSE
        known := true;  -- nothing was said, so there is nothing to learn
    END IF;
    IF status IS NULL THEN
        status := CASE WHEN reason COLLATE "C" ~* 'error|failed|fault' THEN 'failed' ELSE 'completed' END;
        outcome := 'unknown';
        fault := 'nobody';
    END IF;
END $$;

-- What is learnt of a call piece by piece is kept in registers that only ever grow: of two values the greater stands,
-- whichever came first, however often. So any order of the same messages, with any repeated, makes the same row.

-- Why a call ended, as the best source has it.
CREATE TYPE relevo.ending AS (
    rank   smallint,     -- 0 we gave up waiting, 1 no reason given, 2 status-update, 3 looked up, 4 report
    at     timestamptz,  -- when that was said: a later report corrects an earlier one
    reason text
);
-- What a report says of a finished call.
CREATE TYPE relevo.report AS (
    rank        smallint,          -- 3 looked up, 4 report
    at          timestamptz,
    started_at  timestamptz,
    ended_at    timestamptz,
    duration_ms bigint,
    latency_ms  double precision,  -- average of the call's turns; null: no turn was measured
    outcome     text,              -- by structured data
    success     text,              -- successEvaluation
    cost_usd    double precision
);

-- What a call's values may be. Domains, and not CHECKs of the table: those are read from the catalogue and built anew
-- by every statement, which took a fifth of a millisecond of each pin that a caller waits for.
CREATE DOMAIN relevo.key AS text CHECK (VALUE <> '');
CREATE DOMAIN relevo.version AS text CHECK (VALUE IN ('v1', 'v2'));
CREATE DOMAIN relevo.direction AS text CHECK (VALUE IN ('inbound', 'outbound', 'web'));
CREATE DOMAIN relevo.stage AS smallint CHECK (VALUE BETWEEN 0 AND 6);
CREATE DOMAIN relevo.tool_outcome AS text
CHECK (VALUE IN ('reservation_created', 'appointment_created', 'order_created'));
CREATE DOMAIN relevo.call_status AS text
CHECK (VALUE IN ('asked', 'scheduled', 'queued', 'ringing', 'in_progress', 'forwarding',
                 'completed', 'no_answer', 'canceled', 'failed'));
CREATE DOMAIN relevo.duration_ms AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN relevo.latency_ms AS double precision CHECK (VALUE > 0 AND VALUE < 1e9);

CREATE TABLE relevo.calls (
    call_id          relevo.key PRIMARY KEY,
    -- The pin: who answers, decided once.
    tenant_id        relevo.key,               -- null: could not be told; such a call counts nowhere
    version          relevo.version NOT NULL,  -- decided, and counted by
    served_version   relevo.version NOT NULL,  -- who answered in fact
    decided_at       timestamptz NOT NULL,
    decided_by       text NOT NULL,     -- in a word or two: flag, unasked, binding, signed
    asked            boolean NOT NULL,  -- decided when Vapi asked; else assumed from a later message, and gives way
    flag_version     bigint,
    -- What was said of it.
    direction        relevo.direction,
    stage            relevo.stage NOT NULL DEFAULT 0,
    ending           relevo.ending,
    report           relevo.report,
    answered_at      timestamptz,       -- earliest word of it being in progress
    hung_up_at       timestamptz,       -- earliest word of its end
    first_message_at timestamptz,
    last_message_at  timestamptz,
    tool_outcome     relevo.tool_outcome,
    transferred      boolean NOT NULL DEFAULT false,
    fallback         text,              -- why v1, or an apology, stood in; null: nothing did
    unanswered       boolean NOT NULL DEFAULT false,
    crossed          boolean NOT NULL DEFAULT false,  -- two decided pins disagree on who answers: two tenants or versions did
    synthetic        boolean NOT NULL DEFAULT false,
    shadow           jsonb,             -- what v2 would have done of a v1 call
    -- What follows from that; set by the trigger.
    status           relevo.call_status NOT NULL,
    outcome          text,
    our_fault        boolean NOT NULL,
    started_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    duration_ms      relevo.duration_ms,
    latency_ms       relevo.latency_ms,
    CHECK ((stage = 6) = (outcome IS NOT NULL)),
    CHECK ((stage = 6) = (status ~ '^(completed|no_answer|canceled|failed)$'))
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX calls_open ON relevo.calls (decided_at) WHERE stage < 6;
CREATE INDEX calls_fallbacks ON relevo.calls (tenant_id, decided_at) WHERE fallback IS NOT NULL;
CREATE INDEX calls_of_tenant ON relevo.calls (tenant_id, decided_at);
CREATE INDEX calls_of_version ON relevo.calls (version, decided_at);
CREATE INDEX calls_decided ON relevo.calls USING brin (decided_at) WITH (pages_per_range = 32, autosummarize = on);

-- Whether a pin gives way to another of the same call. A decided one never does; an assumed one does to a decided one,
-- else to one that knows the tenant, else to an earlier one.
CREATE FUNCTION relevo.pin_yields(old_call relevo.calls, new_call relevo.calls) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN (old_call).asked THEN false
    WHEN (new_call).asked THEN true
    ELSE coalesce(
        ((new_call).tenant_id IS NULL, (new_call).decided_at, (new_call).version, (new_call).served_version,
         (new_call).decided_by, coalesce((new_call).flag_version, 0), (new_call).tenant_id)
        < ((old_call).tenant_id IS NULL, (old_call).decided_at, (old_call).version, (old_call).served_version,
           (old_call).decided_by, coalesce((old_call).flag_version, 0), (old_call).tenant_id), false)
END;

-- Whoever updates a call adds to it: the pin stands, registers grow, a terminal state never regresses.
CREATE FUNCTION relevo.merge_call() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.crossed := OLD.crossed OR NEW.crossed OR (OLD.asked AND NEW.asked AND
        (OLD.tenant_id, OLD.served_version) IS DISTINCT FROM (NEW.tenant_id, NEW.served_version));
    IF NOT relevo.pin_yields(OLD, NEW) THEN
        NEW.tenant_id := OLD.tenant_id;
        NEW.version := OLD.version;
        NEW.served_version := OLD.served_version;
        NEW.decided_at := OLD.decided_at;
        NEW.decided_by := OLD.decided_by;
        NEW.asked := OLD.asked;
        NEW.flag_version := OLD.flag_version;
    END IF;
    NEW.direction := least(OLD.direction, NEW.direction);
    NEW.stage := greatest(OLD.stage, NEW.stage);
    NEW.ending := greatest(OLD.ending, NEW.ending);
    NEW.report := greatest(OLD.report, NEW.report);
    NEW.answered_at := least(OLD.answered_at, NEW.answered_at);
    NEW.hung_up_at := least(OLD.hung_up_at, NEW.hung_up_at);
    NEW.first_message_at := least(OLD.first_message_at, NEW.first_message_at);
    NEW.last_message_at := greatest(OLD.last_message_at, NEW.last_message_at);
    NEW.tool_outcome := least(OLD.tool_outcome, NEW.tool_outcome);
    NEW.transferred := OLD.transferred OR NEW.transferred;
    NEW.fallback := least(OLD.fallback, NEW.fallback);
    NEW.unanswered := OLD.unanswered OR NEW.unanswered;
    NEW.synthetic := OLD.synthetic OR NEW.synthetic;
    NEW.shadow := greatest(OLD.shadow, NEW.shadow);
    RETURN NEW;
END $$;

-- Status, outcome and fault follow from what is known. A tool's success of ours wins over a transfer, that over
-- structured data, that over the reason.
CREATE FUNCTION relevo.settle_call() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    judged record;
BEGIN
    NEW.our_fault := NEW.unanswered OR NEW.crossed OR NEW.fallback IS NOT NULL;
    NEW.started_at := coalesce((NEW.report).started_at, NEW.answered_at, NEW.first_message_at, NEW.decided_at);
    IF NEW.stage < 6 THEN
        NEW.status := (ARRAY['asked', 'scheduled', 'queued', 'ringing', 'in_progress', 'forwarding'])[NEW.stage + 1];
        NEW.outcome := NULL;
        RETURN NEW;
    END IF;
    SELECT * INTO judged FROM relevo.judge_ending((NEW.ending).reason);
    NEW.status := judged.status;
    NEW.outcome := coalesce(NEW.tool_outcome, CASE WHEN NEW.transferred THEN 'transferred_to_human' END,
                            (NEW.report).outcome, judged.outcome);
    NEW.our_fault := NEW.our_fault OR judged.fault = 'ours';
    NEW.ended_at := coalesce((NEW.report).ended_at, NEW.hung_up_at);
    NEW.duration_ms := coalesce((NEW.report).duration_ms, CASE WHEN NEW.ended_at >= NEW.started_at
        THEN (extract(epoch FROM NEW.ended_at - NEW.started_at) * 1000)::bigint END);
    NEW.latency_ms := (NEW.report).latency_ms;
    RETURN NEW;
END $$;

-- In this order, which is that of their names.
CREATE TRIGGER a_merge BEFORE UPDATE ON relevo.calls FOR EACH ROW EXECUTE FUNCTION relevo.merge_call();
CREATE TRIGGER b_settle BEFORE INSERT OR UPDATE ON relevo.calls FOR EACH ROW EXECUTE FUNCTION relevo.settle_call();
CREATE TRIGGER c_nothing_new BEFORE UPDATE ON relevo.calls
FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();

-- One message of Vapi, as the router has parsed it; what it does not say is null. ``at`` is Vapi's own timestamp.
CREATE TYPE relevo.message AS (
    call_id text, at timestamptz,
    tenant_id text, version text, served_version text, decided_at timestamptz, decided_by text, asked boolean,
    flag_version bigint,
    direction text,
    stage text,         -- message.status in Vapi's words; null: the message says nothing of it
    source text,        -- report, lookup, overdue; null: any other message
    ended_reason text, started_at timestamptz, ended_at timestamptz, duration_ms bigint, latency_ms double precision,
    outcome text,       -- by structured data
    success text, cost_usd double precision,
    tool_outcome text, transferred boolean, fallback text, unanswered boolean, synthetic boolean
);
CREATE TYPE relevo.pin AS (
    call_id text, tenant_id text, version text, served_version text, decided_at timestamptz, decided_by text,
    asked boolean, flag_version bigint, status text
);

CREATE FUNCTION relevo.pins_of(call_ids text[]) RETURNS SETOF relevo.pin
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT c.call_id, c.tenant_id, c.version, c.served_version, c.decided_at, c.decided_by, c.asked, c.flag_version,
           c.status
    FROM relevo.calls c WHERE c.call_id = ANY (call_ids);
END;

-- Pins as they are given, an array of objects of these fields, with what goes without saying.
CREATE FUNCTION relevo.given_pins(pins jsonb)
RETURNS TABLE (call_id text, tenant_id text, version text, served_version text, decided_at timestamptz,
               decided_by text, asked boolean, flag_version bigint, direction text, fallback text, unanswered boolean,
               synthetic boolean, at timestamptz)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.call_id, m.tenant_id, m.version, coalesce(m.served_version, m.version), m.decided_at, m.decided_by,
           coalesce(m.asked, false), m.flag_version, m.direction, m.fallback, coalesce(m.unanswered, false),
           coalesce(m.synthetic, false),
           -- A message that only tells that there is a call is written where it is the first, and else not: its moment
           -- must not make a difference.
           CASE WHEN m.asked THEN m.at END
    FROM jsonb_to_recordset(pins) AS m (
        call_id text, tenant_id text, version text, served_version text, decided_at timestamptz, decided_by text,
        asked boolean, flag_version bigint, direction text, fallback text, unanswered boolean, synthetic boolean,
        at timestamptz);
END;

-- Pins of which some are there already, or are given twice: whoever decided stands, and else the better one.
-- (Plans are made once a session, maybe while the table is new and empty: by key, whatever the planner thinks of it.)
CREATE FUNCTION relevo.settle_pins(pins jsonb) RETURNS SETOF relevo.pin
LANGUAGE plpgsql SET search_path = '' SET enable_seqscan = off SET jit = off AS $$
BEGIN
    INSERT INTO relevo.calls AS c (call_id, tenant_id, version, served_version, decided_at, decided_by, asked,
                                   flag_version, direction, fallback, unanswered, synthetic,
                                   first_message_at, last_message_at)
    SELECT DISTINCT ON (p.call_id) p.*, p.at FROM relevo.given_pins(pins) AS p
    ORDER BY p.call_id, p.asked DESC, p.decided_at
    ON CONFLICT (call_id) DO UPDATE
    SET (tenant_id, version, served_version, decided_at, decided_by, asked, flag_version, fallback, unanswered,
         synthetic, first_message_at, last_message_at) =
        ROW (excluded.tenant_id, excluded.version, excluded.served_version, excluded.decided_at, excluded.decided_by,
             excluded.asked, excluded.flag_version, excluded.fallback, excluded.unanswered, excluded.synthetic,
             excluded.first_message_at, excluded.last_message_at)
    WHERE NOT c.asked;
    RETURN QUERY SELECT p.* FROM relevo.pins_of(ARRAY(SELECT DISTINCT given ->> 'call_id'
                                                      FROM jsonb_array_elements(pins) AS given)) AS p;
END $$;

-- Pins many calls in one round trip, while a caller waits for each. Returns the pins that stand where they may be
-- others: all of them, if somebody was faster with one, or one call was given twice; else none.
CREATE FUNCTION relevo.pin_calls(pins jsonb) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    placed bigint;
BEGIN
    INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked,
                              flag_version, direction, fallback, unanswered, synthetic,
                              first_message_at, last_message_at)
    SELECT p.*, p.at FROM relevo.given_pins(pins) AS p
    ORDER BY p.call_id, p.asked DESC, p.decided_at  -- two who pin the same calls wait for each other once
    ON CONFLICT (call_id) DO NOTHING;
    GET DIAGNOSTICS placed = ROW_COUNT;
    IF placed < jsonb_array_length(pins) THEN
        RETURN QUERY SELECT to_jsonb(p) FROM relevo.settle_pins(pins) AS p;
    END IF;
END $$;

-- Calls that could not be written into the platform's own table, or not yet; tried again until they can.
CREATE TABLE relevo.call_faults (
    call_id  text PRIMARY KEY,
    fault    text NOT NULL,
    tries    integer NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at  timestamptz NOT NULL DEFAULT now()
);

-- Writes a finished call into the platform's own table. Generated from the source mapping when it is installed; until
-- then there is no such table. Returns what it did: written, annotated, missing; null: nothing to do.
CREATE FUNCTION relevo.write_voice_call(call relevo.calls) RETURNS text
LANGUAGE sql STABLE SET search_path = '' AS 'SELECT NULL::text';
CREATE TABLE relevo.voice_calls_writer (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    fingerprint  text NOT NULL,  -- SHA-256 of what was generated
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- The same, without ever failing: the platform's CHECKs and triggers must not cost us the call. Whether it is done.
CREATE FUNCTION relevo.offer_voice_call(call relevo.calls) RETURNS boolean
LANGUAGE plpgsql SET search_path = '' SET lock_timeout = '500ms' AS $$
DECLARE
    why text;
BEGIN
    BEGIN
        IF relevo.write_voice_call(call) IS DISTINCT FROM 'missing' THEN
            RETURN true;
        END IF;
        why := 'the platform has no row of this call yet';
    EXCEPTION WHEN OTHERS THEN
        why := left(SQLSTATE || ' ' || SQLERRM, 500);
    END;
    INSERT INTO relevo.call_faults AS f (call_id, fault) VALUES (call.call_id, why)
    ON CONFLICT (call_id) DO UPDATE SET fault = excluded.fault, tries = f.tries + 1, last_at = DEFAULT;
    RETURN false;
END $$;

-- Adds messages to what is known of their calls, in one round trip and one transaction: once or often, in any order.
-- Returns the pins of these calls as they stand.
CREATE FUNCTION relevo.record_messages(messages jsonb) RETURNS SETOF relevo.pin
LANGUAGE plpgsql SET search_path = '' SET enable_seqscan = off SET jit = off AS $$
DECLARE
    call relevo.calls;
    turns bigint := 1;  -- a statement may touch a row once: the second message of a call waits for the second turn
BEGIN
    IF jsonb_array_length(messages) > 1 THEN
        SELECT max(many) INTO turns FROM (
            SELECT count(*) AS many FROM jsonb_array_elements(messages) AS m GROUP BY m ->> 'call_id') AS each_call;
    END IF;
    FOR turn IN 1..turns LOOP
        FOR call IN
            INSERT INTO relevo.calls AS c (
                call_id, tenant_id, version, served_version, decided_at, decided_by, asked, flag_version, direction,
                stage, ending, report, answered_at, hung_up_at, first_message_at, last_message_at,
                tool_outcome, transferred, fallback, unanswered, synthetic)
            SELECT m.call_id, m.tenant_id, m.version, coalesce(m.served_version, m.version), m.decided_at, m.decided_by,
                   coalesce(m.asked, false), m.flag_version, m.direction,
                   m.reached,
                   CASE WHEN m.reached = 6 THEN ROW (
                       CASE WHEN m.source = 'overdue' THEN 0 WHEN m.ended_reason IS NULL THEN 1
                            WHEN m.source = 'lookup' THEN 3 WHEN m.source = 'report' THEN 4 ELSE 2 END,
                       coalesce(m.at, '-infinity'), left(m.ended_reason, 200))::relevo.ending END,
                   CASE WHEN m.source IN ('report', 'lookup') THEN ROW (
                       CASE m.source WHEN 'report' THEN 4 ELSE 3 END, coalesce(m.at, '-infinity'), m.started_at,
                       m.ended_at, m.duration_ms, CASE WHEN m.latency_ms > 0 AND m.latency_ms < 1e9 THEN m.latency_ms END,
                       m.outcome, left(m.success, 100), m.cost_usd)::relevo.report END,
                   CASE WHEN m.stage = 'in-progress' THEN m.at END,
                   CASE WHEN m.stage = 'ended' THEN m.at END,
                   m.at, m.at, m.tool_outcome, coalesce(m.transferred, false), m.fallback,
                   coalesce(m.unanswered, false), coalesce(m.synthetic, false)
            FROM (SELECT *, row_number() OVER (PARTITION BY p.call_id) AS number,
                         CASE WHEN p.source IN ('report', 'lookup', 'overdue') THEN 6
                              ELSE coalesce(array_position(ARRAY['scheduled', 'queued', 'ringing', 'in-progress',
                                                                 'forwarding', 'ended'], p.stage), 0)
                         END AS reached
                  FROM jsonb_populate_recordset(NULL::relevo.message, messages) AS p) AS m
            WHERE m.number = turn
            ORDER BY m.call_id
            ON CONFLICT (call_id) DO UPDATE SET  -- which the trigger merges
                tenant_id = excluded.tenant_id, version = excluded.version, served_version = excluded.served_version,
                decided_at = excluded.decided_at, decided_by = excluded.decided_by, asked = excluded.asked,
                flag_version = excluded.flag_version, direction = excluded.direction,
                stage = excluded.stage, ending = excluded.ending, report = excluded.report,
                answered_at = excluded.answered_at, hung_up_at = excluded.hung_up_at,
                first_message_at = excluded.first_message_at, last_message_at = excluded.last_message_at,
                tool_outcome = excluded.tool_outcome, transferred = excluded.transferred, fallback = excluded.fallback,
                unanswered = excluded.unanswered, synthetic = excluded.synthetic
            RETURNING c.*
        LOOP
            IF call.stage = 6 AND call.tenant_id IS NOT NULL AND NOT call.synthetic THEN
                PERFORM relevo.offer_voice_call(call);
            END IF;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT p.* FROM relevo.pins_of(ARRAY(SELECT DISTINCT m ->> 'call_id'
                                                      FROM jsonb_array_elements(messages) AS m)) AS p;
END $$;

-- Tries those again whose time has come, the longest waiting first; returns how many are done. They come again after
-- as many minutes as they were tried, at most an hour.
CREATE FUNCTION relevo.repair_voice_calls(at timestamptz, at_most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    call relevo.calls;
    done integer := 0;
BEGIN
    FOR call IN SELECT c.* FROM relevo.call_faults f JOIN relevo.calls c ON c.call_id = f.call_id
                WHERE f.last_at <= at - least(f.tries, 60) * interval '1 minute'
                ORDER BY f.last_at LIMIT at_most FOR UPDATE OF c SKIP LOCKED LOOP
        IF relevo.offer_voice_call(call) THEN
            DELETE FROM relevo.call_faults f WHERE f.call_id = call.call_id;
            done := done + 1;
        END IF;
    END LOOP;
    RETURN done;
END $$;

-- Figures. Each change of a call appends the signed difference that it makes; a folder sums differences up into
-- minutes, hours and days. A call counts in the minute it was decided in, wherever its later messages fall.

-- DDSketch: each bucket is 2 % wide, and its middle at most 1 % from any value in it. Null: not measured.
CREATE FUNCTION relevo.latency_bucket(latency_ms double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN latency_ms > 0 THEN ceil(ln(latency_ms) / ln(1.01::float8 / 0.99::float8))::smallint END;

-- What a call, or a difference, or a sum of them counts for.
CREATE TABLE relevo.call_deltas (
    call_id    text NOT NULL,
    minute     timestamptz NOT NULL,
    version    text NOT NULL,
    tenant_id  text NOT NULL,
    calls      smallint NOT NULL,  -- decided for that version
    finished   smallint NOT NULL,
    failed     smallint NOT NULL,
    errors     smallint NOT NULL,  -- by our fault, fallbacks included
    unanswered smallint NOT NULL,
    fallbacks  smallint NOT NULL,
    crossed    smallint NOT NULL,
    measured   smallint NOT NULL,  -- calls with a latency
    latency_us bigint NOT NULL,    -- their sum; whole numbers, so that sums are exact in any order
    bucket     smallint            -- of the latency that ``measured`` counts
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000);

-- How wide sums are. Coarser ones are those of the finer again, so that a long window is few rows; tenant: hours per
-- version and tenant.
CREATE VIEW relevo.grains WITH (security_invoker = true) AS
SELECT * FROM (VALUES ('minute', interval '1 minute'), ('ten', interval '10 minutes'), ('hour', interval '1 hour'),
                      ('day', interval '1 day'), ('tenant', interval '1 hour')) AS g (grain, width);

CREATE TABLE relevo.call_stats (
    grain      text NOT NULL CHECK (grain IN ('minute', 'ten', 'hour', 'day', 'tenant')),
    source     text NOT NULL CHECK (source IN ('calls', 'history')),  -- relevo.calls, or what v1 had before
    starts_at  timestamptz NOT NULL,
    version    text NOT NULL,
    tenant_id  text NOT NULL CHECK ((grain = 'tenant') = (tenant_id <> '')),
    calls      bigint NOT NULL,
    finished   bigint NOT NULL,
    failed     bigint NOT NULL,
    errors     bigint NOT NULL,
    unanswered bigint NOT NULL,
    fallbacks  bigint NOT NULL,
    crossed    bigint NOT NULL,
    measured   bigint NOT NULL,
    latency_us bigint NOT NULL,
    PRIMARY KEY (grain, starts_at, version, tenant_id, source)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX call_stats_of_tenant ON relevo.call_stats (tenant_id, starts_at) WHERE grain = 'tenant';

CREATE TABLE relevo.call_latencies (
    grain     text NOT NULL,
    source    text NOT NULL,
    starts_at timestamptz NOT NULL,
    version   text NOT NULL,
    tenant_id text NOT NULL,
    bucket    smallint NOT NULL,
    calls     bigint NOT NULL,
    PRIMARY KEY (grain, starts_at, version, tenant_id, source, bucket) INCLUDE (calls)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Of calls that are new: of all that one statement brings at once, because a caller waits for each.
CREATE FUNCTION relevo.append_new() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    INSERT INTO relevo.call_deltas
    SELECT c.call_id, date_trunc('minute', c.decided_at, 'UTC'), c.version, c.tenant_id, 1,
           (c.stage = 6)::integer, (c.status = 'failed')::integer, c.our_fault::integer, c.unanswered::integer,
           (c.fallback IS NOT NULL)::integer, c.crossed::integer, (c.latency_ms IS NOT NULL)::integer,
           coalesce(round(c.latency_ms * 1000)::bigint, 0), relevo.latency_bucket(c.latency_ms)
    FROM new_calls c WHERE c.tenant_id IS NOT NULL AND NOT c.synthetic;
    RETURN NULL;
END $$;
CREATE TRIGGER d_begin AFTER INSERT ON relevo.calls REFERENCING NEW TABLE AS new_calls
FOR EACH STATEMENT EXECUTE FUNCTION relevo.append_new();

CREATE FUNCTION relevo.append_difference() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    was boolean := false;
    counts boolean := false;
    old_bucket smallint;
    new_bucket smallint;
BEGIN
    IF OLD.tenant_id IS NOT NULL AND NOT OLD.synthetic THEN
        was := true;
        old_bucket := relevo.latency_bucket(OLD.latency_ms);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.tenant_id IS NOT NULL AND NOT NEW.synthetic THEN
        counts := true;
        new_bucket := relevo.latency_bucket(NEW.latency_ms);
    END IF;
    IF was AND counts AND (OLD.version, OLD.tenant_id) = (NEW.version, NEW.tenant_id)
       AND date_trunc('minute', OLD.decided_at, 'UTC') = date_trunc('minute', NEW.decided_at, 'UTC')
       AND (old_bucket IS NULL OR old_bucket = new_bucket) THEN
        INSERT INTO relevo.call_deltas VALUES (
            NEW.call_id, date_trunc('minute', NEW.decided_at, 'UTC'), NEW.version, NEW.tenant_id, 0,
            (NEW.stage = 6)::integer - (OLD.stage = 6)::integer,
            (NEW.status = 'failed')::integer - (OLD.status = 'failed')::integer,
            NEW.our_fault::integer - OLD.our_fault::integer,
            NEW.unanswered::integer - OLD.unanswered::integer,
            (NEW.fallback IS NOT NULL)::integer - (OLD.fallback IS NOT NULL)::integer,
            NEW.crossed::integer - OLD.crossed::integer,
            (new_bucket IS NOT NULL)::integer - (old_bucket IS NOT NULL)::integer,
            coalesce(round(NEW.latency_ms * 1000)::bigint, 0) - coalesce(round(OLD.latency_ms * 1000)::bigint, 0),
            new_bucket);
        RETURN NULL;
    END IF;
    IF was THEN
        INSERT INTO relevo.call_deltas VALUES (
            OLD.call_id, date_trunc('minute', OLD.decided_at, 'UTC'), OLD.version, OLD.tenant_id, -1,
            -(OLD.stage = 6)::integer, -(OLD.status = 'failed')::integer, -OLD.our_fault::integer,
            -OLD.unanswered::integer, -(OLD.fallback IS NOT NULL)::integer, -OLD.crossed::integer,
            -(old_bucket IS NOT NULL)::integer, -coalesce(round(OLD.latency_ms * 1000)::bigint, 0), old_bucket);
    END IF;
    IF counts THEN
        INSERT INTO relevo.call_deltas VALUES (
            NEW.call_id, date_trunc('minute', NEW.decided_at, 'UTC'), NEW.version, NEW.tenant_id, 1,
            (NEW.stage = 6)::integer, (NEW.status = 'failed')::integer, NEW.our_fault::integer,
            NEW.unanswered::integer, (NEW.fallback IS NOT NULL)::integer, NEW.crossed::integer,
            (new_bucket IS NOT NULL)::integer, coalesce(round(NEW.latency_ms * 1000)::bigint, 0), new_bucket);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER d_count AFTER DELETE ON relevo.calls FOR EACH ROW EXECUTE FUNCTION relevo.append_difference();
CREATE TRIGGER d_recount AFTER UPDATE ON relevo.calls FOR EACH ROW
WHEN ((OLD.tenant_id, OLD.version, OLD.decided_at, OLD.stage = 6, OLD.status = 'failed', OLD.our_fault, OLD.unanswered,
       OLD.fallback IS NULL, OLD.crossed, OLD.synthetic, OLD.latency_ms) IS DISTINCT FROM
      (NEW.tenant_id, NEW.version, NEW.decided_at, NEW.stage = 6, NEW.status = 'failed', NEW.our_fault, NEW.unanswered,
       NEW.fallback IS NULL, NEW.crossed, NEW.synthetic, NEW.latency_ms))
EXECUTE FUNCTION relevo.append_difference();

-- The unfolded differences, and folded sums, in one shape: reads add the two.
CREATE VIEW relevo.unfolded WITH (security_invoker = true) AS
SELECT g.grain, 'calls' AS source, date_bin(g.width, d.minute, 'epoch') AS starts_at,
       d.version, CASE g.grain WHEN 'tenant' THEN d.tenant_id ELSE '' END AS tenant_id,
       d.calls, d.finished, d.failed, d.errors, d.unanswered, d.fallbacks, d.crossed, d.measured, d.latency_us,
       d.bucket
FROM relevo.call_deltas d CROSS JOIN relevo.grains g;

-- Days of v1's own history that have been counted.
CREATE TABLE relevo.history_days (
    day     date PRIMARY KEY,  -- in UTC
    calls   bigint NOT NULL,
    done_at timestamptz NOT NULL
);

-- What users say went wrong; each counts once, unless dismissed.
CREATE TABLE relevo.complaints (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    text NOT NULL CHECK (tenant_id <> ''),
    version      text NOT NULL CHECK (version IN ('v1', 'v2')),  -- of which they speak
    text         text NOT NULL CHECK (text <> '' AND char_length(text) <= 4000),
    at           timestamptz NOT NULL,
    actor        text NOT NULL,
    dismissed_at timestamptz,
    dismissed_by text,
    dismissed_why text,
    CHECK ((dismissed_at IS NULL) = (dismissed_by IS NULL))
);
CREATE INDEX complaints_standing ON relevo.complaints (at) WHERE dismissed_at IS NULL;

-- One breaker per version and upstream, shared by all processes.
CREATE TABLE relevo.breakers (
    version     text NOT NULL CHECK (version IN ('v1', 'v2')),
    upstream    text NOT NULL,                 -- its URL without secrets; '' is the built-in handler
    state       text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
    forced      boolean NOT NULL DEFAULT false,  -- an operator decided; only an operator decides otherwise
    window_at   timestamptz NOT NULL,          -- when the present window began
    calls       integer NOT NULL DEFAULT 0 CHECK (calls >= 0),
    failures    integer NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND calls),
    slow        integer NOT NULL DEFAULT 0 CHECK (slow BETWEEN 0 AND calls),
    opened_at   timestamptz,
    probe_at    timestamptz,                   -- open: when a probe may go; half-open: when its answer is overdue
    probe_by    text,                          -- half-open: the process whose probe is under way
    changed_by  text NOT NULL DEFAULT 'relevo',
    changed_why text,
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (version, upstream),
    CHECK ((state = 'closed') = (opened_at IS NULL)),
    CHECK ((state = 'half_open') = (probe_by IS NOT NULL)),
    CHECK (state <> 'half_open' OR NOT forced)
) WITH (fillfactor = 50);
CREATE TABLE relevo.breaker_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version    text NOT NULL,
    upstream   text NOT NULL,
    at         timestamptz NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL CHECK (to_state <> from_state),
    forced     boolean NOT NULL,
    actor      text NOT NULL,
    reason     text,
    -- A probe that fails goes on with the opening that there was; what an operator forces says nothing of health.
    opening    boolean NOT NULL GENERATED ALWAYS AS (from_state = 'closed' AND to_state = 'open' AND NOT forced) STORED
);
CREATE INDEX breaker_changes_at ON relevo.breaker_changes (at);

-- Every change is recorded and told to all processes, whoever makes it.
CREATE FUNCTION relevo.breaker_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    INSERT INTO relevo.breaker_changes (version, upstream, at, from_state, to_state, forced, actor, reason)
    VALUES (NEW.version, NEW.upstream, NEW.changed_at, OLD.state, NEW.state, NEW.forced, NEW.changed_by,
            NEW.changed_why);
    PERFORM pg_notify('relevo_breakers', NEW.version);
    RETURN NULL;
END $$;
CREATE TRIGGER recorded AFTER UPDATE OF state ON relevo.breakers FOR EACH ROW WHEN (OLD.state <> NEW.state)
EXECUTE FUNCTION relevo.breaker_changed();
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE OR DELETE OR TRUNCATE ON relevo.breaker_changes
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_rewriting();

DO $$
DECLARE
    ours regclass;
BEGIN
    FOREACH ours IN ARRAY ARRAY['relevo.ended_reasons', 'relevo.calls', 'relevo.call_faults',
                                'relevo.voice_calls_writer', 'relevo.call_deltas', 'relevo.call_stats',
                                'relevo.call_latencies', 'relevo.history_days', 'relevo.complaints', 'relevo.breakers',
                                'relevo.breaker_changes']::regclass[] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', ours);
    END LOOP;
END $$;
