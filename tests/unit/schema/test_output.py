"""The schemas of feature topics and the records encoded with them."""

from __future__ import annotations

import datetime
import io
from typing import Any

import fastavro
import polars as pl
import pytest

from streams.errors import InvalidInputError
from streams.schema.compat import incompatibilities
from streams.schema.encode import VectorEncoder
from streams.schema.output import OutputSchemas, output_schemas, owner

TOP_K = pl.List(pl.Struct({"value": pl.String, "count": pl.Int64}))
ENVELOPE = {"as_of": pl.Int64, "rewindow_version": pl.String, "rewindow_kind": pl.String}
UTC = datetime.UTC


def schemas(entity: dict[str, Any], features: dict[str, Any]) -> OutputSchemas:
    return output_schemas(
        feature_set="departures", topic="features.departures", entity=entity, features=features,
        app="air",
    )  # fmt: skip


def decoded(schema: dict[str, Any], framed: bytes) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(framed[5:]), fastavro.parse_schema(schema), None)


def encode(
    entity: dict[str, Any], features: dict[str, Any], *rows: dict[str, Any]
) -> tuple[list[Any], list[Any]]:
    """What a consumer reads of the rows."""
    made = schemas(entity, features)
    frame = pl.DataFrame(rows, schema={**features, **ENVELOPE, **entity})
    keys, values = VectorEncoder(made, 7, 300).encode(frame)
    assert all(key[:5] == b"\x00\x00\x00\x00\x07" for key in keys)
    assert all(value[:5] == b"\x00\x00\x00\x01\x2c" for value in values)
    return [decoded(made.key, key) for key in keys], [decoded(made.value, v) for v in values]


def vector(**more: Any) -> dict[str, Any]:
    return {"as_of": 1_000, "rewindow_version": "1.0.0", "rewindow_kind": "final", **more}


def test_one_text_entity_is_a_bare_string_and_others_are_records() -> None:
    assert schemas({"origin": pl.String()}, {}).key == {"type": "string"}
    assert [f["name"] for f in schemas({"n": pl.Int64()}, {}).key["fields"]] == ["n"]
    pair = schemas({"b": pl.String(), "a": pl.Date()}, {}).key
    assert [f["name"] for f in pair["fields"]] == ["b", "a"]


def test_the_value_holds_entity_envelope_and_features_by_name_and_names_its_owner() -> None:
    value = schemas({"origin": pl.String()}, {"z": pl.Int64(), "a": TOP_K}).value
    names = [f["name"] for f in value["fields"]]
    assert names == ["origin", "as_of", "rewindow_version", "rewindow_kind", "a", "z"]
    assert value["fields"][-1] == {"name": "z", "type": ["null", "long"], "default": None}
    assert owner(value) == "air"
    assert owner({"type": "record"}) is None


def test_versions_may_add_and_drop_features_but_not_change_their_type() -> None:
    entity = {"origin": pl.String()}
    first = schemas(entity, {"a": pl.Int64(), "top": TOP_K}).value
    second = schemas(entity, {"b": pl.Float64(), "top": TOP_K}).value
    other = schemas(entity, {"a": pl.Float64()}).value
    assert incompatibilities(second, [first], "FULL_TRANSITIVE") == []
    reasons = incompatibilities(other, [first, second], "FULL_TRANSITIVE")
    assert [reason.partition(":")[0] for reason in reasons] == [
        "field 'a' changes from [null, long] to [null, double]"
    ]


@pytest.mark.parametrize("dtype", [pl.Decimal(10, 2), pl.Binary(), pl.Time()])
def test_a_type_without_output_form_is_refused(dtype: pl.DataType) -> None:
    with pytest.raises(InvalidInputError, match="'a' has type"):
        schemas({"origin": pl.String()}, {"a": dtype})


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (pl.Int32(), -2, -2),
        (pl.Int64(), 2**62, 2**62),
        (pl.UInt32(), 2**32 - 1, 2**32 - 1),
        (pl.Float32(), 0.5, 0.5),
        (pl.Float64(), float("inf"), float("inf")),
        (pl.Boolean(), False, False),
        (pl.String(), "é", "é"),
        (pl.Date(), datetime.date(1913, 1, 1), datetime.date(1913, 1, 1)),
        (
            pl.Datetime("us"),
            datetime.datetime(1913, 1, 1, microsecond=5),  # noqa: DTZ001  # polars holds UTC without a zone
            datetime.datetime(1913, 1, 1, microsecond=5, tzinfo=UTC),
        ),
        (TOP_K, [], []),
        (TOP_K, [{"value": "a", "count": 3}], [{"value": "a", "count": 3}]),
    ],
)
def test_each_type_comes_through_and_so_does_null(
    dtype: pl.DataType, value: Any, expected: Any
) -> None:
    entity = {"origin": pl.String()}
    rows = [vector(origin="EWR", f=value), vector(origin="JFK", f=None)]
    keys, values = encode(entity, {"f": dtype}, *rows)
    assert keys == ["EWR", "JFK"]
    assert [one["f"] for one in values] == [expected, None]
    assert values[0]["as_of"] == datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_nan_stays_nan() -> None:
    _, values = encode({"o": pl.Int64()}, {"f": pl.Float64()}, vector(o=1, f=float("nan")))
    assert values[0]["f"] != values[0]["f"]


def test_no_vectors_make_no_records() -> None:
    assert encode({"o": pl.Int64()}, {"f": pl.Float64()}) == ([], [])


def test_a_null_entity_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="'o'"):
        encode({"o": pl.Int64()}, {}, vector(o=None))
