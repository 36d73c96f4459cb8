"""`rewindow publish`: put definitions into the definitions topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import CommonOptions, Json, flag, print_json, say, takes_common_options
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from streams.definitions.publish import PublishOutcome

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        help="Definitions of sources and feature sets: YAML, or Python (.py).",
        show_default=False,
    ),
]
DryRun = Annotated[bool, flag("--dry-run", help="Check everything, change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(publish)


@takes_common_options
def publish(
    common: CommonOptions,
    files: Files,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Check definitions and publish them, all of them or none.

    Publishing the same content twice changes nothing; other content under a published version
    is refused. The first version of a set serves; later ones serve when they are activated.
    """
    settings = common.settings()
    from streams.definitions.publish import publish as publish_files  # seconds, for polars

    with Registry.from_settings(settings.registry_options()) as registry:
        outcomes = publish_files(settings, files, registry, dry_run=dry_run)
    for outcome in outcomes:
        for note in outcome.notes:
            say(f"{_title(outcome)}: {note}")
    if json:
        print_json(
            {
                "app": settings.app,
                "dry_run": dry_run,
                "definitions": [_as_json(outcome) for outcome in outcomes],
            }
        )
    else:
        Console().print(_table(outcomes, dry_run))


def _title(outcome: PublishOutcome) -> str:
    return outcome.name if outcome.version is None else f"{outcome.name}@{outcome.version}"


def _as_json(outcome: PublishOutcome) -> dict[str, Any]:
    return {
        "kind": outcome.kind,
        "name": outcome.name,
        "version": outcome.version,
        "change": outcome.change.value,
        "digest": outcome.digest,
        "serves": outcome.serves,
        "notes": list(outcome.notes),
    }


def _table(outcomes: list[PublishOutcome], dry_run: bool) -> Table:
    table = Table("kind", "name", "would be" if dry_run else "is", "serves", "digest", box=None)
    for outcome in outcomes:
        is_new = outcome.kind == "feature_set" and outcome.change.value == "published"
        serves = ("yes" if outcome.serves else "no") if is_new else ""
        table.add_row(
            outcome.kind.replace("_", " "),
            _title(outcome),
            outcome.change.value,
            serves,
            (outcome.digest or "")[:12],
        )
    return table
