-- What v2 says: templates as data, and the one function that renders a configuration with them. It answers calls,
-- fills the v1 row of a configuration born on v2, and shows people what a caller would hear.
--
-- People edit files (relevo/tenants/templates/VERSION/PART/KEY.md) and publish them as a new version. A published
-- version never changes. What publishing demands is what makes a rendered prompt, read again by relevo.infer, give
-- the configuration that it came from: no piece speaks another capability's keywords, each capability speaks its own,
-- and everything stands below a heading that the rules know.

CREATE TABLE relevo.template_sets (
    version      text PRIMARY KEY CHECK (version ~ '^[0-9a-z][0-9a-z._-]{0,31}$'),
    ordinal      bigint GENERATED ALWAYS AS IDENTITY,  -- the newest has the highest
    note         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz  -- null: being put together, and nothing uses it
);

-- The kinds of pieces. ``tokens`` may stand in a piece in braces, ``required`` must; ``indispensable`` is the key that
-- a version cannot do without, because it serves whoever has none of their own.
CREATE TABLE relevo.template_parts (
    part          text PRIMARY KEY,
    ordinal       integer NOT NULL,
    tokens        text[] NOT NULL,
    required      text[] NOT NULL,
    indispensable text NOT NULL,
    is_spoken     boolean NOT NULL,  -- heard as it is: one line without marks
    in_prompt     boolean NOT NULL
);
INSERT INTO relevo.template_parts
    (ordinal, part,    tokens,                            required,                indispensable, is_spoken, in_prompt)
VALUES
    (1, 'types',         '{assistant_name,business_name}', '{business_name}',       '*',        false, true),
    (2, 'personalities', '{}',                             '{}',                    'friendly', false, true),
    (3, 'capabilities',  '{}',                             '{}',                    'basic',    false, true),
    (4, 'greetings',     '{business_name,offer}',          '{business_name,offer}', 'friendly', true,  false),
    (5, 'offers',        '{}',                             '{}',                    '*',        true,  false),
    (6, 'names',         '{business_name}',                '{}',                    '*',        true,  true),
    (7, 'places',        '{}',                             '{}',                    '*',        true,  true);

-- The key is an assistant type, a vertical or '*' (types, names, places: the first that is there), a personality
-- (personalities, greetings) or a capability (capabilities, offers).
CREATE TABLE relevo.templates (
    version text NOT NULL REFERENCES relevo.template_sets,
    part    text NOT NULL REFERENCES relevo.template_parts,
    key     text NOT NULL CHECK (key = '*' OR key ~ '^[a-z][a-z0-9_]*$'),
    body    text NOT NULL CHECK (body <> '' AND body = btrim(body, relevo.white_space())),
    PRIMARY KEY (version, part, key)
);
ALTER TABLE relevo.template_sets ENABLE ROW LEVEL SECURITY;
ALTER TABLE relevo.template_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE relevo.templates ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION relevo.refuse_published_templates() RETURNS trigger
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    touched text[] := CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW.version]
                                 WHEN 'DELETE' THEN ARRAY[OLD.version]
                                 ELSE ARRAY[OLD.version, NEW.version] END;
BEGIN
    IF EXISTS (SELECT FROM relevo.template_sets s WHERE s.version = ANY (touched) AND s.published_at IS NOT NULL) THEN
        RAISE EXCEPTION 'a published version of % is not changed: %', TG_TABLE_NAME, touched[1]
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Publish a new one: relevo templates publish DIR';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER published_templates_do_not_change BEFORE UPDATE OR DELETE ON relevo.template_sets
FOR EACH ROW EXECUTE FUNCTION relevo.refuse_published_templates();
CREATE TRIGGER published_templates_do_not_change BEFORE INSERT OR UPDATE OR DELETE ON relevo.templates
FOR EACH ROW EXECUTE FUNCTION relevo.refuse_published_templates();
CREATE TRIGGER published_templates_stay BEFORE TRUNCATE ON relevo.templates
FOR EACH STATEMENT EXECUTE FUNCTION relevo.refuse_rewriting();

-- What is wrong with a version, one line each; ordered, so that a person mends from the top.
CREATE FUNCTION relevo.template_faults(of_version text) RETURNS TABLE (part text, key text, fault text)
LANGUAGE sql STABLE SET search_path = '' AS $$
WITH piece AS (
    SELECT t.part, t.key, t.body, p.tokens, p.required, p.is_spoken, p.in_prompt, p.ordinal
    FROM relevo.templates t JOIN relevo.template_parts p USING (part)
    WHERE t.version = of_version
), faults (ordinal, part, key, fault) AS (
    SELECT p.ordinal, p.part, p.indispensable, 'is missing'
    FROM relevo.template_parts p
    WHERE NOT EXISTS (SELECT FROM piece WHERE piece.part = p.part AND piece.key = p.indispensable)
    UNION ALL
    SELECT p.ordinal, p.part, pair.key, 'is missing: each personality greets, and whoever greets has a personality'
    FROM (VALUES ('personalities', 'greetings'), ('greetings', 'personalities')) AS twins (there, here)
    JOIN piece AS pair ON pair.part = twins.there
    JOIN relevo.template_parts p ON p.part = twins.here
    WHERE pair.key <> p.indispensable
      AND NOT EXISTS (SELECT FROM piece WHERE piece.part = twins.here AND piece.key = pair.key)
    UNION ALL
    SELECT p.ordinal, p.part, c.capability, 'is missing: the rules infer this capability'
    FROM (SELECT DISTINCT capability FROM relevo.rule_capabilities WHERE version = relevo.current_rules()) AS c
    JOIN relevo.template_parts p ON p.part = 'capabilities'
    WHERE NOT EXISTS (SELECT FROM piece WHERE piece.part = p.part AND piece.key = c.capability)
    UNION ALL
    SELECT ordinal, part, key, 'names the variable ' || met[1] || ', which is not known there'
    FROM piece, regexp_matches(body, '\{[^{}]*\}', 'g') AS met
    WHERE NOT btrim(met[1], '{}') = ANY (tokens)
    UNION ALL
    SELECT ordinal, part, key, 'has a brace without its other half'
    FROM piece WHERE regexp_replace(body, '\{[^{}]*\}', '', 'g') ~ '[{}]'
    UNION ALL
    SELECT ordinal, part, key, 'lacks the variable {' || variable || '}'
    FROM piece, unnest(required) AS variable WHERE strpos(body COLLATE "C", '{' || variable || '}') = 0
    UNION ALL
    SELECT ordinal, part, key, 'is heard as it is: one line, without * _ # ` [ ]'
    FROM piece WHERE is_spoken AND translate(body, E'\n*#`[]', '') <> body
                  OR is_spoken AND regexp_replace(body, '\{[^{}]*\}', '', 'g') ~ '_'
    UNION ALL
    SELECT piece.ordinal, piece.part, piece.key, 'says "' || k.keyword || '", by which another capability is inferred'
    FROM piece JOIN relevo.rule_keywords k ON k.version = relevo.current_rules()
    WHERE piece.in_prompt AND strpos(relevo.fold(piece.body) COLLATE "C", k.keyword) > 0
      AND NOT (piece.part = 'capabilities' AND EXISTS (
              SELECT FROM relevo.rule_capabilities c
              WHERE c.version = k.version AND c.capability = piece.key AND k.keyword = ANY (c.any_of)))
    UNION ALL
    SELECT piece.ordinal, piece.part, piece.key,
           'says none of the words by which it is inferred: ' || array_to_string(c.any_of, ', ')
    FROM piece JOIN relevo.rule_capabilities c ON c.version = relevo.current_rules() AND c.capability = piece.key
    WHERE piece.part = 'capabilities' AND NOT EXISTS (
        SELECT FROM relevo.rule_keywords k
        WHERE k.version = c.version AND k.vertical = c.vertical AND k.keyword = ANY (c.any_of)
          AND relevo.meant_place(relevo.fold(piece.body), k.keyword, k.decoys::text[]) > 0)
    UNION ALL
    SELECT piece.ordinal, piece.part, piece.key,
           'says "' || h.heading || '", below which special instructions are looked for'
    FROM piece JOIN relevo.rule_headings h ON h.version = relevo.current_rules()
    WHERE piece.in_prompt AND h.carried_by = 'special_instructions'
      AND strpos(relevo.fold(piece.body) COLLATE "C", h.heading) > 0
    UNION ALL
    SELECT ordinal, part, key, 'stands below no heading that the rules know: ' || left(passage ->> 'text', 60)
    FROM piece, jsonb_array_elements(relevo.unheaded(
        CASE part WHEN 'types' THEN '' ELSE E'## Personalidad\n' END || body, 1, relevo.current_rules())) AS passage
    WHERE in_prompt AND NOT is_spoken
)
SELECT part, key, fault FROM faults ORDER BY ordinal, key COLLATE "C", fault COLLATE "C"
$$;

-- Freezes a version, after which configurations may name it and render with it. What it greets with counts as nobody's
-- own words from now on: see relevo.is_customised.
CREATE FUNCTION relevo.publish_templates(of_version text) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    fault record;
BEGIN
    IF NOT EXISTS (SELECT FROM relevo.template_sets s WHERE s.version = of_version AND s.published_at IS NULL) THEN
        RAISE EXCEPTION 'there is no unpublished template version %', of_version;
    END IF;
    SELECT * INTO fault FROM relevo.template_faults(of_version) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%/% %', fault.part, fault.key, fault.fault USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    INSERT INTO relevo.platform_defaults (field, template)
    SELECT 'assistant_name', replace(n.body, '{business_name}', '{business}')
    FROM relevo.templates n WHERE n.version = of_version AND n.part = 'names'
    UNION
    SELECT 'first_message', replace(replace(g.body, '{offer}', o.body), '{business_name}', '{business}')
    FROM relevo.templates g JOIN relevo.templates o USING (version)
    WHERE version = of_version AND g.part = 'greetings' AND o.part = 'offers'
    ON CONFLICT DO NOTHING;
    UPDATE relevo.template_sets SET published_at = now() WHERE version = of_version;
END $$;

-- What v2 says by a configuration of a business. A call must be answered, so nothing in the configuration makes this
-- fail: what the templates do not know is passed over and named in ``unknown``. An unknown version gives way to the
-- newest (``template_version`` says which spoke), an unknown type to its vertical's or everybody's, an unknown
-- personality to the friendly one, an unknown capability to silence, no capability to 'basic', no name to the place.
--
-- The special instructions stand last, because they are read up to the end or the next "##"; two or more # in them
-- become one.
CREATE FUNCTION relevo.rendered(config public.voice_assistant_configs, business_name text, vertical text)
RETURNS TABLE (assistant_name text, system_prompt text, first_message text, voice_id text, voice_speed numeric,
               template_version text, unknown text[])
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = '' AS $$
DECLARE
    able       text[] := coalesce(nullif(config.enabled_capabilities, '{}'), '{basic}');
    business   text := btrim(translate(rendered.business_name, E'\n\r\t', '   '), relevo.white_space());
    told       text := btrim(ltrim(config.special_instructions, ':' || relevo.white_space()), relevo.white_space());
    types      text[] := ARRAY[config.assistant_type_id, rendered.vertical, '*'];
    opening    text;
    opened_by  text;
    temper     text;
    greeting   text;
    offer      text;
    tempered   text;
    paragraphs text;
    strangers  text[];
BEGIN
    SELECT s.version INTO template_version FROM relevo.template_sets s WHERE s.published_at IS NOT NULL
    ORDER BY (s.version = config.template_version) IS TRUE DESC, s.ordinal DESC LIMIT 1;

    SELECT t.key, t.body INTO opened_by, opening FROM relevo.templates t
    WHERE t.version = template_version AND t.part = 'types' AND t.key = ANY (types)
    ORDER BY array_position(types, t.key) LIMIT 1;
    SELECT t.body INTO assistant_name FROM relevo.templates t
    WHERE t.version = template_version AND t.part = 'names' AND t.key = ANY (types)
    ORDER BY array_position(types, t.key) LIMIT 1;
    SELECT p.key, p.body, g.body INTO temper, tempered, greeting
    FROM relevo.templates p JOIN relevo.templates g ON g.version = p.version AND g.part = 'greetings' AND g.key = p.key
    WHERE p.version = template_version AND p.part = 'personalities' AND p.key IN (config.personality_type, 'friendly')
    ORDER BY p.key = 'friendly' LIMIT 1;
    SELECT t.body INTO offer FROM relevo.templates t
    WHERE t.version = template_version AND t.part = 'offers' AND t.key = ANY (able || '*'::text)
    ORDER BY array_position(able || '*'::text, t.key) LIMIT 1;
    -- A paragraph without a heading of its own belongs to the opening.
    SELECT string_agg(CASE WHEN starts_with(t.body, '#') THEN E'\n\n' ELSE E'\n' END || t.body, ''
                      ORDER BY starts_with(t.body, '#'), array_position(able, t.key)),
           array_agg(t.key)
    INTO paragraphs, strangers
    FROM relevo.templates t
    WHERE t.version = template_version AND t.part = 'capabilities' AND t.key = ANY (able);

    strangers := ARRAY(SELECT DISTINCT 'capability ' || coalesce(each, 'null') FROM unnest(able) AS each
                       WHERE NOT (each = ANY (strangers)) IS TRUE ORDER BY 1);
    unknown := array_remove(ARRAY[
        'template version ' || CASE WHEN template_version IS DISTINCT FROM config.template_version
                                    THEN coalesce(config.template_version, 'null') END,
        'type ' || CASE WHEN opened_by IS DISTINCT FROM config.assistant_type_id
                         AND (config.assistant_type_id = rendered.vertical || '_basic') IS NOT TRUE
                        THEN coalesce(config.assistant_type_id, 'null') END,
        CASE WHEN business IS NULL OR business = '' THEN 'business name' END,
        'personality ' || CASE WHEN temper IS DISTINCT FROM config.personality_type
                               THEN coalesce(config.personality_type, 'null') END
    ], NULL) || strangers;

    IF business IS NULL OR business = '' THEN
        SELECT t.body INTO business FROM relevo.templates t
        WHERE t.version = template_version AND t.part = 'places' AND t.key = ANY (types)
        ORDER BY array_position(types, t.key) LIMIT 1;
    END IF;

    -- What comes from a business is put in last, so that a brace in its name is only a brace.
    opening := replace(replace(opening, '{assistant_name}', assistant_name), '{business_name}', business);
    assistant_name := replace(assistant_name, '{business_name}', business);
    first_message := replace(replace(greeting, '{offer}', offer), '{business_name}', business);
    IF strpos(told COLLATE "C", '##') > 0 THEN
        told := regexp_replace(told, '#{2,}', '#', 'g');
    END IF;
    system_prompt := opening || E'\n' || tempered || coalesce(paragraphs, '')
                  || coalesce(E'\n\n## Instrucciones especiales\n' || nullif(told, ''), '');
    voice_id := config.voice_id;
    voice_speed := config.voice_speed;
    RETURN NEXT;
END $$;

-- The same with the business's facts looked up. relevo.v1_tenants() is the mapped table; it must stay a function that
-- the planner can see through (SQL, no SET, no SECURITY DEFINER), or each call would read all tenants.
CREATE FUNCTION relevo.render(config public.voice_assistant_configs)
RETURNS TABLE (assistant_name text, system_prompt text, first_message text, voice_id text, voice_speed numeric,
               template_version text, unknown text[])
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
DECLARE
    business record;
BEGIN
    SELECT t.name, t.vertical INTO business FROM relevo.v1_tenants() AS t WHERE t.id = config.business_id LIMIT 1;
    RETURN QUERY SELECT * FROM relevo.rendered(config, business.name, business.vertical);
END $$;

-- What a clock shows at a place. A zone that does not exist, or none, is Mexico City's: a call must be answered.
CREATE FUNCTION relevo.local_time(now timestamptz, time_zone text) RETURNS timestamp
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
    RETURN now AT TIME ZONE coalesce(nullif(btrim(time_zone), ''), 'America/Mexico_City');
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN now AT TIME ZONE 'America/Mexico_City';
END $$;

-- The day and the hour as an assistant is told them; never stored. Words come from here, not from the server's locale.
CREATE FUNCTION relevo.told_at_call(now timestamptz, time_zone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
DECLARE
    here timestamp := relevo.local_time(now, time_zone);
BEGIN
    RETURN E'## Fecha y hora\nHoy es '
        || (ARRAY['lunes', 'martes', 'miércoles', 'jueves', 'viernes', 'sábado',
                  'domingo'])[extract(isodow FROM here)] || ' '
        || extract(day FROM here)::text || ' de '
        || (ARRAY['enero', 'febrero', 'marzo', 'abril', 'mayo', 'junio', 'julio', 'agosto', 'septiembre', 'octubre',
                  'noviembre', 'diciembre'])[extract(month FROM here)]
        || ' de ' || extract(year FROM here) || CASE extract(hour FROM here) WHEN 1 THEN ' y es la ' ELSE ' y son las ' END
        || to_char(here, 'FMHH24:MI') || ', hora local.';
END $$;

-- The prompt that a call gets.
CREATE FUNCTION relevo.prompt_at_call(system_prompt text, now timestamptz, time_zone text) RETURNS text
LANGUAGE sql STABLE
RETURN concat_ws(E'\n\n', nullif(system_prompt, ''), relevo.told_at_call(now, time_zone));

-- The first version, word for word as in relevo/tenants/templates/1: a test holds both together.
INSERT INTO relevo.template_sets (version, note) VALUES ('1', 'Restaurants, dental clinics and whoever answers a phone');
INSERT INTO relevo.templates (version, part, key, body) VALUES
('1', 'types', '*',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Quien llama busca que le atiendan pronto y bien: se agradece la claridad y el buen trato.
Atiendes lo esencial. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'types', 'dental_basic',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Es una clínica dental: quien llama puede tener dolor o nervios, y se agradece la calma y la claridad.
No des diagnósticos ni recomiendes medicinas. Si hay dolor fuerte, sangrado, inflamación o un golpe, toma los datos de inmediato y marca el recado como urgente.
Atiendes lo esencial. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'types', 'dental_complete',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Es una clínica dental: quien llama puede tener dolor o nervios, y se agradece la calma y la claridad.
No des diagnósticos ni recomiendes medicinas. Si hay dolor fuerte, sangrado, inflamación o un golpe, toma los datos de inmediato y marca el recado como urgente.
Resuelves la llamada completa, de principio a fin, y no dejas a nadie sin respuesta. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'types', 'dental_standard',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Es una clínica dental: quien llama puede tener dolor o nervios, y se agradece la calma y la claridad.
No des diagnósticos ni recomiendes medicinas. Si hay dolor fuerte, sangrado, inflamación o un golpe, toma los datos de inmediato y marca el recado como urgente.
Resuelves lo más común de principio a fin. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'types', 'rest_basic',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Es un restaurante: quien llama suele tener prisa o hambre, y se agradece la atención rápida y el buen trato.
Atiendes lo esencial. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'types', 'rest_complete',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Es un restaurante: quien llama suele tener prisa o hambre, y se agradece la atención rápida y el buen trato.
Resuelves la llamada completa, de principio a fin, y no dejas a nadie sin respuesta. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'types', 'rest_standard',
'## Personalidad
Contestas el teléfono de {business_name} y te presentas como {assistant_name}.
Es un restaurante: quien llama suele tener prisa o hambre, y se agradece la atención rápida y el buen trato.
Resuelves lo más común de principio a fin. Lo que no aparezca en esta guía, tómalo como recado con nombre, teléfono y motivo.
Hablas español de México. Usa frases cortas, una idea a la vez, y escucha hasta el final antes de contestar.
Todo lo que dices se oye por teléfono: nada de listas, símbolos ni direcciones de internet. Di los números y las fechas como se dicen al hablar.
Repite nombre, teléfono, día y hora antes de darlos por buenos. Si algo no se entiende, pide con amabilidad que lo repitan.
No inventes datos: di solo lo que está en esta guía o lo que te den tus herramientas. Si no lo sabes, dilo y ofrece tomar el recado.'),
('1', 'personalities', 'calm',
'Habla despacio y con serenidad, siempre de usted. Deja pausas, repite lo que haga falta y no apresures a nadie.'),
('1', 'personalities', 'energetic',
'Habla con ánimo y buen ritmo, siempre de usted. Contagia entusiasmo sin atropellar las palabras ni interrumpir.'),
('1', 'personalities', 'friendly',
'Habla con calidez y cercanía, siempre de usted. Agradece la llamada, usa el nombre de la persona cuando lo sepas y alégrate con ella de lo que salga bien, sin exagerar.'),
('1', 'personalities', 'professional',
'Habla con cortesía y precisión, siempre de usted. Ve al punto, sin familiaridades ni diminutivos, y explica cada paso en una frase.'),
('1', 'capabilities', 'appointments',
'## Citas
Para agendar una cita pide nombre completo, teléfono, motivo y el día que prefiere, una cosa a la vez.
Ofrece dos opciones de día y hora. Al final repite todo y espera un sí claro.
Para mover o cancelar una cita, búscala por nombre y teléfono.'),
('1', 'capabilities', 'basic',
'Da la bienvenida, escucha qué necesita la persona y toma el recado con nombre, teléfono y motivo. Di que el equipo le devolverá la llamada.'),
('1', 'capabilities', 'business_hours',
'## Horario
Da el horario del día que interese en una frase, como se dice al hablar, solo si lo tienes confirmado.
Fuera de horario toma el recado con nombre y teléfono.'),
('1', 'capabilities', 'doctor_info',
'## Doctores
Di qué doctor o doctora atiende cada especialidad y qué días, solo si lo tienes confirmado.
Si piden a un doctor en particular, revisa primero cuándo atiende. No compartas datos personales de nadie del equipo.'),
('1', 'capabilities', 'faq',
'## Preguntas frecuentes
Contesta cada pregunta en una o dos frases, solo con lo que tengas confirmado.
Si una pregunta no tiene respuesta en esta guía ni en tus herramientas, dilo y ofrece tomar el recado.'),
('1', 'capabilities', 'human_transfer',
'## Transferencia a una persona
Ofrece transferir la llamada con una persona del equipo si la piden, si hay molestia o si no puedes resolver.
Antes de transferir, resume en una frase de qué se trata, para que nadie tenga que repetirlo.
Si nadie contesta, toma el recado con nombre, teléfono y motivo.'),
('1', 'capabilities', 'insurance_info',
'## Seguros
Di con qué seguros se trabaja solo si lo tienes confirmado. Pide el nombre de la compañía y el número de póliza.
No prometas que un seguro cubre un procedimiento: eso lo confirma administración.'),
('1', 'capabilities', 'menu_info',
'## Menú
No leas el menú completo: menciona dos o tres platillos y ofrece contar más.
Da precios e ingredientes solo si los tienes confirmados. Con las alergias no supongas nada: di que el equipo lo revisa.'),
('1', 'capabilities', 'orders',
'## Pedidos
Toma el pedido platillo por platillo, con cantidad y detalles, y anota cualquier alergia.
Averigua si es para llevar o a domicilio, y pide nombre, teléfono y, si hace falta, la dirección.
Al final repite el pedido completo, di el total solo si lo tienes confirmado, y espera un sí claro.'),
('1', 'capabilities', 'promotions',
'## Promociones
Si viene al caso, menciona una promoción vigente con su condición principal, en una sola frase.
No ofrezcas descuentos que no tengas confirmados.'),
('1', 'capabilities', 'reservations',
'## Reservaciones
Para una reservación pide día, hora, número de personas, nombre y teléfono, una cosa a la vez.
Revisa que haya lugar antes de confirmar. Si no hay, ofrece la hora libre más cercana.
Al final repite todo y espera un sí claro. Para cambiar o cancelar una reservación, búscala por nombre y teléfono.'),
('1', 'capabilities', 'services_info',
'## Servicios
Explica cada servicio con palabras sencillas: en qué consiste, cuánto dura y cuánto cuesta, solo si lo tienes confirmado.
No recomiendes un tratamiento por teléfono: para eso hace falta una valoración.'),
('1', 'greetings', 'calm',
'Gracias por comunicarse a {business_name}. Con gusto le atiendo. {offer}'),
('1', 'greetings', 'energetic',
'¡Hola! ¡Qué gusto que llame a {business_name}! {offer}'),
('1', 'greetings', 'friendly',
'¡Gracias por llamar a {business_name}! {offer}'),
('1', 'greetings', 'professional',
'Gracias por llamar a {business_name}. {offer}'),
('1', 'offers', '*',
'¿En qué puedo ayudarle?'),
('1', 'offers', 'appointments',
'¿Le ayudo con una cita, o en qué puedo servirle?'),
('1', 'offers', 'orders',
'¿Le tomo un pedido, o en qué puedo servirle?'),
('1', 'offers', 'reservations',
'¿Le ayudo con una reservación, o en qué puedo servirle?'),
('1', 'names', '*',
'Asistente de {business_name}'),
('1', 'names', 'dental',
'Recepción de {business_name}'),
('1', 'places', '*',
'nuestro negocio'),
('1', 'places', 'dental',
'nuestra clínica'),
('1', 'places', 'restaurant',
'nuestro restaurante');
SELECT relevo.publish_templates('1');
