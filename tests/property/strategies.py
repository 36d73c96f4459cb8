"""Generated feature sets and event streams, small and nasty.

Everything is over one record type (`SCHEMA`, `SOURCE`), in SQL that means the same to the
product and to the reference model. A stream is drawn for given sets, so that its steps in
event time are of the size of their windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from streams.definitions.model import (
    Emit,
    EventTime,
    Feature,
    FeatureSet,
    Function,
    Source,
)
from tests.reference import Decided, Event, Idle, Marker, Pin, Record, Switch, Toggle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA: dict[str, object] = {
    "type": "record",
    "name": "Click",
    "namespace": "tests",
    "fields": [
        {"name": "person", "type": ["null", "string"], "default": None},
        {"name": "region", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": ["null", "double"], "default": None},
        {"name": "quantity", "type": ["null", "long"], "default": None},
        {"name": "label", "type": ["null", "string"], "default": None},
        {"name": "flag", "type": ["null", "boolean"], "default": None},
        {
            "name": "happened_at",
            "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
            "default": None,
        },
    ],
}
"""Avro schema of the generated events."""

FIELDS = ("person", "region", "amount", "quantity", "label", "flag", "happened_at")

SOURCE = Source(
    name="clicks",
    topic="clicks",
    schema="clicks-value",
    event_time=EventTime(field="happened_at"),
    key=("person",),
    max_ahead_ms=3_600_000,
)
"""Keyed by person; rekeyed for sets whose entity is the region alone."""

KEYED_ENTITIES = (("person",), ("person", "region"))
REKEYED_ENTITY = ("region",)

NUMBERS = ("amount", "quantity", "amount * 2.0", "amount + quantity")
WHOLE_NUMBERS = ("quantity", "CASE WHEN quantity > 0 THEN 1 ELSE 0 END")
ANYTHING = ("amount", "quantity", "label", "flag")
ORDERED = ("amount", "quantity", "label")
FILTERS = (
    "quantity > 0",
    "NOT flag",
    "label = 'a'",
    "label IS NULL",
    "amount > 1.5",
    "amount IS NOT NULL",
    "quantity BETWEEN -5 AND 5 OR flag",
)

EXPRESSIONS: Mapping[Function, tuple[str, ...]] = {
    Function.COUNT: ANYTHING,
    Function.SUM: NUMBERS + WHOLE_NUMBERS,
    Function.MEAN: NUMBERS + WHOLE_NUMBERS,
    Function.MIN: ORDERED,
    Function.MAX: ORDERED,
    Function.VARIANCE: NUMBERS,
    Function.STDDEV: NUMBERS,
    Function.FIRST: ANYTHING,
    Function.LAST: ANYTHING,
    Function.APPROX_DISTINCT: ANYTHING,
    Function.QUANTILE: ("amount", "quantity"),
    Function.TOP_K: ("quantity", "label", "flag"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One partition's log, and how it is cut: `batches` are ends of batches, in records.

    After the batches whose number is in `restarts` the reader is stopped and begins anew
    from what it has stored.
    """

    records: tuple[Record, ...]
    batches: tuple[int, ...]
    restarts: frozenset[int]

    def cut(self) -> list[tuple[Record, ...]]:
        """The records in batches, in order."""
        return [self.records[a:b] for a, b in pairwise((0, *self.batches))]


@st.composite
def features(draw: st.DrawFn, name: str, every_ms: int) -> Feature:
    """One feature of any function, its window up to seven times `every_ms`."""
    function = draw(st.sampled_from(Function))
    expression = draw(st.sampled_from(EXPRESSIONS[function]))
    counts_events = function is Function.COUNT and draw(st.booleans())
    return Feature(
        name=name,
        function=function,
        expression=None if counts_events else expression,
        window_ms=every_ms * draw(st.sampled_from((1, 1, 2, 3, 7))),
        where=draw(st.none() | st.sampled_from(FILTERS)),
        q=draw(st.sampled_from((0.0, 0.25, 0.5, 0.95, 1.0)))
        if function is Function.QUANTILE
        else None,
        k=draw(st.integers(1, 3)) if function is Function.TOP_K else None,
    )


@st.composite
def feature_sets(
    draw: st.DrawFn,
    name: str = "clicks_by_person",
    entities: Sequence[tuple[str, ...]] = KEYED_ENTITIES,
) -> FeatureSet:
    """One small feature set over `SOURCE`, of an entity out of `entities`."""
    every_ms = draw(st.sampled_from((1, 7, 10, 1_000, 3_600_000)))
    names = [f"f{i}" for i in range(draw(st.integers(1, 5)))]
    return FeatureSet(
        name=name,
        version="1.0.0",
        source=SOURCE.name,
        entity=draw(st.sampled_from(entities)),
        every_ms=every_ms,
        features=tuple(draw(features(one, every_ms)) for one in names),
        allowed_lateness_ms=draw(
            st.sampled_from((0, 0, 1, every_ms // 2, every_ms, 3 * every_ms + 1, 20 * every_ms))
        ),
        retention_ms=draw(st.sampled_from((0, every_ms, 10 * every_ms))),
        where=draw(st.none() | st.sampled_from(FILTERS)),
        emit=draw(st.sampled_from((Emit.FINAL, Emit.FINAL, Emit.UPDATES))),
    )


def several_sets(
    entities: Sequence[tuple[str, ...]] = KEYED_ENTITIES,
) -> st.SearchStrategy[tuple[FeatureSet, ...]]:
    """One to three sets that read the same stream."""
    return st.lists(feature_sets(entities=entities), min_size=1, max_size=3).map(
        lambda sets: tuple(replace(one, name=f"set_{i}") for i, one in enumerate(sets))
    )


@st.composite
def versions(
    draw: st.DrawFn,
    entities: Sequence[tuple[str, ...]] = KEYED_ENTITIES,
) -> tuple[FeatureSet, ...]:
    """Two to four versions of a set, in order of publication.

    Their features are mostly the same ones over other windows, so that they share much of what
    they store; their intervals are mostly multiples of one another.
    """
    unit_ms = draw(st.sampled_from((1, 7, 10, 1_000, 3_600_000)))
    pool = [draw(features(f"f{i}", unit_ms)) for i in range(draw(st.integers(2, 5)))]
    where = draw(st.none() | st.sampled_from(FILTERS))
    entity = draw(st.sampled_from(entities))
    made = []
    for number in range(draw(st.integers(2, 4))):
        every_ms = unit_ms * draw(st.sampled_from((1, 1, 1, 2, 3, 6)))
        chosen = [one for one in pool if draw(st.booleans())] or pool[:1]
        windows = [every_ms * draw(st.sampled_from((1, 1, 2, 3, 7))) for _ in chosen]
        same_where = draw(st.integers(0, 3)) > 0
        made.append(
            FeatureSet(
                name="versions",
                version=f"{number + 1}.0.0",
                source=SOURCE.name,
                entity=entity,
                every_ms=every_ms,
                features=tuple(
                    replace(one, window_ms=window_ms)
                    for one, window_ms in zip(chosen, windows, strict=True)
                ),
                allowed_lateness_ms=draw(
                    st.sampled_from((0, 0, 1, every_ms, 3 * every_ms + 1, 20 * every_ms))
                ),
                retention_ms=draw(st.sampled_from((0, every_ms, 10 * every_ms))),
                where=where if same_where else draw(st.none() | st.sampled_from(FILTERS)),
                emit=draw(st.sampled_from((Emit.FINAL, Emit.FINAL, Emit.UPDATES))),
            )
        )
    return tuple(made)


class Decisions:
    """What may be decided about the versions of a set, one decision after the other."""

    def __init__(self, sets: Sequence[FeatureSet]) -> None:
        self._sets = sets
        self._off: set[tuple[str, str]] = set()
        self._pinned: set[str] = set()

    def draw(self, draw: st.DrawFn) -> Decided:
        """A switch, mostly; a toggle or a pin, or the end of one."""
        one = draw(st.sampled_from(self._sets))
        name, version = one.name, one.version
        match draw(st.integers(0, 4)):
            case 0 | 1:
                repair = draw(st.booleans())
                return Switch(feature_set=name, version=version, repair=repair)
            case 2:
                self._pinned ^= {version}
                return Pin(feature_set=name, version=version, pinned=version in self._pinned)
        feature = draw(st.sampled_from(one.features)).name
        if (version, feature) in self._off and draw(st.booleans()):
            self._off.discard((version, feature))
            return Toggle(feature_set=name, version=version, feature=feature, off=False)
        self._off.add((version, feature))
        fitting = [
            other.version
            for other in self._sets
            if other is not one
            and other.every_ms == one.every_ms
            and any(it.name == feature for it in other.features)
        ]
        stand_in = draw(st.none() | st.sampled_from(fitting)) if fitting else None
        return Toggle(
            feature_set=name, version=version, feature=feature, off=True, stand_in=stand_in
        )


@st.composite
def switched(draw: st.DrawFn, stream: Stream, sets: Sequence[FeatureSet]) -> Stream:
    """The stream with decisions about its set here and there, often right after one another."""
    decisions = Decisions(sets)
    records: list[Record] = []
    for record in (*stream.records, None):
        for _ in range(draw(st.sampled_from((0, 0, 0, 0, 0, 1, 2)))):
            records.append(decisions.draw(draw))
        if record is not None:
            records.append(record)
    return draw(cuts(records))


LONGS = (
    st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from((2**63 - 1, -(2**63)))
)
DOUBLES = (
    st.sampled_from((0.0, -0.0, 1.0, 1.5, 2.0, math.nan))
    | st.floats(-1e6, 1e6)
    | st.floats(-1e100, 1e100)
)


@st.composite
def values(draw: st.DrawFn, person: str | None) -> dict[str, object]:
    """The fields of an event but its time: few different values, nulls, NaN, huge ones."""
    return {
        "person": person,
        "region": draw(st.sampled_from(("north", "süd", ""))),
        "amount": draw(st.none() | DOUBLES),
        "quantity": draw(st.none() | LONGS),
        "label": draw(st.none() | st.sampled_from(("a", "b", "", "ü"))),
        "flag": draw(st.none() | st.booleans()),
    }


@st.composite
def event_times(draw: st.DrawFn, number: int, unit_ms: int) -> list[int]:
    """Event times that mostly advance by parts of `unit_ms`, with ties, steps back, leaps."""
    time_ms = draw(st.sampled_from((0, -5 * unit_ms, 1_700_000_000_000, -62_100_000_000_000)))
    step = (
        st.just(0)
        | st.integers(0, max(1, unit_ms // 2))
        | st.sampled_from((unit_ms - 1, unit_ms, unit_ms + 1, 3 * unit_ms))
        | st.sampled_from((100 * unit_ms, 1_000_003 * unit_ms))
    )
    back = st.sampled_from((0, 0, 0, 1, unit_ms, 2 * unit_ms, 8 * unit_ms, 30 * unit_ms))
    times = []
    for _ in range(number):
        time_ms += draw(step)
        times.append(time_ms - draw(back))
    return times


@st.composite
def events(
    draw: st.DrawFn,
    sets: Sequence[FeatureSet],
    max_events: int,
    *,
    bad: bool = True,
) -> list[Event]:
    """Events of `SOURCE` in the order of one partition, duplicates among them.

    With `bad`, some lack their event time or are absurdly ahead; offsets have holes, as
    transactions make them.
    """
    number = draw(st.integers(0, max_events))
    unit_ms = draw(st.sampled_from([one.every_ms for one in sets]))
    people = draw(st.sampled_from((("ann",), ("ann", "bob"), ("ann", "bob", "", "zoë"))))
    out: list[Event] = []
    offset = draw(st.sampled_from((0, 17)))
    for event_time_ms in draw(event_times(number, unit_ms)):
        offset += draw(st.sampled_from((1, 1, 1, 2)))
        if out and draw(st.integers(0, 9)) == 0:
            out.append(replace(out[-1], offset=offset))
            continue
        timestamp_ms = max(0, event_time_ms) + draw(st.integers(0, 50))
        given: int | None = event_time_ms
        if bad and draw(st.integers(0, 19)) == 0:
            given = draw(st.sampled_from((None, timestamp_ms + SOURCE.max_ahead_ms + 1, 2**53)))
        elif draw(st.integers(0, 19)) == 0:
            given = timestamp_ms + SOURCE.max_ahead_ms
        fields = draw(values(draw(st.sampled_from(people))))
        out.append(
            Event(
                offset=offset,
                timestamp_ms=timestamp_ms,
                event_time_ms=given,
                fields={**fields, "happened_at": given},
            )
        )
    return out


@st.composite
def cuts(draw: st.DrawFn, records: Sequence[Record]) -> Stream:
    """The same records in random batches, restarted after some of them."""
    inner = draw(st.sets(st.integers(1, len(records) - 1))) if len(records) > 1 else set()
    batches = (*sorted(inner), len(records)) if records else ()
    restarts = draw(st.sets(st.integers(0, max(0, len(batches) - 1)), max_size=3))
    return Stream(records=tuple(records), batches=batches, restarts=frozenset(restarts))


@st.composite
def keyed_streams(draw: st.DrawFn, sets: Sequence[FeatureSet], max_events: int = 40) -> Stream:
    """One partition of `SOURCE` as it is; now and then it is idle and follows the others."""
    unit_ms = draw(st.sampled_from([one.every_ms for one in sets]))
    mixed: list[Record] = []
    for event in draw(events(sets, max_events)):
        mixed.append(event)
        at_ms = event.event_time_ms
        if at_ms is not None and at_ms < 2**50 and draw(st.integers(0, 7)) == 0:
            mixed.append(Idle(watermark_ms=at_ms + draw(st.integers(-3, 5)) * unit_ms))
    return draw(cuts(mixed))


@st.composite
def rekeyed_streams(
    draw: st.DrawFn,
    sets: Sequence[FeatureSet],
    source_partitions: int,
    max_events: int = 40,
) -> Stream:
    """One partition of `SOURCE` rekeyed: several source partitions interleaved at random.

    Each source partition's events keep their order, and its markers come after the events
    that they speak of; a marker may be missing until the end, and may be repeated.
    """
    share = max(1, max_events // source_partitions)
    queues: list[list[Record]] = []
    for partition in range(source_partitions):
        mine: list[Record] = []
        watermark_ms: int | None = None
        for event in draw(events(sets, share, bad=False)):
            assert event.event_time_ms is not None
            now_ms = event.event_time_ms
            watermark_ms = now_ms if watermark_ms is None else max(now_ms, watermark_ms)
            mine.append(replace(event, source_partition=partition, source_offset=event.offset))
            if draw(st.integers(0, 2)) == 0:
                mine.append(Marker(source_partition=partition, watermark_ms=watermark_ms))
        if draw(st.booleans()):
            # Where a cursor began after the start of its log, its first marker says so.
            floor_ms = (watermark_ms or 0) - draw(st.integers(-2, 30)) * sets[0].every_ms
            for i, one in enumerate(mine):
                if isinstance(one, Marker):
                    mine[i] = replace(one, floor_ms=floor_ms)
                    break
        silent = draw(st.booleans())
        if silent or draw(st.booleans()):
            mine.append(
                Marker(source_partition=partition, watermark_ms=watermark_ms, silent=silent)
            )
        queues.append(mine)
    merged: list[Record] = []
    while any(queues):
        queue = draw(st.sampled_from([one for one in queues if one]))
        record = queue.pop(0)
        # Offsets are those of the rekeyed stream; a marker takes one too.
        if isinstance(record, Event):
            record = replace(record, offset=len(merged))
        merged.append(record)
    return draw(cuts(merged))
