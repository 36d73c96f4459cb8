"""The batch codec against fastavro, over generated schemas, values and damage."""

from __future__ import annotations

import datetime
import io
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import fastavro
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.schema.decode import Bad, Decoder, header
from streams.schema.encode import VectorEncoder
from streams.schema.output import output_schemas
from streams.schema.types import RAW_TYPES, field_types

WRITER_ID = 7

INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32)
DOUBLES = st.floats()
TEXT = st.text(max_size=8)
DATES = st.dates(datetime.date(1600, 1, 1), datetime.date(2400, 1, 1))
INSTANTS = st.datetimes(
    datetime.datetime(1600, 1, 1),  # noqa: DTZ001  # the strategy adds the zone
    datetime.datetime(2400, 1, 1),  # noqa: DTZ001  # the strategy adds the zone
    timezones=st.just(datetime.UTC),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """An Avro type of the writer, values of it, and types of readers that take them all."""

    declared: Any
    values: st.SearchStrategy[Any]
    readers: tuple[Any, ...]


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "letter", "symbols": list(symbols), **more}


DATE = logical("int", "date")
MICROS = logical("long", "timestamp-micros")
USABLE = (
    Kind(declared="int", values=INTS, readers=("int", "long", "float", "double")),
    Kind(declared="long", values=LONGS, readers=("long", "float", "double")),
    Kind(declared="float", values=FLOATS, readers=("float", "double")),
    Kind(declared="double", values=DOUBLES, readers=("double",)),
    Kind(declared="boolean", values=st.booleans(), readers=("boolean",)),
    Kind(declared="string", values=TEXT, readers=("string",)),
    Kind(declared=DATE, values=DATES, readers=(DATE,)),
    Kind(declared=MICROS, values=INSTANTS, readers=(MICROS,)),
    Kind(
        declared=enum("A", "B"),
        values=st.sampled_from(["A", "B"]),
        readers=(enum("B", "A"), enum("A", "C", default="C")),
    ),
)
UNUSABLE = (
    Kind(
        declared={"type": "array", "items": ["null", "string"]},
        values=st.lists(st.none() | TEXT, max_size=3),
        readers=(),
    ),
    Kind(
        declared={"type": "map", "values": "long"},
        values=st.dictionaries(TEXT, LONGS, max_size=3),
        readers=(),
    ),
    Kind(declared=["null", "boolean", "string"], values=st.booleans() | TEXT, readers=()),
    Kind(declared="bytes", values=st.binary(max_size=4), readers=()),
    Kind(
        declared={"type": "fixed", "name": "pair", "size": 2},
        values=st.binary(min_size=2, max_size=2),
        readers=(),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A writer, a compatible reader, and rows that the writer wrote."""

    writer: dict[str, Any]
    reader: dict[str, Any]
    rows: list[dict[str, Any]]


def renamed(declared: Any, name: str) -> Any:
    """The type under a name of its own: Avro lets a name be defined once."""
    return (
        {**declared, "name": name}
        if isinstance(declared, dict) and "name" in declared
        else declared
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    written, read, values = [], [], {}
    for index in range(draw(st.integers(1, 5))):
        name = f"f{index}"
        kind = draw(st.sampled_from(USABLE + UNUSABLE))
        declared = renamed(kind.declared, f"t{index}")
        nullable = kind in USABLE and draw(st.booleans())
        values[name] = st.none() | kind.values if nullable else kind.values
        written.append({"name": name, "type": ["null", declared] if nullable else declared})
        if kind.readers and draw(st.integers(0, 4)):
            taken = renamed(draw(st.sampled_from(kind.readers)), f"t{index}")
            may_be_null = nullable or draw(st.booleans())
            alias = draw(st.booleans())
            read.append(
                {
                    "name": f"r{index}" if alias else name,
                    "type": draw(st.permutations(["null", taken])) if may_be_null else taken,
                    **({"aliases": [name]} if alias else {}),
                }
            )
    read.append({"name": "new", "type": ["null", "long"], "default": None})
    read.append({"name": "newer", "type": "double", "default": 1.5})
    return Case(
        writer={"type": "record", "name": "event", "fields": written},
        reader={"type": "record", "name": "event", "fields": draw(st.permutations(read))},
        rows=draw(st.lists(st.fixed_dictionaries(values), max_size=8)),
    )


def bodies(case: Case) -> list[bytes]:
    parsed = fastavro.parse_schema(case.writer)
    written = []
    for row in case.rows:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, row)
        written.append(buffer.getvalue())
    return written


def decoder(case: Case) -> Decoder:
    made = Decoder(case.reader, field_types(case.reader))
    made.add(WRITER_ID, case.writer)
    return made


def comparable(value: Any, dtype: pl.DataType) -> Any:
    """One form for what fastavro and polars say of the same value; NaN equals NaN."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None)
    if value is not None and dtype in (pl.Float32(), pl.Float64()):
        return repr(float(np.float32(value) if dtype == pl.Float32() else value))
    return value


@given(cases())
@settings(deadline=None)
def test_frames_hold_what_fastavro_reads_with_the_readers_schema(case: Case) -> None:
    types = field_types(case.reader)
    writer, reader = fastavro.parse_schema(case.writer), fastavro.parse_schema(case.reader)
    expected: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO(body), writer, reader) for body in bodies(case)
    ]
    decoded = decoder(case).decode([header(WRITER_ID) + body for body in bodies(case)])
    assert decoded.bad == []
    assert decoded.frame.schema == types
    for name, dtype in types.items():
        found = [comparable(value, dtype) for value in decoded.frame[name].to_list()]
        assert found == [comparable(row[name], dtype) for row in expected]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Case, list[bytes | None], list[int]]:
    """A case, its framed records with damage here and there, and where to cut the batch."""
    case = draw(cases().filter(lambda one: len(one.rows) > 1))
    values: list[bytes | None] = []
    for body in bodies(case):
        value = bytearray(header(WRITER_ID) + body)
        match draw(st.integers(0, 5)):
            case 0:
                value = value[: draw(st.integers(0, len(value)))]
            case 1:
                value[draw(st.integers(0, len(value) - 1))] = draw(st.integers(0, 255))
            case 2:
                at = draw(st.integers(5, len(value)))
                value[at : at + 3] = draw(st.binary(max_size=12))
        values.append(bytes(value) if draw(st.integers(0, 9)) else None)
    cuts = draw(st.lists(st.integers(0, len(values)), max_size=3))
    return case, values, sorted({0, *cuts, len(values)})


@given(damaged())
@settings(deadline=None, max_examples=200)
def test_the_cut_into_batches_changes_no_verdict(
    given_case: tuple[Case, list[bytes | None], list[int]],
) -> None:
    case, values, cuts = given_case
    made = decoder(case)
    for schema_id in made.missing_ids(values):
        made.add(schema_id, None)
    whole = made.decode(values)
    frames: list[pl.DataFrame] = []
    rows: list[int] = []
    bad: list[Bad] = []
    for start, end in pairwise(cuts):
        part = made.decode(values[start:end])
        frames.append(part.frame)
        rows += [start + row for row in part.rows.tolist()]
        bad += [
            Bad(position=start + one.position, error=one.error, detail=one.detail)
            for one in part.bad
        ]
    assert rows == whole.rows.tolist()
    assert bad == whole.bad
    assert sorted(rows + [one.position for one in bad]) == list(range(len(values)))
    for name in whole.frame.columns:
        parts = pl.concat([frame[name] for frame in frames]).to_physical()
        assert parts.equals(whole.frame[name].to_physical(), null_equal=True)


TOP_K = pl.List(pl.Struct({"value": pl.Int64, "count": pl.Int64}))
FEATURES = {
    **{kind: (dtype, values) for (kind, dtype), values in zip(
        ((k, RAW_TYPES[k]) for k in ("int", "long", "float", "double", "boolean", "string")),
        (INTS, LONGS, FLOATS, DOUBLES, st.booleans(), TEXT), strict=True,
    )},
    "date": (pl.Date(), DATES),
    "instant": (pl.Datetime("us"), INSTANTS.map(lambda value: value.replace(tzinfo=None))),
    "top": (TOP_K, st.lists(st.fixed_dictionaries({"value": LONGS, "count": LONGS}), max_size=3)),
}  # fmt: skip


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "carrier": TEXT,
                "leg": INTS,
                "as_of": st.integers(-(10**12), 10**13),
                "rewindow_version": st.just("1.0.0"),
                "rewindow_kind": st.sampled_from(["final", "empty"]),
                **{name: st.none() | values for name, (_, values) in FEATURES.items()},
            }
        ),
        max_size=6,
    ),
    st.sampled_from([["carrier"], ["leg"], ["leg", "carrier"]]),
)
@settings(deadline=None)
def test_vectors_read_by_fastavro_are_those_encoded(
    rows: list[dict[str, Any]], entity: list[str]
) -> None:
    entity_types: dict[str, pl.DataType] = {
        name: {"carrier": pl.String(), "leg": pl.Int32()}[name] for name in entity
    }
    feature_types: dict[str, pl.DataType] = {name: FEATURES[name][0] for name in FEATURES}
    schemas = output_schemas(
        feature_set="s", topic="features.s", entity=entity_types, features=feature_types, app="a"
    )
    envelope = {"as_of": pl.Int64, "rewindow_version": pl.String, "rewindow_kind": pl.String}
    all_types: Any = {**feature_types, **envelope, "leg": pl.Int32, "carrier": pl.String}
    frame = pl.DataFrame(rows, schema=all_types)
    keys, values = VectorEncoder(schemas, 1, 2).encode(frame)
    assert len(keys) == len(values) == len(rows)
    key_schema, value_schema = (fastavro.parse_schema(s) for s in (schemas.key, schemas.value))
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    for row, key, value in zip(rows, keys, values, strict=True):
        read_key: Any = fastavro.schemaless_reader(io.BytesIO(key[5:]), key_schema, None)
        read: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), value_schema, None)
        named = {name: row[name] for name in entity}
        assert read_key == (row["carrier"] if entity == ["carrier"] else named)
        assert (read["as_of"] - epoch) / datetime.timedelta(milliseconds=1) == row["as_of"]
        assert {name: read[name] for name in entity} == named
        for name, dtype in feature_types.items():
            assert comparable(read[name], dtype) == comparable(row[name], dtype)
