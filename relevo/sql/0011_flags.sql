-- The flag's row: what may be in it, what a change of it leaves behind, and its answers in SQL. All of it is about the
-- row voice_agent_v2; other flags in the same table are the platform's, and nothing here touches them.

-- The lists -------------------------------------------------------------------------------------------------------

-- A list of tenants without nulls, empty ids and repetitions, in the order in which they first came.
CREATE FUNCTION relevo.tidy(list text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(array_agg(t.id ORDER BY t.place), '{}')
        FROM (SELECT u.id, min(u.place) AS place FROM unnest(list) WITH ORDINALITY AS u (id, place)
              WHERE u.id <> '' GROUP BY u.id) AS t);

-- The tenants of a list that are not in the other.
CREATE FUNCTION relevo.without(list text[], other text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality(other) = 1 THEN array_remove(list, other[1])
            ELSE (SELECT coalesce(array_agg(u.id ORDER BY u.place), '{}')
                  FROM unnest(list) WITH ORDINALITY AS u (id, place)
                  WHERE NOT EXISTS (SELECT FROM unnest(other) AS o (id) WHERE o.id = u.id)) END;

-- Whether no tenant is on both lists. The operator && compares each with each, which is the faster way for a short
-- list beside a long one, and hopeless for two long ones.
CREATE FUNCTION relevo.is_disjoint(list text[], other text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality(list)::bigint * cardinality(other) <= 100000 THEN NOT list && other
            ELSE NOT EXISTS (SELECT FROM unnest(list) AS u (id) JOIN unnest(other) AS o (id) ON o.id = u.id) END;

-- What was put at the end of a list, when it was little and nothing else was done to it; null otherwise. That is what
-- nearly every change is, and it saves looking at the other 20,000.
CREATE FUNCTION relevo.appended(before text[], after text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality(after) - cardinality(before) BETWEEN 0 AND 10 AND after[1:cardinality(before)] = before
            THEN after[cardinality(before) + 1:] END;

-- A list made tidy; ``before`` is the tidy list that it was made from.
CREATE FUNCTION relevo.tidied(before text[], after text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN relevo.appended(before, after) IS NULL THEN relevo.tidy(after)
            ELSE before || (SELECT coalesce(array_agg(u.id ORDER BY u.place), '{}')
                            FROM unnest(relevo.tidy(relevo.appended(before, after))) WITH ORDINALITY AS u (id, place)
                            WHERE array_position(before, u.id) IS NULL) END;

-- What is there already, made fit without changing anybody's answer: to the specification's readers null means off,
-- 0 or empty, the disabled list wins, and a percentage outside 0..100 means the nearest inside.
UPDATE public.feature_flags
SET enabled = coalesce(enabled, false),
    percentage = least(greatest(coalesce(percentage, 0), 0), 100),
    enabled_tenants = relevo.without(relevo.tidy(enabled_tenants), disabled_tenants),
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
BEGIN
    FOR place IN 1..length(value) LOOP
        point := ascii(substr(value, place, 1));  -- in a UTF-8 database this is the code point
        IF point >= 65536 THEN  -- two code units: a high and a low surrogate
            wrapped := (wrapped * 31 + 55296 + ((point - 65536) >> 10)) & 4294967295;
            point := 56320 + ((point - 65536) & 1023);
        END IF;
        wrapped := (wrapped * 31 + point) & 4294967295;
    END LOOP;
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

-- Who changes the flag: what the transaction says of itself, else the role it took, else the one that signed in.
CREATE FUNCTION relevo.flag_actor() RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('relevo.actor', true), ''), nullif(current_setting('role'), 'none'),
                session_user::text);

-- Active tenants whose hash is below a percentage, but whose data may not live on v2.
CREATE FUNCTION relevo.unverified_below(percentage integer) RETURNS text[]
LANGUAGE sql STABLE SET search_path = ''
RETURN ARRAY(SELECT u.tenant_id FROM relevo.unverified_tenants(ARRAY(
                 SELECT t.id FROM relevo.active_tenants() AS t (id)
                 WHERE public.voice_agent_v2_percentile(t.id) < percentage)) AS u);

-- Normalises rather than refuses: the specification's emergency call only appends to disabled_tenants, and must do
-- what it says. A percentage that rises, or begins to count, puts on the disabled list whom it would
-- select unverified, whoever writes it; one that falls looks at nobody. SECURITY DEFINER, because the writer may not enter our schema.
CREATE FUNCTION relevo.normalise_flag() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    enables  boolean := true;
    disables boolean := true;
BEGIN
    NEW.enabled := coalesce(NEW.enabled, false);
    NEW.percentage := coalesce(NEW.percentage, 0);
    IF NEW.percentage > 0 AND (TG_OP = 'INSERT' OR NEW.percentage > OLD.percentage
                               OR NEW.enabled AND NOT OLD.enabled) THEN
        NEW.disabled_tenants := NEW.disabled_tenants || relevo.without(
            relevo.without(relevo.unverified_below(NEW.percentage), NEW.enabled_tenants), NEW.disabled_tenants);
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.enabled_tenants := relevo.tidy(NEW.enabled_tenants);
        NEW.disabled_tenants := relevo.tidy(NEW.disabled_tenants);
        NEW.version := greatest(NEW.version, 1);
    ELSE
        enables := NEW.enabled_tenants IS DISTINCT FROM OLD.enabled_tenants;
        disables := NEW.disabled_tenants IS DISTINCT FROM OLD.disabled_tenants;
        IF enables THEN
            NEW.enabled_tenants := relevo.tidied(OLD.enabled_tenants, NEW.enabled_tenants);
        END IF;
        IF disables THEN
            NEW.disabled_tenants := relevo.tidied(OLD.disabled_tenants, NEW.disabled_tenants);
        END IF;
    END IF;
    IF (enables OR disables) AND NOT relevo.is_disjoint(NEW.enabled_tenants, NEW.disabled_tenants) THEN
        NEW.enabled_tenants := relevo.without(
            NEW.enabled_tenants,
            CASE WHEN enables THEN NEW.disabled_tenants
                 ELSE coalesce(relevo.appended(OLD.disabled_tenants, NEW.disabled_tenants), NEW.disabled_tenants) END);
        enables := true;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.enabled = OLD.enabled AND NEW.percentage = OLD.percentage
           AND (NOT enables OR NEW.enabled_tenants = OLD.enabled_tenants)
           AND (NOT disables OR NEW.disabled_tenants = OLD.disabled_tenants) THEN
            NEW.version := OLD.version;  -- nothing changed: nothing to tell
            NEW.updated_at := OLD.updated_at;
            NEW.updated_by := OLD.updated_by;
            RETURN NEW;
        END IF;
        NEW.version := OLD.version + 1;
    END IF;
    NEW.updated_at := now();
    BEGIN
        NEW.updated_by := relevo.flag_actor();
    EXCEPTION WHEN data_exception THEN
        NULL;  -- a platform that had this column may keep another type in it; the audit log has the name
    END;
    RETURN NEW;
END $$;
-- Triggers fire in the order of their names; what decides which lists to write comes before this one.
CREATE TRIGGER voice_agent_v2_normalise BEFORE INSERT OR UPDATE ON public.feature_flags
FOR EACH ROW WHEN (NEW.name = 'voice_agent_v2') EXECUTE FUNCTION relevo.normalise_flag();

-- What one list gained and lost; null when nothing.
CREATE FUNCTION relevo.list_delta(before text[], after text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN before = after THEN NULL
    WHEN relevo.appended(before, after) IS NOT NULL
        THEN jsonb_build_object('added', to_jsonb(relevo.appended(before, after)), 'removed', '[]'::jsonb)
    ELSE (SELECT jsonb_build_object(
              'added', coalesce(jsonb_agg(a.id ORDER BY a.place) FILTER (WHERE b.id IS NULL), '[]'),
              'removed', coalesce(jsonb_agg(b.id ORDER BY b.place) FILTER (WHERE a.id IS NULL), '[]'))
          FROM unnest(before) WITH ORDINALITY AS b (id, place)
          FULL JOIN unnest(after) WITH ORDINALITY AS a (id, place) ON a.id = b.id
          WHERE a.id IS NULL OR b.id IS NULL)
END;

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
    VALUES (relevo.flag_actor(), CASE TG_OP WHEN 'UPDATE' THEN 'flag.change' ELSE 'flag.create' END, NEW.name,
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
