"""From a step to the records of its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.records import Record
from streams.datapath.rekeyed import Original, original
from streams.names import HEADER_PREFIX, KIND_FIELD, VERSION_FIELD, Names, set_of
from streams.runtime.producer import Headers, Outgoing
from streams.runtime.set_aside import set_aside
from streams.state.rows import ENTITY
from streams.windowing.entity import entity_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.datapath.pipeline import Step
    from streams.runtime.streams import SetOutput, Stream

LATE = "late"

_Row = tuple[Record, str, str, str | None]
"""A record, the error, the detail, and the set that says so."""


class ByOffset:
    """Records of a batch, found by offset for the few steps that need any."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def find(self, step: Step) -> Mapping[int, Record]:
        wanted = {one.offset for one in step.late} | {one.offset for one in step.dead}
        if not wanted:
            return {}
        return {record.offset: record for record in self._records if record.offset in wanted}


def outgoing(
    step: Step,
    stream: Stream,
    partition: int,
    names: Names,
    records: Mapping[int, Record],
    outlets: Mapping[str, SetOutput],
) -> list[Outgoing]:
    """Vectors, late copies and dead letters.

    `records` has the batch's records by offset, `outlets` where the vectors of each set and pin
    go by the version that made the step.
    """
    found = [
        _vectors(
            outlets[name],
            frame,
            partition,
            epoch=step.progress.epochs.get(set_of(name), 0),
        )
        for name, frame in step.vectors.items()
    ]
    if step.late:
        rows: list[_Row] = [
            (records[one.offset], LATE, _late_detail(one.feature_set), one.feature_set)
            for one in step.late
        ]
        found.append(_aside(names.late_topic, stream, partition, rows))
    if step.dead:
        rows = [(records[one.offset], one.error, one.detail, one.feature_set) for one in step.dead]
        found.append(_aside(names.dlq_topic, stream, partition, rows))
    return found


def _late_detail(feature_set: str) -> str:
    return f"every as-of time of {feature_set} that this event belongs to had closed"


def _vectors(output: SetOutput, frame: pl.DataFrame, partition: int, *, epoch: int) -> Outgoing:
    entity = entity_fields(frame[ENTITY], output.entity)
    keys, values = output.encoder.encode(
        frame.with_columns(*entity, pl.lit(output.version).alias(VERSION_FIELD))
    )
    kinds = frame[KIND_FIELD].to_list()
    by_kind = {kind: _headers(output, kind, epoch) for kind in set(kinds)}
    return Outgoing(
        topic=output.topic,
        partition=partition,
        keys=keys,
        values=values,
        each_headers=[by_kind[kind] for kind in kinds],
    )


def _headers(output: SetOutput, kind: str, epoch: int) -> Headers:
    texts = {
        "version": output.version,
        "kind": kind,
        "digest": output.digest,
        "epoch": str(epoch),
    }
    return [(HEADER_PREFIX + name, text.encode()) for name, text in texts.items()]


def _aside(
    topic: str,
    stream: Stream,
    partition: int,
    rows: Sequence[_Row],
) -> Outgoing:
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] = []
    for record, error, detail, feature_set in rows:
        produced = original(record) if stream.rekeyed else record
        key, value, head = set_aside(
            produced,
            topic=stream.published.source.topic,
            partition=produced.partition if isinstance(produced, Original) else partition,
            stream=stream.name,
            error=error,
            detail=detail,
            feature_set=feature_set,
        )
        keys.append(key)
        values.append(value)
        headers.append(head)
    return Outgoing(topic=topic, partition=0, keys=keys, values=values, each_headers=headers)
