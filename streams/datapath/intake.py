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
from streams.datapath.records import Records, as_columns
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

_BOUND_S = 9 * 10**15
_TIMESTAMP = "@timestamp"
_ERROR = "@error"


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
        self._judged = (
            self._time.alias(EVENT_TIME),
            _problem(self._time, source.max_ahead_ms).alias(_ERROR),
        )

    def unknown_ids(self, records: Sequence[Record]) -> set[int]:
        """Schema ids to look up and add to the decoder before `batch`."""
        return self.decoder.missing_ids(self._events_of(as_columns(records)).values)

    def _events_of(self, run: Records) -> Records:
        return run.where([key is not None for key in run.keys]) if self._rekeyed else run

    def batch(self, records: Sequence[Record], *, first_offset: int, partition: int) -> Batch:
        """The batch at `first_offset` of stream partition `partition`."""
        run = as_columns(records)
        markers: tuple[Marker, ...] = ()
        if self._rekeyed:
            orders = run.where([key is None for key in run.keys])
            markers = tuple(map(read_marker, orders.offsets, orders.values))
        frame, dead = self._events(self._events_of(run), partition)
        return Batch(
            first_offset=first_offset,
            next_offset=run.offsets[-1] + 1 if run.offsets else first_offset,
            offsets=run.offsets,
            events=frame,
            markers=markers,
            dead=dead,
        )

    def _events(
        self, records: Records, partition: int
    ) -> tuple[pl.DataFrame, tuple[DeadLetter, ...]]:
        decoded = self.decoder.decode(records.values)
        offsets, rows = np.array(records.offsets, np.int64), decoded.rows
        good = offsets[rows]
        origin = self._origin(records, partition, good, rows)
        frame = decoded.frame.hstack([pl.Series(OFFSET, good), *origin]).with_columns(self._judged)
        errors = frame.drop_in_place(_ERROR)
        dead = [
            DeadLetter(offset=int(offsets[bad.position]), error=bad.error, detail=bad.detail)
            for bad in decoded.bad
        ]
        if errors.null_count() < frame.height:
            dead.extend(self._refused(frame.with_columns(errors).filter(errors.is_not_null())))
            dead.sort(key=lambda letter: letter.offset)
            frame = frame.filter(errors.is_null())
        frame.drop_in_place(_TIMESTAMP)
        return frame, tuple(dead)

    def _origin(
        self,
        records: Records,
        partition: int,
        offsets: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
    ) -> list[pl.Series]:
        """Columns of source partition, source offset and timestamp (ms), of the good `rows`, which
        are at these `offsets` here."""
        if self._rekeyed:
            found = np.array([read_origin(one) for one in records.headers], np.int64).reshape(-1, 3)
            partitions, offsets, timestamps = found[rows].T
        else:
            partitions = np.full(len(rows), partition)
            timestamps = np.array(records.timestamps, np.int64)[rows]
        return [
            pl.Series(SOURCE_PARTITION, partitions.astype(np.int32)),
            pl.Series(SOURCE_OFFSET, np.ascontiguousarray(offsets)),
            pl.Series(_TIMESTAMP, np.ascontiguousarray(timestamps)),
        ]

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


def _problem(time: pl.Expr, max_ahead_ms: int) -> pl.Expr:
    """The first reason why an event of this time can't be used, null for most."""
    timestamp = pl.col(_TIMESTAMP)
    ahead = (timestamp >= 0) & (time > timestamp + max_ahead_ms)
    return (
        pl.when(time.is_null())
        .then(pl.lit(str(BadEvent.MISSING_EVENT_TIME)))
        .when(ahead)
        .then(pl.lit(str(BadEvent.EVENT_TIME_AHEAD)))
        .when(~time.is_between(EARLIEST_MS, LATEST_MS))
        .then(pl.lit(str(BadEvent.EVENT_TIME_OUT_OF_RANGE)))
    )


def event_time_ms(source: Source, fields: Mapping[str, pl.DataType]) -> pl.Expr:
    """Event time of a row in milliseconds, rounded down; null where it can't be told."""
    column = pl.col(source.event_time.field)
    if source.event_time.unit is TimeUnit.AVRO:
        dtype = fields[source.event_time.field]
        physical = column.to_physical().cast(pl.Int64)
        micros = isinstance(dtype, pl.Datetime) and dtype.time_unit == "us"
        return physical.floordiv(1000) if micros else physical
    number = column.cast(pl.Int64)
    match source.event_time.unit:
        case TimeUnit.S:
            # Bounded first, so that nothing overflows; what is out of range stays out of range.
            return number.clip(-_BOUND_S, _BOUND_S) * 1000
        case TimeUnit.US:
            return number.floordiv(1000)
        case _:
            return number


def empty_events(fields: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A frame of events without rows."""
    return pl.DataFrame(schema={**ORDER_COLUMNS, **fields})
