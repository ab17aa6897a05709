-- Sessions of the dashboard.

-- begin_session --
INSERT INTO relevo.sessions (fingerprint, id, token_id, began_at, expires_at)
VALUES (%(fingerprint)s, %(id)s, %(token_id)s, %(now)s, %(expires_at)s)

-- session --
-- Whose a session is, as long as it and its token are good.
SELECT s.id, s.token_id, t.name, t.role, s.began_at, s.expires_at
FROM relevo.sessions s JOIN relevo.api_tokens t ON t.id = s.token_id
WHERE s.fingerprint = %(fingerprint)s AND s.ended_at IS NULL AND s.expires_at > %(now)s
  AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > %(now)s)

-- end_session --
UPDATE relevo.sessions SET ended_at = %(now)s
WHERE id = %(id)s AND ended_at IS NULL AND expires_at > %(now)s
RETURNING token_id

-- sessions --
SELECT s.id, s.token_id, t.name, t.role, s.began_at, s.expires_at
FROM relevo.sessions s JOIN relevo.api_tokens t ON t.id = s.token_id
WHERE s.ended_at IS NULL AND s.expires_at > %(now)s
  AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > %(now)s)
ORDER BY s.began_at DESC, s.id LIMIT 200

-- forget_sessions --
DELETE FROM relevo.sessions WHERE expires_at < %(before)s
