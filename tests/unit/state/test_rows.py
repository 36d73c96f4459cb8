"""The documented byte layout, byte by byte, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import polars as pl
import pytest

from streams.state.rows import PANE_LIMIT_MS, RowLayout, key, pane_prefix

COUNT = RowLayout([("n", pl.Int64())])


def rows(**columns: list[object]) -> pl.DataFrame:
    schema = {"@pane": pl.Int64, "@entity": pl.String, "n": pl.Int64}
    named = {f"@{name}" if f"@{name}" in schema else name: v for name, v in columns.items()}
    return pl.DataFrame(named, schema={name: schema[name] for name in named})


def test_a_row_is_packed_as_documented() -> None:
    layout = RowLayout(
        [("s", pl.String()), ("i", pl.Int32()), ("b", pl.Binary()), ("w", pl.Int128())]
    )
    frame = pl.DataFrame(
        {"@pane": [60_000], "@entity": ["EWR"], "s": ["hé"], "i": [None], "b": [b"xyz"], "w": [-2]},
        schema=layout.schema,
    )
    keys, values = layout.encode(frame)
    assert keys == [bytes.fromhex("800000000000ea60") + b"EWR"]
    assert values == [
        b"\x01"  # format
        b"\x40"  # column 1 is null
        + struct.pack(">i", 0)
        + struct.pack(">qQ", -1, 2**64 - 2)
        + struct.pack(">II", 3, 3)
        + "hé".encode()
        + b"xyz"
    ]


def test_negative_panes_sort_first() -> None:
    frame = rows(pane=[0, -1, 60_000, -60_000], entity=["a"] * 4, n=[1, 2, 3, 4])
    assert COUNT.decode(*COUNT.encode(frame))["@pane"].to_list() == [-60_000, -1, 0, 60_000]
    assert pane_prefix(-1) < pane_prefix(0) < key(0, "") + b"\0"


def test_every_bit_of_a_nan_survives() -> None:
    layout = RowLayout([("d", pl.Float64()), ("f", pl.Float32())])
    doubles = np.array([0x7FF8000000000001, 0xFFF0000000000001, 0x8000000000000000], "u8")
    floats = np.array([0x7FC00001, 0xFF800001, 0x80000000], "u4")
    frame = pl.DataFrame(
        {
            "@pane": [0, 1, 2],
            "@entity": ["", "", ""],
            "d": doubles.view("f8"),
            "f": floats.view("f4"),
        }
    )
    back = layout.decode(*layout.encode(frame))
    assert back["d"].to_numpy().view("u8").tolist() == doubles.tolist()
    assert back["f"].to_numpy().view("u4").tolist() == floats.tolist()


def test_no_rows_are_no_bytes() -> None:
    assert COUNT.encode(COUNT.empty()) == ([], [])
    assert COUNT.decode([], []).schema == COUNT.schema


def test_rows_made_of_slices_and_chunks_are_packed_alike() -> None:
    layout = RowLayout([("s", pl.String())])
    frame = pl.DataFrame(
        {"@pane": [0, 0, 0, 0], "@entity": ["a", "b", "c", "d"], "s": ["1", None, "333", ""]},
        schema=layout.schema,
    )
    chunked = pl.concat([frame[2:], frame[:2]], rechunk=False)
    assert layout.encode(chunked) == layout.encode(frame)
    assert layout.encode(frame[1:3]) == tuple(part[1:3] for part in layout.encode(frame))


@pytest.mark.parametrize(
    "frame",
    [
        rows(pane=[0, 0], entity=["a", "a"], n=[1, 2]),
        rows(pane=[None], entity=["a"], n=[1]),
        rows(pane=[0], entity=[None], n=[1]),
        rows(pane=[PANE_LIMIT_MS], entity=["a"], n=[1]),
        rows(pane=[0], entity=["a"]),
        rows(pane=[0], entity=["a"], n=[1]).with_columns(m=pl.lit(1)),
        rows(pane=[0], entity=["a"], n=[1]).cast({"n": pl.Int32}),
    ],
    ids=["twice", "null pane", "null entity", "far pane", "missing", "unknown", "other type"],
)
def test_a_frame_that_is_not_of_the_layout_is_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"pane|layout"):
        COUNT.encode(frame)


GOOD_KEY, GOOD_VALUE = key(0, "a"), b"\x01\x00" + bytes(8)


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ([GOOD_KEY], [b"\x02" + GOOD_VALUE[1:]]),
        ([GOOD_KEY], [b""]),
        ([GOOD_KEY], [GOOD_VALUE[:-1]]),
        ([GOOD_KEY], [GOOD_VALUE + b"\0"]),
        ([GOOD_KEY], [b"\x01\x01" + bytes(8)]),
        ([GOOD_KEY[:7]], [GOOD_VALUE]),
        ([GOOD_KEY + b"\xff"], [GOOD_VALUE]),
        ([GOOD_KEY], []),
        ([GOOD_KEY], [None]),
        (["text"], [GOOD_VALUE]),
    ],
    ids=[
        "format",
        "empty",
        "short",
        "long",
        "null bits",
        "short key",
        "not UTF-8",
        "uneven",
        "None",
        "text",
    ],
)
def test_foreign_bytes_are_refused(keys: list[bytes], values: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        COUNT.decode(keys, values)


def test_a_length_beyond_the_value_is_refused() -> None:
    layout = RowLayout([("s", pl.String()), ("t", pl.String())])
    value = b"\x01\x00" + struct.pack(">II", 2**32 - 1, 1) + b"ab"
    with pytest.raises(ValueError, match="shorter or longer"):
        layout.decode([GOOD_KEY], [value])


def test_column_names_and_types_are_checked() -> None:
    with pytest.raises(ValueError, match="unique"):
        RowLayout([("a", pl.Int64()), ("a", pl.Int64())])
    with pytest.raises(ValueError, match="neither"):
        RowLayout([("@pane", pl.Int64())])
    with pytest.raises(ValueError, match="no byte layout"):
        RowLayout([("a", pl.List(pl.Int64()))])
