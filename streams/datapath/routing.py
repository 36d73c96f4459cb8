"""Which partition of a rekeyed stream each event goes to, and with which key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.datapath.batch import OFFSET, DeadLetter
from streams.datapath.intake import Intake
from streams.datapath.records import as_columns
from streams.schema.decode import Decoder
from streams.schema.types import field_types
from streams.windowing.accumulators import EVENT_TIME
from streams.windowing.entity import entity_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import polars as pl

    from streams.datapath.records import Record, Records
    from streams.definitions.model import Source

REMEMBERED_ENTITIES = 100_000
_TEXT = "_text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Events for one partition, in their order, with their keys."""

    keys: Sequence[bytes]
    records: Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """A batch, shared out. `newest_ms` is its highest event time, events without an entity
    included; None if it has no valid event."""

    shares: Mapping[int, Share]
    dead: tuple[DeadLetter, ...]
    newest_ms: int | None


class Router:
    """Shares out one source's events by entity.

    `hash_of` makes a number of a key's bytes that is never negative. The same key always goes
    to the same partition.
    """

    def __init__(
        self,
        source: Source,
        schema: Mapping[str, object],
        entity: Mapping[str, pl.DataType],
        *,
        partitions: int,
        hash_of: Callable[[bytes], int],
    ) -> None:
        needed = (source.event_time.field, *entity)
        types = field_types(schema)
        self.decoder = Decoder(schema, needed)
        self._intake = Intake(source, self.decoder, {name: types[name] for name in needed})
        self._entity = tuple(entity)
        self._text = entity_text(entity).alias(_TEXT)
        self._partitions = partitions
        self._hash_of = hash_of
        self._places: dict[str, tuple[int, bytes]] = {}

    def unknown_ids(self, records: Sequence[Record]) -> set[int]:
        """Schema ids to look up and add to the decoder before `route`."""
        return self._intake.unknown_ids(records)

    def route(self, records: Sequence[Record], partition: int) -> Routed:
        """Share out records of a source partition, in order of offset."""
        run = as_columns(records)
        batch = self._intake.batch(run, first_offset=run.offsets[0], partition=partition)
        placed: dict[int, tuple[list[bytes], list[int]]] = {}
        dead = list(batch.dead)
        at_offset = {offset: at for at, offset in enumerate(run.offsets)}
        for offset, text in batch.events.select(OFFSET, self._text).iter_rows():
            if text is None:
                dead.append(self._orphan(offset))
                continue
            place, key = self._place(text)
            keys, positions = placed.setdefault(place, ([], []))
            keys.append(key)
            positions.append(at_offset[offset])
        shares = {
            place: Share(keys=keys, records=run.take(positions))
            for place, (keys, positions) in placed.items()
        }
        newest_ms = batch.events[EVENT_TIME].max()
        assert newest_ms is None or isinstance(newest_ms, int)
        dead.sort(key=lambda letter: letter.offset)
        return Routed(shares=shares, dead=tuple(dead), newest_ms=newest_ms)

    def _place(self, text: str) -> tuple[int, bytes]:
        known = self._places.get(text)
        if known is None:
            if len(self._places) >= REMEMBERED_ENTITIES:
                self._places.clear()
            key = text.encode()
            known = self._places[text] = (self._hash_of(key) % self._partitions, key)
        return known

    def _orphan(self, offset: int) -> DeadLetter:
        detail = f"{', '.join(self._entity)} must not be null"
        return DeadLetter(offset=offset, error="missing_entity", detail=detail)
