"""The registry client and the output schemas against a real registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streams.errors import InvalidInputError, RefusedError, UnreachableError
from streams.names import subjects
from streams.schema.decode import BadRecord, Decoder
from streams.schema.encode import VectorEncoder
from streams.schema.output import OutputSchemas, output_schemas, owner
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.devstack import Addresses

UNKNOWN_ID = 987_654_321
TOP_K = pl.List(pl.Struct({"value": pl.String, "count": pl.Int64}))


@pytest.fixture
def registry(stack: Addresses) -> Iterator[Registry]:
    with Registry(stack.registry_url) as client:
        yield client


@pytest.fixture
def confluent(stack: Addresses) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": stack.registry_url, "timeout": 10})


def event(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "event", "fields": list(fields)}


def outputs(topic: str, **features: pl.DataType) -> OutputSchemas:
    return output_schemas(
        feature_set="departures",
        topic=topic,
        entity={"origin": pl.String()},
        features=features,
        app="air",
    )


INT = event({"name": "x", "type": "int"})


def test_what_is_registered_is_found_again_under_one_id(registry: Registry, prefix: str) -> None:
    assert registry.versions(prefix) == []
    assert registry.lookup(prefix, INT) is None
    schema_id = registry.register(prefix, INT)
    reordered = dict(reversed(INT.items()))
    assert registry.register(prefix, reordered) == schema_id
    assert registry.lookup(prefix, reordered) == schema_id
    assert registry.schema_by_id(schema_id) == INT
    latest = registry.latest(prefix)
    assert (latest.version, latest.schema_id, latest.schema) == (1, schema_id, INT)
    assert registry.schema(prefix, 9) is None
    assert registry.versions(prefix) == [1]
    assert prefix in registry.subjects()


def test_what_is_not_there_is_said_so(registry: Registry, prefix: str) -> None:
    assert registry.schema_by_id(UNKNOWN_ID) is None
    assert registry.compatibility(prefix) is None
    with pytest.raises(InvalidInputError, match=prefix):
        registry.latest(prefix)
    with pytest.raises(InvalidInputError):
        registry.register(prefix, {"type": "no such type"})


def test_a_wrong_path_or_port_is_unreachable_and_names_the_remedy(registry: Registry) -> None:
    root = registry.url.removesuffix("/apis/ccompat/v7")
    with Registry(root) as client, pytest.raises(UnreachableError, match="/apis/ccompat/v7"):
        client.schema_by_id(1)
    with Registry("http://127.0.0.1:1") as client, pytest.raises(UnreachableError, match="running"):
        client.ping()


def test_an_incompatible_output_schema_is_refused_with_the_reason(
    registry: Registry, prefix: str
) -> None:
    _, subject = subjects(prefix)
    registry.register(subject, outputs(prefix, mean=pl.Float64()).value)
    registry.set_compatibility(subject, "FULL_TRANSITIVE")
    assert registry.compatibility(subject) == "FULL_TRANSITIVE"
    registry.register(subject, outputs(prefix, top=TOP_K).value)
    other_type = outputs(prefix, mean=pl.String()).value
    with pytest.raises(RefusedError, match=r"field 'mean' changes from \[null, double\]"):
        registry.register(subject, other_type)
    assert registry.versions(subject) == [1, 2]
    assert len(registry.check(subject, other_type, "FULL_TRANSITIVE")) == 1


def test_the_owner_of_a_topic_survives_normalization(registry: Registry, prefix: str) -> None:
    _, subject = subjects(prefix)
    registry.register(subject, outputs(prefix, mean=pl.Float64()).value)
    assert owner(registry.latest(subject).schema) == "air"


def test_confluents_client_reads_our_vectors(
    registry: Registry, confluent: SchemaRegistryClient, prefix: str
) -> None:
    schemas = outputs(prefix, mean=pl.Float64(), top=TOP_K)
    key_subject, value_subject = subjects(prefix)
    key_id = registry.register(key_subject, schemas.key)
    value_id = registry.register(value_subject, schemas.value)
    frame = pl.DataFrame(
        {
            "origin": ["EWR", "JFK"],
            "as_of": [600_000, 600_000],
            "rewindow_version": ["1.0.0"] * 2,
            "rewindow_kind": ["final", "empty"],
            "mean": [1.5, None],
            "top": [[{"value": "UA", "count": 2}], None],
        },
        schema_overrides={"top": TOP_K},
    )
    keys, values = VectorEncoder(schemas, key_id, value_id).encode(frame)
    read: Any = AvroDeserializer(confluent)
    key_context = SerializationContext(prefix, MessageField.KEY)
    context = SerializationContext(prefix, MessageField.VALUE)
    assert [read(key, key_context) for key in keys] == ["EWR", "JFK"]
    first, second = (read(value, context) for value in values)
    assert first["mean"] == 1.5
    assert first["top"] == [{"value": "UA", "count": 2}]
    assert first["as_of"].timestamp() == 600
    assert (second["rewindow_kind"], second["mean"], second["top"]) == ("empty", None, None)


def test_we_read_what_confluents_client_writes_while_its_schema_moves_on(
    registry: Registry, confluent: SchemaRegistryClient, prefix: str
) -> None:
    wider = event(
        {"name": "y", "type": ["null", "string"], "default": None}, {"name": "x", "type": "int"}
    )
    context = SerializationContext(prefix, MessageField.VALUE)
    values: list[bytes | None] = []
    for schema, row in ((INT, {"x": 1}), (wider, {"x": 2, "y": "a"})):
        registry.register(f"{prefix}-value", schema)
        text = confluent.get_latest_version(f"{prefix}-value").schema
        write: Any = AvroSerializer(confluent, text, conf={"auto.register.schemas": False})
        values.append(write(row, context))
    values.append(b"\x00" + UNKNOWN_ID.to_bytes(4, "big") + b"\x02")
    decoder = Decoder(INT, ["x"])
    for schema_id in decoder.missing_ids(values):
        decoder.add(schema_id, registry.schema_by_id(schema_id))
    decoded = decoder.decode(values)
    assert decoded.frame["x"].to_list() == [1, 2]
    assert [bad.error for bad in decoded.bad] == [BadRecord.UNKNOWN_SCHEMA_ID]
