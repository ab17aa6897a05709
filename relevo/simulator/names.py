"""What stands above the doors: names of people, places, businesses and cities. Tables, no logic."""

from __future__ import annotations

from typing import NamedTuple


class City(NamedTuple):
    """Where a business is."""

    area_code: str
    time_zone: str
    cards: int  # of the deck of twenty


CITIES = (
    City("55", "America/Mexico_City", 7),
    City("33", "America/Mexico_City", 4),
    City("81", "America/Mexico_City", 3),
    City("442", "America/Mexico_City", 2),
    City("664", "America/Tijuana", 2),
    City("998", "America/Cancun", 1),
    City("662", "America/Hermosillo", 1),
)

# Of the assistants, whose voices are women's, and of the owners of some doors.
FIRST_NAMES = (
    "Sofía",
    "Valeria",
    "Lupita",
    "Ximena",
    "Mariana",
    "Fernanda",
    "Regina",
    "Camila",
    "Rocío",
    "Concepción",
    "Itzel",
    "Citlali",
    "María José",
)

SURNAMES = (
    "Hernández",
    "García",
    "Martínez",
    "López",
    "González",
    "Ramírez",
    "Villaseñor",
    "Núñez",
    "Cárdenas",
    "Zepeda",
    "Ibarra",
    "Escobedo",
    "Tapia",
    "Olvera",
    "Güemes",
    "Peña",
    "Quintanilla",
    "Rentería",
)

PLACES = (
    "del Valle",
    "Coyoacán",
    "Providencia",
    "Roma",
    "Las Águilas",
    "San Ángel",
    "Centro",
    "La Huerta",
    "Chapalita",
    "Polanco",
    "Santa Fe",
    "El Mirador",
    "Cumbres",
    "Zona Río",
    "Los Arcos",
    "Juriquilla",
    "Jardines",
    "Puerta de Hierro",
)

STREETS = (
    "Av. Insurgentes Sur 1204",
    "Calle Madero 58",
    "Av. Chapultepec 311",
    "Calle 60 número 412",
    "Blvd. Agua Caliente 2207",
    "Privada Hidalgo 9",
    "Calz. del Valle 540",
    "Av. Tulum 88",
    "Calle Morelos 177, esquina con Juárez",
)

BUSINESS_NAMES = {
    "restaurant": (
        "Taquería El {surname}",
        "Fonda Doña {first}",
        "Mariscos La Sirena de {place}",
        "La Cocina de {first}",
        "Pizzería {surname} Hermanos",
        "Restaurante El Rincón de {place}",
        "Antojitos {surname}",
        "Café {place}",
        "Birriería Los {surname}",
        "Parrilla {place}",
        "Sushi {place}",
    ),
    "dental": (
        "Clínica Dental {surname}",
        "Dental {place}",
        "Consultorio Dental Dra. {surname}",
        "Sonrisas {place}",
        "Ortodoncia {surname} y Asociados",
        "Centro Odontológico {place}",
        "Odontología Integral {surname}",
    ),
    "veterinary": ("Veterinaria {place}", "Hospital Veterinario {surname}", "Patitas {place}"),
    "salon": ("Estética {first}", "Salón {first} {surname}", "Barbería {place}"),
    "spa": ("Spa {place}", "Temazcal {surname}", "Spa Casa {first}"),
}
