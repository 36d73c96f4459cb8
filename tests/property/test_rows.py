"""Rows survive their byte form exactly, and sort by time, then by the entity's bytes."""

from __future__ import annotations

import struct
from datetime import date, datetime, timedelta
from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streams.state.rows import PANE_LIMIT_MS, RowLayout, key, pane_prefix

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a naive value is what a naive column holds

_I64 = st.integers(-(1 << 63), (1 << 63) - 1)
PANES = st.one_of(
    st.integers(-3, 3).map(lambda n: n * 60_000),
    st.integers(-(1 << 63), PANE_LIMIT_MS - 1),
)
ENTITIES = st.one_of(st.sampled_from(["", "a", "a\0", "a\0b", "b", "é", "\U0001f6eb"]), st.text())
COLUMNS: list[tuple[pl.DataType, st.SearchStrategy[object]]] = [
    (pl.Int32(), st.integers(-(1 << 31), (1 << 31) - 1)),
    (pl.Int64(), _I64),
    (pl.Int128(), st.integers(-(1 << 127), (1 << 127) - 1)),
    (pl.Float32(), st.floats(width=32)),
    (pl.Float64(), st.floats()),
    (pl.Boolean(), st.booleans()),
    (pl.String(), st.text()),
    (pl.Binary(), st.binary()),
    (pl.Date(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    (
        pl.Datetime("ms"),
        st.integers(-(1 << 40), 1 << 40).map(lambda n: _EPOCH + timedelta(milliseconds=n)),
    ),
    (
        pl.Datetime("us"),
        st.integers(-(1 << 50), 1 << 50).map(lambda n: _EPOCH + timedelta(microseconds=n)),
    ),
]


@st.composite
def frames(draw: st.DrawFn) -> tuple[RowLayout, pl.DataFrame]:
    chosen = draw(st.lists(st.sampled_from(COLUMNS), max_size=10))
    keys = draw(st.lists(st.tuples(PANES, ENTITIES), unique=True, max_size=8))
    layout = RowLayout([(f"a{i}", dtype) for i, (dtype, _) in enumerate(chosen)])
    data: dict[str, list[object]] = {
        "@pane": [pane for pane, _ in keys],
        "@entity": [entity for _, entity in keys],
    }
    for index, (_, values) in enumerate(chosen):
        cells = st.lists(st.none() | values, min_size=len(keys), max_size=len(keys))
        data[f"a{index}"] = draw(cells)
    return layout, pl.DataFrame(data, schema=layout.schema)


def exact(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    """Rows with floats as their bits, so that NaN, -0.0 and 0.0 are told apart."""
    return [
        tuple(struct.pack(">d", cell) if isinstance(cell, float) else cell for cell in row)
        for row in frame.rows()
    ]


@given(frames())
def test_rows_come_back_as_they_were(made: tuple[RowLayout, pl.DataFrame]) -> None:
    layout, frame = made
    back = layout.decode(*layout.encode(frame))
    assert back.schema == layout.schema
    assert sorted(exact(back), key=repr) == sorted(exact(frame), key=repr)


@given(frames())
def test_keys_ascend_by_pane_then_entity_bytes(made: tuple[RowLayout, pl.DataFrame]) -> None:
    layout, frame = made
    keys, values = layout.encode(frame)
    expected = sorted(
        zip(frame["@pane"].to_list(), frame["@entity"].to_list(), strict=True),
        key=lambda pair: (pair[0], pair[1].encode()),
    )
    assert keys == [key(pane, entity) for pane, entity in expected]
    assert all(a < b for a, b in pairwise(keys))
    assert layout.decode(keys, values).select("@pane", "@entity").rows() == expected


@given(PANES, ENTITIES)
def test_every_row_key_sorts_before_the_meta_row(pane: int, entity: str) -> None:
    assert pane_prefix(pane) <= key(pane, entity) < b"\xff"


@given(frames(), st.data())
def test_a_cut_or_prolonged_value_is_refused(
    made: tuple[RowLayout, pl.DataFrame], data: st.DataObject
) -> None:
    layout, frame = made
    keys, values = layout.encode(frame)
    if not values:
        return
    at = data.draw(st.integers(0, len(values) - 1))
    whole = values[at]
    size = data.draw(st.integers(0, len(whole) + 3).filter(lambda n: n != len(whole)))
    values[at] = (whole + b"\0\0\0")[:size]
    try:
        layout.decode(keys, values)
    except ValueError:
        return
    raise AssertionError("decoded a value that encode did not make")
