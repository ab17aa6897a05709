-- The first rule set: the seed's verticals, types and keywords, and the words that give a keyword
-- another meaning. A team that needs more drafts a new set (relevo.draft_rules), edits it and publishes it.

INSERT INTO relevo.rule_sets (version, note) VALUES (1, 'Restaurants and dental clinics');

INSERT INTO relevo.rule_verticals (version, vertical, empty_prompt_capability) VALUES
    (1, 'restaurant', 'reservations'),
    (1, 'dental',     'appointments'),
    (1, '*',          'appointments');

INSERT INTO relevo.rule_keywords (version, vertical, ordinal, keyword, decoys) VALUES
    (1, 'restaurant', 1, 'reserv',      '{"se reserva el derecho", "derechos reservados", "reserva de dominio"}'),
    (1, 'restaurant', 2, 'pedido',      '{"ha pedido", "han pedido", "haya pedido"}'),
    (1, 'restaurant', 3, 'orden',       '{"en orden", "a sus orden", "a tus orden", "orden del dia", "orden alfabetico", "ordenador", "ordenanza"}'),
    (1, 'restaurant', 4, 'menu',        '{"menudo", "menudeo"}'),
    (1, 'restaurant', 5, 'promo',       '{"promover", "promotor"}'),
    (1, 'dental',     1, 'cita',        '{"citado", "citatorio"}'),
    (1, 'dental',     2, 'servicio',    '{"a su servicio", "a tu servicio"}'),
    (1, 'dental',     3, 'tratamiento', '{"tratamiento de datos", "tratamiento de sus datos"}'),
    (1, 'dental',     4, 'doctor',      '{"doctorado"}'),
    (1, 'dental',     5, 'seguro',      '{"estoy seguro", "estar seguro", "este seguro", "de seguro", "pago seguro", "sitio seguro", "seguro que"}'),
    (1, '*',          1, 'horario',     '{}'),
    (1, '*',          2, 'transferir',  '{}'),
    (1, '*',          3, 'humano',      '{"recursos humanos", "ser humano"}'),
    (1, '*',          4, 'faq',         '{}'),
    (1, '*',          5, 'pregunta',    '{"pregunta su nombre", "pregunta el nombre", "pregunta por el"}');

INSERT INTO relevo.rule_capabilities (version, vertical, ordinal, capability, any_of) VALUES
    (1, 'restaurant', 1, 'reservations',   '{reserv}'),
    (1, 'restaurant', 2, 'orders',         '{pedido,orden}'),
    (1, 'restaurant', 3, 'menu_info',      '{menu}'),
    (1, 'restaurant', 4, 'promotions',     '{promo}'),
    (1, 'dental',     1, 'appointments',   '{cita}'),
    (1, 'dental',     2, 'services_info',  '{servicio,tratamiento}'),
    (1, 'dental',     3, 'doctor_info',    '{doctor}'),
    (1, 'dental',     4, 'insurance_info', '{seguro}'),
    (1, '*',          1, 'business_hours', '{horario}'),
    (1, '*',          2, 'human_transfer', '{transferir,humano}'),
    (1, '*',          3, 'faq',            '{faq,pregunta}');

INSERT INTO relevo.rule_types (version, vertical, ordinal, assistant_type_id, any_of, and_any_of) VALUES
    (1, 'restaurant', 1, 'rest_complete',   '{pedido,orden,menu}',    '{transferir,humano}'),
    (1, 'restaurant', 2, 'rest_standard',   '{pedido,orden,menu}',    '{}'),
    (1, 'restaurant', 3, 'rest_basic',      '{}',                     '{}'),
    (1, 'dental',     1, 'dental_complete', '{servicio,tratamiento}', '{transferir,humano}'),
    (1, 'dental',     2, 'dental_standard', '{servicio,tratamiento}', '{}'),
    (1, 'dental',     3, 'dental_basic',    '{}',                     '{}');

INSERT INTO relevo.rule_headings (version, ordinal, heading, carried_by) VALUES
    (1,  1, 'instrucciones especiales', 'special_instructions'),
    (1,  2, 'notas importantes',        'special_instructions'),
    (1,  3, 'reglas especiales',        'special_instructions'),
    (1,  4, 'reservaciones',            'reservations'),
    (1,  5, 'reservas',                 'reservations'),
    (1,  6, 'pedidos',                  'orders'),
    (1,  7, 'ordenes',                  'orders'),
    (1,  8, 'menu',                     'menu_info'),
    (1,  9, 'promociones',              'promotions'),
    (1, 10, 'citas',                    'appointments'),
    (1, 11, 'servicios',                'services_info'),
    (1, 12, 'tratamientos',             'services_info'),
    (1, 13, 'doctores',                 'doctor_info'),
    (1, 14, 'seguros',                  'insurance_info'),
    (1, 15, 'horario',                  'business_hours'),
    (1, 16, 'horarios',                 'business_hours'),
    (1, 17, 'transferencia',            'human_transfer'),
    (1, 18, 'transferencias',           'human_transfer'),
    (1, 23, 'transferir',               'human_transfer'),
    (1, 19, 'preguntas frecuentes',     'faq'),
    (1, 20, 'saludo',                   'first_message'),
    (1, 21, 'personalidad',             'personality_type'),
    (1, 22, 'tono',                     'personality_type');

SELECT relevo.publish_rules(1);
