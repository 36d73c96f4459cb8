"""`rewindow schemas`: the Avro schemas of events, in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import CommonOptions, Json, print_json, say, takes_options
from streams.errors import InvalidInputError, RefusedError
from streams.schema.compat import LEVELS
from streams.schema.files import DEFAULT_LEVEL, compatibility_level, read_schema
from streams.schema.registry import Registry

Subject = Annotated[
    str,
    typer.Argument(
        metavar="SUBJECT",
        help="Subject to register under: TOPIC-value for the values of a topic.",
        show_default=False,
    ),
]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Avro schema, as JSON.", show_default=False)
]
Compatibility = Annotated[
    str | None,
    typer.Option(
        "--compatibility",
        metavar="LEVEL",
        help="Rule that later schemas of the subject have to keep, such as BACKWARD or "
        "FULL_TRANSITIVE. Default: the one in compatibility.toml beside the schemas, else the "
        "one that the subject has, else BACKWARD.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    commands = typer.Typer(no_args_is_help=True, help="Avro schemas of events, in the registry.")
    commands.command("list")(list_schemas)
    commands.command("register")(register_schema)
    app.add_typer(commands, name="schemas")


@takes_options
def list_schemas(common: CommonOptions, json: Json = False) -> None:
    """List the registry's subjects: newest version, its id, and the rule for later ones."""
    settings = common.settings()
    with Registry.from_settings(settings.registry_options()) as registry:
        rows = [_subject(registry, subject) for subject in sorted(registry.subjects())]
    if json:
        print_json({"registry_url": registry.url, "subjects": rows})
        return
    if not rows:
        say(f"the registry at {registry.url} has no schemas yet")
        return
    table = Table("subject", "newest version", "id", "compatibility", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str("-" if value is None else value) for value in row.values()))
    Console().print(table)


def _subject(registry: Registry, subject: str) -> dict[str, object]:
    try:
        newest = registry.schema(subject, "latest")
    except InvalidInputError:  # another kind than Avro, which belongs to somebody else
        newest = None
    return {
        "subject": subject,
        "version": newest and newest.version,
        "id": newest and newest.schema_id,
        "compatibility": registry.compatibility(subject),
    }


@takes_options
def register_schema(
    common: CommonOptions,
    subject: Subject,
    file: File,
    compatibility: Compatibility = None,
    json: Json = False,
) -> None:
    """Register an Avro schema, and set the rule that later ones have to keep.

    Registering the same schema again changes nothing. One that breaks the rule is refused,
    with the reasons. The rule is set on the subject, never on the whole registry.
    """
    settings = common.settings()
    if compatibility is not None and compatibility not in LEVELS:
        raise InvalidInputError(f"--compatibility {compatibility!r}: one of {', '.join(LEVELS)}")
    schema = read_schema(file)
    wanted = compatibility or compatibility_level(file, subject)
    with Registry.from_settings(settings.registry_options()) as registry:
        has = registry.compatibility(subject)
        level = wanted or has or DEFAULT_LEVEL
        known = registry.lookup(subject, schema)
        reasons = [] if known is not None else registry.check(subject, schema, level)
        if reasons:
            raise RefusedError(
                "\n".join(f"{file}: subject {subject!r} ({level}): {why}" for why in reasons)
            )
        schema_id = registry.register(subject, schema) if known is None else known
        # After the schema: a registry may refuse a level for a subject without any.
        if has != level:
            registry.set_compatibility(subject, level)
    from streams.schema.types import unsupported_fields  # seconds, for polars

    unusable = unsupported_fields(schema) if schema.get("type") == "record" else {}
    for name, reason in unusable.items():
        say(f"{file}: note: field {name!r} can't be used in definitions: {reason}")
    if json:
        print_json(
            {
                "subject": subject,
                "id": schema_id,
                "change": "registered" if known is None else "unchanged",
                "compatibility": level,
                "unusable_fields": unusable,
            }
        )
        return
    what = "is registered" if known is None else "was registered before"
    Console(highlight=False).print(f"{subject} {what}: id {schema_id}, {level}")
