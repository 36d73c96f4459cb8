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
7. A set may have several versions. All of them are given every event; one serves, first the
   first one given. Where another one is switched to, what is closed stays closed, and every T
   of its own after it with T + its lateness <= watermark closes there, before the next record.
8. As of the first T that a version closes after another one, `empty` goes to each entity with
   none of its events in [T - longest, T) and one of the other version's in the longest window
   of that one as of what it had closed last; to nobody if that window begins before R.
9. A pinned version closes for itself what it would close if it served, after the highest T with
   T + its lateness <= watermark, and after what is closed for the set. Its vectors are those of
   `set@version`; nothing is late for it, and nobody takes it over.
10. Where a feature of a version is switched off it is null in all that the version says, counts
   and vectors `empty` included. With another version standing in it is what that one's feature is
   over that one's own events before T, for the same entity; over nothing counts are 0.
11. A switch with `repair` first says again, in order of T, what the version that served has said:
   each T of that one after what was closed when it took over, up to what is closed, where
   neither of the two's longest windows begins before R, nor that of a feature that stands in, and
   T is not longer ago than what is closed minus the retention of any of these. A `correction` over
   all events so far goes out for each entity with an event in its longest window, and one over
   nothing for each other entity with one in the other version's; all are over nothing where T is
   none of its own.
12. A version whose name is that of another one and `~` with a number is that one without some of
   its events. It took over when that one did, and where that one is pinned, it goes on with the
   pin's topic: as of its first T there is an `empty` as by rule 8.
13. A record without its entity is dead if a set's filter, that of the version that serves, passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.reference_records import Decided as Decided
from tests.reference_records import Event as Event
from tests.reference_records import Idle as Idle
from tests.reference_records import Marker as Marker
from tests.reference_records import Pin as Pin
from tests.reference_records import Record as Record
from tests.reference_records import Switch as Switch
from tests.reference_records import Toggle as Toggle
from tests.reference_sets import PinModel, SetModel
from tests.reference_versions import Entity
from tests.reference_versions import Vector as Vector
from tests.reference_versions import VectorKey as VectorKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streams.definitions.model import FeatureSet

MISSING_ENTITY = "missing_entity"
MISSING_EVENT_TIME = "missing_event_time"
EVENT_TIME_AHEAD = "event_time_ahead"


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


class Reference:
    """Expected output of one stream partition for `sets`, which read the same stream.

    Sets of one name are versions of a set; the first of them serves until another one is
    switched to. `fields` are the names of the reader schema's fields; `source_partitions` is
    the number of the source's partitions if the stream is rekeyed, None if it is not;
    `floor_ms` is R if the stream does not begin at the log's beginning.
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
        by_name: dict[str, list[FeatureSet]] = {}
        for definition in sets:
            by_name.setdefault(definition.name, []).append(definition)
        self._sets = [SetModel(versions, fields) for versions in by_name.values()]
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
        said: list[SetModel | PinModel] = [*self._sets]
        said += [pin for one in self._sets for pin in one.all_pins]
        return {key: vector for one in said for key, vector in one.vectors.items()}

    @property
    def corrections(self) -> dict[VectorKey, list[Vector]]:
        """Every expected correction so far; of one vector in the order in which they come."""
        return {key: found for one in self._sets for key, found in one.corrections.items()}

    @property
    def doubtful(self) -> set[VectorKey]:
        """Corrections of a set that only come if the version that took over was live early
        enough; of a pin, each `empty` that only comes if what it had before is still there."""
        said: list[SetModel | PinModel] = [*self._sets]
        said += [pin for one in self._sets for pin in one.all_pins]
        return {key for one in said for key in one.doubtful}

    @property
    def closed_through_ms(self) -> dict[str, int | None]:
        """C of each set."""
        return {one.name: one.closed_through_ms for one in self._sets}

    def feed(self, record: Record) -> None:
        """Take the next record of the log."""
        if isinstance(record, Marker):
            self._mark(record)
        elif isinstance(record, Idle):
            self._raise_watermark(record.watermark_ms)
        elif isinstance(record, Decided):
            self._obey(record)
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
        for one in self._speakers:
            self._silence(one, highest_event_time_ms)

    def _silence(self, one: SetModel | PinModel, highest_event_time_ms: int) -> None:
        every = one.definition.every_ms
        target = highest_event_time_ms // every * every + every
        one.close_through(target, self._floor_ms)

    @property
    def _speakers(self) -> list[SetModel | PinModel]:
        """Sets and pins."""
        pins = [pin for one in self._sets for pin in one.pins.values()]
        return [*self._sets, *pins]

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
                self.late.append((one.name, event.offset))
        if missing:
            self.dead.append((event.offset, MISSING_ENTITY))

    def _mark(self, marker: Marker) -> None:
        assert self._source_partitions is not None, "a keyed stream has no markers"
        p = marker.source_partition
        self._newest[p] = marker
        if marker.floor_ms is not None:
            known_ms = marker.floor_ms if self._floor_ms is None else self._floor_ms
            self._floor_ms = max(marker.floor_ms, known_ms)
            for one in self._speakers:
                one.raise_floor(self._floor_ms)
        if marker.watermark_ms is not None:
            self._marked[p] = max(marker.watermark_ms, self._marked.get(p, marker.watermark_ms))
        if len(self._marked) == self._source_partitions:
            self._raise_watermark(min(self._marked.values()))
        if self._silent:
            self.silence(max(self._marked.values()))

    @property
    def _silent(self) -> bool:
        """Whether the newest markers of all source partitions say so."""
        everyone = len(self._newest) == self._source_partitions
        return bool(everyone and self._marked and all(m.silent for m in self._newest.values()))

    def _obey(self, decided: Decided) -> None:
        one = next(one for one in self._sets if one.name == decided.feature_set)
        if isinstance(decided, Toggle):
            one.toggle(decided.version, decided.feature, decided.off, decided.stand_in)
            return
        changed: SetModel | PinModel = one
        if isinstance(decided, Switch):
            if decided.repair:
                one.repair(decided.version, self._floor_ms)
            one.switch(decided.version, self.watermark_ms, self._floor_ms)
        elif decided.pinned:
            changed = one.pin(decided.version, self.watermark_ms, self._floor_ms)
        else:
            one.unpin(decided.version)
        if self._silent:
            self._silence(changed, max(self._marked.values()))

    def _raise_watermark(self, watermark_ms: int) -> None:
        if self.watermark_ms is not None and watermark_ms <= self.watermark_ms:
            return
        self.watermark_ms = watermark_ms
        for one in self._speakers:
            limit_ms = watermark_ms - one.definition.allowed_lateness_ms
            one.close_through(limit_ms, self._floor_ms)


def compare(
    expected: Mapping[VectorKey, Vector],
    rows: Iterable[Row],
    corrections: Mapping[VectorKey, Sequence[Vector]] | None = None,
) -> list[Mismatch]:
    """Every difference between what must come out and what came out.

    Rows of kind `update` are passed over: they are replaced by the `final`. Each vector
    must come once, and each of its corrections.
    """
    mismatches = []
    seen = set()
    due = {key: list(vectors) for key, vectors in (corrections or {}).items()}
    for row in rows:
        if row.kind == "update":
            continue
        if row.kind == "correction" and due.get(row.key):
            if difference := _difference(due[row.key].pop(0), row):
                mismatches.append(Mismatch(what="wrong", key=row.key, detail=difference))
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
    for key, left in due.items():
        mismatches += [Mismatch(what="missing", key=key, detail=one.kind) for one in left]
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
