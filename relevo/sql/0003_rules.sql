-- What the transform knows, as data: verticals, their types and capabilities, the keywords that decide,
-- the phrases in which a keyword means something else, the headings of a prompt's sections.
-- A published rule set never changes; a team that needs more drafts a new one:
--   SELECT relevo.draft_rules('why');  -- then edit the rows of that version
--   SELECT relevo.publish_rules(2);

CREATE TABLE relevo.rule_sets (
    version      integer PRIMARY KEY CHECK (version > 0),
    note         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz  -- null: a draft, which nothing uses and anybody may still edit
);

-- The vertical '*' holds what is common to all, and serves verticals without rules of their own.
CREATE TABLE relevo.rule_verticals (
    version                 integer NOT NULL REFERENCES relevo.rule_sets,
    vertical                text NOT NULL,
    empty_prompt_capability text NOT NULL,
    PRIMARY KEY (version, vertical)
);

-- Words and phrases are folded: lower case, no accents.
CREATE DOMAIN relevo.folded AS text CHECK (VALUE ~ '^[a-z ]*[a-z][a-z ]*$');
CREATE DOMAIN relevo.identifier AS text CHECK (VALUE ~ '^[a-z][a-z0-9_]*$');

CREATE TABLE relevo.rule_keywords (
    version  integer NOT NULL,
    vertical text NOT NULL,
    keyword  relevo.folded NOT NULL,
    ordinal  integer NOT NULL,
    decoys   relevo.folded[] NOT NULL DEFAULT '{}',  -- what begins a word like this does not mean it
    PRIMARY KEY (version, vertical, keyword),
    FOREIGN KEY (version, vertical) REFERENCES relevo.rule_verticals
);

CREATE TABLE relevo.rule_capabilities (
    version    integer NOT NULL,
    vertical   text NOT NULL,
    capability relevo.identifier NOT NULL,
    ordinal    integer NOT NULL,
    any_of     relevo.folded[] NOT NULL CHECK (cardinality(any_of) > 0),
    PRIMARY KEY (version, vertical, capability),
    FOREIGN KEY (version, vertical) REFERENCES relevo.rule_verticals
);

-- The first type, by ordinal, whose keywords were met: one of any_of and, unless empty, one of and_any_of.
CREATE TABLE relevo.rule_types (
    version           integer NOT NULL,
    vertical          text NOT NULL,
    assistant_type_id relevo.identifier NOT NULL,
    ordinal           integer NOT NULL,
    any_of            relevo.folded[] NOT NULL DEFAULT '{}',  -- empty: the type of everybody else
    and_any_of        relevo.folded[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (version, vertical, assistant_type_id),
    FOREIGN KEY (version, vertical) REFERENCES relevo.rule_verticals
);

-- Headings of a prompt's sections, and the v2 field that carries what stands below them. Instructions
-- are cut out and kept; every other section is told again by the template, from the field's data.
CREATE TABLE relevo.rule_headings (
    version    integer NOT NULL REFERENCES relevo.rule_sets,
    heading    relevo.folded NOT NULL,
    ordinal    integer NOT NULL,
    carried_by text NOT NULL,
    PRIMARY KEY (version, heading)
);

-- What publishing makes of a rule set: one row holds all that one prompt needs, keywords as bits.
CREATE TABLE relevo.rulebooks (
    version                 integer NOT NULL REFERENCES relevo.rule_sets,
    vertical                text NOT NULL,
    empty_prompt_capability text NOT NULL,
    keywords                text[] NOT NULL,
    decoys                  text[] NOT NULL,    -- of one keyword after the other
    decoys_end              integer[] NOT NULL, -- per keyword: where its decoys end
    capabilities            text[] NOT NULL,
    capability_masks        bigint[] NOT NULL,  -- bit i-1 is keyword i, here and below
    types                   text[] NOT NULL,
    type_masks              bigint[] NOT NULL,
    type_and_masks          bigint[] NOT NULL,
    instruction_headings    text[] NOT NULL,    -- in order of preference
    PRIMARY KEY (version, vertical)
);
-- Read once for every prompt: never worth compressing.
ALTER TABLE relevo.rulebooks SET (toast_tuple_target = 8160);

CREATE FUNCTION relevo.refuse_published_rules() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    touched integer := CASE WHEN TG_OP = 'INSERT' THEN NEW.version ELSE OLD.version END;
BEGIN
    IF EXISTS (SELECT FROM relevo.rule_sets s WHERE s.version = touched AND s.published_at IS NOT NULL) THEN
        RAISE EXCEPTION 'rule set % is published and does not change', touched
            USING ERRCODE = 'integrity_constraint_violation',
                  HINT = 'Draft a new one: SELECT relevo.draft_rules(''why'')';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

DO $$
DECLARE
    rules text;
BEGIN
    FOREACH rules IN ARRAY ARRAY['rule_sets', 'rule_verticals', 'rule_keywords', 'rule_capabilities',
                                 'rule_types', 'rule_headings', 'rulebooks'] LOOP
        EXECUTE format('CREATE TRIGGER published_rules_do_not_change BEFORE %s ON relevo.%I
                        FOR EACH ROW EXECUTE FUNCTION relevo.refuse_published_rules()',
                       CASE rules WHEN 'rule_sets' THEN 'UPDATE OR DELETE' ELSE 'INSERT OR UPDATE OR DELETE' END,
                       rules);
    END LOOP;
END $$;

CREATE FUNCTION relevo.current_rules() RETURNS integer
LANGUAGE sql STABLE
RETURN (SELECT max(version) FROM relevo.rule_sets WHERE published_at IS NOT NULL);

-- The bits of some keywords; an unknown word is an error, for it could never be met.
CREATE FUNCTION relevo.keyword_mask(words text[], keywords text[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = '' AS $$
DECLARE
    mask bigint := 0;
    word text;
BEGIN
    FOREACH word IN ARRAY words LOOP
        IF array_position(keywords, word) IS NULL THEN
            RAISE EXCEPTION 'the rules name the keyword "%", which is not among %', word, keywords
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        mask := mask | (1::bigint << (array_position(keywords, word) - 1));
    END LOOP;
    RETURN mask;
END $$;

CREATE FUNCTION relevo.compile_rules(of_version integer) RETURNS void
LANGUAGE sql SET search_path = '' AS $$
WITH words AS (
    SELECT v.vertical, v.empty_prompt_capability,
           array_agg(k.keyword::text ORDER BY k.vertical = '*', k.ordinal) AS keywords
    FROM relevo.rule_verticals v
    JOIN relevo.rule_keywords k ON k.version = v.version AND k.vertical IN (v.vertical, '*')
    WHERE v.version = of_version
    GROUP BY v.vertical, v.empty_prompt_capability
)
INSERT INTO relevo.rulebooks
SELECT of_version, w.vertical, w.empty_prompt_capability, w.keywords,
       coalesce(d.decoys, '{}'), e.ends, coalesce(c.capabilities, '{}'), coalesce(c.masks, '{}'),
       coalesce(t.types, '{}'), coalesce(t.masks, '{}'), coalesce(t.and_masks, '{}'), coalesce(h.headings, '{}')
FROM words w
CROSS JOIN LATERAL (
    SELECT array_agg(decoy ORDER BY array_position(w.keywords, k.keyword::text), char_length(decoy) DESC) AS decoys
    FROM relevo.rule_keywords k, unnest(k.decoys) AS decoy
    WHERE k.version = of_version AND k.vertical IN (w.vertical, '*')) AS d
CROSS JOIN LATERAL (
    SELECT array_agg(up_to ORDER BY place) AS ends
    FROM (SELECT u.place, sum(cardinality(k.decoys)) OVER (ORDER BY u.place)::integer AS up_to
          FROM unnest(w.keywords) WITH ORDINALITY AS u (word, place)
          JOIN relevo.rule_keywords k ON k.version = of_version AND k.vertical IN (w.vertical, '*')
                                     AND k.keyword = u.word) AS running) AS e
CROSS JOIN LATERAL (
    SELECT array_agg(capability ORDER BY vertical = '*', ordinal) AS capabilities,
           array_agg(relevo.keyword_mask(any_of, w.keywords) ORDER BY vertical = '*', ordinal) AS masks
    FROM relevo.rule_capabilities WHERE version = of_version AND vertical IN (w.vertical, '*')) AS c
CROSS JOIN LATERAL (
    SELECT array_agg(assistant_type_id ORDER BY ordinal) AS types,
           array_agg(relevo.keyword_mask(any_of, w.keywords) ORDER BY ordinal) AS masks,
           array_agg(relevo.keyword_mask(and_any_of, w.keywords) ORDER BY ordinal) AS and_masks
    FROM relevo.rule_types WHERE version = of_version AND vertical = w.vertical) AS t
CROSS JOIN LATERAL (
    SELECT array_agg(heading::text ORDER BY ordinal) AS headings
    FROM relevo.rule_headings WHERE version = of_version AND carried_by = 'special_instructions') AS h
$$;

-- Freezes a draft and makes it the one that new rows are inferred with.
CREATE FUNCTION relevo.publish_rules(of_version integer) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM relevo.rule_sets WHERE version = of_version AND published_at IS NULL) THEN
        RAISE EXCEPTION 'there is no draft rule set %', of_version;
    END IF;
    PERFORM relevo.compile_rules(of_version);
    INSERT INTO public.voice_assistant_types (id, vertical, name)
    SELECT assistant_type_id, vertical, initcap(replace(assistant_type_id, '_', ' '))
    FROM relevo.rule_types WHERE version = of_version
    ON CONFLICT (id) DO NOTHING;
    UPDATE relevo.rule_sets SET published_at = now() WHERE version = of_version;
END $$;

-- A copy of the published rules to edit; returns its version.
CREATE FUNCTION relevo.draft_rules(why text) RETURNS integer
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    latest integer := relevo.current_rules();
    draft  integer := (SELECT coalesce(max(version), 0) + 1 FROM relevo.rule_sets);
BEGIN
    INSERT INTO relevo.rule_sets (version, note) VALUES (draft, why);
    INSERT INTO relevo.rule_verticals
    SELECT draft, vertical, empty_prompt_capability FROM relevo.rule_verticals WHERE version = latest;
    INSERT INTO relevo.rule_keywords
    SELECT draft, vertical, keyword, ordinal, decoys FROM relevo.rule_keywords WHERE version = latest;
    INSERT INTO relevo.rule_capabilities
    SELECT draft, vertical, capability, ordinal, any_of FROM relevo.rule_capabilities WHERE version = latest;
    INSERT INTO relevo.rule_types
    SELECT draft, vertical, assistant_type_id, ordinal, any_of, and_any_of
    FROM relevo.rule_types WHERE version = latest;
    INSERT INTO relevo.rule_headings
    SELECT draft, heading, ordinal, carried_by FROM relevo.rule_headings WHERE version = latest;
    RETURN draft;
END $$;
