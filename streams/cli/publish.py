"""`rewindow publish`: put definitions into the definitions topic."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import CommonOptions, Json, flag, print_json, say, takes_options
from streams.errors import RewindowError
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from streams.control.preview import Preview
    from streams.definitions.publish import PublishOutcome
    from streams.settings import Settings

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


@takes_options
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
    from streams.cli.control_topics import read_left_out
    from streams.definitions.publish import publish as publish_files  # seconds, for polars

    with Registry.from_settings(settings.registry_options()) as registry:
        left_out = partial(read_left_out, settings, registry)
        outcomes = publish_files(settings, files, registry, dry_run=dry_run, left_out=left_out)
        plans = {} if dry_run else _plans(settings, registry, outcomes)
    for outcome in outcomes:
        for note in outcome.notes:
            say(f"{_title(outcome)}: {note}")
    if json:
        print_json(
            {
                "app": settings.app,
                "dry_run": dry_run,
                "definitions": [_as_json(outcome, plans) for outcome in outcomes],
            }
        )
    else:
        console = Console(highlight=False)
        console.print(_table(outcomes, dry_run))
        for line in _in_short(outcomes, plans):
            console.print(line, soft_wrap=True)


def _plans(
    settings: Settings, registry: Registry, outcomes: list[PublishOutcome]
) -> dict[str, Preview]:
    """What each new version takes, by title; nothing if that can't be found out now."""
    new = [one for one in outcomes if one.version and one.change.value == "published"]
    if not new:
        return {}
    from streams.cli.outlook import Outlook
    from streams.definitions.store import read_definitions

    try:
        definitions = read_definitions(settings)
        outlook = Outlook(settings, registry)
        return {
            _title(one): outlook.of_published(definitions, one.name, one.version)
            for one in new
            if one.name in definitions.sets
        }
    except RewindowError as error:
        say(f"what the new versions take can't be told now: {error}")
        return {}


def _in_short(outcomes: list[PublishOutcome], plans: dict[str, Preview]) -> list[str]:
    from streams.cli.plan_text import in_short

    titles = [_title(one) for one in outcomes]
    return [f"{title}: {in_short(plans[title])}" for title in titles if title in plans]


def _title(outcome: PublishOutcome) -> str:
    return outcome.name if outcome.version is None else f"{outcome.name}@{outcome.version}"


def _as_json(outcome: PublishOutcome, plans: dict[str, Preview]) -> dict[str, Any]:
    from streams.cli.plan_text import preview_json

    plan = plans.get(_title(outcome))
    return {
        "kind": outcome.kind,
        "name": outcome.name,
        "version": outcome.version,
        "change": outcome.change.value,
        "digest": outcome.digest,
        "serves": outcome.serves,
        "notes": list(outcome.notes),
        "plan": None if plan is None else preview_json(plan),
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
