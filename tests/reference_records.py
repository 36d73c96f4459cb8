"""What the reference model is fed: the records of one stream partition, and what stands between
them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """From here on this version of the set serves, and with `repair` it says again what the
    version before it has said since it took over."""

    feature_set: str
    version: str
    repair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Toggle:
    """From here on a feature of a version is switched off, with this or no version standing in
    for it; or on."""

    feature_set: str
    version: str
    feature: str
    off: bool
    stand_in: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """From here on a version closes for itself, whoever serves; or no more."""

    feature_set: str
    version: str
    pinned: bool


Decided = Switch | Toggle | Pin
"""What the control path decides."""

Record = Event | Marker | Idle | Switch | Toggle | Pin
