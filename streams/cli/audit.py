"""`rewindow audit`: what was asked, decided and done, and whether that record is whole."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.options import (
    CommonOptions,
    Json,
    flag,
    print_json,
    say,
    takes_options,
)
from streams.errors import InvalidInputError, RewindowError, UnreachableError
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.control.audit import Finding
    from streams.control.records import AuditRecord, Head
    from streams.settings import Settings

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

Alone = Annotated[
    bool, flag("--alone", help="With --file: don't ask the control topic what should be there.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    commands = typer.Typer(
        no_args_is_help=True, help="What was asked, decided and done, as a chain of records."
    )
    commands.command("show")(show)
    commands.command("verify")(verify)
    app.add_typer(commands, name="audit")


@takes_options
def show(common: CommonOptions, file: From = None, topic: Topic = None, json: Json = False) -> None:
    """Print the audit trail, oldest first; with --json one record a line."""
    _one_of(file, topic)
    records = read_file(file) if file is not None else _read_topic(common.settings(), topic)[0]
    if json:
        for record in records:
            typer.echo(as_line(record))
    elif records:
        for record in records:
            typer.echo(as_text(record))
    else:
        say("nothing was asked or decided yet")


@takes_options
def verify(
    common: CommonOptions,
    file: From = None,
    topic: Topic = None,
    alone: Alone = False,
    json: Json = False,
) -> None:
    """Check that no audit record was edited, taken out, put elsewhere or cut off.

    Each record carries the hash of the one before, and each decision on the control topic the
    hash of the newest record. Exits with 1 and names the records if something is wrong.
    """
    from streams.control.audit import verify as find_faults

    _one_of(file, topic)
    if alone and file is None:
        raise InvalidInputError("--alone goes with --file")
    heads: list[Head] | None = None
    if file is None:
        records, heads = _read_topic(common.settings(), topic)
    else:
        # What knows of the records is read after the copy was made: it may know of later ones.
        records = read_file(file)
        heads = None if alone else _heads_of_now(common)
    findings = find_faults(records, heads or [])
    if json:
        print_json({**_as_json(records, findings), "by_control_topic": heads is not None})
    elif not findings:
        say(f"whole: {len(records)} records{'' if heads is not None else ', by themselves'}")
    if findings:
        messages = [finding.message for finding in findings]
        if file is not None and any(one.position == len(records) for one in findings):
            messages.append("a copy that was made before the missing ones is whole with --alone")
        raise RewindowError("\n".join(messages))


def _one_of(file: Path | None, topic: str | None) -> None:
    if file is not None and topic is not None:
        raise InvalidInputError("--file and --topic: give one of them")


def _heads_of_now(common: CommonOptions) -> list[Head] | None:
    """What the control topic knows of a copy; None, and said so, if it can't be asked."""
    try:
        return _read_heads(common.settings())
    except (UnreachableError, InvalidInputError) as error:
        say(
            f"the copy is checked by itself, so an end that was cut off does not show: {error} "
            "(--alone: don't ask)"
        )
        return None


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


def _read_heads(settings: Settings) -> list[Head]:
    """What the control topic knows of the trail, in its order."""
    from streams.cli.control_topics import Values, need_topics, read_control

    need_topics(settings, settings.names.control_topic)
    with Registry.from_settings(settings.registry_options()) as registry:
        control = read_control(settings, Values(registry))
    return [record.stamp.audit for _, record in control]


def _read_topic(settings: Settings, topic: str | None) -> tuple[list[AuditRecord], list[Head]]:
    """The records of the audit topic or of a copy, and what the control topic knows of them."""
    from streams.cli.control_topics import Values, need_topics, read_audit

    wanted = topic or settings.names.audit_topic
    need_topics(settings, wanted)
    # First what knows of the records, so that those it knows of are there.
    heads = _read_heads(settings)
    with Registry.from_settings(settings.registry_options()) as registry:
        return read_audit(settings, Values(registry), wanted), heads


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
