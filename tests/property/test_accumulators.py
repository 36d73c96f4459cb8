"""Merging partials, in any order and of any cut, gives what building at once gives."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.definitions.model import Feature, Function
from streams.windowing.accumulators import (
    EVENT_TIME,
    KINDS,
    SKETCHED,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    Columnar,
    Kind,
    merge_partials,
    result,
    sketch_result,
    storage_type,
)
from tests.expected import expect

DOUBLES = st.none() | st.sampled_from((0.0, -0.0, 1.0, 1e100, -1e100)) | st.floats(-1e6, 1e6)
LONGS = st.none() | st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
TEXTS = st.none() | st.sampled_from(("", "a", "b", "ü", "a\x00b")) | st.text(max_size=3)
BOOLEANS = st.none() | st.booleans()

INPUTS: dict[Function, tuple[tuple[pl.DataType, st.SearchStrategy[object]], ...]] = {
    Function.COUNT: ((pl.Int8(), st.none() | st.just(1)),),
    Function.SUM: ((pl.Float64(), DOUBLES), (pl.Int64(), LONGS)),
    Function.MEAN: ((pl.Float64(), DOUBLES), (pl.Int64(), LONGS)),
    Function.MIN: ((pl.Float64(), DOUBLES), (pl.Int64(), LONGS), (pl.String(), TEXTS)),
    Function.MAX: ((pl.Float64(), DOUBLES), (pl.Int64(), LONGS), (pl.String(), TEXTS)),
    Function.VARIANCE: ((pl.Float64(), DOUBLES), (pl.Int64(), LONGS)),
    Function.STDDEV: ((pl.Float64(), DOUBLES),),
    Function.FIRST: ((pl.Int64(), LONGS), (pl.String(), TEXTS), (pl.Boolean(), BOOLEANS)),
    Function.LAST: ((pl.Int64(), LONGS), (pl.String(), TEXTS), (pl.Boolean(), BOOLEANS)),
    Function.APPROX_DISTINCT: ((pl.Int64(), LONGS), (pl.String(), TEXTS), (pl.Float64(), DOUBLES)),
    Function.QUANTILE: ((pl.Float64(), DOUBLES),),
    Function.TOP_K: ((pl.String(), TEXTS), (pl.Int64(), LONGS), (pl.Boolean(), BOOLEANS)),
}


def output_type(function: Function, dtype: pl.DataType) -> pl.DataType:
    """As definitions/validate.py has it, for the functions with a type of their own."""
    match function:
        case Function.COUNT | Function.APPROX_DISTINCT:
            return pl.Int64()
        case Function.SUM if dtype.is_integer():
            return pl.Int64()
        case Function.TOP_K:
            return pl.List(pl.Struct({"value": dtype, "count": pl.Int64()}))
        case Function.MIN | Function.MAX | Function.FIRST | Function.LAST:
            return dtype
        case _:
            return pl.Float64()


def build(events: pl.DataFrame, accumulators: list[Columnar], dtype: pl.DataType) -> pl.DataFrame:
    """One partial out of events, as the data path builds it."""
    named = {}
    for one in accumulators:
        value = pl.col("value")
        if one.kind is Kind.FREQUENT and dtype == pl.Boolean:
            value = pl.when(value).then(pl.lit("true")).when(value.not_()).then(pl.lit("false"))
        elif one.kind is not Kind.COUNT:
            value = value.cast(storage_type(one.kind, dtype))
        named[one.name] = value.alias(f"of.{one.name}")
    events = events.with_columns(named.values()).sort(EVENT_TIME, SOURCE_PARTITION, SOURCE_OFFSET)
    built = events.group_by("key").agg([e for a in accumulators for e in a.build(f"of.{a.name}")])
    return built.with_columns(
        [series for a in accumulators for series in a.finish_build(built, f"of.{a.name}")]
    )


@st.composite
def cases(
    draw: st.DrawFn,
) -> tuple[Feature, pl.DataType, list[object], list[tuple[int, int, int]]]:
    """A feature, the type and the values of its expression, and where each came from."""
    function = draw(st.sampled_from(Function))
    dtype, values = draw(st.sampled_from(INPUTS[function]))
    feature = Feature(
        name="f",
        function=function,
        expression="value",
        window_ms=1,
        q=draw(st.sampled_from((0.0, 0.3, 0.5, 1.0))) if function is Function.QUANTILE else None,
        k=draw(st.integers(1, 3)) if function is Function.TOP_K else None,
    )
    drawn = draw(st.lists(values, min_size=1, max_size=40))
    origins = [
        (draw(st.integers(-2, 2)), draw(st.integers(0, 1)), number) for number in range(len(drawn))
    ]
    return feature, dtype, drawn, origins


@settings(max_examples=250, deadline=None)
@given(cases(), st.data())
def test_merging_any_cut_in_any_order_gives_what_the_events_give(
    case: tuple[Feature, pl.DataType, list[object], list[tuple[int, int, int]]],
    data: st.DataObject,
) -> None:
    feature, dtype, values, origins = case
    accumulators = [
        Columnar(name=f"a{i}", kind=kind, dtype=pl.Int64() if kind is Kind.COUNT else dtype)
        for i, kind in enumerate(KINDS[feature.function])
    ]
    events = pl.DataFrame(
        {
            "key": ["k"] * len(values),
            "value": values,
            EVENT_TIME: [time for time, _, _ in origins],
            SOURCE_PARTITION: [partition for _, partition, _ in origins],
            SOURCE_OFFSET: [offset for _, _, offset in origins],
        },
        schema_overrides={"value": dtype, SOURCE_PARTITION: pl.Int32()},
    )
    place = data.draw(st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values)))
    pieces = [
        build(events.filter(pl.Series([p == piece for p in place])), accumulators, dtype)
        for piece in range(5)
        if piece in place
    ]
    if data.draw(st.booleans()):
        # The row of a bundle that keeps something else: it has the key, and nulls for these.
        columns = [column for one in accumulators for column in one.columns]
        nulls = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in columns]
        pieces.append(pl.DataFrame({"key": ["k"]}).with_columns(nulls).select(pieces[0].columns))
    pieces = data.draw(st.permutations(pieces))
    cut = data.draw(st.integers(1, len(pieces)))
    left = merge_partials(pl.concat(pieces[:cut]), ["key"], accumulators)
    merged = pl.concat([left, *pieces[cut:]])
    gathered = merged.group_by("key").agg([e for a in accumulators for e in a.merge()])
    made: pl.Expr | pl.Series
    if feature.function in SKETCHED:
        (one,) = accumulators
        made = sketch_result(gathered[one.name], feature.function, one, q=feature.q, k=feature.k)
    else:
        made = result(feature.function, accumulators, output_type(feature.function, dtype))
    series = gathered.select(made.alias("made")).to_series()
    ordered = [value for _, value in sorted(zip(origins, values, strict=True))]
    known = [value for value in ordered if value is not None]
    expected = expect(replace(feature, expression="value"), known)
    assert expected.judge(series.to_list()[0]) is None
