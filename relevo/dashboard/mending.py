"""What people look at and decide in the move: the review list, the quarantine, and what a backup would bring back."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from starlette.responses import Response

from relevo.access.roles import Role
from relevo.dashboard.house import Visit, to
from relevo.dashboard.places import Place
from relevo.db.pool import first, one
from relevo.db.statements import statement
from relevo.errors import UnknownName
from relevo.migration import quarantine, reviewing, runner
from relevo.migration.overrides import FIELDS
from relevo.migration.reviewing import Entry
from relevo.migration.run import Options
from relevo.migration.steps import difference

CONFIRMED = ("retry", "override")


async def review(visit: Visit) -> Response:
    """One configuration to look at: its prompt beside what v2 makes of it, and another decision."""
    entry = await _entry(visit)
    async with visit.house.database.transaction(read_only=True) as connection:
        names = await one(connection, statement("migration", "override_names"))
    return visit.page("review.html", entry=entry, reasons=reviewing.REASONS, names=names)


async def override(visit: Visit) -> Response:
    """Decide otherwise than was inferred, and let it take effect."""
    entry = await _entry(visit)
    decided = _decided(await visit.form(), await visit.chosen("enabled_capabilities"), entry)
    if decided:
        with tempfile.TemporaryDirectory(prefix="relevo-override-") as folder:
            file = Path(folder) / "override.json"
            await asyncio.to_thread(file.write_text, json.dumps({str(entry.config_id): decided}), "utf-8")
            options = Options(config_ids=(entry.config_id,), skip_backup=True, overrides=file)
            await _move(visit, options)
    return to("/migration?done=override")


async def retry(visit: Visit) -> Response:
    """Move what can go now of what was set aside. One that takes too long goes on where it was when asked again."""
    reason = (await visit.form()).get("reason") or None
    house = visit.house
    await quarantine.retry(house.database, house.mapping, actor=visit.caller.actor, reason=reason, clock=house.clock)
    return to("/migration?done=retry")


async def backup(visit: Visit) -> Response:
    """What restoring a backup would change. Nothing is written."""
    house = visit.house
    chosen = await difference.find(house.database, visit.request.path_params["backup"])
    found = await difference.preview(house.database, house.mapping, chosen, tenant_ids=None, discard_newer=False)
    return visit.page("backup.html", found=found, backup=chosen)


async def _move(visit: Visit, options: Options) -> None:
    reason = (await visit.form()).get("reason") or None
    house = visit.house
    actor = visit.caller.actor
    await runner.migrate(house.database, options, actor=actor, reason=reason, mapping=house.mapping, clock=house.clock)


def _decided(sent: Mapping[str, str], capabilities: list[str], entry: Entry) -> dict[str, Any]:
    """What somebody decided that is not so already; a field that was not sent is not decided."""
    written: dict[str, Any] = {name: sent[name] for name in FIELDS if name in sent and name != "enabled_capabilities"}
    if capabilities:
        written["enabled_capabilities"] = capabilities
    present: dict[str, Any] = {name: getattr(entry, name) or "" for name in FIELDS}
    present["enabled_capabilities"] = sorted(entry.enabled_capabilities)
    return {
        name: value
        for name, value in written.items()
        if (sorted(value) if isinstance(value, list) else value.replace("\r\n", "\n")) != present[name]
    }


async def _entry(visit: Visit) -> Entry:
    """The configuration that the address names, as the review list has it. Raises UnknownName."""
    house = visit.house
    try:
        config_id = UUID(visit.request.path_params["config"])
    except ValueError:
        raise _nothing() from None
    async with house.database.transaction(read_only=True) as connection:
        row = await first(connection, statement("dashboard", "tenant_of_config"), {"id": config_id})
    if row is not None:
        scope = [row["business_id"]]
        async for entry in reviewing.entries(house.database, house.mapping, tenant_ids=scope, uncovered_too=True):
            if entry.config_id == config_id:
                return entry
    raise _nothing()


def _nothing() -> UnknownName:
    return UnknownName("there is nothing to review of that id", fix="see the list on the page Migration")


PLACES = (
    Place("GET", "/review/{config}", Role.VIEWER, review),
    Place("POST", "/review/{config}", Role.OPERATOR, override),
    Place("POST", "/quarantine/retry", Role.OPERATOR, retry),
    Place("GET", "/backups/{backup}", Role.OPERATOR, backup),
)
