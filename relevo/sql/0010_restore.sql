-- Going back: every attempt to restore a backup is told before it begins, so that whoever comes after a crash knows.

CREATE TABLE relevo.restores (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    backup_id     uuid NOT NULL,
    state         text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    actor         text NOT NULL,
    reason        text,
    tenant_ids    uuid[],       -- null: all of the backup's
    discard_newer boolean NOT NULL,
    backup_before uuid,         -- the present as it was: restoring it undoes this restore
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'done') = (backup_before IS NOT NULL))
);
CREATE UNIQUE INDEX restores_one_open ON relevo.restores ((true)) WHERE state = 'running';
ALTER TABLE relevo.restores ENABLE ROW LEVEL SECURITY;

-- The order in which backups were taken; clocks of several machines would not tell it. A call that an earlier backup
-- holds was not recorded since a later one.
ALTER TABLE public.migration_backups ADD COLUMN IF NOT EXISTS number bigint GENERATED ALWAYS AS IDENTITY;
