"""The topic of a rekeyed stream, as the reference model reads it: bytes to events and markers.

Written against the form of the topic, without the product's reader, so that the two check
each other:

- An event has a key. Its header `rewindow.origin` is big-endian: the source's partition in 4
  bytes, the offset there in 8, the record's timestamp in ms in 8. Its value is the source's.
- A marker has no key. Its value is JSON: the source partition `p`, and where there is one the
  watermark `w`, the silence `s`, the floor `r`, instants in ms.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from tests.reference import Event, Marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ORIGIN = "rewindow.origin"
ORIGIN_BYTES = 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_rekeyed(
    *,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes]],
    decode: Callable[[bytes], Mapping[str, object]],
    event_time: str,
) -> Event | Marker:
    """The record at `offset` of a rekeyed stream's partition.

    `decode` turns a value in Confluent's wire format into its fields, `event_time` is the
    field that holds event time, in ms or as a datetime. Raises ValueError for a record that
    has not the form above.
    """
    if key is None:
        return _marker(offset, value)
    origin = dict(headers).get(ORIGIN, b"")
    if len(origin) != ORIGIN_BYTES or value is None:
        raise ValueError(f"offset {offset}: an event of {len(origin)} bytes of origin, {value!r}")
    fields = decode(value)
    return Event(
        offset=offset,
        timestamp_ms=_number(origin[12:20]),
        event_time_ms=_instant_ms(fields.get(event_time)),
        fields=fields,
        source_partition=_number(origin[0:4]),
        source_offset=_number(origin[4:12]),
    )


def _marker(offset: int, value: bytes | None) -> Marker:
    document = json.loads(value or b"null")
    if not isinstance(document, dict) or not document.keys() <= {"p", "w", "s", "r"}:
        raise ValueError(f"offset {offset}: no marker: {value!r}")
    return Marker(
        source_partition=int(document["p"]),
        watermark_ms=document.get("w"),
        silent=bool(document.get("s", False)),
        floor_ms=document.get("r"),
    )


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _instant_ms(value: object) -> int | None:
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    return cast("int | None", value)
