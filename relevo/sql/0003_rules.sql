-- What the transform knows, as data: verticals, their types and capabilities, the keywords that decide,
-- the phrases in which a keyword means something else, the headings of a prompt's sections.
-- A published rule set never changes; a team that needs more drafts a new one:
--   SELECT relevo.draft_rules('why');  -- then edit the rows of that version
--   SELECT relevo.publish_rules(2);
-- Publishing turns the rules into functions; see 0004_infer.sql.

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
                                 'rule_types', 'rule_headings'] LOOP
        EXECUTE format('CREATE TRIGGER published_rules_do_not_change BEFORE %s ON relevo.%I
                        FOR EACH ROW EXECUTE FUNCTION relevo.refuse_published_rules()',
                       CASE rules WHEN 'rule_sets' THEN 'UPDATE OR DELETE' ELSE 'INSERT OR UPDATE OR DELETE' END,
                       rules);
    END LOOP;
END $$;

CREATE FUNCTION relevo.current_rules() RETURNS integer
LANGUAGE sql STABLE
RETURN (SELECT max(version) FROM relevo.rule_sets WHERE published_at IS NOT NULL);

-- The numbers, in ascending order, of some keywords; an unknown word is an error, for it could never be met.
CREATE FUNCTION relevo.keyword_numbers(words text[], keywords text[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE SET search_path = '' AS $$
DECLARE
    word text;
BEGIN
    FOREACH word IN ARRAY words LOOP
        IF array_position(keywords, word) IS NULL THEN
            RAISE EXCEPTION 'the rules name the keyword "%", which is not among %', word, keywords
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT DISTINCT array_position(keywords, named) FROM unnest(words) AS named ORDER BY 1);
END $$;

-- Code about a group of keywords: whether one is there, whether one is meant, and the reason of the one that decides:
-- the first that is meant, else the first that is there. Of keyword N, the code knows why_N, its reason (null: it is
-- not there), and meant_N. All null for a group of none.
CREATE FUNCTION relevo.code_of_group(numbers integer[], OUT present text, OUT meant text, OUT reason text)
LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
SELECT 'coalesce(' || string_agg('why_' || n, ', ') || ') IS NOT NULL',
       '(' || string_agg('meant_' || n, ' OR ') || ')',
       'CASE ' || string_agg(format('WHEN meant_%1$s THEN why_%1$s', n), ' ')
               || ' ELSE coalesce(' || string_agg('why_' || n, ', ') || ') END'
FROM unnest(numbers) AS n
$$;

-- Code that the first place of a keyword is not in a decoy. It can only be where the decoy first has the keyword, so
-- one comparison tells. But where spaces are odd, blanking out one decoy could make another: then none may be there.
CREATE FUNCTION relevo.code_of_decoys(keyword text, decoys text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
SELECT coalesce(string_agg(CASE WHEN odd THEN format(' AND strpos(folded, %L) = 0', decoy)
                                ELSE format(' AND substr(bytes, place - %s, %s) <> %L',
                                            strpos(decoy, keyword) - 1, length(decoy), decoy) END, ''), '')
FROM (SELECT decoy, bool_or(strpos(keyword, ' ') > 0 OR strpos(decoy, keyword) = 0
                            OR decoy ~ '^ |  | $|^.$') OVER () AS odd
      FROM unnest(decoys) AS decoy) AS each
$$;

-- Code that looks for one keyword, where that is ``wanted``: unless earlier ones have decided all that it could decide.
CREATE FUNCTION relevo.code_of_search(number integer, keyword text, decoys text[], wanted text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
SELECT format($code$
    place := CASE WHEN %5$s THEN position(%2$L::bytea IN bytes) ELSE 0 END;
    IF place > 0 THEN
        before := CASE WHEN place > 1 THEN get_byte(bytes, place - 2) ELSE 32 END;
        meant_%1$s := before NOT BETWEEN 97 AND 122 AND before NOT BETWEEN 48 AND 57%3$s;
        IF NOT meant_%1$s THEN
            place := relevo.meant_place(folded, %2$L, %4$L);
            meant_%1$s := place > 0;
            place := CASE WHEN meant_%1$s THEN place ELSE strpos(folded, %2$L) END;
        ELSIF NOT ascii THEN
            place := strpos(folded, %2$L);
        END IF;
        IF shifted THEN
            marks := coalesce(marks, relevo.marks(said));
            place := place + width_bucket(place - 1, marks);
        END IF;
        why_%1$s := '{"keyword": "%2$s", "place": ' || place
            || CASE WHEN meant_%1$s THEN ', "confidence": "high"}' ELSE ', "confidence": "low"}' END;
    END IF;
$code$, number, keyword, relevo.code_of_decoys(keyword, decoys), decoys, wanted)
$$;

-- The parts of a vertical's code that depend on its rules.
CREATE FUNCTION relevo.code_of_rules(of_version integer, of_vertical text, OUT variables text, OUT searches text,
                                     OUT able text, OUT abilities text, OUT doubts text, OUT types text)
LANGUAGE sql STABLE SET search_path = '' AS $$
WITH words AS (
    SELECT k.keyword::text AS keyword, row_number() OVER (ORDER BY k.vertical = '*', k.ordinal)::integer AS number,
           ARRAY(SELECT d::text FROM unnest(k.decoys) AS d WHERE d IS NOT NULL
                 ORDER BY char_length(d) DESC, d COLLATE "C") AS decoys
    FROM relevo.rule_keywords k WHERE k.version = of_version AND k.vertical IN (of_vertical, '*')
), known AS (
    SELECT coalesce(array_agg(keyword ORDER BY number), '{}') AS keywords FROM words
), of_abilities AS (
    SELECT c.capability::text AS capability, n.numbers, g.*,
           row_number() OVER (ORDER BY c.vertical = '*', c.ordinal) AS place
    FROM known, relevo.rule_capabilities c, relevo.keyword_numbers(c.any_of::text[], keywords) AS n (numbers),
         relevo.code_of_group(n.numbers) AS g
    WHERE c.version = of_version AND c.vertical IN (of_vertical, '*')
), of_types AS (
    SELECT t.assistant_type_id::text AS type, n.numbers, m.numbers AS more,
           concat_ws(' AND ', 'true', g.present, a.present) AS fits,
           concat_ws(' AND ', 'true', g.meant, a.meant) AS meant,
           concat_ws(', ', 'NULL', g.reason, a.reason) AS reasons, t.ordinal
    FROM known, relevo.rule_types t, relevo.keyword_numbers(t.any_of::text[], keywords) AS n (numbers),
         relevo.keyword_numbers(t.and_any_of::text[], keywords) AS m (numbers),
         relevo.code_of_group(n.numbers) AS g, relevo.code_of_group(m.numbers) AS a
    WHERE t.version = of_version AND t.vertical = of_vertical
), groups AS (
    SELECT numbers FROM of_abilities UNION SELECT numbers FROM of_types UNION SELECT more FROM of_types
), wanted AS (
    -- A keyword is wanted while some group holds it of which no earlier keyword is meant.
    SELECT number, string_agg(coalesce('NOT ' || g.meant, 'true'), ' OR ' ORDER BY numbers) AS wanted
    FROM groups, unnest(numbers) AS number,
         relevo.code_of_group(ARRAY(SELECT n FROM unnest(numbers) AS n WHERE n < number)) AS g
    GROUP BY number
)
SELECT (SELECT string_agg(format(E'    why_%1$s text;\n    meant_%1$s boolean := false;', number), E'\n'
                          ORDER BY number) FROM words),
       (SELECT string_agg(relevo.code_of_search(number, keyword, decoys, wanted), '' ORDER BY number)
        FROM words JOIN wanted USING (number)),
       (SELECT string_agg(format('CASE WHEN %s THEN %L END', present, capability), E',\n        ' ORDER BY place)
        FROM of_abilities),
       (SELECT string_agg(format($code$coalesce(', "%s": ' || %s, '')$code$, capability, reason), E'\n        || '
                          ORDER BY place) FROM of_abilities),
       (SELECT string_agg(format('%s AND NOT %s', present, meant), E'\n        OR ' ORDER BY place) FROM of_abilities),
       (SELECT E'CASE\n' || string_agg(format($code$    WHEN %s THEN
        type := %L;
        typed := concat_ws(', ', %s);
        low_confidence := low_confidence OR NOT (%s);
$code$, fits, type, reasons, meant), '' ORDER BY ordinal) || E'    ELSE\n    END CASE;' FROM of_types)
$$;

-- The name of the function of each vertical's rules.
CREATE VIEW relevo.rule_functions WITH (security_invoker = true) AS
SELECT v.version, v.vertical, v.empty_prompt_capability, s.published_at IS NOT NULL AS published,
       format('infer_%s_%s', v.version,
              row_number() OVER (PARTITION BY v.version ORDER BY v.vertical COLLATE "C")) AS name
FROM relevo.rule_verticals v JOIN relevo.rule_sets s USING (version);

-- Writes the function of one vertical's rules.
CREATE FUNCTION relevo.write_rules(of_version integer, of_vertical text) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    named    relevo.rule_functions := f FROM relevo.rule_functions f
                                      WHERE f.version = of_version AND f.vertical = of_vertical;
    rules    record := relevo.code_of_rules(of_version, of_vertical);
    headings text[] := ARRAY(SELECT h.heading::text FROM relevo.rule_headings h
                             WHERE h.version = of_version AND h.carried_by = 'special_instructions' ORDER BY h.ordinal);
    headed   text := coalesce((SELECT string_agg(format('position(%L::bytea IN bytes) > 0', h), ' OR ')
                               FROM unnest(headings) AS h), 'false');
BEGIN
    EXECUTE format('CREATE FUNCTION relevo.%I(prompt text, vertical text) RETURNS relevo.inference
                    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '''' AS %L', named.name, format($code$
DECLARE
    said    text COLLATE "C" := coalesce(prompt, '');  -- whatever the collation of the column it comes from
    folded  text COLLATE "C" := relevo.without_spanish_accents(lower(said));
    ascii   boolean := octet_length(folded) = char_length(folded);
    shifted boolean := false;  -- folding left marks out, so that places differ
    bytes   bytea;             -- folded
    place   integer;
    before  integer;           -- the byte before a keyword
    marks   integer[];         -- those left out
    cut     record;
    type    text := vertical || '_basic';
    able    text[];
    low_confidence boolean;
    truncated      boolean := false;
    instructions   text;
    typed     text := '';
    abilities text;
    section   text := 'null';
%1$s
BEGIN
    IF NOT ascii AND folded ~ relevo.accented() THEN
        folded := relevo.fold_rest(folded);
        ascii := octet_length(folded) = char_length(folded);
        shifted := char_length(folded) <> char_length(said);
    END IF;
    bytes := convert_to(folded, 'UTF8');
%2$s
    able := array_remove(ARRAY[
        %3$s]::text[], NULL);
    IF able = '{}' THEN
        able := ARRAY[CASE said WHEN '' THEN %7$L ELSE 'basic' END];
    END IF;
    abilities := %4$s;
    low_confidence := %5$s;
    %6$s
    IF %8$s THEN
        cut := relevo.find_instructions(said, folded, shifted, %9$L);
        truncated := coalesce(octet_length(cut.instructions) > 1000 AND char_length(cut.instructions) > 1000, false);
        instructions := CASE WHEN truncated THEN left(cut.instructions, 1000) ELSE cut.instructions END;
        section := coalesce('{"heading": "' || cut.heading || '", "place": ' || cut.place
            || ', "until": ' || cut.until || ', "confidence": "high"}', 'null');
    END IF;
    -- Put together as text, for that is three times as fast; rules' names hold nothing that JSON would escape.
    RETURN ROW(type, able, instructions, truncated, low_confidence,
               ('{"rule_version": %10$s, "assistant_type_id": [' || typed || '], "enabled_capabilities": {'
                || substr(abilities, 3) || '}, "special_instructions": ' || section || '}')::jsonb)::relevo.inference;
END $code$, coalesce(rules.variables, ''), coalesce(rules.searches, ''), coalesce(rules.able, ''),
        coalesce(rules.abilities, ''''''), coalesce(rules.doubts, 'false'), coalesce(rules.types, ''),
        named.empty_prompt_capability, headed, headings, of_version));
    EXECUTE format('COMMENT ON FUNCTION relevo.%I IS %L', named.name,
                   format('relevo.infer by rule set %s, for the vertical %s', of_version, of_vertical));
END $$;

-- Writes relevo.infer: what v2 makes of a v1 prompt of a business of this vertical, by the rules of this version. It
-- sets no search path, so that queries take it in and call the chosen function directly.
CREATE FUNCTION relevo.write_infer() RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION relevo.infer(prompt text, vertical text, rule_version integer)
                    RETURNS relevo.inference LANGUAGE sql STABLE PARALLEL SAFE
                    RETURN CASE %s ELSE relevo.no_such_rules(rule_version) END',
        (SELECT string_agg(format('WHEN rule_version = %s%s THEN relevo.%I(prompt, vertical)', f.version,
                                  CASE f.vertical WHEN '*' THEN ''
                                       ELSE format(' AND vertical COLLATE "C" = %L', f.vertical) END, f.name),
                           E'\n    ' ORDER BY f.version DESC, f.vertical = '*', f.vertical)
         FROM relevo.rule_functions f WHERE f.published));
END $$;

-- Freezes a draft and makes it the one that new rows are inferred with.
CREATE FUNCTION relevo.publish_rules(of_version integer) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    -- One at a time, for all write relevo.infer.
    LOCK TABLE relevo.rule_sets IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM relevo.rule_sets WHERE version = of_version AND published_at IS NULL) THEN
        RAISE EXCEPTION 'there is no draft rule set %', of_version;
    END IF;
    INSERT INTO public.voice_assistant_types (id, vertical, name)
    SELECT assistant_type_id, vertical, initcap(replace(assistant_type_id, '_', ' '))
    FROM relevo.rule_types WHERE version = of_version
    ON CONFLICT (id) DO NOTHING;
    UPDATE relevo.rule_sets SET published_at = now() WHERE version = of_version;
    PERFORM relevo.write_rules(of_version, vertical) FROM relevo.rule_verticals WHERE version = of_version;
    PERFORM relevo.write_infer();
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
