-- create_token --
INSERT INTO relevo.api_tokens (id, secret_hash, role, name, created_at, created_by, expires_at)
VALUES (%(id)s, %(secret_hash)s, %(role)s, %(name)s::text, %(now)s, %(actor)s, %(expires_at)s::timestamptz)

-- tokens --
SELECT id, role, name, created_at, created_by, expires_at, revoked_at, last_used_at
FROM relevo.api_tokens ORDER BY created_at DESC, id

-- lock_token --
SELECT id, role, name, created_at, created_by, expires_at, revoked_at, last_used_at
FROM relevo.api_tokens WHERE id = %(id)s FOR UPDATE

-- revoke_token --
UPDATE relevo.api_tokens SET revoked_at = %(now)s WHERE id = %(id)s

-- keys --
-- Every token that may open something now or, by its expiry alone, later no more.
SELECT id, secret_hash, role, name, expires_at FROM relevo.api_tokens WHERE revoked_at IS NULL

-- note_use --
-- Any number of processes tell; the row is written once a minute at most.
UPDATE relevo.api_tokens AS t SET last_used_at = %(now)s
FROM (SELECT id FROM relevo.api_tokens
      WHERE id = ANY (%(ids)s) AND (last_used_at IS NULL OR last_used_at < %(now)s::timestamptz - interval '1 minute')
      FOR UPDATE SKIP LOCKED) AS used
WHERE t.id = used.id

-- audit --
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, %(action)s, %(subject)s, %(reason)s::text, %(details)s)
