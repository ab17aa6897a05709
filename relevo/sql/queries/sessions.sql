-- Sessions of the dashboard.

-- begin_session --
-- Nothing comes back where that sign-in has begun one before.
INSERT INTO relevo.sessions (fingerprint, id, token_id, issuer, subject, name, role, sign_in, began_at, expires_at)
VALUES (%(fingerprint)s, %(id)s, %(token_id)s::text, %(issuer)s::text, %(subject)s::text, %(name)s::text,
        %(role)s::text, %(sign_in)s::bytea, %(now)s, %(expires_at)s)
ON CONFLICT (sign_in) DO NOTHING
RETURNING id

-- session --
-- Whose a session is, as long as it and its token are good.
SELECT s.id, coalesce(s.token_id, s.subject) AS caller_id, coalesce(t.name, s.name) AS name,
       coalesce(t.role, s.role) AS role, s.issuer, s.began_at, s.expires_at
FROM relevo.sessions s LEFT JOIN relevo.api_tokens t ON t.id = s.token_id
WHERE s.fingerprint = %(fingerprint)s AND s.ended_at IS NULL AND s.expires_at > %(now)s
  AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > %(now)s)

-- end_session --
UPDATE relevo.sessions SET ended_at = %(now)s
WHERE id = %(id)s AND ended_at IS NULL AND expires_at > %(now)s
RETURNING token_id, issuer, subject

-- sessions --
SELECT s.id, coalesce(s.token_id, s.subject) AS caller_id, coalesce(t.name, s.name) AS name,
       coalesce(t.role, s.role) AS role, s.issuer, s.began_at, s.expires_at
FROM relevo.sessions s LEFT JOIN relevo.api_tokens t ON t.id = s.token_id
WHERE s.ended_at IS NULL AND s.expires_at > %(now)s
  AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > %(now)s)
ORDER BY s.began_at DESC, s.id LIMIT 200

-- forget_sessions --
DELETE FROM relevo.sessions WHERE expires_at < %(before)s
