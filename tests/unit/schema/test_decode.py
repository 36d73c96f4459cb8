"""Framing, verdicts and resolution, one rule a test."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import polars as pl
import pytest

from streams.errors import InvalidInputError
from streams.schema.decode import BadRecord, Decoder, header

NULLABLE_INT = ["null", "int"]


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "event", "fields": list(fields)}


def field(name: str, declared: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": declared, **more}


def body(schema: dict[str, Any], **values: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), values)
    return buffer.getvalue()


def decoder(reader: dict[str, Any], *writers: dict[str, Any], needed: Any = ("x",)) -> Decoder:
    made = Decoder(reader, needed)
    for schema_id, writer in enumerate(writers, start=1):
        made.add(schema_id, writer)
    return made


def verdicts(
    reader: dict[str, Any], writer: dict[str, Any], *bodies: bytes
) -> tuple[list[Any], list[tuple[int, str]]]:
    """Values of field x of the good records, and (position, detail) of the bad."""
    decoded = decoder(reader, writer).decode([header(1) + one for one in bodies])
    return decoded.frame["x"].to_list(), [(bad.position, bad.detail) for bad in decoded.bad]


INT = record(field("x", "int"))


def test_each_fault_of_framing_has_its_name() -> None:
    values = [None, b"", b"\x00", b"\x00\x00\x00\x01", b"{}", b"\x01\x00\x00\x00\x01\x02"]
    decoded = decoder(INT).decode(values)
    assert [bad.error for bad in decoded.bad] == [
        BadRecord.TOMBSTONE,
        BadRecord.TRUNCATED,
        BadRecord.TRUNCATED,
        BadRecord.TRUNCATED,
        BadRecord.WRONG_MAGIC_BYTE,
        BadRecord.WRONG_MAGIC_BYTE,
    ]
    assert [bad.position for bad in decoded.bad] == list(range(6))
    assert decoded.frame.schema == {"x": pl.Int32()}


def test_good_records_keep_their_order_and_positions_over_several_schemas() -> None:
    wide = record(field("y", "string"), field("x", "int"))
    values = [
        header(2) + body(wide, x=0, y="a"),
        header(1) + body(INT, x=1),
        None,
        header(2) + body(wide, x=3, y="b"),
        header(1) + b"",
        header(1) + body(INT, x=5),
    ]
    decoded = decoder(INT, INT, wide).decode(values)
    assert decoded.frame["x"].to_list() == [0, 1, 3, 5]
    assert decoded.rows.tolist() == [0, 1, 3, 5]
    assert [(bad.position, bad.error) for bad in decoded.bad] == [
        (2, BadRecord.TOMBSTONE),
        (4, BadRecord.UNDECODABLE),
    ]


def test_an_empty_batch_gives_an_empty_frame() -> None:
    decoded = decoder(INT).decode([])
    assert decoded.frame.schema == {"x": pl.Int32()}
    assert decoded.rows.tolist() == []


def test_without_needed_fields_rows_still_tell_good_from_bad() -> None:
    decoded = decoder(INT, INT, needed=()).decode([header(1) + body(INT, x=1), header(1)])
    assert decoded.rows.tolist() == [0]
    assert [bad.position for bad in decoded.bad] == [1]


def test_an_id_is_missing_until_its_schema_is_told_and_again_while_unknown() -> None:
    made = Decoder(INT, ["x"])
    values = [header(7) + b"\x02", None, b"\x01\x00\x00\x00\x09", b"\x00\x00"]
    assert made.missing_ids(values) == {7}
    made.add(7, None)
    assert made.missing_ids(values) == {7}
    assert made.decode(values).bad[0].error is BadRecord.UNKNOWN_SCHEMA_ID
    made.add(7, INT)
    assert made.missing_ids(values) == set()
    assert made.decode(values).rows.tolist() == [0]


def test_an_unknown_id_is_forgotten_when_others_come() -> None:
    made = Decoder(INT, ["x"])
    made.add(7, None)
    assert made.missing_ids([header(8)]) == {8}
    with pytest.raises(KeyError):
        made.decode([header(7)])


def test_decoding_an_id_that_was_not_looked_up_is_the_callers_fault() -> None:
    with pytest.raises(KeyError):
        Decoder(INT, ["x"]).decode([header(7)])


def test_a_needed_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'nope'"):
        Decoder(INT, ["nope"])


@pytest.mark.parametrize(
    ("written", "read", "value", "expected"),
    [
        ("int", "long", 5, 5),
        ("int", "double", 5, 5.0),
        ("long", "float", 5, 5.0),
        ("float", "double", 0.5, 0.5),
        ("bytes", "string", b"\xc3\xa9", "é"),
        (["int", "string"], "string", "a", "a"),
        (["null", "int", "string"], ["null", "long"], 4, 4),
        ("null", NULLABLE_INT, None, None),
    ],
)
def test_values_are_promoted(written: Any, read: Any, value: Any, expected: Any) -> None:
    writer = record(field("x", written))
    assert verdicts(record(field("x", read)), writer, body(writer, x=value)) == ([expected], [])


def test_one_null_is_bad_where_the_reader_has_none() -> None:
    writer = record(field("x", NULLABLE_INT))
    values, bad = verdicts(INT, writer, body(writer, x=None), body(writer, x=3))
    assert values == [3]
    assert bad == [(0, "field 'x' is null, which it must not be")]


def test_a_branch_that_the_reader_lacks_is_bad_for_that_record_only() -> None:
    writer = record(field("x", ["int", "string"]))
    values, bad = verdicts(INT, writer, body(writer, x="a"), body(writer, x=3))
    assert values == [3]
    assert [position for position, _ in bad] == [0]


def test_a_verdict_does_not_depend_on_the_fields_needed() -> None:
    reader = record(field("x", "int"), field("y", "int"))
    writer = record(field("x", "int"), field("y", NULLABLE_INT))
    values = [header(1) + body(writer, x=1, y=None)]
    for needed in ([], ["x"], ["y"], ["x", "y"]):
        assert decoder(reader, writer, needed=needed).decode(values).rows.tolist() == []


def test_a_new_field_takes_its_default_and_a_renamed_one_its_alias() -> None:
    reader = record(
        field("x", ["null", "string"], default=None, aliases=["old"]),
        field("y", "double", default=2),
        field("z", {"type": "long", "logicalType": "timestamp-millis"}, default=1_000),
    )
    writer = record(field("old", "string"), field("gone", {"type": "array", "items": "int"}))
    made = decoder(reader, writer, needed=["x", "y", "z"])
    frame = made.decode([header(1) + body(writer, old="a", gone=[1])] * 2).frame
    assert frame["x"].to_list() == ["a", "a"]
    assert frame["y"].to_list() == [2.0, 2.0]
    assert frame["z"].to_physical().to_list() == [1_000, 1_000]


@pytest.mark.parametrize(
    "writer",
    [
        record(field("y", "int")),
        record(field("x", "string")),
        record(field("x", "long")),
        record(field("x", {"type": "array", "items": "int"})),
        record(field("x", "null")),
        record(field("x", "int"), field("y", {"type": "array", "items": "null"})),
        record(field("x", "int"), field("y", ["null", "event"])),
        {"type": "string"},
    ],
)
def test_a_writer_that_cannot_be_resolved_makes_its_records_bad(writer: dict[str, Any]) -> None:
    decoded = decoder(INT, writer).decode([header(1) + b"\x02"])
    assert [bad.error for bad in decoded.bad] == [BadRecord.INCOMPATIBLE_SCHEMA]
    assert decoded.bad[0].detail.startswith("schema 1: ")


def test_an_unknown_symbol_takes_the_readers_default_or_is_bad() -> None:
    def enum(*symbols: str, **more: str) -> Any:
        return ["null", {"type": "enum", "name": "e", "symbols": list(symbols), **more}]

    writer = record(field("x", enum("A", "B")))
    bodies = [body(writer, x=value) for value in ("A", "B", None)]
    with_default = record(field("x", enum("A", "C", default="C")))
    without = record(field("x", enum("A", "C")))
    assert verdicts(with_default, writer, *bodies) == (["A", "C", None], [])
    values, bad = verdicts(without, writer, *bodies)
    assert values == ["A", None]
    assert [position for position, _ in bad] == [1]


def test_timestamps_of_another_unit_are_converted_and_refused_when_they_do_not_fit() -> None:
    millis, micros = (
        record(field("x", {"type": "long", "logicalType": f"timestamp-{unit}"}))
        for unit in ("millis", "micros")
    )
    raw = record(field("x", "long"))
    coarse = decoder(millis, micros).decode([header(1) + body(raw, x=v) for v in (-1, 1_999)])
    assert coarse.frame["x"].to_physical().to_list() == [-1, 1]
    fine = decoder(micros, millis).decode([header(1) + body(raw, x=v) for v in (2, 2**60)])
    assert fine.frame["x"].to_physical().to_list() == [2_000]
    assert [bad.position for bad in fine.bad] == [1]


def test_a_date_is_not_read_as_a_timestamp() -> None:
    date = record(field("x", {"type": "int", "logicalType": "date"}))
    instant = record(field("x", {"type": "long", "logicalType": "timestamp-millis"}))
    decoded = decoder(instant, date).decode([header(1) + b"\x02"])
    assert decoded.bad[0].error is BadRecord.INCOMPATIBLE_SCHEMA


FIXED = {"type": "fixed", "name": "f", "size": 2}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
NESTED = {"type": "array", "items": {"type": "map", "values": ["null", "int", "string"]}}


@pytest.mark.parametrize("extra", [NESTED, "bytes", FIXED, ["null", FIXED], DECIMAL, "boolean"])
def test_fields_that_nobody_needs_may_have_any_type(extra: Any) -> None:
    writer = record(field("e", extra), field("x", "string"))
    raw: dict[str, Any] = {"e": b"ab", "x": "q"}
    if extra is NESTED:
        raw["e"] = [{"a": 1, "b": None}]
    elif extra == "boolean":
        raw["e"] = True
    plain = record(field("e", "bytes" if extra is DECIMAL else extra), field("x", "string"))
    good = body(plain, **raw)
    values, bad = verdicts(writer, writer, good, good[:-1], good)
    assert values == ["q", "q"]
    assert [position for position, _ in bad] == [1]


HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"


@pytest.mark.parametrize(
    "hostile",
    [
        HUGE,
        b"\xff" * 11,
        b"\x03" + HUGE,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x05",
        b"\x04\xff\xfe",
        b"\x02\xc3",
    ],
)
@pytest.mark.parametrize(
    "declared",
    [
        "string",
        ["null", "string"],
        ["int", "string"],
        {"type": "array", "items": {"type": "array", "items": "string"}},
        {"type": "map", "values": {"type": "array", "items": "boolean"}},
        "bytes",
        {"type": "array", "items": "bytes"},
        {"type": "map", "values": FIXED},
    ],
)
def test_hostile_bodies_are_bad_at_most(declared: Any, hostile: bytes) -> None:
    writer = record(field("x", "int"), field("e", declared))
    good = b"\x02\x00\x00\x00"
    values = [header(1) + one for one in (good, b"\x02" + hostile, b"\x02\x02" + hostile, good)]
    decoded = decoder(INT, writer).decode(values)
    assert {0, 3} <= set(decoded.rows.tolist())


def test_text_that_is_no_utf8_is_bad_though_two_halves_make_a_letter() -> None:
    writer = record(field("x", "string"))
    values, bad = verdicts(writer, writer, b"\x02\xc3", b"\x02\xa9", b"\x04\xc3\xa9")
    assert values == ["é"]
    assert [position for position, _ in bad] == [0, 1]
