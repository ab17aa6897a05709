"""A believable v1 platform: its businesses, their configurations, sixty days of calls. Pure and repeatable.

Rows are yielded one at a time. Every table is drawn from its own stream of chance, so each can be drawn
alone, and again, with the same result: nothing is kept between them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random

from relevo.errors import UsageError
from relevo.simulator import faults, history, names, phrases, prompts
from relevo.simulator.chance import deal, identity
from relevo.simulator.history import Caller
from relevo.simulator.rows import Business, Call, Configuration

# What the platform puts where nobody wrote anything of their own.
DEFAULT_ASSISTANT_NAME = "Asistente de {business}"
DEFAULT_FIRST_MESSAGE = "¡Gracias por llamar a {business}! ¿En qué puedo ayudarle?"

SPARE_EVERY = 30  # each 30th business kept an old, inactive configuration

# Decks: as many cards as the share asks for.
_TRADES = ("restaurant",) * 22 + ("dental",) * 14 + ("veterinary",) * 2 + ("salon", "spa")
_CITIES = tuple(city for city in names.CITIES for _ in range(city.cards))
_CALLED = (True,) * 15 + (False,)
_ACTIVITY = (True,) * 45 + (False,) * 4 + (None,)
_VOICES = (
    *("4VZIsMPtgggwNg7OXbPY", "mYk0rAapHek2oTw18z8x", "spPXlKT5a4JMfbhPRAzA") * 5,
    *("rEVYTKPqwSMhytFPayIb", "elevenlabs-maria") * 2,
    *(None, None, ""),
)

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Tenant:
    """A business, and what its other rows need to know of it."""

    business: Business
    trade: str  # what it really is, also where its row has no vertical
    volume: float  # its share of calls, in any unit; 0: nobody ever calls
    phone_number_id: str


def _name(rng: Random, trade: str) -> str:
    return rng.choice(names.BUSINESS_NAMES[trade]).format(
        first=rng.choice(names.FIRST_NAMES),
        surname=rng.choice(names.SURNAMES),
        place=rng.choice(names.PLACES),
    )


def _email(name: str, number: int) -> str:
    """An address in a domain that nobody can own: a sample must never send real mail."""
    letters = unicodedata.normalize("NFD", name.lower())
    domain = "".join(letter for letter in letters if letter.isascii() and letter.isalnum())
    return f"contacto{number}@{domain}.example"


def _phone(area_code: str, number: int) -> str:
    """+52 and ten digits; the local ones begin with 0, so that a sample rings at nobody's."""
    digits = 9 - len(area_code)
    return f"+52{area_code}0{number % 10**digits:0{digits}}"


def _business(rng: Random, number: int, trade: str, city: names.City, now: datetime) -> Business:
    name = _name(rng, trade)
    human = _phone(city.area_code, rng.randrange(10_000_000))
    age_s = rng.randrange((history.DAYS + 1) * _DAY_S, 800 * _DAY_S)
    return Business(
        id=identity(rng),
        name=name,
        vertical=trade,
        email=_email(name, number),
        time_zone=city.time_zone,
        phone_number=_phone(city.area_code, (number + 1) * 7_654_321),  # coprime with 10: distinct up to a million
        human_phone_number=human if rng.random() < 0.8 else None,
        created_at=now - timedelta(seconds=age_s),
    )


def _volume(rng: Random, trade: str) -> float:
    """Log-normal: a tenth of the tenants get about half of the calls."""
    return rng.lognormvariate(0, 1.4) * (1.5 if trade == "restaurant" else 1.0)


def _default_or_own(rng: Random, default: str, own: tuple[str, ...], business: str) -> str | None:
    """Mostly what the platform puts, sometimes nothing, sometimes the client's own words."""
    text = rng.choices((default, None, rng.choice(own)), cum_weights=(60, 78, 100))[0]
    return text and text.format(business=business, first=rng.choice(names.FIRST_NAMES))


def _configuration(rng: Random, tenant: Tenant, kind: prompts.Kind, now: datetime) -> Configuration:
    """The tenant's configuration, active, in the first of the voices."""
    business = tenant.business
    created = business.created_at + timedelta(seconds=rng.randrange(_DAY_S))
    subject = prompts.Subject(business.name, tenant.trade, business.human_phone_number or "número de recepción")
    return Configuration(
        id=identity(rng),
        business_id=business.id,
        vapi_assistant_id=str(identity(rng)),
        phone_number_id=tenant.phone_number_id,
        assistant_name=DEFAULT_ASSISTANT_NAME.format(business=business.name),
        system_prompt=prompts.write(rng, kind, subject),
        voice_id=_VOICES[0],
        first_message=DEFAULT_FIRST_MESSAGE.format(business=business.name),
        is_active=True,
        created_at=created,
        updated_at=created + rng.random() * (now - created),
    )


def _configurations(rng: Random, tenants: Iterable[Tenant], now: datetime) -> Iterator[Configuration]:
    """One for each tenant; the first is flawless, the others are as the cards fall."""
    kinds, activity, voices = deal(rng, prompts.DECK), deal(rng, _ACTIVITY), deal(rng, _VOICES)
    tenants = iter(tenants)
    yield _configuration(rng, next(tenants), prompts.CLEAN, now)
    for tenant in tenants:
        name = tenant.business.name
        yield _configuration(rng, tenant, next(kinds), now)._replace(
            assistant_name=_default_or_own(rng, DEFAULT_ASSISTANT_NAME, phrases.ASSISTANT_NAMES, name),
            first_message=_default_or_own(rng, DEFAULT_FIRST_MESSAGE, phrases.GREETINGS, name),
            voice_id=next(voices),
            is_active=next(activity),
        )


def _afresh(rng: Random, row: Configuration) -> Configuration:
    """A copy of the configuration that is nobody's double: identities of its own, no phone."""
    return row._replace(id=identity(rng), vapi_assistant_id=str(identity(rng)), phone_number_id=None)


def _outdated(rng: Random, row: Configuration) -> Configuration:
    """What the configuration replaced, switched off."""
    return _afresh(rng, row)._replace(is_active=False, updated_at=row.created_at)


def _caller(tenant: Tenant) -> Caller:
    return Caller(tenant.business.id, tenant.trade, tenant.business.time_zone, tenant.volume)


@dataclass(frozen=True)
class World:
    """A v1 platform of ``tenants`` businesses (1 or more) and ``calls`` calls (0 or more) before ``now``.

    The first business is a flawless restaurant, so that a world of one is a place to learn in.
    """

    tenants: int
    calls: int
    seed: int
    now: datetime  # with its time zone

    def __post_init__(self) -> None:
        if self.tenants < 1 or self.calls < 0:
            raise UsageError(
                f"a sample of {self.tenants} tenants and {self.calls} calls cannot be made",
                fix="Ask for at least one tenant, and no negative number of calls.",
            )

    def _chance(self, stream: str) -> Random:
        return Random(f"{self.seed} {stream}")  # noqa: S311 - a sample must repeat; nothing is secret

    @cached_property
    def _now(self) -> datetime:
        return self.now.astimezone(UTC)

    @cached_property
    def faults(self) -> faults.Faults:
        """Which rows are broken on purpose."""
        return faults.plan(self._chance("faults"), self.tenants, self.calls)

    @property
    def configuration_count(self) -> int:
        """How many configurations there are, the spare and the lost ones included."""
        return self.tenants + self.tenants // SPARE_EVERY + len(self.faults.lost_configurations)

    def tenants_in_order(self) -> Iterator[Tenant]:
        """Every business with what the other tables draw from; the same at each call."""
        rng = self._chance("tenants")
        trades, cities, called = deal(rng, _TRADES), deal(rng, _CITIES), deal(rng, _CALLED)
        phone = ""
        for number in range(self.tenants):
            first = number == 0
            trade = _TRADES[0] if first else next(trades)
            business = _business(rng, number, trade, _CITIES[0] if first else next(cities), self._now)
            volume = _volume(rng, trade) if first or next(called) else 0.0
            phone = phone if number in self.faults.sharing_phone else str(identity(rng))
            if number in self.faults.without_vertical:
                business = business._replace(vertical=None)
            yield Tenant(business, trade, volume, phone)

    def businesses(self) -> Iterator[Business]:
        """``tenants`` rows."""
        return (tenant.business for tenant in self.tenants_in_order())

    def configurations(self) -> Iterator[Configuration]:
        """``configuration_count`` rows: one for each business, a few more for some, and the lost ones."""
        rng = self._chance("configurations")
        drawn = _configurations(rng, self.tenants_in_order(), self._now)
        for number, row in enumerate(drawn, 1):
            yield row
            if number % SPARE_EVERY == 0:
                yield _outdated(rng, row)
        for kind in self.faults.lost_configurations:
            yield faults.LOST_CONFIGURATIONS[kind](rng, _afresh(rng, row))

    def call_rows(self) -> Iterator[Call]:
        """``calls`` rows in the order in which they began."""
        if not self.calls:
            return iter(())  # spares a million tenants from being drawn again
        callers = (_caller(tenant) for tenant in self.tenants_in_order() if tenant.volume)
        drawn = history.calls(self._chance("calls"), callers, self.calls, self._now)
        return faults.break_calls(self._chance("broken calls"), drawn, self.faults.calls)
