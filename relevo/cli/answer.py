"""What a caller would hear: both answers of a tenant, and the templates behind v2's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common
from relevo.clock import system_clock
from relevo.migration import preflight
from relevo.tenants import answer as answering
from relevo.tenants import templates
from relevo.tenants.answer import Answers, SaidByV1, SaidByV2

app = App(name="templates", help="The texts that v2 speaks by.")

_LOST, _RETOLD, _ADDED = "red", "yellow", "green"


async def answer(tenant: str, *, common: Common = ORDINARY) -> Answer:
    """What v1 and v2 would say to a caller, side by side.

    Parameters
    ----------
    tenant
        Its id, the beginning of its id, or its name.
    """
    mapping = common.mapping()
    fill = mapping.fill_answers()
    async with common.database() as database:
        preflight.refuse_blocked(await preflight.structure(database, mapping))
        found = await answering.tenant_of(database, tenant, fill)
        configs = await answering.answers(database, found.id, fill, now=system_clock())
    title = Text.assemble((found.name or "a business without a name", "bold"), f"  {found.id}")
    told = [_shown(config) for config in configs] or [Text("it has no configuration, in v1 or in v2: nobody answers")]
    data = {"tenant_id": found.id, "business_name": found.name, "configs": [asdict(config) for config in configs]}
    return Answer(data, Group(title, *told))


@app.command
async def publish(
    folder: Path,
    *,
    note: Annotated[str, Parameter(help="What is new in it.")],
    common: Common = ORDINARY,
) -> Answer:
    """Publish a folder of texts as the version of its name; it never changes after.

    Parameters
    ----------
    folder
        Files PART/KEY.md, as in relevo/tenants/templates/1.
    """
    async with common.database() as database:
        made = await templates.publish(database, folder, note=note, actor=common.actor, reason=common.reason)
    return Answer(asdict(made), f"template version {made.version} is published, with {made.pieces:,} texts")


@app.command(name="list")
async def list_versions(*, common: Common = ORDINARY) -> Answer:
    """The published versions, and how many configurations speak by each."""
    async with common.database() as database:
        found = await templates.versions(database)
    table = Table("version", "note", "texts", "configurations", "published")
    for each in found:
        when = f"{each.published_at:%Y-%m-%d %H:%M}"
        table.add_row(each.version, Text(each.note), f"{each.pieces:,}", f"{each.configurations:,}", when)
    return Answer([asdict(each) for each in found], table)


@app.command
async def show(version: str, *, common: Common = ORDINARY) -> Answer:
    """The texts of a version."""
    async with common.database() as database:
        found = await templates.pieces(database, version)
    text = "\n\n".join(f"--- {piece.part}/{piece.key}\n{piece.body}" for piece in found)
    return Answer([asdict(piece) for piece in found], text)


def _shown(config: Answers) -> Group | Text:
    v1, v2 = config.v1, config.v2
    table = Table("", show_lines=True, expand=True)
    for side in ("v1", "v2"):
        table.add_column(side, ratio=1)
    for name, old, new in _fields(v1, v2):
        table.add_row(name, Text(_said(old)), Text(_said(new)))
    table.add_row("prompt", _prompt_of_v1(config), _prompt_of_v2(v2))
    state = {True: "active", False: "not active", None: "activity unknown"}[config.is_active]
    title = Text(f"\nconfiguration {config.config_id}, {state}", "bold")
    return Group(title, *_warnings(config), table, *_differences(config))


def _fields(v1: SaidByV1 | None, v2: SaidByV2 | None) -> list[tuple[str, Any, Any]]:
    """Name, v1's and v2's value of each line of the table."""
    can = ", ".join(v2.enabled_capabilities) if v2 else None
    return [
        ("name", v1 and v1.assistant_name, v2 and v2.assistant_name),
        ("greeting", v1 and v1.first_message, v2 and v2.first_message),
        ("voice", v1 and v1.voice_id, v2 and f"{v2.voice_id}, speed {v2.voice_speed}"),
        ("type", "", v2 and f"{v2.assistant_type_id}, {v2.personality_type}, template {v2.template_version}"),
        ("can", "", can),
    ]


def _said(value: Any) -> str:
    return "(nothing)" if value is None else str(value)


def _prompt_of_v1(config: Answers) -> Text:
    """As it is written, what v2 will not say in colour."""
    if config.v1 is None:
        return Text("(there is no v1 row)")
    text = Text(config.v1.system_prompt or "(empty)")
    for colour, passages in ((_RETOLD, config.retold), (_LOST, config.not_carried)):
        for passage in passages:
            text.stylize(colour, passage["place"] - 1, passage["place"] - 1 + len(passage["text"]))
    return text


def _prompt_of_v2(v2: SaidByV2 | None) -> Text:
    if v2 is None:
        return Text("(there is no v2 row)")
    return Text.assemble(v2.system_prompt, "\n\n", (v2.added_at_call, _ADDED))


def _warnings(config: Answers) -> list[Text]:
    """What a person must know before reading on."""
    warnings = []
    if config.v1 is None:
        warnings.append("v1 says nothing: there is no v1 row to go back to")
    if config.v2_missing:
        warnings.append(f"v2 says nothing: {config.v2_missing}")
    if config.v2 and config.v2.unknown:
        warnings.append(f"v2's templates pass over what they do not know: {', '.join(config.v2.unknown)}")
    return [Text(warning, "bold red") for warning in warnings]


def _differences(config: Answers) -> list[Text]:
    """What one says and the other does not; readable without colour."""
    told = []
    if config.not_carried:
        told.append(Text("v1 says, and v2 would not:", _LOST))
        told += [Text(f"  - {_line(passage['text'])}", _LOST) for passage in config.not_carried]
    if config.retold:
        heading = "v1 says, and v2 says in words of its own; figures and names in it v2 knows only from its tools:"
        told.append(Text(heading, _RETOLD))
        told += [Text(f"  - {passage['carried_by']}: {_line(passage['text'])}", _RETOLD) for passage in config.retold]
    if config.v2:
        told.append(Text("v2 adds when a call comes, and never stores: the day and the hour", _ADDED))
    return told


def _line(passage: str, longest: int = 160) -> str:
    words = " ".join(passage.split())
    return words if len(words) <= longest else f"{words[: longest - 1]}…"
