"""The reference model's versions: what each set's windows give over all events, as of any time."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.expected import Exactly, Expected, expect, nothing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.definitions.model import FeatureSet
    from tests.reference_records import Event

Entity = tuple[object, ...]
VectorKey = tuple[str, Entity, int]
"""Feature set, entity, as-of time in ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """An expected vector: kind `final`, `empty` or `correction`, and what each feature must be."""

    kind: str
    values: Mapping[str, Expected]


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


class Version:
    """One version of a set over one stream partition: its events, and what they give."""

    def __init__(self, definition: FeatureSet, fields: Sequence[str]) -> None:
        self.definition = definition
        self._sql = _Sql(definition, fields)
        self._histories: dict[Entity, _History] = {}
        self._active: set[Entity] = set()
        self.off: dict[str, Version | None] = {}
        """Features that are switched off, and the version that stands in."""

    def apply(self, event: Event, event_time_ms: int, floor_ms: int | None) -> bool:
        """Add the event; whether it is one of the version's."""
        passes, values = self._sql.evaluate(event.fields)
        if passes and (floor_ms is None or event_time_ms >= floor_ms):
            entity = tuple(event.fields[name] for name in self.definition.entity)
            history = self._histories.get(entity)
            if history is None:
                columns: list[list[object]] = [[] for _ in self.definition.features]
                history = self._histories[entity] = _History(columns=columns)
            offset = event.offset if event.source_offset is None else event.source_offset
            history.add((event_time_ms, event.source_partition, offset), values)
            self._active.add(entity)
        return passes

    def wants(self, event: Event) -> bool:
        """Whether the event is one of the version's, where its entity is known or not."""
        return self._sql.evaluate(event.fields)[0]

    def last_as_of(self, event_time_ms: int) -> int:
        """The last T whose longest window holds an event of this time."""
        every = self.definition.every_ms
        return (event_time_ms + self.definition.longest_window_ms) // every * every

    def last_before(self, floor_ms: int) -> int:
        """The last T whose longest window begins before the floor."""
        every, longest = self.definition.every_ms, self.definition.longest_window_ms
        return -(-(floor_ms + longest) // every) * every - every

    def next_with_event(self, event_time_ms: int | None) -> int | None:
        """The first T whose window can hold an event at or after `event_time_ms`."""
        every = self.definition.every_ms
        times = []
        for entity in self._active:
            keys = self._histories[entity].keys
            at = 0 if event_time_ms is None else bisect_left(keys, (event_time_ms,))
            if at < len(keys):
                times.append(keys[at][0])
        return min(times) // every * every + every if times else None

    def close(self, as_of: int, floor_ms: int | None) -> tuple[bool, dict[Entity, Vector]]:
        """Vectors as of `as_of`; first: whether any entity has an event in reach of it."""
        every, longest = self.definition.every_ms, self.definition.longest_window_ms
        is_first = floor_ms is not None and as_of - every - longest < floor_ms
        spoke, vectors = False, {}
        for entity in list(self._active):
            history = self._histories[entity]
            before = history.first_from(as_of - every - longest)
            if before == len(history.keys):
                self._active.discard(entity)
                continue
            end = history.first_from(as_of)
            spoke = spoke or before < end
            if history.first_from(as_of - longest) < end:
                vectors[entity] = self._final(history, as_of, end)
            elif not is_first and before < min(end, history.first_from(as_of - every)):
                vectors[entity] = self._empty()
        return spoke, vectors

    def close_after(
        self, other: Version, closed_ms: int, as_of: int, floor_ms: int | None
    ) -> dict[Entity, Vector]:
        """Vectors as of the first T after another version had closed up to `closed_ms`."""
        vectors = {
            entity: self._final(self._histories[entity], as_of, end)
            for entity, end in self._present(as_of).items()
        }
        if floor_ms is None or closed_ms - other.definition.longest_window_ms >= floor_ms:
            for entity in other._present(closed_ms):
                vectors.setdefault(entity, self._empty())
        return vectors

    def correct(self, other: Version, as_of: int) -> dict[Entity, Vector]:
        """What is said instead of what another version has said as of one of its T."""
        vectors = {}
        if as_of % self.definition.every_ms == 0:
            for entity, end in self._present(as_of).items():
                final = self._final(self._histories[entity], as_of, end)
                vectors[entity] = self.said(entity, as_of, final)
            for entity in other._present(as_of):
                vectors.setdefault(entity, self.said(entity, as_of, self._empty()))
        else:
            values = dict(self._empty().values)
            for name, stand_in in self.off.items():
                values[name] = Exactly(None) if stand_in is None else stand_in._empty().values[name]
            vectors = {one: replace(self._empty(), values=values) for one in other._present(as_of)}
        return {one: replace(vector, kind="correction") for one, vector in vectors.items()}

    def _present(self, as_of: int) -> dict[Entity, int]:
        """Entities with an event in the longest window, and how many they have before T."""
        longest = self.definition.longest_window_ms
        ends = {entity: one.first_from(as_of) for entity, one in self._histories.items()}
        return {
            entity: end
            for entity, end in ends.items()
            if self._histories[entity].first_from(as_of - longest) < end
        }

    def copied(self) -> Version:
        """The same events for somebody who closes at a pace of its own."""
        made = copy(self)
        made._histories = {
            entity: _History(keys=[*one.keys], columns=[[*values] for values in one.columns])
            for entity, one in self._histories.items()
        }
        made._active = set(self._histories)
        return made

    def said(self, entity: Entity, as_of: int, vector: Vector) -> Vector:
        """The vector as it goes out, with what is switched off."""
        if not self.off:
            return vector
        values = dict(vector.values)
        for name, stand_in in self.off.items():
            values[name] = (
                Exactly(None) if stand_in is None else stand_in._value(name, entity, as_of)
            )
        return Vector(kind=vector.kind, values=values)

    def _value(self, name: str, entity: Entity, as_of: int) -> Expected:
        """A feature of an entity, which may have no event at all."""
        features = self.definition.features
        at = next(i for i, feature in enumerate(features) if feature.name == name)
        history = self._histories.get(entity)
        inside: list[object] = []
        if history is not None:
            start = history.first_from(as_of - features[at].window_ms)
            inside = history.columns[at][start : history.first_from(as_of)]
        return expect(features[at], [value for value in inside if value is not None])

    def _empty(self) -> Vector:
        return Vector(kind="empty", values={f.name: nothing(f) for f in self.definition.features})

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
