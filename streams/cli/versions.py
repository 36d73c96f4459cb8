"""`rewindow versions`: the versions of a feature set, and what each one does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import CommonOptions, Json, print_json, takes_options
from streams.errors import InvalidInputError
from streams.schema.registry import Registry
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streams.control.acks import Acks
    from streams.control.records import ControlRecord
    from streams.control.set_record import SetRecord
    from streams.definitions.store import PublishedSet
    from streams.settings import Settings

SetName = Annotated[
    str, typer.Argument(metavar="SET", help="Name of the feature set.", show_default=False)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One version, as it stands.

    `state` is serving, live, published or retired; a live one follows the stream on
    `partitions_ready` of the set's `partitions`. `switched_off` are its features that are off,
    with the version that stands in for each, or None. `epoch` is that of its latest switch, None if
    it never served; `since_ms` says when its state began, None if no decision tells.
    """

    version: str
    state: str
    partitions_ready: int
    partitions: int
    pinned: bool
    switched_off: dict[str, str | None]
    digest: str
    epoch: int | None
    since_ms: int | None


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(versions)


@takes_options
def versions(common: CommonOptions, feature_set: SetName, json: Json = False) -> None:
    """Show which version of a set serves, which ones are live, and what is left out."""
    settings = common.settings()
    with Registry.from_settings(settings.registry_options()) as registry:
        rows, route = _look(settings, registry, feature_set)
    left_out = exclusion_rows(route)
    if json:
        shown = [_as_json(row) for row in rows]
        print_json({"feature_set": feature_set, "versions": shown, "exclusions": left_out})
    else:
        console = Console(highlight=False)
        console.print(_table(rows))
        for one in left_out:
            verb = "leaves out" if one["in_force"] else "is to leave out"
            console.print(f"{feature_set} {verb} {one['text']}", soft_wrap=True, markup=False)


def serving_now(settings: Settings, registry: Registry, feature_set: str) -> str | None:
    """The version of a set that serves as far as is decided; None for an unknown set."""
    from streams.cli.control_topics import Values, read_control
    from streams.control.state import fold
    from streams.definitions.store import read_definitions

    records = read_control(settings, Values(registry))
    route = fold(record for _, record in records).sets.get(feature_set)
    if route is not None:
        return route.serving
    published = read_definitions(settings).first(feature_set)
    return None if published is None else published.feature_set.version


def version_rows(
    published: Sequence[PublishedSet],
    records: Iterable[ControlRecord],
    acks: Acks,
    partitions: int,
) -> list[VersionRow]:
    """The rows of a set; `published` are its versions, `records` all decisions in order."""
    from streams.control.set_record import SetRecord

    name = published[0].feature_set.name
    history = _History(published[0].feature_set.version)
    for record in records:
        if isinstance(record.body, SetRecord) and record.body.feature_set == name:
            history.add(record.body, record.stamp.at_ms)
    return [
        VersionRow(
            version=one.feature_set.version,
            state=history.state(one.feature_set.version),
            partitions_ready=_ready(history.route, one, acks, partitions),
            partitions=partitions,
            pinned=history.route is not None and one.feature_set.version in history.route.pins,
            switched_off=_off(history.route, one.feature_set.version),
            digest=one.digest,
            epoch=history.epochs.get(one.feature_set.version),
            since_ms=history.since.get(one.feature_set.version),
        )
        for one in published
    ]


def exclusion_rows(route: SetRecord | None) -> list[dict[str, Any]]:
    """What a set leaves out, oldest first; the last one may be in preparation only."""
    from streams.control.draft import excluded_text

    if route is None:
        return []
    return [
        {
            "number": one.number,
            "where": one.where,
            "offsets": [
                {"partition": it.partition, "from": it.start, "to": it.end} for it in one.offsets
            ],
            "text": excluded_text(one),
            "in_force": one in route.in_force,
        }
        for one in route.exclusions
    ]


class _History:
    """When each version came into the state that it is in. The first one serves by default."""

    def __init__(self, first: str) -> None:
        self.route: SetRecord | None = None
        self.epochs = {first: 0}
        self.since: dict[str, int] = {}
        self._first = first
        self._states: dict[str, str] = {}

    def state(self, version: str) -> str:
        default = "serving" if self.route is None and version == self._first else "published"
        return self._states.get(version, default)

    def add(self, route: SetRecord, at_ms: int) -> None:
        before = self.route
        states = dict.fromkeys((one.version for one in route.live), "live")
        states |= dict.fromkeys(route.retired, "retired")
        states[route.serving] = "serving"
        for version in {*states, *self._states}:
            if states.get(version, "published") != self._states.get(version):
                self.since[version] = at_ms
        self._states = {**dict.fromkeys(self._states, "published"), **states}
        if before is None or route.serving != before.serving:
            self.epochs[route.serving] = route.epoch
        self.route = route


def _off(route: SetRecord | None, version: str) -> dict[str, str | None]:
    return {} if route is None else route.held.off(version)


def _ready(route: SetRecord | None, one: PublishedSet, acks: Acks, partitions: int) -> int:
    name, version = one.feature_set.name, one.feature_set.version
    live = None if route is None else route.live_version(version)
    if live is None:
        return 0
    return partitions if live.ready else acks.ready(name, live, partitions)


def _look(
    settings: Settings, registry: Registry, name: str
) -> tuple[list[VersionRow], SetRecord | None]:
    from streams.cli.control_topics import Values, need_topics, read_acks, read_control
    from streams.control.acks import Acks
    from streams.control.state import fold
    from streams.runtime.control.published import read_published

    names = settings.names
    found = read_published(settings)
    published = found.definitions.sets.get(name)
    if published is None:
        hint = did_you_mean(name, found.definitions.sets)
        raise InvalidInputError(f"app {settings.app} has no feature set {name!r}: {hint}")
    need_topics(settings, names.control_topic, names.acks_topic)
    values = Values(registry)
    records = [record for _, record in read_control(settings, values)]
    state = fold(records)
    acks = Acks(state.acks_offset)
    for offset, ack in read_acks(settings, values, state.acks_offset):
        acks.add(offset, ack)
    rows = version_rows(published, records, acks, found.catalog.sets[name].partitions)
    return rows, state.sets.get(name)


def _as_json(row: VersionRow) -> dict[str, Any]:
    return {**asdict(row), "since": None if row.since_ms is None else _time(row.since_ms)}


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _table(rows: Sequence[VersionRow]) -> Table:
    table = Table("version", "state", "epoch", "since", "digest", box=None, pad_edge=False)
    for row in rows:
        state = row.state
        if state == "live" and row.partitions_ready < row.partitions:
            state = f"live (ready on {row.partitions_ready} of {row.partitions})"
        if row.pinned:
            state = f"{state}, pinned"
        for feature, instead in row.switched_off.items():
            state = f"{state}, {feature} off" + (f" ({instead} stands in)" if instead else "")
        table.add_row(
            row.version,
            f"[green]{state}" if row.state == "serving" else state,
            "-" if row.epoch is None else str(row.epoch),
            "-" if row.since_ms is None else _time(row.since_ms),
            row.digest[:12],
        )
    return table
