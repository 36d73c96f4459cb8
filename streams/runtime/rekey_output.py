"""The records of one transaction of the rekeying stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from streams.datapath.batch import DeadLetter, Marker
from streams.datapath.records import Records
from streams.datapath.rekey_progress import RekeyProgress
from streams.datapath.rekeyed import (
    KEY_HEADER,
    ORIGIN_HEADER,
    key_header,
    marker_value,
    origin_header,
)
from streams.datapath.routing import Routed
from streams.names import Names
from streams.runtime.producer import Headers, Outgoing
from streams.runtime.set_aside import set_aside
from streams.runtime.streams import Stream

_OWN_HEADERS = (ORIGIN_HEADER, KEY_HEADER)


def entity_hash(key: bytes) -> int:
    """The number by which Kafka's default partitioner places a key."""
    return int(murmur2(key)) & 0x7FFFFFFF


def rekeyed(
    routed: Routed,
    records: Records,
    stream: Stream,
    tp: TopicPartition,
    names: Names,
) -> list[Outgoing]:
    """Events of source partition `tp` for the stream's partitions, and its dead letters."""
    outgoing = [
        Outgoing(
            topic=stream.topic,
            partition=partition,
            keys=share.keys,
            values=share.records.values,
            each_headers=event_headers(share.records, tp.partition),
        )
        for partition, share in routed.shares.items()
    ]
    if routed.dead:
        outgoing.append(_dead(routed.dead, records, stream, tp, names))
    return outgoing


def event_headers(events: Records, partition: int) -> list[Headers]:
    """Where each event came from, and its own headers. Ours can't be forged: they come first,
    and others of that name are left out."""
    columns = zip(events.offsets, events.timestamps, events.keys, events.headers, strict=True)
    return [
        [
            origin_header(partition, offset, timestamp_ms),
            *key_header(key),
            *(header for header in headers if header[0] not in _OWN_HEADERS),
        ]
        for offset, timestamp_ms, key, headers in columns
    ]


def with_markers(
    outgoing: Sequence[Outgoing],
    stream: Stream,
    source_partition: int,
    progress: RekeyProgress,
    floor_ms: int | None,
) -> list[Outgoing]:
    """The same with a marker for each partition of the stream, after the events."""
    value = marker_value(
        Marker(
            offset=-1,
            source_partition=source_partition,
            watermark_ms=progress.watermark_ms,
            silent=progress.silent,
            floor_ms=floor_ms,
        )
    )
    markers = [
        Outgoing(topic=stream.topic, partition=partition, keys=[None], values=[value])
        for partition in range(stream.partitions)
    ]
    return [*outgoing, *markers]


def _dead(
    letters: Sequence[DeadLetter],
    records: Records,
    stream: Stream,
    tp: TopicPartition,
    names: Names,
) -> Outgoing:
    copies = [
        set_aside(
            records[bisect_left(records.offsets, letter.offset)],
            topic=tp.topic,
            partition=tp.partition,
            stream=stream.name,
            error=letter.error,
            detail=letter.detail,
        )
        for letter in letters
    ]
    return Outgoing(
        topic=names.dlq_topic,
        partition=0,
        keys=[key for key, _, _ in copies],
        values=[value for _, value, _ in copies],
        each_headers=[headers for _, _, headers in copies],
    )
