"""What a rekeyed stream holds: events whole, with where they came from, and markers.

An event keeps its value; its key is the entity's text. Of two headers, `rewindow.origin` is
source partition (4 bytes), offset (8) and timestamp in ms (8), big-endian and signed, and
`rewindow.key` is the key that it was produced with, if it had one. A marker
has no key; its value is JSON: the source partition `p`, its watermark `w`, the silence `s` and
the floor `r`, each of the last three absent for none.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.datapath.batch import Marker
from streams.errors import RewindowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.datapath.records import Record

ORIGIN_HEADER = "rewindow.origin"
KEY_HEADER = "rewindow.key"
_ORIGIN = struct.Struct(">iqq")


def origin_header(partition: int, offset: int, timestamp_ms: int) -> tuple[str, bytes]:
    """The header of an event that was produced at `partition` and `offset` of the source."""
    return ORIGIN_HEADER, _ORIGIN.pack(partition, offset, timestamp_ms)


def read_origin(headers: Sequence[tuple[str, bytes]]) -> tuple[int, int, int]:
    """(source partition, source offset, source timestamp in ms) of an event.

    Raises `RewindowError` if the record was not written by the rekeying stage.
    """
    for name, value in headers:
        if name == ORIGIN_HEADER and len(value) == _ORIGIN.size:
            return _ORIGIN.unpack(value)
    raise RewindowError(
        "a record of the rekeyed stream has no rewindow.origin header: somebody else writes to "
        "this topic; it belongs to rewindow alone"
    )


def marker_value(marker: Marker) -> bytes:
    """The record value of a marker; its offset is the log's to give."""
    document = {
        "p": marker.source_partition,
        "w": marker.watermark_ms,
        "s": marker.silent or None,
        "r": marker.floor_ms,
    }
    kept = {key: value for key, value in document.items() if value is not None}
    return json.dumps(kept, separators=(",", ":")).encode()


def read_marker(offset: int, value: bytes | None) -> Marker:
    """The marker at `offset`; raises `RewindowError` if it is none."""
    try:
        document = json.loads(value or b"")
        return Marker(
            offset=offset,
            source_partition=document["p"],
            watermark_ms=document.get("w"),
            silent=bool(document.get("s")),
            floor_ms=document.get("r"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RewindowError(
            f"the record without a key at offset {offset} of the rekeyed stream is no watermark "
            "marker: somebody else writes to this topic; it belongs to rewindow alone"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An event of a rekeyed stream as its producer wrote it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def key_header(key: bytes | None) -> list[tuple[str, bytes]]:
    """The header that keeps a record's own key; none where it had none."""
    return [] if key is None else [(KEY_HEADER, key)]


def original(record: Record) -> Original:
    """What `record` of a rekeyed stream was in the source's topic."""
    partition, offset, timestamp = read_origin(record.headers)
    key = next((value for name, value in record.headers if name == KEY_HEADER), None)
    own = (ORIGIN_HEADER, KEY_HEADER)
    return Original(
        partition=partition,
        offset=offset,
        timestamp=timestamp,
        key=key,
        value=record.value,
        headers=[header for header in record.headers if header[0] not in own],
    )
