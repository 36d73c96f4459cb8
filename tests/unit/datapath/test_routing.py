"""Events are shared out by entity; what has none, or can't be read, is set aside."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import polars as pl

from streams.datapath.routing import Routed, Router
from streams.definitions.model import EventTime, Source, TimeUnit
from streams.runtime.rekey_output import entity_hash
from streams.schema.decode import header
from streams.schema.types import field_types
from streams.testing import Record

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "at", "type": ["null", "long"]},
        {"name": "who", "type": ["null", "string"]},
        {"name": "seat", "type": "int"},
        {"name": "note", "type": "string", "default": ""},
    ],
}
SOURCE = Source(
    name="events", topic="events", schema="s", event_time=EventTime(field="at", unit=TimeUnit.MS)
)


def _router(*entity: str, partitions: int = 4) -> Router:
    types = field_types(SCHEMA)
    router = Router(
        SOURCE,
        SCHEMA,
        {name: types[name] for name in entity},
        partitions=partitions,
        hash_of=entity_hash,
    )
    router.decoder.add(1, SCHEMA)
    return router


def _record(offset: int, at: int | None, who: str | None, seat: int = 0) -> Record:
    body = io.BytesIO()
    row = {"at": at, "who": who, "seat": seat, "note": "n"}
    fastavro.schemaless_writer(body, fastavro.parse_schema(dict(SCHEMA)), row)
    return Record(offset=offset, timestamp=-1, key=None, value=header(1) + body.getvalue())


def _placed(routed: Routed) -> dict[int, tuple[int, bytes]]:
    return {
        record.offset: (partition, key)
        for partition, share in routed.shares.items()
        for key, record in zip(share.keys, share.records, strict=True)
    }


def test_an_entity_goes_where_kafka_would_put_its_key() -> None:
    # Kafka's own test vectors for murmur2, sign bit cleared.
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for key, number in known.items():
        assert entity_hash(key) == number & 0x7FFFFFFF
    routed = _router("who", partitions=7).route([_record(0, 5, "foobar")], 0)
    assert _placed(routed) == {0: ((-790332482 & 0x7FFFFFFF) % 7, b"foobar")}


def test_each_event_is_there_once_and_in_order() -> None:
    records = [_record(offset * 2, 100 - offset, f"w{offset % 9}") for offset in range(50)]
    routed = _router("who").route(records, 3)
    assert sorted(_placed(routed)) == [record.offset for record in records]
    for share in routed.shares.values():
        offsets = [record.offset for record in share.records]
        assert offsets == sorted(offsets)
    assert routed.newest_ms == 100
    assert not routed.dead


def test_an_entity_of_several_fields_has_one_key() -> None:
    routed = _router("who", "seat").route([_record(0, 1, "a", 12), _record(1, 1, "a", 13)], 0)
    assert {key for _, key in _placed(routed).values()} == {b"a\x1f12", b"a\x1f13"}


def test_an_empty_text_is_an_entity() -> None:
    assert _placed(_router("who").route([_record(0, 1, "")], 0))[0][1] == b""


def test_a_missing_entity_is_set_aside_and_moves_the_watermark() -> None:
    routed = _router("who").route([_record(0, 10, "a"), _record(1, 99, None)], 0)
    assert list(_placed(routed)) == [0]
    assert [(letter.offset, letter.error) for letter in routed.dead] == [(1, "missing_entity")]
    assert "who must not be null" in routed.dead[0].detail
    assert routed.newest_ms == 99


def test_bad_records_are_set_aside_in_order_and_move_nothing() -> None:
    tombstone = Record(offset=0, timestamp=-1, key=b"k", value=None)
    records = [tombstone, _record(1, 10, None), _record(2, None, "a"), _record(3, 5, "a")]
    routed = _router("who").route(records, 0)
    assert [(letter.offset, letter.error) for letter in routed.dead] == [
        (0, "tombstone"),
        (1, "missing_entity"),
        (2, "missing_event_time"),
    ]
    assert routed.newest_ms == 10


def test_a_batch_without_an_event_has_no_watermark() -> None:
    routed = _router("who").route([Record(offset=0, timestamp=-1, key=None, value=None)], 0)
    assert routed.newest_ms is None
    assert not routed.shares


def test_only_the_fields_that_matter_are_needed() -> None:
    assert _router("who").route([_record(0, 1, "a")], 0).shares
    assert field_types(SCHEMA)["who"] == pl.String
