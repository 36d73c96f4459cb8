"""`rewindow diff`: what differs between two versions of a set, by definition and by value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streams.cli.options import CommonOptions, Json, print_json, takes_options
from streams.cli.requests import parse_version
from streams.errors import InvalidInputError
from streams.schema.registry import Registry
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from streams.cli.agreement import Agreement
    from streams.cli.diff_read import Found
    from streams.definitions.differ import Differences
    from streams.definitions.model import FeatureSet
    from streams.definitions.reuse import Reuse
    from streams.definitions.store import Definitions, PublishedSet
    from streams.settings import Settings

LIMIT = 200_000

First = Annotated[
    str,
    typer.Argument(
        metavar="SET@A", help="Feature set and version, such as a@1.0.0.", show_default=False
    ),
]
Second = Annotated[
    str,
    typer.Argument(metavar="SET@B", help="Another version of it.", show_default=False),
]
Values = Annotated[
    bool,
    typer.Option(
        "--values/--no-values", help="Compare vectors too, or only definitions, which is quick."
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        "--limit",
        "-n",
        min=1,
        metavar="NUMBER",
        help="Compare at most so many vectors, those of the newest as-of times: it bounds memory.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only as-of times from here on, in UTC, such as 2026-01-31 or 2026-01-31T12:00.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All that `diff` finds out. `found` and `agreement` are None without values.

    `reuse` says what B takes where A is live; `topics` are those that were read.
    """

    a: FeatureSet
    b: FeatureSet
    differences: Differences
    reuse: Reuse
    topics: tuple[str, ...] = ()
    found: Found | None = None
    agreement: Agreement | None = None


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(diff)


@takes_options
def diff(
    common: CommonOptions,
    first: First,
    second: Second,
    values: Values = True,
    limit: Limit = LIMIT,
    since: Since = None,
    json: Json = False,
) -> None:
    """Show what differs between two published versions, by definition and by value.

    Values are compared where both versions have a vector for the same entity and as-of time, on
    the set's topic or on topics of pinned versions. Exits with 0 whether or not they differ.
    """
    name, a = parse_version(first)
    other, b = parse_version(second)
    if name != other:
        raise InvalidInputError(f"{first} and {second} are of different sets: give one set's")
    if a == b:
        raise InvalidInputError(f"{first} is given twice: give two versions")
    since_ms = None if since is None else parse_time(since)
    settings = common.settings()
    with Registry.from_settings(settings.registry_options()) as registry:
        compared = _look(settings, registry, name, (a, b), limit if values else None, since_ms)
    from streams.cli.diff_text import as_json, lines

    if json:
        print_json(as_json(compared))
    else:
        console = Console(highlight=False)
        for line in lines(compared):
            console.print(line)


def parse_time(text: str) -> int:
    """Milliseconds since the epoch of a time in ISO 8601, in UTC unless it says otherwise.

    Raises InvalidInputError.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"--since {text!r} is no time: write 2026-01-31 or 2026-01-31T12:00"
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _look(
    settings: Settings,
    registry: Registry,
    name: str,
    versions: tuple[str, str],
    limit: int | None,
    since_ms: int | None,
) -> Compared:
    """Compare two versions; their values if `limit` says how many vectors at most."""
    from streams.definitions.differ import differences
    from streams.definitions.store import read_definitions

    definitions = read_definitions(settings)
    a, b = (published(settings, definitions, name, version).feature_set for version in versions)
    compared = Compared(
        a=a, b=b, differences=differences(a, b), reuse=_reuse(definitions, name, versions)
    )
    if limit is None:
        return compared
    return _with_values(settings, registry, compared, limit, since_ms)


def published(
    settings: Settings, definitions: Definitions, name: str, version: str
) -> PublishedSet:
    """A published version. Raises InvalidInputError if there is none."""
    versions = definitions.sets.get(name)
    if versions is None:
        hint = did_you_mean(name, definitions.sets)
        raise InvalidInputError(f"app {settings.app} has no feature set {name!r}: {hint}")
    found = definitions.version(name, version)
    if found is None:
        hint = did_you_mean(version, (one.feature_set.version for one in versions))
        raise InvalidInputError(f"there is no version {version} of {name}: {hint}")
    return found


def _reuse(definitions: Definitions, name: str, versions: tuple[str, str]) -> Reuse:
    from streams.definitions.plan import plan_versions
    from streams.definitions.reuse import reuse
    from streams.schema.types import field_types

    sets = [one.feature_set for one in definitions.sets[name]]
    source = definitions.sources[sets[0].source]
    plans = plan_versions(sets, source.source, field_types(source.schema))
    a, b = (next(one for one in plans if one.view.version == version) for version in versions)
    return reuse(b, [a], {a.view.version})


def _with_values(
    settings: Settings, registry: Registry, compared: Compared, limit: int, since_ms: int | None
) -> Compared:
    from dataclasses import replace

    from streams.cli.agreement import compare
    from streams.cli.diff_read import Wanted, read_both
    from streams.kafka import Admin

    a, b, names = compared.a, compared.b, settings.names
    there = Admin(settings).partitions()
    wanted_topics = (
        names.features_topic(a.name),
        names.pinned_topic(a.name, a.version),
        names.pinned_topic(a.name, b.version),
    )
    topics = {topic: there[topic] for topic in wanted_topics if topic in there}
    of_b = {feature.name for feature in b.features}
    common = sorted(feature.name for feature in a.features if feature.name in of_b)
    wanted = Wanted(
        a=a.version,
        b=b.version,
        entity=a.entity,
        features=common,
        limit=limit,
        since_ms=since_ms,
    )
    found = read_both(settings, registry, topics, wanted)
    agreement = compare(found.vectors, a.version, b.version, common)
    return replace(compared, topics=tuple(topics), found=found, agreement=agreement)
