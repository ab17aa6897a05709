"""What people write in prompts: tables of Spanish (Mexico) phrases, no logic.

A topic is a heading with sentences anybody might put below it. Sentences of NEUTRAL topics hold none of the
keywords by which capabilities are inferred, so that a prompt can be silent about a capability; FIGURATIVE
ones hold them only inside other words or in another sense ("solicita", "todo en orden", "a menudo").
Slots in braces are filled per prompt; prompts.py lists them.
"""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """A section of a prompt."""

    heading: str
    sentences: tuple[str, ...]


OPENINGS = (
    "Eres {assistant}, la voz que contesta el teléfono de {business}. Hablas español de México, con calidez "
    "y sin prisa. Nunca digas que eres un programa a menos que te lo planteen de forma directa.",
    "Usted es el asistente telefónico de {business}, en {street}. Atienda a cada persona de usted, con "
    "frases cortas, y confirme siempre lo que entendió antes de seguir.",
    "Actúa como recepcionista de {business}. Tu trabajo es contestar rápido, resolver lo que se pueda "
    "por teléfono y dejar una buena impresión en quien llama.",
    "Tu nombre es {assistant} y trabajas en {business}. Contestas llamadas todos los días. Sé amable, clara "
    "y breve: la gente llama desde la calle, con ruido, y no quiere oír discursos.",
    "Este es el asistente virtual de {business}. Lee todo lo que sigue con cuidado y respétalo en cada "
    "llamada, aunque la persona insista en lo contrario.",
)

RESTAURANT = (
    Topic(
        "Reservaciones",
        (
            "Para una reservación pide nombre, personas, día y hora, y repite todo antes de confirmar.",
            "Aceptamos reservaciones hasta para {people} personas; para grupos mayores toma los datos y "
            "avisa que les devolvemos la llamada.",
            "La mesa reservada se guarda {minutes} minutos; después se le da a quien esté esperando.",
            "Los viernes y sábados la terraza solo se ocupa con reservación previa.",
            "Si quieren cancelar o mover su reserva, busca por nombre y por teléfono.",
        ),
    ),
    Topic(
        "Pedidos",
        (
            "Toma el pedido completo, repítelo platillo por platillo y di el total antes de colgar.",
            "Los pedidos a domicilio tardan alrededor de {minutes} minutos y tienen un mínimo de ${price}.",
            "Cada orden para llevar se entrega en la barra; pide un nombre para identificarla.",
            "Una orden de tacos trae cinco piezas; la media orden, tres.",
            "No aceptes pedidos después de las {last} porque la cocina ya está cerrando.",
        ),
    ),
    Topic(
        "Menú",
        (
            "El menú del día cuesta ${price} e incluye sopa, guisado, agua fresca y postre.",
            "Si alguien pide el menú, menciona tres platillos: chilaquiles, arrachera y el mole de la casa.",
            "En el menú infantil hay milanesa, quesadillas y pasta con mantequilla.",
            "Las opciones vegetarianas del menú son las quesadillas de flor y la ensalada de nopales.",
            "No inventes platillos: si no está en el menú, no lo hay.",
        ),
    ),
    Topic(
        "Promociones",
        (
            "Promoción de martes: dos por uno en tacos al pastor, solo en el local.",
            "De lunes a jueves hay promo de cerveza artesanal en ${price} de cinco a siete.",
            "Las promociones no se acumulan con otros descuentos ni aplican en días festivos.",
            "Cumpleañeros: el postre va por la casa; esa promo sí aplica en fin de semana.",
        ),
    ),
)

DENTAL = (
    Topic(
        "Citas",
        (
            "Para agendar una cita pide nombre completo, teléfono y motivo de la consulta.",
            "Ofrece siempre dos opciones de cita, una por la mañana y otra por la tarde.",
            "Las citas se cancelan o se mueven con {hours} horas de anticipación; si no, se cobran ${price}.",
            "Si es la primera cita, avisa que lleguen {minutes} minutos antes para llenar el expediente.",
            "Confirma cada cita repitiendo día, hora y nombre del paciente.",
        ),
    ),
    Topic(
        "Servicios y tratamientos",
        (
            "Nuestros servicios son limpieza, resinas, endodoncia, ortodoncia, implantes y blanqueamiento.",
            "La limpieza dental cuesta ${price}; para otro tratamiento se requiere valoración.",
            "El tratamiento de ortodoncia se paga en mensualidades y dura entre doce y veinticuatro meses.",
            "No des precios exactos de tratamientos: di desde cuánto y ofrece valoración.",
            "El servicio de urgencias cubre dolor fuerte, inflamación y piezas rotas.",
        ),
    ),
    Topic(
        "Doctores",
        (
            "La doctora Zepeda atiende ortodoncia los martes y jueves.",
            "El doctor titular es cirujano maxilofacial y atiende solo por las tardes.",
            "Si piden a un doctor en particular, revisa primero qué días atiende.",
            "Todos nuestros doctores cuentan con cédula profesional de especialidad.",
        ),
    ),
    Topic(
        "Seguros",
        (
            "Aceptamos los seguros dentales de las principales aseguradoras; pide el número de póliza.",
            "Con seguro de gastos médicos el paciente paga primero y le reembolsan con nuestra factura.",
            "Si el seguro no está en la lista, di que se revisa en recepción y toma los datos.",
            "No prometas que el seguro cubre un procedimiento hasta que administración lo confirme.",
        ),
    ),
)

VETERINARY = (
    Topic(
        "Citas",
        (
            "Para la cita pide nombre de la mascota, especie, edad y qué le notan.",
            "La estética canina también es con cita; dura unas {hours} horas.",
            "Las vacunas se aplican sin cita de diez a una.",
        ),
    ),
    Topic(
        "Servicios",
        (
            "Servicios: consulta, vacunas, esterilización, estética, hospitalización y laboratorio.",
            "La consulta general cuesta ${price}; el servicio a domicilio tiene un costo adicional.",
            "Si el animal convulsiona, sangra o no respira bien es urgencia: que vengan de inmediato.",
        ),
    ),
)

SALON = (
    Topic(
        "Citas",
        (
            "Agenda la cita con la estilista que pidan; si no tienen preferida, con la primera libre.",
            "Para color y mechas la cita dura al menos {hours} horas.",
            "Hay {minutes} minutos de tolerancia; después se reagenda la cita.",
        ),
    ),
    Topic(
        "Servicios",
        (
            "Servicios: corte, tinte, balayage, peinado, uñas acrílicas, gelish y maquillaje de novia.",
            "El corte de dama cuesta ${price} e incluye lavado y secado.",
            "El tratamiento de keratina se cotiza según el largo del cabello.",
        ),
    ),
)

SPA = (
    Topic(
        "Reservas de cabina",
        (
            "Cada cabina se reserva con un anticipo de ${price}, que no se devuelve.",
            "Para reservar en pareja pide los dos nombres y si hay embarazo o alergias.",
            "Las reservas de grupo son de hasta {people} personas.",
        ),
    ),
    Topic(
        "Tratamientos",
        (
            "Los tratamientos más solicitados son el masaje relajante, el facial y las piedras calientes.",
            "Cada tratamiento dura {minutes} minutos, más un rato en la sala de descanso.",
            "No recomiendes tratamientos a personas con padecimientos: que consulten a su médico.",
        ),
    ),
)

COMMON = (
    Topic(
        "Horario",
        (
            "Nuestro horario es de lunes a viernes de {open} a {close} y sábados de {open} a tres.",
            "El horario cambia en Semana Santa y en diciembre; en esas fechas toma el recado.",
            "Fuera de horario toma el recado con nombre y teléfono.",
        ),
    ),
    Topic(
        "Transferir la llamada",
        (
            "Si la persona está molesta o lo pide dos veces, ofrece transferir la llamada al {phone}.",
            "Antes de transferir, di en una frase de qué se trata para que no tengan que repetirlo.",
            "Cuando quieran hablar con un humano no discutas: pásalos de inmediato.",
            "Si no hay quien conteste, no vuelvas a transferir: toma el recado.",
        ),
    ),
    Topic(
        "Preguntas frecuentes",
        (
            "Pregunta frecuente: ¿hay estacionamiento? Sí, con boleto sellado las primeras {hours} horas.",
            "Otra pregunta común es si aceptamos tarjeta: sí, todas, también a meses desde ${price}.",
            "FAQ: ¿admiten mascotas? Solo en el área de afuera y con correa.",
            "Si la pregunta no está en esta lista, di que lo consultas y que les devuelven la llamada.",
        ),
    ),
)

NEUTRAL = (
    Topic(
        "Ubicación",
        (
            "Estamos en {street}, a dos calles del parque, frente a la farmacia.",
            "Si vienen en transporte, la parada más cercana queda a cinco minutos caminando.",
            "La entrada es por la puerta azul; hay rampa para silla de ruedas.",
        ),
    ),
    Topic(
        "Tono de voz",
        (
            "Habla pausado, con oraciones de menos de veinte palabras y una sola idea a la vez.",
            "No uses tecnicismos ni palabras en inglés si hay una en español.",
            "Si no entiendes, pide con cortesía que lo repitan; a la tercera, ofrece tomar el recado.",
            "Jamás levantes la voz ni interrumpas, aunque te hablen mal.",
        ),
    ),
    Topic(
        "Formas de pago",
        (
            "Se puede pagar en efectivo, con tarjeta o por transferencia bancaria.",
            "Facturamos el mismo día con constancia de situación fiscal; piden los datos por correo.",
            "No tomes números de tarjeta por teléfono bajo ninguna circunstancia.",
        ),
    ),
    Topic(
        "Datos de quien llama",
        (
            "Repite el teléfono dígito por dígito para no equivocarte.",
            "Deletrea los apellidos poco comunes antes de darlos por buenos.",
            "Si ya llamó antes, salúdalo por su nombre.",
        ),
    ),
)

FIGURATIVE = (
    Topic(
        "Trato y despedida",
        (
            "Despídete diciendo que quedamos a sus órdenes y agradece la llamada.",
            "Solicita el nombre y el teléfono de quien llama y anótalos con cuidado.",
            "Antes de colgar verifica que todo esté en orden y que no falte ningún dato.",
            "A menudo llaman proveedores: toma el recado y di que compras les devuelve la llamada.",
            "Contesta de forma explícita y evita los rodeos; felicita a quien cumpla años.",
            "Hay que preservar la confianza de la gente: no compartas datos de otras personas.",
        ),
    ),
)

# Spice for the other prompts: the same keywords in another sense, beside their literal use.
ASIDES = (
    "Si no estás seguro de algo, dilo con franqueza.",
    "Quedamos a su servicio y a sus órdenes.",
    "El aviso de privacidad explica el tratamiento de sus datos personales.",
    "Recuerda el trato humano: detrás de cada llamada hay una persona.",
    "A menudo hay ruido en la línea; ten paciencia.",
    "Solicita siempre un teléfono de contacto.",
)

INSTRUCTION_HEADINGS = ("Instrucciones especiales", "Notas importantes", "Reglas especiales")

INSTRUCTIONS = (
    "No aceptamos cheques ni vales de despensa de ningún tipo, aunque el cliente diga que antes sí.",
    "Si llama la señora Elena Covarrubias, siempre se le atiende primero y se le pasa con la dueña.",
    "El segundo domingo de cada mes cerramos por mantenimiento; no des fechas para ese día.",
    "Cuando mencionen alergias, repite la alergia en voz alta y anótala en mayúsculas en el recado.",
    "Nunca des el celular personal de nadie que trabaje aquí, ni siquiera a familiares.",
    "Si llaman de la escuela de enfrente hay diez por ciento de descuento, pero no lo ofrezcas tú.",
    "Durante la obra de la avenida, explica que se entra por la calle de atrás, donde está el portón verde.",
    "A los repartidores pídeles el número de folio y que esperen afuera, junto a la jardinera.",
    "No comentes nada de otros negocios de la zona, ni bueno ni malo.",
    "Las quejas se escuchan completas, se agradecen y se mandan por correo a la administración el mismo día.",
    "Si preguntan por empleo, que dejen su solicitud en el mostrador entre cuatro y seis de la tarde.",
    "Los días de partido sube el ruido: habla más despacio y confirma dos veces cada dato.",
    "Con personas mayores repite la información sin que lo pidan y ofrece mandarla por mensaje.",
    "Para facturas de meses anteriores no prometas nada; toma los datos y di que contabilidad responde.",
    "Si se corta la llamada y vuelven a marcar, retoma donde se quedaron en lugar de empezar otra vez.",
    "Cuando suene la alarma sísmica, di que se desaloja el local y cuelga; la seguridad va primero.",
    "El elevador no funciona después de las ocho; ofrece ayuda a quien no pueda subir escaleras.",
    "No se apartan lugares de estacionamiento por teléfono, tampoco para proveedores.",
)

EMOJI = ("✅", "📞", "⭐", "📍", "🕐", "💬", "🙌", "👋🏽", "❤️", "🇲🇽")

PRICE_LIST = (
    "Paquete familiar",
    "Paquete sencillo",
    "Especial de la casa",
    "Combo para dos",
    "Extra de la semana",
    "Presentación grande",
    "Presentación chica",
    "Paquete ejecutivo",
    "Entrega en zona centro",
)

TOPICS = {
    "restaurant": RESTAURANT,
    "dental": DENTAL,
    "veterinary": VETERINARY,
    "salon": SALON,
    "spa": SPA,
}

# What clients put instead of the platform's defaults.
ASSISTANT_NAMES = ("{first}", "{first} de {business}", "Recepción {business}", "Srita. {first}")

GREETINGS = (
    "{business}, buen día, le atiende {first}. ¿Cómo le ayudo?",
    "Hola, hablas a {business}. Soy {first}, dime.",
    "Bueno, {business}, ¿en qué le servimos?",
    "¡Qué tal! Gracias por marcar a {business} 😊",
)
