-- The flag's row: what may be in it, what a change of it leaves behind, and its answers in SQL. All of it is about the
-- row voice_agent_v2; other flags in the same table are the platform's, and nothing here touches them.

-- The lists -------------------------------------------------------------------------------------------------------

-- Of 20,000 tenants each pass costs milliseconds, and the planner takes every array for ten: a join of two would
-- become a nested loop of 400 million steps. What stands here instead is hashed or sorted, whatever the estimate.

-- A list of tenants without nulls, empty ids and repetitions, in the order in which they first came.
CREATE FUNCTION relevo.tidy(list text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT u.id FROM unnest(list) WITH ORDINALITY AS u (id, place)
             WHERE u.id <> '' GROUP BY u.id ORDER BY min(u.place));

-- The tenants of a tidy list that are not in the other.
CREATE FUNCTION relevo.without(list text[], other text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality(other) = 0 THEN list
            WHEN cardinality(other) = 1 THEN array_remove(list, other[1])
            ELSE ARRAY(SELECT u.id FROM unnest(list) WITH ORDINALITY AS u (id, place)
                       WHERE u.id NOT IN (SELECT o.id FROM unnest(other) AS o (id) WHERE o.id IS NOT NULL)
                       ORDER BY u.place) END;

-- Whether no tenant is on both lists. The operator && compares each with each, which is the faster way for a short
-- list beside a long one, and hopeless for two long ones.
CREATE FUNCTION relevo.is_disjoint(list text[], other text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality(list)::bigint * cardinality(other) <= 400000 THEN NOT list && other
            ELSE NOT EXISTS (SELECT unnest(list) COLLATE "C" INTERSECT SELECT unnest(other) COLLATE "C") END;

-- What was done to a tidy list: who was taken out of it, and who put behind it. Both null when that does not tell the
-- whole of it, or were many: nearly every change is of few, and one walk along both lists finds them.
CREATE FUNCTION relevo.few_changed(before text[], after text[], OUT removed text[], OUT added text[])
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    most   CONSTANT integer := 10;
    tenant text;
    place  integer := 1;
    gone   text[] := '{}';
BEGIN
    IF after IS NULL OR array_ndims(after) > 1 OR array_lower(after, 1) <> 1
       OR cardinality(after) NOT BETWEEN cardinality(before) - most AND cardinality(before) + most THEN
        RETURN;
    END IF;
    FOREACH tenant IN ARRAY before LOOP
        IF tenant = after[place] THEN
            place := place + 1;
        ELSE
            gone := gone || tenant;
            IF cardinality(gone) > most THEN
                RETURN;
            END IF;
        END IF;
    END LOOP;
    IF cardinality(after) - place < most THEN
        removed := gone;
        added := after[place:];
    END IF;
END $$;

-- A list made tidy; ``before`` is the tidy list that it was made from.
CREATE FUNCTION relevo.tidied(before text[], after text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    change record := relevo.few_changed(before, after);
    kept   text[];
BEGIN
    IF change.removed IS NULL THEN
        RETURN relevo.tidy(after);
    ELSIF cardinality(change.added) = 0 THEN
        RETURN after;
    END IF;
    kept := after[1:cardinality(after) - cardinality(change.added)];
    RETURN kept || ARRAY(SELECT u.id FROM unnest(relevo.tidy(change.added)) WITH ORDINALITY AS u (id, place)
                         WHERE array_position(kept, u.id) IS NULL ORDER BY u.place);
END $$;

-- What is there already, made fit without changing anybody's answer: to the specification's readers null means off,
-- 0 or empty, the disabled list wins, and a percentage outside 0..100 means the nearest inside.
UPDATE public.feature_flags
SET enabled = coalesce(enabled, false),
    percentage = least(greatest(coalesce(percentage, 0), 0), 100),
    enabled_tenants = relevo.without(relevo.tidy(enabled_tenants), relevo.tidy(disabled_tenants)),
    disabled_tenants = relevo.tidy(disabled_tenants)
WHERE name = 'voice_agent_v2';

ALTER TABLE public.feature_flags
    ADD CONSTRAINT voice_agent_v2_percentage
        CHECK (name <> 'voice_agent_v2' OR (percentage IS NOT NULL AND percentage BETWEEN 0 AND 100)),
    ADD CONSTRAINT voice_agent_v2_lists
        CHECK (name <> 'voice_agent_v2' OR (enabled IS NOT NULL AND enabled_tenants IS NOT NULL
               AND disabled_tenants IS NOT NULL AND relevo.is_disjoint(enabled_tenants, disabled_tenants)));
-- Ids do not compress, and trying takes most of the time of a write.
ALTER TABLE public.feature_flags
    ALTER enabled_tenants SET STORAGE EXTERNAL, ALTER disabled_tenants SET STORAGE EXTERNAL;
ALTER TABLE relevo.audit_log ALTER details SET STORAGE EXTERNAL;

-- The row is found by its name, whatever key the platform's own table has; and there is one.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = 'public.feature_flags'::regclass AND i.indisunique AND i.indnkeyatts = 1
                     AND i.indpred IS NULL AND a.attname = 'name') THEN
        CREATE UNIQUE INDEX voice_agent_v2_is_one ON public.feature_flags (name) WHERE name = 'voice_agent_v2';
    END IF;
END $$;

-- The answers, in SQL ---------------------------------------------------------------------------------------------

-- The specification's JavaScript hash of a text, before its absolute value: UTF-16 code units, wrapped to 32 bits.
CREATE FUNCTION relevo.hash_string(value text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    wrapped bigint := 0;
    point   integer;
    bytes   bytea := convert_to(value, 'UTF8');
BEGIN
    IF octet_length(bytes) = length(value) THEN  -- all of it ASCII, as ids are: half the time
        FOR place IN 0..octet_length(bytes) - 1 LOOP
            wrapped := (wrapped * 31 + get_byte(bytes, place)) & 4294967295;
        END LOOP;
    ELSE
        FOR place IN 1..length(value) LOOP
            point := ascii(substr(value, place, 1));  -- in a UTF-8 database this is the code point
            IF point >= 65536 THEN  -- two code units: a high and a low surrogate
                wrapped := (wrapped * 31 + 55296 + ((point - 65536) >> 10)) & 4294967295;
                point := 56320 + ((point - 65536) & 1023);
            END IF;
            wrapped := (wrapped * 31 + point) & 4294967295;
        END LOOP;
    END IF;
    RETURN CASE WHEN wrapped < 2147483648 THEN wrapped ELSE wrapped - 4294967296 END;
END $$;

-- 0..99; null for a text that is no tenant id.
CREATE FUNCTION public.voice_agent_v2_percentile(tenant_id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(tenant_id) BETWEEN 1 AND 1000
            THEN (abs(relevo.hash_string(tenant_id)) % 100)::integer END;

-- The specification's four steps. False for a text that is no tenant id, and to a role that may not see the row.
CREATE FUNCTION public.should_use_voice_agent_v2(tenant_id text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((
    SELECT CASE
        WHEN public.voice_agent_v2_percentile(tenant_id) IS NULL OR NOT f.enabled THEN false
        WHEN tenant_id = ANY (f.disabled_tenants) THEN false
        WHEN tenant_id = ANY (f.enabled_tenants) THEN true
        ELSE public.voice_agent_v2_percentile(tenant_id) < f.percentage
    END
    FROM public.feature_flags AS f WHERE f.name = 'voice_agent_v2'), false);

DO $$
DECLARE
    answer text;
    role_name text;
BEGIN
    FOREACH answer IN ARRAY ARRAY['voice_agent_v2_percentile', 'should_use_voice_agent_v2'] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION public.%I(text) FROM PUBLIC', answer);
        FOR role_name IN SELECT rolname FROM pg_catalog.pg_roles
                         WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION public.%I(text) FROM %I', answer, role_name);
            IF role_name = 'service_role' THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION public.%I(text) TO service_role', answer);
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- What a change leaves behind -----------------------------------------------------------------------------------------

-- Every tenant with a configuration, active or not: who is switched on later must not find itself on v2 unverified.
CREATE FUNCTION relevo.configured_tenants() RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    RETURN ARRAY(SELECT DISTINCT c.business_id::text FROM relevo.v1_configurations() AS c WHERE c.business_id IS NOT NULL);
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name THEN
    RETURN '{}';  -- a platform without v1 tables has none
END $$;

-- Tenants whose hash is below a percentage, but whose data may not live on v2. Few are unverified, so only they
-- are hashed.
CREATE FUNCTION relevo.unverified_below(percentage integer) RETURNS text[]
LANGUAGE sql STABLE SET search_path = ''
RETURN ARRAY(SELECT u.tenant_id FROM relevo.unverified_tenants(relevo.configured_tenants()) AS u
             WHERE public.voice_agent_v2_percentile(u.tenant_id) < percentage);

-- Normalises rather than refuses: the specification's emergency call only appends to disabled_tenants, and must do
-- what it says. A percentage that rises, or begins to count, puts on the disabled list whom it would
-- select unverified, whoever writes it; one that falls looks at nobody. SECURITY DEFINER, because the writer may not enter our schema.
CREATE FUNCTION relevo.normalise_flag() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    was_on   text[] := '{}';
    was_off  text[] := '{}';
    changed  boolean := true;
BEGIN
    NEW.enabled := coalesce(NEW.enabled, false);
    NEW.percentage := coalesce(NEW.percentage, 0);
    IF NEW.percentage > 0 AND (TG_OP = 'INSERT' OR NEW.percentage > OLD.percentage
                               OR NEW.enabled AND NOT OLD.enabled) THEN
        NEW.disabled_tenants := NEW.disabled_tenants || relevo.without(
            relevo.without(relevo.unverified_below(NEW.percentage), NEW.enabled_tenants), NEW.disabled_tenants);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        was_on := OLD.enabled_tenants;
        was_off := OLD.disabled_tenants;
        changed := NEW.enabled_tenants IS DISTINCT FROM was_on OR NEW.disabled_tenants IS DISTINCT FROM was_off;
    END IF;
    IF changed THEN
        NEW.enabled_tenants := relevo.tidied(was_on, NEW.enabled_tenants);
        NEW.disabled_tenants := relevo.tidied(was_off, NEW.disabled_tenants);
        IF NOT relevo.is_disjoint(NEW.enabled_tenants, NEW.disabled_tenants) THEN
            NEW.enabled_tenants := relevo.without(NEW.enabled_tenants, NEW.disabled_tenants);
        END IF;
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.version := greatest(NEW.version, 1);
    ELSIF NEW.enabled = OLD.enabled AND NEW.percentage = OLD.percentage
          AND NOT (changed AND (NEW.enabled_tenants <> was_on OR NEW.disabled_tenants <> was_off)) THEN
        NEW.version := OLD.version;  -- nothing changed: nothing to tell
        NEW.updated_at := OLD.updated_at;
        NEW.updated_by := OLD.updated_by;
        RETURN NEW;
    ELSE
        NEW.version := OLD.version + 1;
    END IF;
    NEW.updated_at := now();
    BEGIN
        NEW.updated_by := relevo.writer();
    EXCEPTION WHEN data_exception THEN
        NULL;  -- a platform that had this column may keep another type in it; the audit log has the name
    END;
    RETURN NEW;
END $$;
-- Triggers fire in the order of their names; what decides which lists to write comes before this one.
CREATE TRIGGER voice_agent_v2_normalise BEFORE INSERT OR UPDATE ON public.feature_flags
FOR EACH ROW WHEN (NEW.name = 'voice_agent_v2') EXECUTE FUNCTION relevo.normalise_flag();

-- What one list gained and lost; null when nothing. Both lists are tidy.
CREATE FUNCTION relevo.list_delta(before text[], after text[]) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    removed text[] := '{}';
    added   text[] := '{}';
BEGIN
    IF before = after THEN
        RETURN NULL;
    ELSIF after[1:cardinality(before)] = before THEN
        added := after[cardinality(before) + 1:];
    ELSIF before[1:cardinality(after)] = after THEN
        removed := before[cardinality(after) + 1:];
    ELSE
        SELECT c.removed, c.added INTO removed, added FROM relevo.few_changed(before, after) AS c;
        IF removed IS NULL OR removed && added THEN  -- many, or somebody was only moved
            removed := ARRAY(SELECT unnest(before) COLLATE "C" EXCEPT SELECT unnest(after) COLLATE "C" ORDER BY 1);
            added := ARRAY(SELECT unnest(after) COLLATE "C" EXCEPT SELECT unnest(before) COLLATE "C" ORDER BY 1);
        END IF;
    END IF;
    RETURN jsonb_build_object('added', to_jsonb(added), 'removed', to_jsonb(removed));
END $$;

CREATE FUNCTION relevo.tell_flag_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    before public.feature_flags;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := OLD;
    ELSE
        before.enabled_tenants := '{}';
        before.disabled_tenants := '{}';
    END IF;
    INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
    VALUES (relevo.writer(), CASE TG_OP WHEN 'UPDATE' THEN 'flag.change' ELSE 'flag.create' END, NEW.name,
            nullif(current_setting('relevo.reason', true), ''),
            jsonb_strip_nulls(jsonb_build_object(
                'version', NEW.version,
                'role', coalesce(nullif(current_setting('role'), 'none'), session_user::text),
                'enabled', CASE WHEN before.enabled IS DISTINCT FROM NEW.enabled
                    THEN jsonb_build_object('from', before.enabled, 'to', NEW.enabled) END,
                'percentage', CASE WHEN before.percentage IS DISTINCT FROM NEW.percentage
                    THEN jsonb_build_object('from', before.percentage, 'to', NEW.percentage) END,
                'enabled_tenants', relevo.list_delta(before.enabled_tenants, NEW.enabled_tenants),
                'disabled_tenants', relevo.list_delta(before.disabled_tenants, NEW.disabled_tenants),
                'forced', nullif(current_setting('relevo.forced', true), '')::jsonb)));
    PERFORM pg_catalog.pg_notify('relevo_flags', NEW.name || ':' || NEW.version);
    RETURN NULL;
END $$;
CREATE TRIGGER voice_agent_v2_created AFTER INSERT ON public.feature_flags
FOR EACH ROW WHEN (NEW.name = 'voice_agent_v2') EXECUTE FUNCTION relevo.tell_flag_change();
CREATE TRIGGER voice_agent_v2_changed AFTER UPDATE ON public.feature_flags
FOR EACH ROW WHEN (NEW.name = 'voice_agent_v2' AND NEW.version IS DISTINCT FROM OLD.version)
EXECUTE FUNCTION relevo.tell_flag_change();

-- Without the row, lists and version would be lost, and a new one would count from 1 again. Cleanup drops these two.
CREATE FUNCTION relevo.keep_flag() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION 'the flag voice_agent_v2 is neither deleted nor renamed'
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'To put everybody on v1: UPDATE public.feature_flags SET enabled = false'
                     ' WHERE name = ''voice_agent_v2''';
END $$;
CREATE TRIGGER voice_agent_v2_stays BEFORE DELETE ON public.feature_flags
FOR EACH ROW WHEN (OLD.name = 'voice_agent_v2') EXECUTE FUNCTION relevo.keep_flag();
CREATE TRIGGER voice_agent_v2_keeps_its_name BEFORE UPDATE ON public.feature_flags
FOR EACH ROW WHEN (OLD.name = 'voice_agent_v2' AND NEW.name IS DISTINCT FROM OLD.name)
EXECUTE FUNCTION relevo.keep_flag();
CREATE TRIGGER voice_agent_v2_is_not_truncated BEFORE TRUNCATE ON public.feature_flags
FOR EACH STATEMENT EXECUTE FUNCTION relevo.keep_flag();

-- Whom a person may mean by a tenant id, and what the business is called. Until a mapping is installed, the tenants'
-- table is looked for under the specification's name. A v1 that cannot be read has none.
CREATE FUNCTION relevo.known_tenants() RETURNS TABLE (id text, name text)
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    RETURN QUERY SELECT DISTINCT c.business_id::text, NULL::text FROM public.voice_assistant_configs AS c;
    IF EXISTS (SELECT FROM relevo.source_mapping) THEN
        RETURN QUERY SELECT t.id::text, t.name FROM relevo.v1_tenants() AS t;
    ELSE
        RETURN QUERY EXECUTE 'SELECT id::text, name::text FROM public.businesses';
    END IF;
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name OR insufficient_privilege THEN
    RETURN;
END $$;

-- Who reads -----------------------------------------------------------------------------------------------------

-- Which version each process answers by, so that going back can say when everybody has. A process that has not been
-- heard of for a while is gone.
CREATE TABLE relevo.flag_readers (
    reader       text NOT NULL,       -- host:pid:which of the process's readers
    flag         text NOT NULL,
    version      bigint NOT NULL,     -- applied; 0: there is no row that it may see
    mode         text NOT NULL CHECK (mode IN ('listen', 'poll')),
    applied_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    PRIMARY KEY (reader, flag)
) WITH (fillfactor = 50);
ALTER TABLE relevo.flag_readers ENABLE ROW LEVEL SECURITY;
