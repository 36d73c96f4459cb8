"""Reference model: what one stream partition must give, record by record.

Plain Python, one record at a time, without panes, batches or dataframes. Every event is
kept; at each as-of time every window is computed from the events it holds. Expressions
and filters are evaluated by SQLite, which shares nothing with the product.

The rules, for one stream partition:

1. The watermark of a keyed stream is the highest event time so far; of a rekeyed one the
   lowest, over the source's partitions, of the highest marker of each. It counts events
   that a filter takes out or that lack their entity; other dead records move nothing.
2. Every record first moves the watermark, then closes what the watermark has passed, in
   order of T, over the events applied before it; then it is applied itself.
3. A set's T closes when T + lateness <= watermark. Nothing is closed at first.
4. An event is late for a set when the last T whose longest window holds it is closed. It
   is applied nevertheless.
5. A vector `final` goes out for each entity with an event in [T - longest, T), a vector
   `empty` for each with none there and one in [T - every - longest, T - every).
6. With a floor R, events before R are left out, and the first T is the first with
   T - longest >= R; all before it count as closed, so that what counts for none of them
   is late. As of the first T nothing is `empty`: nothing was said before it.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.expected import Expected, expect, nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streams.definitions.model import FeatureSet

Entity = tuple[object, ...]
VectorKey = tuple[str, Entity, int]
"""Feature set, entity, as-of time in ms."""

MISSING_ENTITY = "missing_entity"
MISSING_EVENT_TIME = "missing_event_time"
EVENT_TIME_AHEAD = "event_time_ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One decodable record of the stream; `offset` is its own, in the stream."""

    offset: int
    timestamp_ms: int
    event_time_ms: int | None
    fields: Mapping[str, object]
    source_partition: int = 0
    source_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A watermark marker of a rekeyed stream; a watermark of None says nothing yet."""

    source_partition: int
    watermark_ms: int | None
    silent: bool = False
    floor_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A keyed partition without news follows the others to this watermark."""

    watermark_ms: int


Record = Event | Marker | Idle


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """An expected vector: kind `final` or `empty`, and what each feature must be."""

    kind: str
    values: Mapping[str, Expected]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A vector as it was seen on an output topic."""

    feature_set: str
    entity: Entity
    as_of_ms: int
    kind: str
    values: Mapping[str, object]

    @property
    def key(self) -> VectorKey:
        return (self.feature_set, self.entity, self.as_of_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One difference; `what` is missing, unexpected, duplicate or wrong."""

    what: str
    key: VectorKey
    detail: str = ""


@dataclass(slots=True)
class _History:
    """All events of one entity in order of (event time, source partition, offset)."""

    keys: list[tuple[int, ...]] = field(default_factory=list)
    columns: list[list[object]] = field(default_factory=list)

    def add(self, key: tuple[int, ...], values: Sequence[object]) -> None:
        at = bisect_left(self.keys, key)
        self.keys.insert(at, key)
        for column, value in zip(self.columns, values, strict=True):
            column.insert(at, value)

    def first_from(self, event_time_ms: int) -> int:
        return bisect_left(self.keys, (event_time_ms,))


class _Set:
    """One feature set over one stream partition."""

    def __init__(self, definition: FeatureSet, fields: Sequence[str]) -> None:
        self.definition = definition
        self.closed_through_ms: int | None = None
        self.vectors: dict[VectorKey, Vector] = {}
        self._sql = _Sql(definition, fields)
        self._histories: dict[Entity, _History] = {}
        self._active: set[Entity] = set()

    def missing_entity(self, event: Event) -> bool:
        return any(event.fields.get(name) is None for name in self.definition.entity)

    def apply(self, event: Event, event_time_ms: int, floor_ms: int | None) -> bool:
        """Add the event; True if it is late."""
        passes, values = self._sql.evaluate(event.fields)
        if not passes:
            return False
        if floor_ms is None or event_time_ms >= floor_ms:
            entity = tuple(event.fields[name] for name in self.definition.entity)
            history = self._histories.get(entity)
            if history is None:
                columns: list[list[object]] = [[] for _ in self.definition.features]
                history = self._histories[entity] = _History(columns=columns)
            offset = event.offset if event.source_offset is None else event.source_offset
            history.add((event_time_ms, event.source_partition, offset), values)
            self._active.add(entity)
        every = self.definition.every_ms
        last_as_of = (event_time_ms + self.definition.longest_window_ms) // every * every
        return self.closed_through_ms is not None and last_as_of <= self.closed_through_ms

    def raise_floor(self, floor_ms: int) -> None:
        """Nothing goes out for windows that begin before the floor."""
        every, longest = self.definition.every_ms, self.definition.longest_window_ms
        before = -(-(floor_ms + longest) // every) * every - every
        if self.closed_through_ms is None or before > self.closed_through_ms:
            self.closed_through_ms = before

    def close_through(self, limit_ms: int, floor_ms: int | None) -> None:
        """Close every T up to `limit_ms` that is not closed yet."""
        every = self.definition.every_ms
        target = limit_ms // every * every
        if self.closed_through_ms is None:
            as_of = self._next_with_event(None)
        else:
            as_of = self.closed_through_ms + every
        while as_of is not None and as_of <= target:
            spoke = self._close(as_of, floor_ms)
            # Nothing in reach of this T: on to the first T that has an event.
            as_of = as_of + every if spoke else self._next_with_event(as_of)
        if self.closed_through_ms is None or target > self.closed_through_ms:
            self.closed_through_ms = target

    def _next_with_event(self, event_time_ms: int | None) -> int | None:
        """The first T whose window can hold an event at or after `event_time_ms`."""
        every = self.definition.every_ms
        times = []
        for entity in self._active:
            keys = self._histories[entity].keys
            at = 0 if event_time_ms is None else bisect_left(keys, (event_time_ms,))
            if at < len(keys):
                times.append(keys[at][0])
        return min(times) // every * every + every if times else None

    def _close(self, as_of: int, floor_ms: int | None) -> bool:
        """Vectors as of `as_of`; whether any entity has an event in reach of it."""
        every, longest = self.definition.every_ms, self.definition.longest_window_ms
        is_first = floor_ms is not None and as_of - every - longest < floor_ms
        spoke = False
        for entity in list(self._active):
            history = self._histories[entity]
            before = history.first_from(as_of - every - longest)
            if before == len(history.keys):
                self._active.discard(entity)
                continue
            end = history.first_from(as_of)
            spoke = spoke or before < end
            if history.first_from(as_of - longest) < end:
                vector = self._final(history, as_of, end)
            elif not is_first and before < min(end, history.first_from(as_of - every)):
                vector = Vector(
                    kind="empty", values={f.name: nothing(f) for f in self.definition.features}
                )
            else:
                continue
            self.vectors[(self.definition.name, entity, as_of)] = vector
        return spoke

    def _final(self, history: _History, as_of: int, end: int) -> Vector:
        starts: dict[int, int] = {}
        values = {}
        for feature, column in zip(self.definition.features, history.columns, strict=True):
            window = feature.window_ms
            if window not in starts:
                starts[window] = history.first_from(as_of - window)
            inside = [value for value in column[starts[window] : end] if value is not None]
            values[feature.name] = expect(feature, inside)
        return Vector(kind="final", values=values)


class _Sql:
    """A set's filter and expressions, evaluated by SQLite for one event at a time."""

    def __init__(self, definition: FeatureSet, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
        self._sqlite = sqlite3.connect(":memory:", cached_statements=4)
        self._sqlite.execute("PRAGMA case_sensitive_like = ON")
        columns = [f"({definition.where or 'TRUE'})"]
        for feature in definition.features:
            value = "1" if feature.expression is None else f"({feature.expression})"
            columns.append(
                value if feature.where is None else f"CASE WHEN ({feature.where}) THEN {value} END"
            )
        inputs = ", ".join(f'?{i} AS "{name}"' for i, name in enumerate(self._fields, start=1))
        self._query = f"SELECT {', '.join(columns)} FROM (SELECT {inputs})"

    def evaluate(self, fields: Mapping[str, object]) -> tuple[bool, Sequence[object]]:
        """Whether the event is in the set, and each feature's value (None: left out).

        SQLite takes NaN for null, as the product must.
        """
        row = self._sqlite.execute(
            self._query, [fields.get(name) for name in self._fields]
        ).fetchone()
        return bool(row[0]), row[1:]


class Reference:
    """Expected output of one stream partition for `sets`, which read the same stream.

    `fields` are the names of the reader schema's fields; `source_partitions` is the number
    of the source's partitions if the stream is rekeyed, None if it is not; `floor_ms` is R
    if the stream does not begin at the log's beginning.
    """

    def __init__(
        self,
        sets: Iterable[FeatureSet],
        fields: Sequence[str],
        *,
        source_partitions: int | None = None,
        max_ahead_ms: int | None = None,
        floor_ms: int | None = None,
    ) -> None:
        self._sets = [_Set(definition, fields) for definition in sets]
        self._source_partitions = source_partitions
        self._max_ahead_ms = max_ahead_ms
        self._floor_ms = floor_ms
        for one in self._sets:
            if floor_ms is not None:
                one.raise_floor(floor_ms)
        self._newest: dict[int, Marker] = {}
        self._marked: dict[int, int] = {}
        self.watermark_ms: int | None = None
        self.highest_event_time_ms: int | None = None
        self.late: list[tuple[str, int]] = []
        """(feature set, offset) of each late copy, in order."""
        self.dead: list[tuple[int, str]] = []
        """(offset, error) of each dead record, in order."""

    @property
    def vectors(self) -> dict[VectorKey, Vector]:
        """Every expected vector so far."""
        return {key: vector for one in self._sets for key, vector in one.vectors.items()}

    @property
    def closed_through_ms(self) -> dict[str, int | None]:
        """C of each set."""
        return {one.definition.name: one.closed_through_ms for one in self._sets}

    def feed(self, record: Record) -> None:
        """Take the next record of the log."""
        if isinstance(record, Marker):
            self._mark(record)
        elif isinstance(record, Idle):
            self._raise_watermark(record.watermark_ms)
        else:
            self._take(record)

    def feed_all(self, records: Iterable[Record]) -> Reference:
        """Take all `records`, in order."""
        for record in records:
            self.feed(record)
        return self

    def silence(self, highest_event_time_ms: int) -> None:
        """The whole source is silent: close each set's first T after its last event.

        `highest_event_time_ms` is that of the whole source, not of this partition.
        """
        for one in self._sets:
            every = one.definition.every_ms
            target = highest_event_time_ms // every * every + every
            one.close_through(target, self._floor_ms)

    def _take(self, event: Event) -> None:
        event_time = event.event_time_ms
        if event_time is None:
            self.dead.append((event.offset, MISSING_EVENT_TIME))
            return
        ahead = event_time - event.timestamp_ms
        if self._max_ahead_ms is not None and ahead > self._max_ahead_ms:
            self.dead.append((event.offset, EVENT_TIME_AHEAD))
            return
        if self.highest_event_time_ms is None or event_time > self.highest_event_time_ms:
            self.highest_event_time_ms = event_time
        if self._source_partitions is None:
            self._raise_watermark(event_time)
        missing = False
        for one in self._sets:
            if one.missing_entity(event):
                missing = True
            elif one.apply(event, event_time, self._floor_ms):
                self.late.append((one.definition.name, event.offset))
        if missing:
            self.dead.append((event.offset, MISSING_ENTITY))

    def _mark(self, marker: Marker) -> None:
        assert self._source_partitions is not None, "a keyed stream has no markers"
        p = marker.source_partition
        self._newest[p] = marker
        if marker.floor_ms is not None:
            known_ms = marker.floor_ms if self._floor_ms is None else self._floor_ms
            self._floor_ms = max(marker.floor_ms, known_ms)
            for one in self._sets:
                one.raise_floor(self._floor_ms)
        if marker.watermark_ms is not None:
            self._marked[p] = max(marker.watermark_ms, self._marked.get(p, marker.watermark_ms))
        if len(self._marked) == self._source_partitions:
            self._raise_watermark(min(self._marked.values()))
        everyone = len(self._newest) == self._source_partitions
        if everyone and self._marked and all(one.silent for one in self._newest.values()):
            self.silence(max(self._marked.values()))

    def _raise_watermark(self, watermark_ms: int) -> None:
        if self.watermark_ms is not None and watermark_ms <= self.watermark_ms:
            return
        self.watermark_ms = watermark_ms
        for one in self._sets:
            limit_ms = watermark_ms - one.definition.allowed_lateness_ms
            one.close_through(limit_ms, self._floor_ms)


def compare(expected: Mapping[VectorKey, Vector], rows: Iterable[Row]) -> list[Mismatch]:
    """Every difference between what must come out and what came out.

    Rows of kind `update` are passed over: they are replaced by the `final`. Each vector
    must come once.
    """
    mismatches = []
    seen = set()
    for row in rows:
        if row.kind == "update":
            continue
        vector = expected.get(row.key)
        if row.key in seen:
            mismatches.append(Mismatch(what="duplicate", key=row.key, detail=row.kind))
        elif vector is None:
            detail = f"{row.kind} {dict(row.values)!r}"
            mismatches.append(Mismatch(what="unexpected", key=row.key, detail=detail))
        elif difference := _difference(vector, row):
            mismatches.append(Mismatch(what="wrong", key=row.key, detail=difference))
        seen.add(row.key)
    for key, vector in expected.items():
        if key not in seen:
            mismatches.append(Mismatch(what="missing", key=key, detail=vector.kind))
    return mismatches


def _difference(vector: Vector, row: Row) -> str:
    if row.kind != vector.kind:
        return f"expected kind {vector.kind}, got {row.kind}"
    wrong = []
    for name, expected in vector.values.items():
        if name not in row.values:
            wrong.append(f"{name}: absent")
        elif problem := expected.judge(row.values[name]):
            wrong.append(f"{name}: {problem}")
    wrong.extend(f"{name}: not a feature" for name in row.values if name not in vector.values)
    return "; ".join(wrong)
