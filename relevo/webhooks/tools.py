"""What a v2 assistant can do, by its capabilities; and what a tool's success makes of a call. Rules as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

ToolOutcome = Literal["reservation_created", "appointment_created", "order_created"]

_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 1}
_WHO = {
    "name": _TEXT | {"description": "Nombre completo"},
    "phone": _TEXT | {"description": "Teléfono a diez dígitos"},
}
_WHEN = {
    "date": _TEXT | {"description": "Fecha, como AAAA-MM-DD"},
    "time": _TEXT | {"description": "Hora, como HH:MM en 24 horas"},
}
_NOTES = {"notes": _TEXT | {"description": "Lo demás que haya que saber"}}

# Capability -> the tool it needs: name, what it is for, its parameters, those it cannot do without.
_TOOLS: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "reservations": (
        "create_reservation",
        "Registra una reservación, una vez que la persona la confirmó.",
        {**_WHO, **_WHEN, "people": _COUNT | {"description": "Número de personas"}, **_NOTES},
        ("name", "date", "time", "people"),
    ),
    "appointments": (
        "create_appointment",
        "Registra una cita, una vez que la persona la confirmó.",
        {**_WHO, **_WHEN, "reason": _TEXT | {"description": "Motivo de la cita"}, **_NOTES},
        ("name", "date", "time"),
    ),
    "orders": (
        "create_order",
        "Registra un pedido, una vez que la persona lo confirmó.",
        {
            **_WHO,
            "items": {"type": "array", "items": _TEXT, "description": "Cada platillo con su cantidad y detalles"},
            "address": _TEXT | {"description": "Dirección, si es a domicilio"},
            **_NOTES,
        },
        ("name", "items"),
    ),
    "human_transfer": (
        "transfer_to_human",
        "Pasa la llamada a una persona del equipo.",
        {"reason": _TEXT | {"description": "De qué se trata, en una frase"}},
        (),
    ),
}

# Names that platforms give their tools -> the outcome of a call in which one succeeded.
OUTCOMES: dict[str, ToolOutcome] = {
    **dict.fromkeys(
        ("create_reservation", "createReservation", "book_reservation", "make_reservation", "crear_reservacion"),
        "reservation_created",
    ),
    **dict.fromkeys(
        (
            "create_appointment",
            "createAppointment",
            "book_appointment",
            "make_appointment",
            "crear_cita",
            "agendar_cita",
        ),
        "appointment_created",
    ),
    **dict.fromkeys(("create_order", "createOrder", "place_order", "make_order", "crear_pedido"), "order_created"),
}
TRANSFERS = frozenset({"transfer_to_human", "transferToHuman", "transfer_call", "transferCall", "transferir_llamada"})


def tools_of(capabilities: Iterable[str], human_line: str | None) -> list[dict[str, Any]]:
    """The tools that an assistant with these capabilities gets, as Vapi takes them. With a number to transfer to,
    Vapi itself transfers."""
    return [
        _transfer(human_line) if capability == "human_transfer" and human_line else _function(*_TOOLS[capability])
        for capability in dict.fromkeys(capabilities)
        if capability in _TOOLS
    ]


def missing(name: str, arguments: dict[str, Any]) -> list[str]:
    """What a tool cannot do without, and was not told."""
    required = next((needed for tool, _, _, needed in _TOOLS.values() if tool == name), ())
    return [each for each in required if arguments.get(each) in (None, "", [])]


def _function(name: str, description: str, parameters: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _transfer(human_line: str) -> dict[str, Any]:
    return {"type": "transferCall", "destinations": [{"type": "number", "number": human_line}]}
