"""What a rekeyed stream holds: events whole, with where they came from, and markers.

An event keeps its value; its key is the entity's text. One header, `rewindow.origin`, is
source partition (4 bytes), offset (8) and timestamp in ms (8), big-endian and signed. A marker
has no key; its value is JSON: the source partition `p`, its watermark `w`, the silence `s` and
the floor `r`, each of the last three absent for none.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from streams.datapath.batch import Marker
from streams.errors import RewindowError

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGIN_HEADER = "rewindow.origin"
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
