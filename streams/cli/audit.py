"""`rewindow audit`: what was asked, decided and done, and whether that record is whole."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.options import CommonOptions, Json, print_json, say, takes_common_options
from streams.errors import InvalidInputError, RewindowError
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.config import Settings
    from streams.control.audit import Finding
    from streams.control.records import AuditRecord, Head

From = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Read a copy, as `rewindow audit show --json` prints it.",
        show_default=False,
    ),
]
Topic = Annotated[
    str | None,
    typer.Option(
        "--topic", metavar="TOPIC", help="Read a copy on another topic.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    commands = typer.Typer(
        no_args_is_help=True, help="What was asked, decided and done, as a chain of records."
    )
    commands.command("show")(show)
    commands.command("verify")(verify)
    app.add_typer(commands, name="audit")


@takes_common_options
def show(common: CommonOptions, file: From = None, topic: Topic = None, json: Json = False) -> None:
    """Print the audit trail, oldest first; with --json one record a line."""
    records, _ = _read(common, file, topic)
    if json:
        for record in records:
            typer.echo(as_line(record))
    elif records:
        for record in records:
            typer.echo(as_text(record))
    else:
        say("nothing was asked or decided yet")


@takes_common_options
def verify(
    common: CommonOptions, file: From = None, topic: Topic = None, json: Json = False
) -> None:
    """Check that no audit record was edited, taken out or put elsewhere.

    Each record carries the hash of the one before, and each decision the hash of the newest
    record; a file is checked by itself. Exits with 1 and names the records if something is
    wrong.
    """
    from streams.control.audit import verify as find_faults

    records, heads = _read(common, file, topic)
    findings = find_faults(records, heads)
    if json:
        print_json(_as_json(records, findings))
    elif not findings:
        say(f"whole: {len(records)} records")
    if findings:
        raise RewindowError("\n".join(finding.message for finding in findings))


def as_line(record: AuditRecord) -> str:
    """A record as one line of JSON, which `from_line` reads back."""
    from pydantic import TypeAdapter

    from streams.control.records import AuditRecord

    return TypeAdapter(AuditRecord).dump_json(record).decode()


def from_line(line: str) -> AuditRecord:
    """The record in a line. Raises ValueError if it is not what `as_line` gives."""
    from pydantic import TypeAdapter

    from streams.control.records import AuditRecord

    record = TypeAdapter(AuditRecord).validate_json(line, strict=True)
    if as_line(record) != line:
        raise ValueError("it is not written as `rewindow audit show --json` writes it")
    return record


def _read(
    common: CommonOptions, file: Path | None, topic: str | None
) -> tuple[list[AuditRecord], list[Head]]:
    """The records, and what the control topic knows of them; nothing of a file's."""
    if file is not None and topic is not None:
        raise InvalidInputError("--file and --topic: give one of them")
    if file is not None:
        return read_file(file), []
    return _read_topic(common.settings(), topic)


def read_file(file: Path) -> list[AuditRecord]:
    """The records in a file, one a line.

    Raises InvalidInputError if it is not text, RewindowError naming lines that are no record:
    a copy of a whole chain has none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file}: is not UTF-8 text") from None
    records, faults = [], []
    for number, line in enumerate(lines, 1):
        try:
            records.append(from_line(line))
        except ValueError as error:
            why = str(error).splitlines()[-1].strip() if str(error) else "no record"
            faults.append(f"{file}:{number}: is no audit record: {why}")
    if faults:
        raise RewindowError("\n".join(faults))
    return records


def _read_topic(settings: Settings, topic: str | None) -> tuple[list[AuditRecord], list[Head]]:
    from streams.cli.control_topics import Values, need_topics, read_audit, read_control

    names = settings.names
    wanted = topic or names.audit_topic
    need_topics(settings, wanted, names.control_topic)
    with Registry.from_settings(settings.registry_options()) as registry:
        values = Values(registry)
        # First what knows of the records, so that those it knows of are there.
        control = read_control(settings, values)
        records = read_audit(settings, values, wanted)
    return records, [record.stamp.audit for _, record in control]


def _as_json(records: Sequence[AuditRecord], findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "whole": not findings,
        "records": len(records),
        "findings": [
            {
                "fault": finding.fault.value,
                "seq": finding.seq,
                "position": finding.position,
                "message": finding.message,
            }
            for finding in findings
        ],
    }


def as_text(record: AuditRecord) -> str:
    """A record for people: when and what, and below it the rest in words."""
    at = datetime.fromtimestamp(record.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    name = record.feature_set or "-"
    if record.version is not None:
        name = f"{name}@{record.version}"
    head = f"{record.seq}  {at}  {record.event}  {name}  {record.requested_by}".rstrip()
    rest = _what(record)
    return f"{head}\n    {rest}" if rest else head


def _what(record: AuditRecord) -> str:
    """The rest of a record, in words."""
    parts = [record.detail, record.reason]
    if record.epoch is not None:
        parts.append(f"epoch {record.epoch}")
    if record.cut:
        parts.append("from " + ", ".join(f"{p}:{o}" for p, o in sorted(record.cut.items())))
    parts += [reason.message for reason in record.reasons]
    return "; ".join(part for part in parts if part)
