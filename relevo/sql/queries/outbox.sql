-- Statements of the messages that wait to go out.

-- put --
-- The same key again is the same message.
INSERT INTO relevo.outbox (channel, kind, dedup_key, data, created_at, due_at)
VALUES (%(channel)s, %(kind)s, %(dedup_key)s, %(data)s::jsonb, %(now)s, %(now)s)
ON CONFLICT (dedup_key) DO NOTHING

-- take --
-- One message whose time has come, held until the end of the transaction; others take others.
SELECT * FROM relevo.outbox WHERE state = 'waiting' AND due_at <= %(now)s AND channel = ANY (%(channels)s::text[])
ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED

-- ended --
UPDATE relevo.outbox SET state = %(state)s, tries = tries + 1, ended_at = %(now)s, fault = %(fault)s WHERE id = %(id)s

-- again --
UPDATE relevo.outbox SET tries = tries + 1, due_at = %(due_at)s, fault = %(fault)s WHERE id = %(id)s

-- unsent --
-- Given up, or waiting for longer than sending takes.
SELECT id, channel, kind, state, created_at, tries, fault FROM relevo.outbox
WHERE state = 'dead' OR (state = 'waiting' AND created_at < %(before)s) ORDER BY id DESC LIMIT %(most)s
