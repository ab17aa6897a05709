-- Who may ask relevo serve, and for what: API tokens, of which only the fingerprints are kept.

CREATE TABLE relevo.api_tokens (
    id           text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{10}$'),
    secret_hash  bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),  -- SHA-256; the secret is drawn, not chosen
    role         text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    name         text CHECK (char_length(name) BETWEEN 1 AND 100),
    created_at   timestamptz NOT NULL,
    created_by   text NOT NULL CHECK (created_by <> ''),
    expires_at   timestamptz CHECK (expires_at > created_at),  -- null: never
    revoked_at   timestamptz,
    last_used_at timestamptz  -- to the minute or so
);
ALTER TABLE relevo.api_tokens ENABLE ROW LEVEL SECURITY;

-- What a token was given it keeps, and what was taken from it stays taken: more rights are a new token.
CREATE FUNCTION relevo.refuse_changed_token() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION 'a token is not changed; revoke it and create another'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER tokens_keep_what_they_are BEFORE UPDATE ON relevo.api_tokens FOR EACH ROW
WHEN (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at
      OR (OLD.id, OLD.secret_hash, OLD.role, OLD.created_at, OLD.created_by, OLD.expires_at)
         IS DISTINCT FROM (NEW.id, NEW.secret_hash, NEW.role, NEW.created_at, NEW.created_by, NEW.expires_at))
EXECUTE FUNCTION relevo.refuse_changed_token();
