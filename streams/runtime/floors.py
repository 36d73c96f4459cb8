"""From when on panes are whole, where a bundle begins after the log's first offset.

A source as it is: what came before the first record has no later event time than that record's
timestamp + `max_ahead`. Where its producer set no timestamp, its event time stands for it.

A rekeyed stream: a marker comes after the events of its source partition, and its watermark is
as high as their highest event time. So the first marker of each source partition tells how far
the events before the log's start can reach, whatever their order: panes are whole from the
millisecond after the highest of these watermarks.

Until all that is wanted has come a bundle may be flushed and opened again, so what it waits
for goes into its meta.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from streams.datapath.batch import OFFSET
from streams.windowing.accumulators import EVENT_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streams.datapath.batch import Batch
    from streams.datapath.pipeline import Pipeline
    from streams.datapath.records import Records
    from streams.state.store import Meta

_NOTE = "floor_wanted"
_ITSELF = 0
"""Stands for the partition where the source is read as it is."""


class Floors:
    """The floors that bundles of one stream partition still wait for, by bundle digest."""

    def __init__(self, *, source_partitions: int, max_ahead_ms: int) -> None:
        """`source_partitions` is 0 where the stream is not rekeyed."""
        self._rekeyed = source_partitions > 0
        self._all = frozenset(range(source_partitions) if self._rekeyed else (_ITSELF,))
        self._max_ahead_ms = max_ahead_ms
        self._wanted: dict[str, set[int]] = {}

    def open(self, bundle: str, meta: Meta | None, begin: int, *, known: bool = False) -> None:
        """A bundle with the meta it has, or one without that begins at offset `begin`.

        `known` says that it begins with its floor.
        """
        unknown = self._all if begin and not known else ()
        wanted = json.loads(meta.extra.get(_NOTE, "[]")) if meta else unknown
        self._wanted.pop(bundle, None)
        if wanted:
            self._wanted[bundle] = set(wanted)

    def notes(self, bundle: str) -> Mapping[str, str]:
        """What the bundle's meta has to say."""
        wanted = self._wanted.get(bundle)
        return {_NOTE: json.dumps(sorted(wanted))} if wanted else {}

    @property
    def pending(self) -> bool:
        """Whether any bundle waits for its floor."""
        return bool(self._wanted)

    def knows(self, bundle: str) -> bool:
        """Whether a bundle's floor is all that there is to say of what it lacks."""
        return bundle not in self._wanted

    def waits(self, bundle: str) -> bool:
        """Whether nothing has told yet from when on a bundle's panes are whole."""
        return not self._rekeyed and bundle in self._wanted

    def take_over(self, other: Floors) -> None:
        """What bundles that come from elsewhere wait for."""
        self._wanted.update(other._wanted)

    def parts(self, records: Records, batch: Batch, pipeline: Pipeline) -> Iterator[Batch]:
        """The batch as parts to apply one after the other; `records` are those it was made of.

        The floors that a part tells of are raised before it is given.
        """
        if not self._wanted:
            yield batch
        elif self._rekeyed:
            yield from self._by_marker(batch, pipeline)
        else:
            time_ms = _first_time_ms(records, batch)
            if time_ms is not None:
                self._told(_ITSELF, time_ms + self._max_ahead_ms, pipeline)
            yield batch

    def settle(self, pipeline: Pipeline) -> None:
        """After the replay: other bundles may know watermarks from before the log's start.

        Nothing closes beyond them until the source partition's next marker comes, and that
        one tells the floor.
        """
        known = pipeline.watermark.by_source
        for bundle, wanted in self._wanted.items():
            before = [known[partition] for partition in wanted if partition in known]
            if before:
                pipeline.raise_floor(max(before) + 1, {bundle})

    def _by_marker(self, batch: Batch, pipeline: Pipeline) -> Iterator[Batch]:
        for marker in batch.markers:
            if not any(marker.source_partition in wanted for wanted in self._wanted.values()):
                continue
            if batch.offsets[0] < marker.offset:
                yield batch.below(marker.offset)
                batch = batch.since(marker.offset)
            watermark_ms = marker.watermark_ms
            floor_ms = None if watermark_ms is None else watermark_ms + 1
            self._told(marker.source_partition, floor_ms, pipeline)
        yield batch

    def _told(self, partition: int, floor_ms: int | None, pipeline: Pipeline) -> None:
        bundles = {bundle for bundle, wanted in self._wanted.items() if partition in wanted}
        if floor_ms is not None:
            pipeline.raise_floor(floor_ms, bundles)
        for bundle in bundles:
            self._wanted[bundle].discard(partition)
            if not self._wanted[bundle]:
                del self._wanted[bundle]


def _first_time_ms(records: Records, batch: Batch) -> int | None:
    """The timestamp of the first record that has one, or the first event's time before it."""
    stamped = next((at for at, ms in enumerate(records.timestamps) if ms >= 0), None)
    events = batch.events
    if stamped is not None and (
        events.is_empty() or records.offsets[stamped] <= events[OFFSET].item(0)
    ):
        return records.timestamps[stamped]
    return None if events.is_empty() else int(events[EVENT_TIME].item(0))
