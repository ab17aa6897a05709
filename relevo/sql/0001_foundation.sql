-- The ground: who did what, who holds which work, and the flag everything else turns on.

CREATE SCHEMA IF NOT EXISTS relevo;
CREATE SCHEMA IF NOT EXISTS relevo_backup;
REVOKE ALL ON SCHEMA relevo, relevo_backup FROM PUBLIC;

-- Tables and columns outside our schemas that are there because of us: what taking Relevo away may take with it.
CREATE TABLE relevo.public_tables (name text PRIMARY KEY);
CREATE TABLE relevo.added_columns (schema text, "table" text, "column" text, PRIMARY KEY (schema, "table", "column"));

-- Makes a table of ours in an exposed schema safe on Supabase, where new tables may be granted to the
-- browser's roles by default: nobody but the owner and the platform's own back end gets near it.
-- A table that was there before this transaction is the platform's, and keeps its grants.
CREATE FUNCTION relevo.seclude(exposed regclass) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    browser text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class
                   WHERE oid = exposed AND xmin::text = pg_catalog.pg_current_xact_id()::xid::text) THEN
        RETURN;
    END IF;
    INSERT INTO relevo.public_tables VALUES (exposed::text);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', exposed);
    FOR browser IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', exposed, browser);
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'service_role') THEN
        EXECUTE format('REVOKE ALL ON %s FROM service_role', exposed);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO service_role', exposed);
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', exposed);
END $$;

-- Every change of state, by whom and why. Rows are only ever added.
CREATE TABLE relevo.audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text NOT NULL CHECK (actor <> ''),
    action  text NOT NULL CHECK (action <> ''),  -- noun.verb: migration.start
    subject text,                                -- what it was done to: a run, a tenant, the flag
    reason  text,
    details jsonb NOT NULL DEFAULT '{}'
);

-- Who writes: whom the transaction names (relevo.actor), else the user of the Data API, else the role that was taken or
-- that signed in. SECURITY DEFINER around it changes neither.
CREATE FUNCTION relevo.writer() RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('relevo.actor', true), ''),
                substring(current_setting('request.jwt.claims', true) FROM '"sub" *: *"([^"]+)"'),
                nullif(current_setting('role'), 'none'), session_user);

CREATE FUNCTION relevo.refuse_rewriting() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE OR DELETE OR TRUNCATE ON relevo.audit_log
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_rewriting();

-- Who holds a piece of work that only one process may do. The token rises whenever the holder changes;
-- a process that finds another token than its own has lost the work. (Session advisory locks would not
-- do: behind a transaction pooler two clients get the same one.)
CREATE TABLE relevo.leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,  -- host/boot/pid namespace:pid:start:taking
    token      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

-- What of v1 is cleaned away. A stage that was undone has no row; the audit log has both.
CREATE TABLE relevo.cleanup_stages (
    stage   text PRIMARY KEY CHECK (stage IN ('flags', 'deprecate', 'drop', 'backups')),
    done_at timestamptz NOT NULL,
    actor   text NOT NULL CHECK (actor <> ''),
    reason  text,
    details jsonb NOT NULL DEFAULT '{}'  -- what was found, and what undoing needs
);

-- v1 answers nobody any more, and there is no way back to it by the flag.
CREATE FUNCTION relevo.v1_is_retired() RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM relevo.cleanup_stages AS s WHERE s.stage = 'flags');

-- v1's table is not written any more; v2's leads.
CREATE FUNCTION relevo.v1_is_deprecated() RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM relevo.cleanup_stages AS s WHERE s.stage = 'deprecate');

-- The flag: any reader who follows the seed's four steps on this row gets Relevo's answer.
CREATE TABLE IF NOT EXISTS public.feature_flags (
    name             text PRIMARY KEY,
    enabled          boolean NOT NULL DEFAULT false,
    percentage       integer NOT NULL DEFAULT 0 CHECK (percentage BETWEEN 0 AND 100),
    enabled_tenants  text[] NOT NULL DEFAULT '{}',
    disabled_tenants text[] NOT NULL DEFAULT '{}',
    version          bigint NOT NULL DEFAULT 1,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    updated_by       text
);
SELECT relevo.seclude('public.feature_flags');
-- A platform that had a table of the specification's shape gets what Relevo adds to it.
ALTER TABLE public.feature_flags
    ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_by text;

INSERT INTO public.feature_flags (name)
SELECT 'voice_agent_v2' WHERE NOT EXISTS (SELECT FROM public.feature_flags WHERE name = 'voice_agent_v2');
