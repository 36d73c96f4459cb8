"""`rewindow plan`: what publishing would come to, and nothing done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streams.cli.options import CommonOptions, Json, print_json, say, takes_options
from streams.errors import RefusedError
from streams.names import subjects
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.cli.outlook import Outlook
    from streams.control.preview import Preview
    from streams.definitions.decide import SetChange
    from streams.definitions.examine import Examined
    from streams.definitions.store import Definitions
    from streams.settings import Settings

REFUSED = "refused"

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        help="Definitions of sources and feature sets: YAML, or Python (.py).",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What would become of one definition.

    `change` is published, updated, unchanged or refused, with `reasons`. `preview` is there for
    a version that would be published, `state` for one that is published: what it does now.
    `subjects` are those that its output schemas were checked against.
    """

    kind: str
    name: str
    change: str
    version: str | None = None
    digest: str | None = None
    state: str | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    preview: Preview | None = None

    @property
    def title(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(plan)


@takes_options
def plan(common: CommonOptions, files: Files, json: Json = False) -> None:
    """Show what publishing these files would come to, and change nothing.

    For each new version: what each feature shares with live versions, what can be put together
    from panes that are kept, what has to be replayed from which offsets, when it would be
    ready, and which versions would stop being live. Exits with 3 if a rule would refuse it.
    """
    settings = common.settings()
    with Registry.from_settings(settings.registry_options()) as registry:
        entries = look(settings, registry, files)
    for entry in entries:
        for note in entry.notes:
            say(f"{entry.title}: {note}")
    if json:
        from streams.cli.plan_text import entry_json

        shown = [entry_json(entry) for entry in entries]
        print_json({"app": settings.app, "refused": _refused(entries), "definitions": shown})
    else:
        from streams.cli.plan_text import entry_lines

        console = Console(highlight=False)
        for entry in entries:
            for line in entry_lines(entry):
                console.print(line)
    if _refused(entries):
        raise RefusedError("\n".join(reason for entry in entries for reason in entry.reasons))


def look(settings: Settings, registry: Registry, files: Sequence[Path]) -> list[Entry]:
    """What would become of each definition in `files`; see `examine` for what is raised."""
    from streams.cli.control_topics import read_left_out
    from streams.cli.outlook import Outlook
    from streams.definitions.examine import examine
    from streams.definitions.load import load_files
    from streams.definitions.store import read_definitions

    loaded = load_files(files)
    published = read_definitions(settings)
    left_out = read_left_out(settings, registry)
    examined = examine(settings, loaded, published, registry, left_out)
    return entries_of(settings, published, examined, Outlook(settings, registry))


def entries_of(
    settings: Settings, published: Definitions, examined: Examined, outlook: Outlook
) -> list[Entry]:
    """The definitions that were examined, sources first."""
    decision = examined.decision
    entries = []
    for change in decision.sources:
        name = change.published.source.name
        reasons = tuple(decision.refusals.get(f"source/{name}", ()))
        entries.append(
            Entry(
                kind="source",
                name=name,
                change=REFUSED if reasons else change.change.value,
                reasons=reasons,
                notes=tuple(examined.notes.get(f"source/{name}", ())),
            )
        )
    entries += [_set(settings, published, examined, one, outlook) for one in decision.sets]
    return entries


def _set(
    settings: Settings,
    published: Definitions,
    examined: Examined,
    one: SetChange,
    outlook: Outlook,
) -> Entry:
    decision = examined.decision
    name, version = one.feature_set.name, one.feature_set.version
    key = f"set/{name}@{version}"
    reasons = tuple(decision.refusals.get(key, ()))
    before = [it.feature_set for it in published.sets.get(name, ())]
    state, seen = None, None
    if one.before is not None:
        state = outlook.state(name, version, [it.version for it in before])
    elif not decision.refused:
        # Those of the same run that come before it are published with it.
        run = sorted((it for it in decision.sets if it.before is None), key=lambda it: it.order)
        together = [it.feature_set for it in run if it.feature_set.name == name]
        upto = together[: together.index(one.feature_set) + 1]
        source = next(it for it in decision.sources if it.published.source.name == one.source.name)
        seen = outlook.preview(source.published, [*before, *upto], version)
    return Entry(
        kind="feature_set",
        name=name,
        version=version,
        digest=one.digest,
        change=REFUSED if reasons else one.change.value,
        state=state,
        reasons=reasons,
        notes=tuple(examined.notes.get(key, ())),
        subjects=() if one.before else subjects(settings.names.features_topic(name)),
        preview=seen,
    )


def _refused(entries: Sequence[Entry]) -> bool:
    return any(entry.reasons for entry in entries)
