"""The move: preflight, migrate, verify, explain, backups."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter, validators
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relevo.cli import vapi
from relevo.cli.frame import ORDINARY, Answer, Common, TenantIds, WholeNumber, tenants
from relevo.db import migrations
from relevo.errors import UsageError
from relevo.migration import explain as explaining
from relevo.migration import preflight as preflighting
from relevo.migration import proposal, runner
from relevo.migration.run import (
    DEFAULT_BATCH_SIZE,
    LARGEST_BATCH,
    MOST_WORKERS,
    BackupCalls,
    MoveResult,
    Options,
)
from relevo.migration.steps import verify as verifying


def _within(most: int) -> Parameter:
    return Parameter(validator=validators.Number(gte=1, lte=most))


_COLOURS = {"blocker": "red", "warning": "yellow", "notice": "cyan"}


async def preflight(*, propose: Path | None = None, tenant_ids: TenantIds = None, common: Common = ORDINARY) -> Answer:
    """List everything that would make the move fail or lose something, each with its fix.

    Exit status 1 when something blocks.

    Parameters
    ----------
    propose
        Write a mapping for what this database holds, as a relevo.toml to correct, and do nothing else.
    """
    if propose is not None:
        return await _propose(propose, common)
    chosen = tenants(tenant_ids)
    mapping = common.mapping()
    async with common.database() as database:
        structure = await preflighting.structure(database, mapping)
        if not preflighting.blockers(structure):
            await preflighting.require_tenants(database, mapping, chosen)
        findings = [
            *await preflighting.inspect(database, mapping, tenant_ids=chosen, free_bytes=common.free_bytes()),
            *await vapi.findings(common),
        ]
        place = database.place
    blocked = bool(preflighting.blockers(findings))
    table = Table("", "finding", "examples", "fix", title=f"Preflight of {place}", title_justify="left")
    for finding in findings:
        colour = _COLOURS[finding.severity]
        table.add_row(
            Text(finding.severity, style=colour),
            Text(finding.message),
            Text("\n".join(finding.examples)),
            Text(finding.fix),
        )
    verdict = "blocked" if blocked else "nothing stands in the way of relevo migrate"
    return Answer(
        {"success": not blocked, "findings": [asdict(finding) for finding in findings]},
        Group(table, verdict) if findings else verdict,
        1 if blocked else 0,
    )


async def _propose(file: Path, common: Common) -> Answer:
    async with common.database() as database:
        text = await proposal.propose(database)
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError as error:
        raise UsageError(f"{file} exists, and is not overwritten", fix="name another file") from error
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", fix="name a file that can be written") from error
    return Answer({"success": True, "written": str(file)}, f"written to {file}: read it, correct it, keep it")


async def migrate(
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    batch_size: Annotated[WholeNumber, _within(LARGEST_BATCH)] = DEFAULT_BATCH_SIZE,
    tenant_ids: TenantIds = None,
    skip_backup: Annotated[bool, Parameter(negative="")] = False,
    backup_calls: BackupCalls = "all",
    overrides: Path | None = None,
    workers: Annotated[WholeNumber, _within(MOST_WORKERS)] = 1,
    resume: UUID | None = None,
    abandon: Annotated[bool, Parameter(negative="")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Move the data: backup, validate, configurations, calls and metrics, verify.

    An interrupted run goes on from where it was. Exit status 1 when verification failed, which undoes the run;
    3 when a precondition does not hold, and then nothing was changed.

    Parameters
    ----------
    dry_run
        Show what would be done; the server itself guards that nothing is written.
    batch_size
        Configurations per transaction.
    skip_backup
        No way back by restore: for trials only.
    backup_calls
        all: whole rows; touched: only the key and the columns that the move writes, for millions of calls.
    overrides
        Decisions of people, which win over inference: a TOML file.
    workers
        How many batches to work on at a time, each worker on a range of its own.
    resume
        The interrupted run to go on with.
    abandon
        Give the interrupted run up instead: all that it wrote is taken back.
    """
    if abandon:
        return await _abandon(common)
    chosen = tenants(tenant_ids)
    options = Options(dry_run, batch_size, workers, chosen, None, skip_backup, backup_calls, overrides, resume)
    mapping = common.mapping()
    async with common.database(direct=True) as database:
        result = await runner.migrate(
            database, options, actor=common.actor, reason=common.reason, mapping=mapping, emit=common.sink()
        )
    return Answer(asdict(result), _with_errors(_summary(result), result.errors), 0 if result.success else 1)


async def _abandon(common: Common) -> Answer:
    async with common.database(direct=True) as database:
        result = await runner.abandon(
            database, actor=common.actor, reason=common.reason, mapping=common.mapping(), emit=common.sink()
        )
    return Answer(
        {**asdict(result), "success": True}, f"run {result.run_id} is given up: all that it wrote was taken back"
    )


async def verify(*, tenant_ids: TenantIds = None, common: Common = ORDINARY) -> Answer:
    """Derive every v2 row again from its v1 row and compare, field by field. Exit status 1 on drift."""
    chosen = tenants(tenant_ids)
    mapping = common.mapping()
    async with common.database() as database:
        preflighting.refuse_blocked(await preflighting.structure(database, mapping))
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        await preflighting.require_tenants(database, mapping, chosen)
        verdict = await verifying.run(database, mapping, tenant_ids=chosen, emit=common.sink())
    table = Table("verification", "", title_justify="left")
    data = {**asdict(verdict), "success": verdict.success}
    for name in ("checked", "matched", "edited_on_v2", "queued", "drifted", "missing", "quarantined", "orphaned"):
        table.add_row(name.replace("_", " "), f"{data[name]:,}")
    table.add_row("verdict", "[green]v2 follows from v1[/]" if verdict.success else "[red]drift[/]")
    return Answer(data, _with_errors(table, verdict.errors), 0 if verdict.success else 1)


async def explain(*, vertical: str, prompt_file: Path, common: Common = ORDINARY) -> Answer:
    """Show what the transform makes of a prompt, and which words decided.

    Parameters
    ----------
    vertical
        The business's vertical: restaurant, dental, …
    prompt_file
        A UTF-8 text file with the v1 prompt.
    """
    prompt = _read_prompt(prompt_file)
    async with common.database() as database:
        found = await explaining.explain(database, vertical=vertical, prompt=prompt)
    return Answer(asdict(found), _explained(found))


def _summary(result: MoveResult) -> Table:
    title = "Dry run: nothing was written" if result.dry_run else f"Run {result.run_id}"
    table = Table("result", "", title=title, title_justify="left")
    table.add_row("status", "[green]success[/]" if result.success else "[red]failed, undone[/]")
    would = "would be " if result.dry_run else ""
    for label, count in (
        (f"configurations {would}migrated", result.migrated_configs),
        ("configurations already there", result.skipped_configs),
        (f"configurations {would}set aside", result.quarantined_configs),
        ("configurations to review", result.review_configs),
        (f"calls {would}given an outcome", result.updated_calls),
        (f"businesses {would}given figures", result.metrics_businesses),
    ):
        table.add_row(label, f"{count:,}")
    if result.refused_outcomes:
        table.add_row("calls whose table refuses their outcome", f"{result.refused_outcomes:,}")
    table.add_row("backup", str(result.backup_id or "none"))
    table.add_row("duration", f"{result.duration_seconds:.2f} s")
    return table


def _read_prompt(file: Path) -> str:
    try:
        prompt = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", fix="name an existing file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text: {error.reason}", fix="save it as UTF-8") from error
    if "\0" in prompt:
        raise UsageError(f"{file} holds a NUL character, which no v1 prompt can", fix="name a text file")
    return prompt


def _with_errors(table: Table, errors: list[str]) -> Group:
    shown = [Text(f"- {error}") for error in errors[:10]]
    more = [Text(f"… and {len(errors) - 10:,} more")] if len(errors) > 10 else []
    return Group(table, *shown, *more)


def _explained(found: explaining.Explanation) -> Group:
    table = Table("field", "inferred", title_justify="left")
    table.add_row("type", found.assistant_type_id)
    table.add_row("capabilities", ", ".join(found.enabled_capabilities))
    table.add_row("special instructions", Text(found.special_instructions or "none"))
    table.add_row("cut at 1,000 characters", "yes" if found.truncated else "no")
    why = Table("decided", "keyword", "place", "confidence")
    for field, reason in _reasons(found):
        why.add_row(field, reason.get("keyword") or reason["heading"], str(reason["place"]), reason["confidence"])
    lost = Table("place", "not carried to v2")
    for passage in found.uncovered:
        lost.add_row(str(passage["place"]), Text(passage["text"]))
    return Group(table, why, *([lost] if found.uncovered else []))


def _reasons(found: explaining.Explanation) -> list[tuple[str, dict[str, str]]]:
    why = found.provenance
    cut = why["special_instructions"]
    return [
        *(("assistant type", reason) for reason in why["assistant_type_id"]),
        *(why["enabled_capabilities"].items()),
        *([("special instructions", cut)] if cut else []),
    ]
