"""Accumulators: mergeable partial results, each a few columns of a frame.

Every kind says how its columns come from a group of events (`build`), and how the columns of
several partials become one (`merge`); `result` and `sketch_result` turn a group of partials into
a feature's value. They are polars aggregations, so a batch costs one group-by whatever the number
of entities; sketches add one Python call per group.

Value columns of events are prepared by the caller: filtered, cast, NaN turned into null.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from streams.windowing import sketches
from streams.windowing.functions import Function

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENT_TIME = "@time"
SOURCE_PARTITION = "@partition"
SOURCE_OFFSET = "@source_offset"
"""Columns of ours begin with a sign that no field of an event and no feature can have."""

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


class Kind(StrEnum):
    """What an accumulator keeps. Functions share kinds: a mean is a sum and a count."""

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MOMENTS = "moments"
    FIRST = "first"
    LAST = "last"
    DISTINCT = "distinct"
    QUANTILE = "quantile"
    FREQUENT = "frequent"


KINDS: dict[Function, tuple[Kind, ...]] = {
    Function.COUNT: (Kind.COUNT,),
    Function.SUM: (Kind.SUM,),
    Function.MEAN: (Kind.SUM, Kind.COUNT),
    Function.MIN: (Kind.MIN,),
    Function.MAX: (Kind.MAX,),
    Function.VARIANCE: (Kind.MOMENTS,),
    Function.STDDEV: (Kind.MOMENTS,),
    Function.FIRST: (Kind.FIRST,),
    Function.LAST: (Kind.LAST,),
    Function.APPROX_DISTINCT: (Kind.DISTINCT,),
    Function.QUANTILE: (Kind.QUANTILE,),
    Function.TOP_K: (Kind.FREQUENT,),
}
"""The accumulators that each function is computed from."""

SKETCHED = (Function.APPROX_DISTINCT, Function.QUANTILE, Function.TOP_K)
"""Functions whose values Python reads from sketches, each from one accumulator."""

Columns = tuple[tuple[str, pl.DataType], ...]


def storage_type(kind: Kind, dtype: pl.DataType) -> pl.DataType:
    """Type in which the values of an expression of `dtype` are gathered for `kind`."""
    if kind is Kind.SUM:
        return pl.Int128() if dtype.is_integer() else pl.Float64()
    if kind in (Kind.MOMENTS, Kind.QUANTILE):
        return pl.Float64()
    if kind is Kind.FREQUENT:
        return pl.String()
    return dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Columnar:
    """An accumulator of one kind, its columns named `<name>` or `<name>.<part>`."""

    name: str
    kind: Kind
    dtype: pl.DataType

    def _part(self, part: str) -> str:
        return f"{self.name}.{part}"

    @property
    def columns(self) -> Columns:
        """Names and types of the columns, in storage order."""
        match self.kind:
            case Kind.COUNT:
                return ((self.name, pl.Int64()),)
            case Kind.SUM | Kind.MIN | Kind.MAX:
                return ((self.name, storage_type(self.kind, self.dtype)),)
            case Kind.MOMENTS:
                return tuple(
                    (self._part(part), dtype)
                    for part, dtype in (
                        ("n", pl.Int64()),
                        ("mean", pl.Float64()),
                        ("m2", pl.Float64()),
                    )
                )
            case Kind.FIRST | Kind.LAST:
                return (
                    (self._part("time"), pl.Int64()),
                    (self._part("partition"), pl.Int32()),
                    (self._part("offset"), pl.Int64()),
                    (self._part("value"), self.dtype),
                )
            case _:
                return ((self.name, pl.Binary()),)

    def build(self, value: str) -> list[pl.Expr]:
        """Aggregations over events; `value` names the prepared value column.

        Events must be in order of event time, source partition and source offset where
        the kind is FIRST or LAST. For COUNT the value column is null where the event
        does not count.
        """
        v = pl.col(value)
        name = self.name
        match self.kind:
            case Kind.COUNT:
                return [v.count().cast(pl.Int64).alias(name)]
            case Kind.SUM:
                return [_null_over_nothing(v, v.sum()).alias(name)]
            case Kind.MIN:
                return [v.min().alias(name)]
            case Kind.MAX:
                return [v.max().alias(name)]
            case Kind.MOMENTS:
                return [
                    v.count().cast(pl.Int64).alias(self._part("n")),
                    v.mean().alias(self._part("mean")),
                    (v.var(ddof=0) * v.count()).alias(self._part("m2")),
                ]
            case Kind.FIRST | Kind.LAST:
                chosen = [
                    pl.col(column).filter(v.is_not_null())
                    for column in (EVENT_TIME, SOURCE_PARTITION, SOURCE_OFFSET, value)
                ]
                return [
                    (e.first() if self.kind is Kind.FIRST else e.last()).alias(column)
                    for e, (column, _) in zip(chosen, self.columns, strict=True)
                ]
            case Kind.DISTINCT:
                return [v.drop_nulls().unique().alias(name)]
            case Kind.QUANTILE:
                return [v.drop_nulls().alias(name)]
            case Kind.FREQUENT:
                return [v.drop_nulls().value_counts(name="count").alias(name)]

    def finish_build(self, frame: pl.DataFrame, value: str) -> list[pl.Series]:
        """Sketches of the lists that `build` gathered; nothing for the other kinds."""
        match self.kind:
            case Kind.DISTINCT:
                return [sketches.build_distinct(_hashable(frame[self.name]))]
            case Kind.QUANTILE:
                return [sketches.build_quantile(frame[self.name])]
            case Kind.FREQUENT:
                pairs = frame[self.name].list.eval(
                    pl.struct(
                        pl.element().struct.field(value).alias("value"),
                        pl.element().struct.field("count").cast(pl.Int64),
                    )
                )
                return [sketches.build_frequent(pairs)]
            case _:
                return []

    def merge(self) -> list[pl.Expr]:
        """Aggregations that turn several partials of a group into one partial."""
        c = pl.col(self.name)
        match self.kind:
            case Kind.COUNT:
                return [c.sum()]
            case Kind.SUM:
                return [_null_over_nothing(c, c.sum()).alias(self.name)]
            case Kind.MIN:
                return [c.min()]
            case Kind.MAX:
                return [c.max()]
            case Kind.MOMENTS:
                return self._merge_moments()
            case Kind.FIRST | Kind.LAST:
                descending = self.kind is Kind.LAST
                order = [pl.col(column) for column, _ in self.columns[:3]]
                return [
                    pl.col(column)
                    .sort_by(order, descending=descending, nulls_last=True)
                    .first()
                    .alias(column)
                    for column, _ in self.columns
                ]
            case _:
                return [c.drop_nulls()]

    def finish_merge(self, frame: pl.DataFrame) -> list[pl.Series]:
        """Unions of the sketches that `merge` gathered; nothing for the other kinds."""
        match self.kind:
            case Kind.DISTINCT:
                return [sketches.merge_distinct(frame[self.name])]
            case Kind.QUANTILE:
                return [sketches.merge_quantile(frame[self.name])]
            case Kind.FREQUENT:
                return [sketches.merge_frequent(frame[self.name])]
            case _:
                return []

    def _merge_moments(self) -> list[pl.Expr]:
        """Pairwise update of Chan, Golub and LeVeque (1979), over any number of partials."""
        n, mean, m2 = (pl.col(column) for column, _ in self.columns)
        total = n.sum()
        joint = (n * mean).sum() / total
        spread = m2.sum() + (n * (mean - joint) ** 2).sum()
        some = total > 0
        return [
            total.alias(self._part("n")),
            pl.when(some).then(joint).alias(self._part("mean")),
            pl.when(some).then(spread).alias(self._part("m2")),
        ]


def _null_over_nothing(values: pl.Expr, result: pl.Expr) -> pl.Expr:
    return pl.when(values.count() > 0).then(result)


def _hashable(lists: pl.Series) -> pl.Series:
    """Lists of values in a form that hashes the same for ever: ints, floats or text."""
    inner = lists.dtype.inner  # type: ignore[attr-defined]  # a list column by construction
    if inner.is_temporal():
        return lists.list.eval(pl.element().to_physical().cast(pl.Int64))
    if inner == pl.Boolean or inner.is_integer():
        return lists.list.eval(pl.element().cast(pl.Int64))
    if inner.is_float():
        return lists.list.eval(pl.element().cast(pl.Float64) + 0.0)
    # DataSketches takes no notice of an empty text: no text stays empty.
    return lists.list.eval(pl.lit("=") + pl.element())


def merge_partials(
    frame: pl.DataFrame, keys: Sequence[str], accumulators: Sequence[Columnar]
) -> pl.DataFrame:
    """One partial per group of `keys`, out of partials; rows in no particular order."""
    merged = frame.group_by(keys).agg(_merging(tuple(accumulators)))
    finished = [series for a in accumulators for series in a.finish_merge(merged)]
    return merged.with_columns(finished) if finished else merged


@lru_cache(maxsize=1_000)
def _merging(accumulators: tuple[Columnar, ...]) -> list[pl.Expr]:
    """Made once: for few rows that takes longer than what they compute."""
    return [e for one in accumulators for e in one.merge()]


def overflowed(accumulator: Columnar) -> pl.Expr:
    """Whether a merged sum of integers does not fit 64 bits, as UInt32 0 or 1."""
    fits = pl.col(accumulator.name).is_between(INT64_MIN, INT64_MAX)
    return (~fits).fill_null(False).cast(pl.UInt32)


def result(function: Function, accumulators: Sequence[Columnar], dtype: pl.DataType) -> pl.Expr:
    """Values of a feature of merged partials, for a `select` over them; not of `SKETCHED` ones.

    `dtype` is the feature's output type. Sums of integers outside 64 bits are null.
    """
    first = accumulators[0]
    column = pl.col(first.name)
    match function:
        case Function.COUNT:
            expr = column.fill_null(0)
        case Function.SUM:
            expr = column
            if dtype == pl.Int64:
                expr = pl.when(column.is_between(INT64_MIN, INT64_MAX)).then(column)
        case Function.MEAN:
            count = pl.col(accumulators[1].name)
            expr = pl.when(count > 0).then(column.cast(pl.Float64) / count)
        case Function.VARIANCE | Function.STDDEV:
            n, _, m2 = (pl.col(name) for name, _ in first.columns)
            expr = pl.when(n > 1).then(m2 / (n - 1))
            expr = expr.sqrt() if function is Function.STDDEV else expr
        case Function.FIRST | Function.LAST:
            expr = pl.col(first.columns[3][0])
        case _:
            expr = column
    return expr.cast(dtype)


def sketch_result(
    gathered: pl.Series,
    function: Function,
    accumulator: Columnar,
    *,
    q: float | None,
    k: int | None,
) -> pl.Series:
    """Values of a feature that is `SKETCHED`, of its sketches: a list for each group."""
    match function:
        case Function.APPROX_DISTINCT:
            return sketches.count_distinct(gathered).fill_null(0)
        case Function.QUANTILE:
            assert q is not None
            return sketches.quantile(gathered, q)
        case _:
            assert k is not None
            return _typed_top_k(sketches.top_k(gathered, k), accumulator.dtype)


def _typed_top_k(pairs: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Back from text to the input's type, which `FREQUENT` counts as text."""
    if dtype == pl.String:
        return pairs
    value = pl.element().struct.field("value")
    typed = value == "true" if dtype == pl.Boolean else value.cast(dtype)
    return pairs.list.eval(
        pl.struct(typed.alias("value"), pl.element().struct.field("count").alias("count"))
    )
