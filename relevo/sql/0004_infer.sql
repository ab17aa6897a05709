-- The one transform from a v1 prompt to the fields of v2. The batch copy, the mirror, verification,
-- the dry run and `relevo explain` all call relevo.infer(prompt, vertical, rule_version).
--
-- It is most of the time that a move takes. So publishing a rule set writes a function for each of its verticals:
-- straight-line code which searches bytes, for there a place costs no counting of characters. What is rare is left
-- to the functions here. relevo.infer chooses among those of all published versions.
--
-- Independent of the session's time zone, collation and locale: text is folded by relevo.fold, and every
-- search runs under "C".

CREATE TYPE relevo.inference AS (
    assistant_type_id    text,
    enabled_capabilities text[],
    special_instructions text,
    truncated            boolean,  -- the instructions went on past 1,000 code points
    low_confidence       boolean,  -- some field was decided by a keyword that may not have been meant
    provenance           jsonb     -- per field: the keyword that decided, its place (code points, from 1), confidence
);

-- The seed's white space, which is JavaScript's: wider than PostgreSQL's \s.
CREATE FUNCTION relevo.white_space() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN E' \t\n\x0B\f\r\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF';

-- What may still have an accent, or be one, where only the accents of written Spanish were taken away.
CREATE FUNCTION relevo.accented() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '[\u00C0-\u024F\u0300-\u036F\u1E00-\u1EFF\u212A\u212B]';

-- Lower case text without the accents of written Spanish.
CREATE FUNCTION relevo.without_spanish_accents(lowered text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(replace(replace(replace(replace(replace(replace(
    lowered COLLATE "C", 'á', 'a'), 'é', 'e'), 'í', 'i'), 'ó', 'o'), 'ú', 'u'), 'ñ', 'n'), 'ü', 'u');

-- The rest of folding, for what has other accents or marks of their own. Capitals come first, for headings have them.
-- Each letter is normalised by itself: normalising all would also join and part what is written in other scripts.
CREATE FUNCTION relevo.fold_rest(folded text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    so_far text COLLATE "C" := replace(replace(replace(replace(replace(replace(replace(
        folded COLLATE "C", 'Á', 'a'), 'É', 'e'), 'Í', 'i'), 'Ó', 'o'), 'Ú', 'u'), 'Ñ', 'n'), 'Ü', 'u');
    letter text COLLATE "C";
BEGIN
    IF so_far !~ relevo.accented() THEN
        RETURN so_far;
    END IF;
    so_far := regexp_replace(so_far, '[\u0300-\u036F]+', '', 'g');
    IF so_far !~ relevo.accented() THEN
        RETURN so_far;
    END IF;
    FOR letter IN SELECT DISTINCT met[1] FROM regexp_matches(so_far, relevo.accented(), 'g') AS met LOOP
        so_far := replace(so_far, letter, left(normalize(letter, NFD), 1));
    END LOOP;
    RETURN lower(so_far);
END $$;

-- Lower case without accents. The accents of written Spanish are replaced one by one, for normalising a whole prompt
-- costs five times as much; whatever other letters there are take the long way. Only marks that stand as code points
-- of their own change the length: see relevo.marks.
CREATE FUNCTION relevo.fold(prompt text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    folded text COLLATE "C" := relevo.without_spanish_accents(lower(prompt COLLATE "C"));
BEGIN
    RETURN CASE WHEN octet_length(folded) = char_length(folded) OR folded !~ relevo.accented() THEN folded
                ELSE relevo.fold_rest(folded) END;
END $$;

-- Of each mark that folding leaves out, how many characters stay before it, in order. So what lies at place p of the
-- folded prompt lies at p + width_bucket(p - 1, marks) of the prompt as written.
CREATE FUNCTION relevo.marks(prompt text) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    found  integer[] := '{}';
    before integer := 0;
    part   text;
BEGIN
    FOREACH part IN ARRAY regexp_split_to_array(prompt COLLATE "C", '[\u0300-\u036F]') LOOP
        before := before + char_length(part);
        found := found || before;
    END LOOP;
    RETURN trim_array(found, 1);
END $$;

-- The special instructions of a prompt: below the first heading, in order of preference, that has anything
-- below it; up to the next "##" or the end.
CREATE FUNCTION relevo.find_instructions(prompt text, folded text, shifted boolean, headings text[],
                                         OUT instructions text, OUT heading text,
                                         OUT place integer, OUT until integer)  -- of heading and section
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    marks   integer[];
    below   integer;  -- where the text below the heading begins
    start   text COLLATE "C";  -- of that text: trimming costs as much as it is given
    trimmed text COLLATE "C";
    ending  integer;  -- its last byte
BEGIN
    FOREACH heading IN ARRAY headings LOOP
        place := strpos(folded COLLATE "C", heading);
        CONTINUE WHEN place = 0;
        below := place + char_length(heading);
        IF shifted THEN
            marks := coalesce(marks, relevo.marks(prompt));
            place := place + width_bucket(place - 1, marks);
            below := below + width_bucket(below - 1, marks);
        END IF;
        instructions := split_part(substr(prompt, below) COLLATE "C", '##', 1);
        until := below + char_length(instructions);
        start := left(instructions, 32);
        trimmed := ltrim(start, ':' || relevo.white_space());
        instructions := CASE trimmed WHEN '' THEN ltrim(instructions, ':' || relevo.white_space())
                        ELSE substr(instructions, 1 + char_length(start) - char_length(trimmed)) END;
        CONTINUE WHEN instructions = '';
        ending := get_byte(convert_to(instructions, 'UTF8'), octet_length(instructions) - 1);
        IF ending <= 32 OR ending >= 128 THEN
            instructions := rtrim(instructions, relevo.white_space());
        END IF;
        RETURN;
    END LOOP;
    instructions := NULL;
    heading := NULL;
    place := NULL;
    until := NULL;
END $$;

-- Where a keyword is meant: begins a word, outside the phrases that hold it and mean something else. 0: nowhere.
CREATE FUNCTION relevo.meant_place(folded text, keyword text, decoys text[]) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    literal text := folded;  -- with the decoys blanked out
    decoy   text;
    place   integer;
BEGIN
    FOREACH decoy IN ARRAY decoys LOOP
        CONTINUE WHEN strpos(literal COLLATE "C", decoy) = 0;
        literal := regexp_replace(literal COLLATE "C", '(^|[^0-9a-z])' || decoy,
                                  '\1' || repeat(' ', char_length(decoy)), 'g');
    END LOOP;
    IF starts_with(literal COLLATE "C", keyword) THEN
        RETURN 1;
    END IF;
    place := regexp_instr(literal COLLATE "C", '[^0-9a-z]' || keyword);
    RETURN place + (place > 0)::integer;
END $$;

-- relevo.infer, for a version that nobody published.
CREATE FUNCTION relevo.no_such_rules(rule_version integer) RETURNS relevo.inference
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION 'there is no published rule set %', rule_version;
END $$;

-- What v1 wrote where nobody wrote anything of their own. {business} stands for the business's name.
CREATE TABLE relevo.platform_defaults (
    field    text NOT NULL CHECK (field IN ('assistant_name', 'first_message')),
    template text NOT NULL,
    PRIMARY KEY (field, template)
);
INSERT INTO relevo.platform_defaults (field, template) VALUES
    ('assistant_name', 'Asistente de {business}'),
    ('first_message', '¡Gracias por llamar a {business}! ¿En qué puedo ayudarle?');

-- What a field reads like by default, with {business} in it; and whether what is written is something else.
CREATE FUNCTION relevo.defaults_of(of_field text) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT array_agg(template) FROM relevo.platform_defaults WHERE field = of_field);

CREATE FUNCTION relevo.is_customised(written text, business text, defaults text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN btrim(coalesce(written, ''), relevo.white_space()) <> ''
   AND coalesce(replace(written COLLATE "C", nullif(business, ''), '{business}') <> ALL (defaults), true);

-- Why a person should look at a configuration before it goes live: what was inferred without certainty or cut, unless
-- somebody has decided it since (``overridden``), and what v2 derives anew though somebody had written it.
CREATE FUNCTION relevo.review_reasons(inferred relevo.inference, overridden text[],
                                      has_own_name boolean, has_own_greeting boolean) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN array_remove(ARRAY[
    CASE WHEN (inferred).low_confidence AND overridden IS NULL THEN 'low_confidence' END,
    CASE WHEN (inferred).truncated AND NOT 'special_instructions' = ANY (coalesce(overridden, '{}')) THEN 'truncated' END,
    CASE WHEN has_own_name THEN 'customised_name' END,
    CASE WHEN has_own_greeting THEN 'customised_greeting' END
], NULL);

-- Whether a line is a heading, and of what: '' is no heading, '?' one that no rule knows.
-- A heading is a Markdown heading, a line of capitals, or a short line that ends with a colon.
CREATE FUNCTION relevo.heading_of(line text, rule_version integer) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT CASE
        WHEN char_length(said) > 80 OR said !~ '[A-Za-zÁÉÍÓÚÑÜáéíóúñü]' THEN ''
        WHEN said ~ '^#' OR said ~ ':$' OR said !~ '[a-záéíóúñü]' THEN
            coalesce((SELECT r.carried_by FROM relevo.rule_headings r
                      WHERE r.version = rule_version AND relevo.fold(said) ~ ('(^|[^0-9a-z])' || r.heading)
                      ORDER BY char_length(r.heading) DESC, r.ordinal LIMIT 1), '?')
        ELSE ''
    END
    FROM (VALUES (btrim(line, relevo.white_space()) COLLATE "C")) AS trimmed(said)
);

-- The passages of a part of a prompt that stand below no heading the rules know, as [{place, text}]. ``starts``
-- is where the part begins in the prompt. Instructions in such a part are a second section of them: only one is
-- carried, so they are listed, unless nothing stands below their heading.
CREATE FUNCTION relevo.unheaded(part text, starts integer, rule_version integer) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    WITH lines AS (
        SELECT line, number, relevo.heading_of(line, rule_version) AS heading,
               starts + coalesce(sum(char_length(line) + 1)
                   OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS place
        FROM string_to_table(part, E'\n') WITH ORDINALITY AS each(line, number)
    ), sections AS (
        SELECT *, count(*) FILTER (WHERE heading <> '') OVER (ORDER BY number) AS section FROM lines
    ), passages AS (
        SELECT min(place) AS place, string_agg(line, E'\n' ORDER BY number) AS passage
        FROM sections GROUP BY section
        HAVING max(heading) IN ('', '?')
            OR max(heading) = 'special_instructions'
           AND btrim(relevo.fold(string_agg(line, E'\n' ORDER BY number)), '#*_:' || relevo.white_space()) <> ALL (
                   SELECT r.heading FROM relevo.rule_headings r WHERE r.version = rule_version)
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'place', place + char_length(passage) - char_length(ltrim(passage, relevo.white_space())),
               'text', btrim(passage, relevo.white_space())) ORDER BY place), '[]')
    FROM passages WHERE btrim(passage, relevo.white_space()) <> ''
);

-- What v2 would not carry of a prompt: passages outside the special instructions and below no known heading, and
-- what was cut off the instructions. As [{place, text}], places in code points from 1.
CREATE FUNCTION relevo.uncovered(prompt text, rule_version integer, inferred relevo.inference) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    place  integer := (inferred).provenance #>> '{special_instructions,place}';
    until  integer := (inferred).provenance #>> '{special_instructions,until}';
    below  integer := place + char_length((inferred).provenance #>> '{special_instructions,heading}');
    carved text;
    cut    integer;  -- where in ``carved`` the instructions were cut off
BEGIN
    IF coalesce(prompt, '') COLLATE "C" = '' THEN
        RETURN '[]';
    ELSIF place IS NULL THEN
        RETURN relevo.unheaded(prompt, 1, rule_version);
    END IF;
    carved := rtrim(substr(prompt, below, until - below), relevo.white_space());
    cut := strpos(carved COLLATE "C", (inferred).special_instructions) + 1000;
    RETURN relevo.unheaded(rtrim(left(prompt, place - 1), '#*_' || relevo.white_space()), 1, rule_version)
        || CASE WHEN (inferred).truncated
                THEN jsonb_build_array(jsonb_build_object('place', below + cut - 1, 'text', substr(carved, cut)))
                ELSE '[]' END
        || relevo.unheaded(substr(prompt, until), until, rule_version);
END $$;
