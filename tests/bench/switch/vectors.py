"""Every vector of the benchmark's set, beside plain arithmetic over the events."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streams.errors import RewindowError
from tests.bench.load import HOUR_MS, PARTITIONS, START_MS, Expected
from tests.bench.switch.versions import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from tests.bench.switch.app import App

AT_ONCE = 50_000
POLL_S = 1.0
TOLERANCE = 1e-9
HEAD_BYTES = 5
NAME_PREFIX = len("sensor-")


def check_vectors(app: App, before: Expected, after: Expected) -> Counter[str]:
    """Each row of each hour is there once and right; how many vectors are of each version.

    `before` are the first hours of all sensors, `after` the hours that follow, of the first few
    sensors: the others have one `empty` as of the end of the first of these. Raises
    RewindowError if anything is not as it must be.
    """
    sensors, hours = before.count.shape
    shape = (sensors, hours + after.count.shape[1])
    whole = Expected(
        **{
            name: _joined(shape, getattr(before, name), getattr(after, name))
            for name in ("count", "total", "least", "most")
        }
    )
    wanted = (whole.count > 0).astype(np.int64)
    wanted[after.count.shape[0] :, hours] = 1
    seen = np.zeros(shape, dtype=np.int64)
    by_version: Counter[str] = Counter()
    wrong = 0
    for table in _read(app):
        sensor = pc.cast(pc.utf8_slice_codeunits(table["sensor"], NAME_PREFIX), pa.int64())
        at = np.asarray(sensor), _hour(table)
        by_version.update(table["rewindow_version"].to_pylist())
        np.add.at(seen, at, 1)
        wrong += _wrong(table, whole, at)
    lost, more = int((seen < wanted).sum()), int((seen > wanted).sum())
    if lost or more or wrong:
        raise RewindowError(
            f"{app.features_topic}: of {int(wanted.sum())} vectors {lost} are missing, {more} too "
            f"many and {wrong} wrong"
        )
    return by_version


def _joined(shape: tuple[int, int], before: Any, after: Any) -> Any:
    """Arrays of hours side by side, 0 where a sensor has nothing."""
    whole = np.zeros(shape, dtype=before.dtype)
    whole[:, : before.shape[1]] = before
    whole[: after.shape[0], before.shape[1] :] = after
    return whole


def _hour(table: pa.Table) -> npt.NDArray[np.int64]:
    as_of = np.asarray(pc.cast(table["as_of"], pa.int64()))
    return (as_of - START_MS) // HOUR_MS - 1


def _wrong(table: pa.Table, whole: Expected, at: tuple[Any, Any]) -> int:
    """How many rows do not say what they must."""
    count, version = whole.count[at], np.asarray(table["rewindow_version"])
    kind = np.where(count > 0, "final", "empty")
    right = (np.asarray(table["rewindow_kind"]) == kind) & (_values(table, "n") == count)
    exact = {"least": whole.least[at], "most": whole.most[at]}
    near = {"total": whole.total[at], "middle": whole.total[at] / np.maximum(count, 1)}
    for name, wanted in (*exact.items(), *near.items()):
        value = _values(table, name)
        left_out = np.isin(version, [one for one, gone in LEFT_OUT.items() if gone == name])
        tolerance = TOLERANCE * np.maximum(1.0, np.abs(wanted)) if name in near else 0.0
        nothing = left_out | (count == 0)
        right &= np.where(nothing, np.isnan(value), np.abs(value - wanted) <= tolerance)
    return int((~right).sum())


def _values(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A feature as doubles, NaN where it is null or the version has none of this name."""
    if name not in table.schema.names:
        return np.full(table.num_rows, np.nan)
    column = pc.cast(table[name], pa.float64())
    return np.asarray(pc.fill_null(column, np.nan))


def _read(app: App) -> Iterator[pa.Table]:
    """All committed vectors, as they come."""
    schemas: dict[bytes, str] = {}
    consumer = Consumer(
        {
            "bootstrap.servers": app.bench.kafka.addresses.bootstrap_servers,
            "group.id": f"{app.name}-check",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    topic = app.features_topic
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    left = set(range(PARTITIONS))
    try:
        while left:
            values: list[bytes] = []
            for message in consumer.consume(AT_ONCE, POLL_S):
                error = message.error()
                if error is None:
                    values.append(cast("bytes", message.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise RewindowError(f"{topic} can't be read: {error.str()}")
            for head, those in groupby(values, lambda value: value[:HEAD_BYTES]):
                if head not in schemas:
                    schemas[head] = app.bench.kafka.schema_text(int.from_bytes(head[1:], "big"))
                bodies = [value[HEAD_BYTES:] for value in those]
                batch = pyruhvro.deserialize_array(bodies, schemas[head])
                yield pa.Table.from_batches([batch])
    finally:
        consumer.close()
