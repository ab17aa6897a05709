-- Who is signed in to the dashboard. A session is opaque: its cookie is drawn, and only the fingerprint is kept.

CREATE TABLE relevo.sessions (
    fingerprint bytea PRIMARY KEY CHECK (octet_length(fingerprint) = 32),  -- SHA-256; the secret is drawn, not chosen
    id          text NOT NULL UNIQUE CHECK (id ~ '^[0-9a-f]{10}$'),        -- for people and the audit log
    token_id    text REFERENCES relevo.api_tokens,  -- a session may what its token may, and ends with it; null: a person
    issuer      text CHECK (issuer <> ''),          -- the identity provider that vouched for them; null: a token
    subject     text CHECK (char_length(subject) BETWEEN 1 AND 255),
    name        text CHECK (char_length(name) BETWEEN 1 AND 255),
    role        text CHECK (role IN ('viewer', 'operator', 'admin')),  -- as the provider gave it then
    sign_in     bytea UNIQUE CHECK (octet_length(sign_in) = 32),  -- SHA-256 of what began it: it begins one session
    began_at    timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL CHECK (expires_at > began_at),
    ended_at    timestamptz CHECK (ended_at >= began_at),    -- null: nobody has signed out
    CHECK (num_nonnulls(token_id, issuer) = 1),
    CHECK (num_nonnulls(issuer, subject, role, sign_in) IN (0, 4) AND (name IS NULL OR issuer IS NOT NULL))
);
CREATE INDEX sessions_standing ON relevo.sessions (expires_at) WHERE ended_at IS NULL;
ALTER TABLE relevo.sessions ENABLE ROW LEVEL SECURITY;

-- What was ended stays ended, and a session never becomes another's.
CREATE FUNCTION relevo.refuse_changed_session() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION 'a session is ended, never changed' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER sessions_keep_what_they_are BEFORE UPDATE ON relevo.sessions FOR EACH ROW
WHEN (OLD.ended_at IS NOT NULL AND NEW.ended_at IS DISTINCT FROM OLD.ended_at
      OR (OLD.fingerprint, OLD.id, OLD.token_id, OLD.issuer, OLD.subject, OLD.name, OLD.role, OLD.sign_in,
          OLD.began_at, OLD.expires_at)
         IS DISTINCT FROM (NEW.fingerprint, NEW.id, NEW.token_id, NEW.issuer, NEW.subject, NEW.name, NEW.role,
                           NEW.sign_in, NEW.began_at, NEW.expires_at))
EXECUTE FUNCTION relevo.refuse_changed_session();
