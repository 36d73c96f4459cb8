"""The records of a step's transaction: vectors, late copies and dead letters."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import polars as pl

from streams.datapath.batch import DeadLetter
from streams.datapath.pipeline import Late, Step
from streams.datapath.progress import Progress
from streams.datapath.rekeyed import key_header, origin_header
from streams.definitions.store import PublishedSource
from streams.names import AS_OF, KIND_FIELD, Names
from streams.runtime.output import outgoing
from streams.runtime.producer import Outgoing
from streams.runtime.streams import SetOutput, Stream, Version
from streams.schema.encode import VectorEncoder
from streams.schema.output import output_schemas
from streams.state.rows import ENTITY
from streams.testing import Record
from streams.windowing.entity import SEPARATOR
from tests.small import feature_set, schema, source
from tests.unit.datapath.rig import FIELDS, planned

NAMES = Names(app="app")
TOPIC = "features.clicks_by_who"


def stream(*, entity: tuple[str, ...] = ("who",), source_partitions: int = 0) -> Stream:
    made = planned(feature_set(entity=entity))
    schemas = output_schemas(
        feature_set="clicks_by_who",
        topic=TOPIC,
        entity=made.view.entity,
        features={"n": pl.Int64()},
        app="app",
    )
    output = SetOutput(
        topic=TOPIC,
        entity=made.view.entity,
        version="1.0.0",
        digest="d1",
        encoder=VectorEncoder(schemas, 8, 9),
    )
    return Stream(
        name="clicks.by.who" if source_partitions else "clicks",
        topic="app.stream.clicks.by.who" if source_partitions else "clicks",
        partitions=2,
        source_partitions=source_partitions,
        published=PublishedSource(source=source(), schema=schema(), schema_id=1, order=0),
        fields=FIELDS,
        entity=made.view.entity,
        sets={"clicks_by_who": {"1.0.0": Version(plan=made, output=output)}},
    )


def outlets(of: Stream) -> dict[str, SetOutput]:
    """Where vectors go while the set's only version serves."""
    return {"clicks_by_who": of.version("clicks_by_who", "1.0.0").output}


def step(**given: Any) -> Step:
    progress = Progress(epochs={"clicks_by_who": 4})
    return Step(position=10, progress=progress, **given)


def vectors(*rows: tuple[str, int, str, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=[ENTITY, AS_OF, KIND_FIELD, "n"], orient="row")


def read(data: bytes | None, shape: Any) -> Any:
    assert data is not None
    return fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(shape), None)


def texts(one: Outgoing, at: int) -> dict[str, str]:
    assert one.each_headers is not None
    return {name: value.decode() for name, value in one.each_headers[at]}


def test_vectors_go_to_their_streams_partition_with_headers_that_repeat_the_kind() -> None:
    frame = vectors(("ann", 10, "final", 3), ("bob", 10, "empty", 0))
    (found,) = outgoing(
        step(vectors={"clicks_by_who": frame}), stream(), 1, NAMES, {}, outlets(stream())
    )
    assert (found.topic, found.partition) == (TOPIC, 1)
    assert [key and key[:5] for key in found.keys] == [b"\x00\x00\x00\x00\x08"] * 2
    assert [value and value[:5] for value in found.values] == [b"\x00\x00\x00\x00\x09"] * 2
    assert [read(key, {"type": "string"}) for key in found.keys] == ["ann", "bob"]
    assert texts(found, 0) == {
        "rewindow.version": "1.0.0",
        "rewindow.kind": "final",
        "rewindow.digest": "d1",
        "rewindow.epoch": "4",
    }
    assert texts(found, 1)["rewindow.kind"] == "empty"


def test_an_entity_of_several_fields_is_taken_apart() -> None:
    of = stream(entity=("who", "x"))
    frame = vectors(("a\\\\b" + SEPARATOR + "7", 10, "final", 3))
    (found,) = outgoing(step(vectors={"clicks_by_who": frame}), of, 0, NAMES, {}, outlets(of))
    fields = [{"name": "who", "type": "string"}, {"name": "x", "type": "long"}]
    shape = {"type": "record", "name": "key", "fields": fields}
    assert read(found.keys[0], shape) == {"who": "a\\b", "x": 7}


def test_late_and_dead_records_are_copied_whole_with_where_they_came_from() -> None:
    late = Record(offset=4, timestamp=1, key=b"k", value=b"v", headers=[("trace", b"t")])
    dead = Record(offset=7, timestamp=1, key=None, value=None)
    found = outgoing(
        step(
            late=(Late(offset=4, feature_set="clicks_by_who"),),
            dead=(DeadLetter(offset=7, error="tombstone", detail="the value is null"),),
        ),
        stream(),
        1,
        NAMES,
        {4: late, 7: dead},
        {},
    )
    assert [(one.topic, one.partition) for one in found] == [("app.late", 0), ("app.dlq", 0)]
    assert (found[0].keys, found[0].values) == ([b"k"], [b"v"])
    assert texts(found[0], 0) == {
        "trace": "t",
        "rewindow.error": "late",
        "rewindow.detail": "every as-of time of clicks_by_who that this event belongs to had "
        "closed",
        "rewindow.topic": "clicks",
        "rewindow.partition": "1",
        "rewindow.offset": "4",
        "rewindow.stream": "clicks",
        "rewindow.feature_set": "clicks_by_who",
    }
    assert (found[1].keys, found[1].values) == ([None], [None])
    assert texts(found[1], 0)["rewindow.error"] == "tombstone"


def test_what_a_rekeyed_stream_sets_aside_is_as_its_producer_wrote_it() -> None:
    headers = [origin_header(3, 77, 1_000), *key_header(b"own"), ("trace", b"t")]
    late = Record(offset=4, timestamp=2_000, key=b"ann", value=b"v", headers=headers)
    (found,) = outgoing(
        step(late=(Late(offset=4, feature_set="clicks_by_who"),)),
        stream(source_partitions=5),
        1,
        NAMES,
        {4: late},
        {},
    )
    assert (found.keys, found.values) == ([b"own"], [b"v"])
    given = texts(found, 0)
    assert (given["rewindow.topic"], given["rewindow.partition"]) == ("clicks", "3")
    assert (given["rewindow.offset"], given["rewindow.stream"]) == ("77", "clicks.by.who")
    assert "rewindow.origin" not in given


def test_a_step_with_nothing_to_say_sends_nothing() -> None:
    assert outgoing(step(), stream(), 0, NAMES, {}, {}) == []
