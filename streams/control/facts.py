"""What decisions depend on: what is published, what is acked, and what only others know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.control.records import Action
from streams.control.routes import KEEP, Rules, prepared, undo_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streams.control.acks import Acks
    from streams.control.records import Replay, Request, RequestRecord
    from streams.control.set_record import Pin, SetRecord
    from streams.control.state import ControlState
    from streams.definitions.exclusions import Exclude, Exclusion


CHECKPOINT_WAIT_MS = 60_000
"""How long a request waits for checkpoints when all else is done: an archive may be away."""

NewCheckpoint = Callable[[int, str], str]
"""The id of the checkpoint that a request asks for, from the time in ms and the request's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedVersion:
    """What the gate needs to know of a published version; `features` with their output types."""

    version: str
    features: Mapping[str, str] = field(default_factory=dict)
    every_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """A set's versions in order of publication, and the stream that it reads.

    `partitions` is 0 while the stream's `topic` does not exist; `source_partitions` are those of
    the source's topic.
    """

    stream: str
    topic: str
    partitions: int
    versions: tuple[PublishedVersion, ...]
    source_partitions: int = 0

    def version(self, name: str | None) -> PublishedVersion | None:
        return next((one for one in self.versions if one.version == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All that is published, read up to and without `definitions_offset`."""

    sets: Mapping[str, PublishedSet] = field(default_factory=dict)
    definitions_offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What only Kafka and the registry know of a target.

    `schema_reasons` say why its output schema may not be written, `exclude_reasons` why events
    can't be left out as is asked for; `replays` are what a cold target needs of each partition's
    log. `checkpoint_missing` says what the checkpoint that it is to start from lacks, and
    `checkpoint_unusable` why it can't start from what is there. `pin` names the schemas of the
    topic that a version to be pinned writes, once there is that topic.
    """

    schema_reasons: tuple[str, ...] = ()
    exclude_reasons: tuple[str, ...] = ()
    replays: tuple[Replay, ...] = ()
    checkpoint_missing: tuple[str, ...] = ()
    checkpoint_unusable: tuple[str, ...] = ()
    pin: Pin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a decision depends on. `published` and `route` are None for an unknown set.

    `sets` are the names of all sets, `partitions_ready` counts those that have the target
    ready, `in_flight` is the id of the request that is under way for the set, `cancelled` the
    one that a cancel names, `checkpoints` says whether any are kept.
    """

    now_ms: int
    sets: tuple[str, ...]
    published: PublishedSet | None = None
    route: SetRecord | None = None
    rules: Rules
    partitions_ready: int = 0
    in_flight: str | None = None
    cancelled: RequestRecord | None = None
    checkpoints: bool = False
    outside: Outside = Outside()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A published version that a request is about. A cold one may have something to replay, and
    one without the events of `exclude` always has.

    `partitions` are those that have it ready; `ready` are the sets and versions of its stream
    that every partition has, and `left_out` what these sets leave out now. `prepared` are the
    versions that have to be ready with it, itself among them; they are to start from `checkpoint`.
    """

    feature_set: str
    version: str
    cold: bool
    partitions: frozenset[int] = frozenset()
    ready: frozenset[tuple[str, str]] = frozenset()
    left_out: Mapping[str, tuple[Exclusion, ...]] = field(default_factory=dict)
    exclude: Exclude | None = None
    prepared: tuple[str, ...] = ()
    checkpoint: str | None = None


def target_of(request: Request, route: SetRecord) -> str | None:
    """The version that the request is about; None if there is nothing to undo."""
    if request.target is not None:
        return request.target
    if request.action is Action.ROLLBACK and request.exclude is None:
        return undo_target(route)
    return route.serving


_SPEAK = (Action.ROLLBACK, Action.ACTIVATE, Action.PIN)
"""What makes a version speak: its schemas have to be allowed then, and its windows whole."""


def ready_to_speak(route: SetRecord, version: str | None) -> bool:
    """Whether every partition has a version ready, and what stands in for its features."""
    if version is None or route.live_version(version) is None:
        return False
    return all(one.ready for one in route.preparing(version))


@dataclass(slots=True, kw_only=True)
class Known:
    """All that a coordinator has in hand."""

    state: ControlState
    acks: Acks
    catalog: Catalog
    keep: int = KEEP
    new_checkpoint: NewCheckpoint | None = None
    checkpoint_wait_ms: int = CHECKPOINT_WAIT_MS

    def rules(self, feature_set: str) -> Rules:
        """What the live versions of a published set depend on."""
        return Rules(
            published=tuple(one.version for one in self.catalog.sets[feature_set].versions),
            keep=self.keep,
            definitions_offset=self.catalog.definitions_offset,
        )

    def target(self, request: Request) -> Target | None:
        """The version that is to speak, if a request wants one to and it is published."""
        published = self.catalog.sets.get(request.feature_set)
        if published is None or request.action not in _SPEAK:
            return None
        rules = self.rules(request.feature_set)
        route = self.state.route(request.feature_set, rules)
        version = target_of(request, route)
        if version is None or published.version(version) is None:
            return None
        if request.exclude is None and ready_to_speak(route, version):
            return Target(
                feature_set=request.feature_set,
                version=version,
                cold=False,
                left_out={request.feature_set: route.in_force},
                prepared=(version,),
                checkpoint=request.checkpoint,
            )
        partitions: frozenset[int] = frozenset()
        if request.exclude is None and route.live_version(version) is not None:
            partitions = self._ready_on(route, version, published.partitions)
        ready = frozenset(self._ready(published.stream))
        names = {request.feature_set, *(name for name, _ in ready)}
        routes = {name: self.state.route(name, self.rules(name)) for name in names}
        then = prepared(route, version, rules, again=False, exclude=request.exclude)
        return Target(
            feature_set=request.feature_set,
            version=version,
            cold=True,
            partitions=partitions,
            ready=ready,
            left_out={name: one.in_force for name, one in routes.items()},
            exclude=request.exclude,
            prepared=tuple(one.version for one in then.preparing(version)),
            checkpoint=request.checkpoint,
        )

    def _ready_on(self, route: SetRecord, version: str, partitions: int) -> frozenset[int]:
        """The partitions that have a live version ready, and all that it needs to speak."""
        waiting = (one for one in route.preparing(version) if not one.ready)
        return frozenset(range(partitions)).intersection(
            *(self.acks.ready_on(route.feature_set, one, partitions) for one in waiting)
        )

    def _ready(self, stream: str) -> Iterator[tuple[str, str]]:
        """Sets and versions that every partition of a stream has: what serves, and what is
        ready."""
        for name, published in self.catalog.sets.items():
            if published.stream == stream:
                route = self.state.route(name, self.rules(name))
                ready = (it for it in route.live if it.ready and it.excluding == route.excluding)
                there = {route.serving, *(one.version for one in ready)}
                yield from ((name, version) for version in there)

    def facts(self, request: Request, outside: Outside, now_ms: int) -> Facts:
        """What the gate looks at."""
        name = request.feature_set
        sets = tuple(self.catalog.sets)
        published = self.catalog.sets.get(name)
        if published is None:
            return Facts(now_ms=now_ms, sets=sets, rules=Rules(published=()), outside=outside)
        rules = self.rules(name)
        route = self.state.route(name, rules)
        version = target_of(request, route)
        ready = 0
        if version is not None and route.live_version(version) and request.exclude is None:
            ready = len(self._ready_on(route, version, published.partitions))
        return Facts(
            now_ms=now_ms,
            sets=sets,
            published=published,
            route=route,
            rules=rules,
            partitions_ready=ready,
            in_flight=self.state.in_flight.get(name),
            cancelled=self.state.requests.get(request.cancels or ""),
            checkpoints=self.new_checkpoint is not None,
            outside=outside,
        )
