"""What a user declares, as values: sources and feature sets.

Times are milliseconds, instants are milliseconds since the epoch in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.windowing.functions import Function as Function


class Emit(StrEnum):
    """When vectors go out: on close only, or also as values change."""

    FINAL = "final"
    UPDATES = "updates"


class TimeUnit(StrEnum):
    """Unit of a plain numeric event-time field; `AVRO` takes the field's logical type."""

    AVRO = "avro"
    S = "s"
    MS = "ms"
    US = "us"


class StartAt(StrEnum):
    """Where a stream with nothing committed begins."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTime:
    """The field that holds event time, and its unit."""

    field: str
    unit: TimeUnit = TimeUnit.AVRO


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An event topic and how to read it. `key` is empty if the record key names nothing."""

    name: str
    topic: str
    schema: str
    event_time: EventTime
    key: tuple[str, ...] = ()
    start: StartAt | int = StartAt.EARLIEST
    max_ahead_ms: int = 3_600_000
    idle_after_ms: int = 30_000
    close_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One aggregate over one window.

    `expression` is SQL over the event's fields; `None` only for `count: "*"`. `q` is the
    rank of a quantile in [0, 1], `k` the length of a top_k list.
    """

    name: str
    function: Function
    expression: str | None
    window_ms: int
    where: str | None = None
    q: float | None = None
    k: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """One immutable version of a named group of features of one entity."""

    name: str
    version: str
    source: str
    entity: tuple[str, ...]
    every_ms: int
    features: tuple[Feature, ...]
    allowed_lateness_ms: int = 0
    retention_ms: int = 0
    emit: Emit = Emit.FINAL
    where: str | None = None
    description: str = ""
    owner: str = ""

    @property
    def longest_window_ms(self) -> int:
        return max(feature.window_ms for feature in self.features)
