-- Where each tenant stands, derived from what is in the database. {configurations} and {tenants} are v1 through the
-- source mapping.

-- tenants --
-- Per tenant, what its state follows from. ``config_ids``: theirs in v1, where they are known: v1 need have no index of
-- tenants. Every configuration of v1 or v2 belongs to one; those of nobody are not here.
WITH config AS (
    SELECT coalesce(c.id, v2.id) AS id, coalesce(c.business_id, v2.business_id) AS tenant_id,
           coalesce(v2.is_active, c.is_active) AS is_active, c.id IS NOT NULL AS in_v1, v2.id IS NOT NULL AS in_v2
    FROM (SELECT id, business_id, is_active FROM {configurations} AS every
          WHERE (%(tenant_ids)s::uuid[] IS NULL OR every.business_id = ANY (%(tenant_ids)s::uuid[]))
            AND (%(config_ids)s::uuid[] IS NULL OR every.id = ANY (%(config_ids)s::uuid[]))) AS c
    FULL JOIN (SELECT id, business_id, is_active FROM public.voice_assistant_configs AS every
               WHERE %(tenant_ids)s::uuid[] IS NULL OR every.business_id = ANY (%(tenant_ids)s::uuid[])) AS v2 ON v2.id = c.id
), fact AS (
    SELECT config.tenant_id, count(*) AS configs,
           count(*) FILTER (WHERE is_active) AS active,
           count(*) FILTER (WHERE q.config_id IS NOT NULL) AS quarantined,
           min(q.reason) AS quarantined_because,
           count(*) FILTER (WHERE NOT in_v2 AND q.config_id IS NULL) AS absent,
           count(*) FILTER (WHERE NOT in_v1) AS without_v1,
           count(*) FILTER (WHERE in_v2 AND v.config_id IS NULL) AS unverified,
           count(*) FILTER (WHERE v.state NOT IN ('matched', 'edited_on_v2')) AS drifted,
           count(*) FILTER (WHERE w.config_id IS NOT NULL) AS waiting,
           count(*) FILTER (WHERE e.config_id IS NOT NULL) AS edited,
           count(*) FILTER (WHERE x.config_id IS NOT NULL) AS clashing,
           count(*) FILTER (WHERE cardinality(o.review) > 0) AS to_review
    FROM config
    LEFT JOIN relevo.quarantine q ON q.config_id = config.id::text
    LEFT JOIN relevo.verifications v ON v.config_id = config.id
    LEFT JOIN relevo.config_origins o ON o.config_id = config.id
    LEFT JOIN (SELECT DISTINCT config_id FROM relevo.mirror_queue) AS w ON w.config_id = config.id
    LEFT JOIN (SELECT DISTINCT config_id FROM relevo.v2_edits) AS e ON e.config_id = config.id
    LEFT JOIN (SELECT DISTINCT config_id FROM relevo.mirror_conflicts WHERE resolved_at IS NULL) AS x
      ON x.config_id = config.id
    WHERE config.tenant_id IS NOT NULL
    GROUP BY config.tenant_id
)
SELECT coalesce(t.id, fact.tenant_id) AS tenant_id, t.name, t.vertical, t.id IS NOT NULL AS known,
       coalesce(configs, 0) AS configs, coalesce(active, 0) AS active, coalesce(quarantined, 0) AS quarantined,
       quarantined_because, coalesce(absent, 0) AS absent, coalesce(without_v1, 0) AS without_v1,
       coalesce(unverified, 0) AS unverified, coalesce(drifted, 0) AS drifted, coalesce(waiting, 0) AS waiting,
       coalesce(edited, 0) AS edited, coalesce(clashing, 0) AS clashing, coalesce(to_review, 0) AS to_review
FROM (SELECT id, name, vertical FROM {tenants} AS every
      WHERE %(tenant_ids)s::uuid[] IS NULL OR every.id = ANY (%(tenant_ids)s::uuid[])) AS t
FULL JOIN fact ON fact.tenant_id = t.id
ORDER BY coalesce(t.id, fact.tenant_id)

-- configs --
-- All there is to know of one tenant's configurations.
SELECT coalesce(c.id, v2.id) AS config_id, coalesce(v2.is_active, c.is_active) AS is_active,
       c.id IS NOT NULL AS in_v1, v2.id IS NOT NULL AS in_v2,
       coalesce(v2.phone_number_id, c.phone_number_id) AS phone_number_id,
       coalesce(v2.vapi_assistant_id, c.vapi_assistant_id) AS vapi_assistant_id,
       v2.assistant_type_id, v2.migrated_from_v1, v2.migrated_at,
       v.state AS verification, v.fields AS differs_in, v.verified_at,
       q.reason AS quarantine_reason, q.detail AS quarantine_detail, o.review,
       coalesce((SELECT jsonb_agg(jsonb_build_object('field', e.field, 'edited_by', e.edited_by,
                                                     'edited_at', e.edited_at) ORDER BY e.field)
                 FROM relevo.v2_edits e WHERE e.config_id = coalesce(c.id, v2.id)), '[]') AS edits,
       coalesce((SELECT jsonb_agg(jsonb_build_object('id', w.id, 'written_on', w.written_on, 'fields', w.fields,
                                                     'reason', w.reason, 'writer', w.writer, 'queued_at', w.queued_at)
                                  ORDER BY w.id)
                 FROM relevo.mirror_queue w WHERE w.config_id = coalesce(c.id, v2.id)), '[]') AS queue,
       coalesce((SELECT jsonb_agg(jsonb_build_object('id', x.id, 'field', x.field, 'v1_value', x.v1_value,
                                                     'v2_value', x.v2_value, 'kept', x.kept) ORDER BY x.id)
                 FROM relevo.mirror_conflicts x
                 WHERE x.config_id = coalesce(c.id, v2.id) AND x.resolved_at IS NULL), '[]') AS conflicts
FROM (SELECT * FROM {configurations} AS every WHERE every.business_id = %(tenant_id)s::uuid) AS c
FULL JOIN (SELECT * FROM public.voice_assistant_configs AS every
           WHERE every.business_id = %(tenant_id)s::uuid) AS v2 ON v2.id = c.id
LEFT JOIN relevo.verifications v ON v.config_id = coalesce(c.id, v2.id)
LEFT JOIN relevo.quarantine q ON q.config_id = coalesce(c.id, v2.id)::text
LEFT JOIN relevo.config_origins o ON o.config_id = v2.id
ORDER BY is_active DESC NULLS LAST, config_id
