-- Statements about tenants: who is meant, what v1 and v2 say to their callers, and the templates that v2 speaks by.
-- {configurations} and {tenants} are v1 through the source mapping.

-- tenants_like --
-- Who may be meant by a word: an id, the beginning of one, or a name whatever its case and accents. ``rank`` 1 is an id.
WITH known AS (
    SELECT t.id::text AS id, t.name FROM {tenants} AS t
    UNION
    SELECT c.business_id::text, NULL FROM {configurations} AS c
    WHERE c.business_id IS NOT NULL AND NOT EXISTS (SELECT FROM {tenants} AS t WHERE t.id = c.business_id)
    UNION
    SELECT v.business_id::text, NULL FROM public.voice_assistant_configs v
    WHERE NOT EXISTS (SELECT FROM {tenants} AS t WHERE t.id = v.business_id)
), ranked AS (
    SELECT id, name, CASE WHEN id = lower(%(word)s::text) THEN 1
                          WHEN relevo.fold(name) = relevo.fold(%(word)s) THEN 2
                          WHEN starts_with(id, lower(%(word)s)) THEN 3 END AS rank
    FROM known
)
SELECT id::uuid AS id, name, rank FROM ranked
WHERE rank = (SELECT min(rank) FROM ranked) ORDER BY id LIMIT 11

-- tenant_by_id --
-- The same where the word is a whole id: nearly always, and found by key.
SELECT t.id, t.name FROM {tenants} AS t WHERE t.id = %(id)s

-- tenant_names --
SELECT t.id::text AS id, t.name FROM {tenants} AS t LIMIT 100000

-- answers --
-- What v1 and v2 say to the callers of one tenant, per configuration, as of ``now``; active ones first.
-- ``config_ids``: theirs in v1, where they are known: v1 need have no index of tenants.
WITH tenant AS (
    SELECT t.id, t.name, t.vertical, z.time_zone
    FROM {tenants} AS t
    LEFT JOIN (SELECT {tenant_id} AS id, {time_zone} AS time_zone FROM {tenants_table} AS v1) AS z ON z.id = t.id
    WHERE t.id = %(tenant_id)s
), v1 AS (
    SELECT * FROM {configurations} AS c
    WHERE c.business_id = %(tenant_id)s AND (%(config_ids)s::uuid[] IS NULL OR c.id = ANY (%(config_ids)s::uuid[]))
), v2 AS (
    SELECT * FROM public.voice_assistant_configs v WHERE v.business_id = %(tenant_id)s
)
SELECT coalesce(v1.id, v2.id) AS config_id, coalesce(v2.is_active, v1.is_active) AS is_active,
       v1.id IS NOT NULL AS in_v1, v2.id IS NOT NULL AS in_v2,
       tenant.name AS business_name, tenant.vertical,
       v1.assistant_name AS v1_assistant_name, v1.first_message AS v1_first_message, v1.voice_id AS v1_voice_id,
       v1.system_prompt AS v1_system_prompt,
       v2.assistant_type_id, v2.enabled_capabilities, v2.personality_type,
       said.assistant_name, said.first_message, said.voice_id, said.voice_speed, said.system_prompt,
       said.template_version, said.unknown,
       relevo.told_at_call(%(now)s, tenant.time_zone) AS added_at_call,
       q.detail AS set_aside_because,
       CASE WHEN known.vertical THEN relevo.uncovered(v1.system_prompt, rules.version, inferred) ELSE '[]' END
           AS not_carried,
       retold.sections AS retold
FROM v1 FULL JOIN v2 ON v2.id = v1.id
LEFT JOIN tenant ON true
LEFT JOIN relevo.quarantine q ON q.config_id = v1.id::text
LEFT JOIN relevo.config_origins o ON o.config_id = v2.id
CROSS JOIN LATERAL (SELECT coalesce(o.rule_version, relevo.current_rules())) AS rules (version)
CROSS JOIN LATERAL (SELECT btrim(tenant.vertical, relevo.white_space()) <> '') AS known (vertical)
LEFT JOIN LATERAL relevo.rendered(v2, tenant.name, tenant.vertical) AS said ON v2.id IS NOT NULL
LEFT JOIN LATERAL relevo.infer(v1.system_prompt, tenant.vertical, rules.version) AS inferred
       ON known.vertical
CROSS JOIN LATERAL (
    -- Sections that v2 tells again in words of its own: what is particular in them is gone, unless a tool knows it.
    SELECT coalesce(jsonb_agg(jsonb_build_object('carried_by', carried_by, 'place', place, 'text', passage)
                              ORDER BY place), '[]') AS sections
    FROM (
        SELECT max(heading) AS carried_by, min(place) AS place,
               rtrim(string_agg(line, E'\n' ORDER BY number), relevo.white_space()) AS passage
        FROM (
            SELECT *, count(*) FILTER (WHERE heading <> '') OVER (ORDER BY number) AS section
            FROM (
                SELECT line, number, relevo.heading_of(line, rules.version) AS heading,
                       1 + coalesce(sum(char_length(line) + 1)
                           OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS place
                FROM string_to_table(v1.system_prompt, E'\n') WITH ORDINALITY AS each (line, number)
            ) AS lines
        ) AS sectioned
        GROUP BY section
        HAVING max(heading) NOT IN ('', '?', 'special_instructions')
    ) AS sections
) AS retold
ORDER BY coalesce(v2.is_active, v1.is_active) DESC NULLS LAST, config_id

-- template_versions --
SELECT s.version, s.note, s.published_at, count(t.key) AS pieces,
       (SELECT count(*) FROM public.voice_assistant_configs v WHERE v.template_version = s.version) AS configurations
FROM relevo.template_sets s LEFT JOIN relevo.templates t USING (version)
WHERE s.published_at IS NOT NULL GROUP BY s.version ORDER BY s.ordinal

-- template_pieces --
SELECT t.part, t.key, t.body FROM relevo.templates t JOIN relevo.template_parts p USING (part)
WHERE t.version = %(version)s ORDER BY p.ordinal, t.key COLLATE "C"

-- template_parts --
SELECT part FROM relevo.template_parts ORDER BY ordinal

-- draft_templates --
INSERT INTO relevo.template_sets (version, note) VALUES (%(version)s, %(note)s)
ON CONFLICT (version) DO NOTHING RETURNING version

-- add_template --
INSERT INTO relevo.templates (version, part, key, body) VALUES (%(version)s, %(part)s, %(key)s, %(body)s)

-- template_faults --
SELECT part, key, fault FROM relevo.template_faults(%(version)s)

-- publish_templates --
SELECT relevo.publish_templates(%(version)s)

-- audit --
INSERT INTO relevo.audit_log (actor, action, subject, reason, details)
VALUES (%(actor)s, %(action)s, %(subject)s, %(reason)s, %(details)s)
