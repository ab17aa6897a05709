"""How things are said to people: Spanish dates in their time zone, a trade's own words, rates. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TIME_ZONE = "America/Mexico_City"
"""Of a client whose own is not known."""

_DAYS = ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo")
_MONTHS = (
    *("enero", "febrero", "marzo", "abril", "mayo", "junio"),
    *("julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre"),
)

BOOKINGS: Mapping[str, str] = MappingProxyType({"restaurant": "reservaciones", "dental": "citas"})
"""What a trade's customers book; others are told of ``OTHER_BOOKINGS``."""
OTHER_BOOKINGS = "reservaciones y citas"


def zone(name: str | None) -> ZoneInfo:
    """The time zone of a name; Mexico's for none, and for one that does not exist."""
    try:
        return ZoneInfo((name or TIME_ZONE).strip())
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo(TIME_ZONE)


def spanish_date(at: datetime, time_zone: str | None) -> str:
    """``lunes 30 de noviembre de 2026``, as the calendar there says."""
    local = at.astimezone(zone(time_zone))
    return f"{_DAYS[local.weekday()]} {local.day} de {_MONTHS[local.month - 1]} de {local.year}"


def spanish_time(at: datetime, time_zone: str | None) -> str:
    """``9:05``, as the clock there says, of 24 hours."""
    local = at.astimezone(zone(time_zone))
    return f"{local.hour}:{local.minute:02}"


def utc(at: datetime) -> str:
    """``2024-01-20 14:35 UTC``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def bookings(vertical: str | None) -> str:
    """What a client's own customers book, in Spanish."""
    return BOOKINGS.get((vertical or "").strip().lower(), OTHER_BOOKINGS)


def percent(rate: float | None) -> str:
    """``0.8%`` of 0.008; a dash where nothing was counted."""
    return "–" if rate is None else f"{rate * 100:.2f}".rstrip("0").rstrip(".") + "%"


def milliseconds(value: float | None) -> str:
    """``650ms``; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.0f}ms"


def length(days: float) -> str:
    """``3 days``, ``5 hours``: a length of time, in whole numbers of the larger unit."""
    number, unit = (round(days), "day") if days >= 1 else (round(days * 24), "hour")
    return f"{number} {unit}{'' if number == 1 else 's'}"
