"""From records to a batch: decode, event time, and the verdict on what can't be used.

A verdict depends on the record, the source's definition and the writer's schema alone, so a
replay comes to the same. The one exception, an id that the registry does not know yet, is the
caller's to remember.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.datapath.batch import OFFSET, ORDER_COLUMNS, Batch, DeadLetter, Marker
from streams.datapath.rekeyed import read_marker, read_origin
from streams.definitions.model import Source, TimeUnit
from streams.windowing.accumulators import EVENT_TIME, SOURCE_OFFSET, SOURCE_PARTITION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.datapath.records import Record as Record
    from streams.schema.decode import Decoder

EARLIEST_MS = -62_135_596_800_000
LATEST_MS = 253_402_300_799_999
"""Event times from year 1 to year 9999: what calendars and Avro readers can show."""

_BOUND = 9 * 10**15
_TIMESTAMP = "_timestamp"
_ERROR = "_error"


class BadEvent(StrEnum):
    """Why a record that decodes can't be used."""

    MISSING_EVENT_TIME = "missing_event_time"
    EVENT_TIME_AHEAD = "event_time_ahead"
    EVENT_TIME_OUT_OF_RANGE = "event_time_out_of_range"


class Intake:
    """Makes batches out of a stream's records; holds the decoder and its schemas.

    With `rekeyed`, records are those of a rekeyed stream: events that say where they came
    from, and markers.
    """

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        fields: Mapping[str, pl.DataType],
        *,
        rekeyed: bool = False,
    ) -> None:
        self.source = source
        self.decoder = decoder
        self._rekeyed = rekeyed
        self._time = event_time_ms(source, fields)
        self._problem = self._problems()

    def unknown_ids(self, records: Sequence[Record]) -> set[int]:
        """Schema ids to look up and add to the decoder before `batch`."""
        return self.decoder.missing_ids([r.value for r in records if self._is_event(r)])

    def _is_event(self, record: Record) -> bool:
        return not self._rekeyed or record.key is not None

    def batch(self, records: Sequence[Record], *, first_offset: int, partition: int) -> Batch:
        """The batch at `first_offset` of stream partition `partition`."""
        offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
        markers: tuple[Marker, ...] = ()
        events = records
        if self._rekeyed:
            events = [r for r in records if r.key is not None]
            markers = tuple(read_marker(r.offset, r.value) for r in records if r.key is None)
        frame, dead = self._events(events, partition)
        return Batch(
            first_offset=first_offset,
            next_offset=int(offsets[-1]) + 1 if len(offsets) else first_offset,
            offsets=offsets.tolist(),
            events=frame,
            markers=markers,
            dead=dead,
        )

    def _events(
        self, records: Sequence[Record], partition: int
    ) -> tuple[pl.DataFrame, tuple[DeadLetter, ...]]:
        decoded = self.decoder.decode([r.value for r in records])
        offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
        rows = decoded.rows
        frame = (
            decoded.frame.with_columns(
                pl.Series(OFFSET, offsets[rows]), *self._origin(records, partition, rows)
            )
            .with_columns(self._time.alias(EVENT_TIME))
            .with_columns(self._problem.alias(_ERROR))
        )
        dead = [
            DeadLetter(offset=int(offsets[bad.position]), error=bad.error, detail=bad.detail)
            for bad in decoded.bad
        ]
        if frame[_ERROR].null_count() < frame.height:
            dead.extend(self._refused(frame.filter(pl.col(_ERROR).is_not_null())))
            dead.sort(key=lambda letter: letter.offset)
            frame = frame.filter(pl.col(_ERROR).is_null())
        return frame.drop(_TIMESTAMP, _ERROR), tuple(dead)

    def _origin(
        self, records: Sequence[Record], partition: int, rows: npt.NDArray[np.int64]
    ) -> list[pl.Series]:
        """Columns of source partition, source offset and timestamp, of the good `rows`."""
        if self._rekeyed:
            found = np.array([read_origin(r.headers) for r in records], np.int64).reshape(-1, 3)
        else:
            found = np.empty((len(records), 3), np.int64)
            found[:, 0] = partition
            found[:, 1] = [r.offset for r in records]
            found[:, 2] = [r.timestamp for r in records]
        found = found[rows]
        return [
            pl.Series(SOURCE_PARTITION, found[:, 0].astype(np.int32)),
            pl.Series(SOURCE_OFFSET, np.ascontiguousarray(found[:, 1])),
            pl.Series(_TIMESTAMP, np.ascontiguousarray(found[:, 2])),
        ]

    def _problems(self) -> pl.Expr:
        """The first reason why an event can't be used, null for most."""
        time, timestamp = pl.col(EVENT_TIME), pl.col(_TIMESTAMP)
        ahead = (timestamp >= 0) & (time > timestamp + self.source.max_ahead_ms)
        return (
            pl.when(time.is_null())
            .then(pl.lit(str(BadEvent.MISSING_EVENT_TIME)))
            .when(ahead)
            .then(pl.lit(str(BadEvent.EVENT_TIME_AHEAD)))
            .when(~time.is_between(EARLIEST_MS, LATEST_MS))
            .then(pl.lit(str(BadEvent.EVENT_TIME_OUT_OF_RANGE)))
        )

    def _refused(self, frame: pl.DataFrame) -> list[DeadLetter]:
        source = self.source
        field = source.event_time.field
        details = {
            BadEvent.MISSING_EVENT_TIME: f"{field} must not be null",
            BadEvent.EVENT_TIME_OUT_OF_RANGE: f"{field} is outside the years 1 to 9999",
        }
        letters = []
        columns = frame.select(OFFSET, _ERROR, EVENT_TIME, _TIMESTAMP)
        for offset, error, time_ms, timestamp_ms in columns.iter_rows():
            detail = details.get(error) or (
                f"{field} is {time_ms - timestamp_ms} ms after the record's own timestamp, "
                f"{source.max_ahead_ms} ms are allowed"
            )
            letters.append(DeadLetter(offset=offset, error=error, detail=detail))
        return letters


def event_time_ms(source: Source, fields: Mapping[str, pl.DataType]) -> pl.Expr:
    """Event time of a row in milliseconds, rounded down; null where it can't be told."""
    column = pl.col(source.event_time.field)
    if source.event_time.unit is TimeUnit.AVRO:
        dtype = fields[source.event_time.field]
        physical = column.to_physical().cast(pl.Int64)
        micros = isinstance(dtype, pl.Datetime) and dtype.time_unit == "us"
        return physical.floordiv(1000) if micros else physical
    # Bounded first, so that no unit overflows; what is out of range stays out of range.
    bounded = column.clip(-_BOUND, _BOUND)
    match source.event_time.unit:
        case TimeUnit.S:
            scaled = bounded * 1000
        case TimeUnit.US:
            scaled = bounded.floordiv(1000)
        case _:
            scaled = bounded
    if fields[source.event_time.field].is_float():
        scaled = scaled.floor()
    return scaled.cast(pl.Int64, strict=False)


def empty_events(fields: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A frame of events without rows."""
    return pl.DataFrame(schema={**ORDER_COLUMNS, **fields})
