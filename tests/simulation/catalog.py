"""What a run is about: a source, versions of sets over it, and the events."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import fastavro

from streams.definitions.digest import digest
from streams.definitions.exclusions import Exclude, Exclusion, OffsetRange
from streams.definitions.model import Emit, Function
from streams.definitions.plan import plan, plan_versions
from streams.definitions.store import PublishedSet, PublishedSource
from streams.names import subjects
from streams.schema.decode import header
from streams.schema.output import output_schemas
from streams.schema.types import field_types
from tests.left_out import OFFSET_FIELD
from tests.reference import Event
from tests.small import feature, feature_set, schema, source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from streams.definitions.model import FeatureSet
    from streams.names import Names
    from tests.simulation.clients import Registry

SCHEMA: dict[str, Any] = schema(x="long")
FIELDS = ("who", "at", "x", OFFSET_FIELD)
"""As the reference is told them: events know their offsets, for what leaves some out."""
MAX_AHEAD_MS = 1_000_000
SOURCE = source(max_ahead_ms=MAX_AHEAD_MS, idle_after_ms=1_200)
WHO = "abcd"
FAR_MS = 400
"""As far beyond the last event every window is closed."""

_PARSED = fastavro.parse_schema(dict(SCHEMA))


def versions(rng: Random, name: str, count: int) -> tuple[FeatureSet, ...]:
    """Versions of a set whose windows are a few panes long, so that entities come and go."""
    made: list[FeatureSet] = []
    every_ms = rng.choice((10, 20))
    for number in range(count):
        if number and not rng.randrange(3):
            every_ms = rng.choice((5, 10, 20))
        longest_ms = every_ms * rng.randint(1, 3)
        features = [feature("n", window_ms=longest_ms)]
        if rng.randrange(2):
            features.append(feature("total", Function.SUM, "x", every_ms))
        if not rng.randrange(4):
            features.append(feature("top", Function.MAX, "x", longest_ms))
        made.append(
            feature_set(
                *features,
                name=name,
                version=f"{number + 1}.0.0",
                every_ms=every_ms,
                allowed_lateness_ms=rng.choice((0, 7, 30)),
                retention_ms=rng.choice((0, 0, 60)),
                where=rng.choice((None, None, "x > 0")),
                emit=rng.choice((*[Emit.FINAL] * 11, Emit.UPDATES)),
            )
        )
    return tuple(made)


def published_source(registry: Registry) -> PublishedSource:
    """The source as it is published."""
    schema_id = registry.register(SOURCE.schema, SCHEMA)
    return PublishedSource(source=SOURCE, schema=SCHEMA, schema_id=schema_id, order=0)


def published_set(
    names: Names, registry: Registry, one: FeatureSet, order: int, app: str
) -> PublishedSet:
    """A version as it is published."""
    topic = names.features_topic(one.name)
    schemas = _schemas(one, topic, app)
    ids = [
        registry.register(subject, made)
        for subject, made in zip(subjects(topic), (schemas.key, schemas.value), strict=True)
    ]
    return PublishedSet(
        feature_set=one,
        digest=digest(one, SOURCE),
        key_schema_id=ids[0],
        value_schema_id=ids[1],
        order=order,
    )


@cache
def _schemas(one: FeatureSet, topic: str, app: str) -> Any:
    view = plan(one, SOURCE, field_types(SCHEMA)).view
    return output_schemas(
        feature_set=one.name,
        topic=topic,
        entity=view.entity,
        features={feature.name: feature.dtype for feature in view.features},
        app=app,
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A record for the source topic: an event, or bytes that are none."""

    partition: int
    who: str | None
    at: int | None
    x: int
    bad: bool = False

    @property
    def key(self) -> bytes | None:
        return None if self.who is None else self.who.encode()

    def value(self, schema_id: int) -> bytes:
        if self.bad:
            return b"\x00nonsense"
        body = io.BytesIO()
        fields = {"who": self.who, "at": self.at, "x": self.x}
        fastavro.schemaless_writer(body, _PARSED, fields)
        return header(schema_id) + body.getvalue()

    def event(self, offset: int, timestamp_ms: int) -> Event:
        """The same for the reference model."""
        return Event(
            offset=offset,
            timestamp_ms=timestamp_ms,
            event_time_ms=self.at,
            fields={"who": self.who, "at": self.at, "x": self.x, OFFSET_FIELD: offset},
        )


def chunks(rng: Random, partitions: int, count: int) -> list[list[Sent]]:
    """Events that drift forward, some of them late, some of them bad, in chunks."""
    made: list[list[Sent]] = []
    now = 0
    while count > 0:
        size = min(count, rng.randint(1, 6))
        count -= size
        chunk = []
        for _ in range(size):
            now += rng.choice((0, 2, 5, 13))
            chunk.append(event(rng, partitions, now))
        made.append(chunk)
    return made


def event(rng: Random, partitions: int, now: int) -> Sent:
    """An event of about a time, or something that is none."""
    number = rng.randrange(len(WHO))
    who: str | None = WHO[number]
    at: int | None = max(0, now - rng.choice((0, 0, 0, 3, 12, 40)))
    bad = False
    match rng.randrange(40):
        case 0:
            bad = True
        case 1:
            who = None
        case 2:
            at = None
        case 3:
            at = 2**53
        case _:
            pass
    # Without an entity it passes every filter, and so is a dead letter for all.
    return Sent(number % partitions, who, at, 1 if who is None else rng.randint(-1, 3), bad)


def again(rng: Random, sent: Sequence[Sent], partition: int, partitions: int) -> list[Sent]:
    """Some events of a partition at times of earlier ones, and a little later."""
    times = [one.at for one in sent if one.at is not None and one.at < 2**52 and not one.bad]
    people = [number for number in range(len(WHO)) if number % partitions == partition]
    made = [
        Sent(partition, WHO[rng.choice(people)], rng.choice(times), rng.randint(-1, 3))
        for _ in range(rng.randint(1, 4))
    ]
    latest = Sent(partition, WHO[people[0]], max(times) + rng.choice((0, 5, 13)), 1)
    return [*made, latest]


def last(sent: Sequence[Sent], partitions: int) -> list[Sent]:
    """Events that close every window that is open."""
    times = [one.at for one in sent if one.at is not None and one.at < 2**52 and not one.bad]
    far = max(times, default=0) + FAR_MS
    return [Sent(number, WHO[number], far, 1) for number in range(partitions)]


CONDITIONS = ("x = 2", "x <= 0", "who = 'a' AND x > 1", "at % 3 = 1 OR x = 3", "x / 0 > 1")
BAD_CONDITIONS = ("y = 1", "x +", "x + 1")


def exclude(rng: Random, ends: Sequence[int]) -> Exclude:
    """Events to leave out of partitions that end at `ends`; now and then it can't be done."""
    ranges = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        number = rng.randrange(len(ends) + (not rng.randrange(8)))
        start = rng.randrange(max(1, ends[number] if number < len(ends) else 1))
        ranges.append(OffsetRange(partition=number, start=start, end=start + rng.randint(1, 6)))
    where = None
    if not ranges or rng.randrange(2):
        where = rng.choice(CONDITIONS if rng.randrange(10) else BAD_CONDITIONS)
    return Exclude(where=where, offsets=tuple(ranges))


@cache
def digests(
    sets: tuple[FeatureSet, ...], exclusions: tuple[Exclusion, ...] = ()
) -> dict[str, frozenset[str]]:
    """The bundles that each version needs, as planned one after the other."""
    plans = plan_versions(list(sets), SOURCE, field_types(SCHEMA), exclusions)
    return {one.view.version: frozenset(b.digest for b in one.bundles) for one in plans}
