"""Sketches of Apache DataSketches behind three loops: build, union, result.

A sketch travels as its own serialised bytes, so frames, rows on disk and merges know it as a
Binary column. Build takes a list column of values per group, union and result take a list
column of serialised sketches per group. Errors, at 95 % confidence or better:

- distinct count: HLL, 2^12 registers: about 3.3 % relative (1.63 % standard error), exact to
  a few hundred values;
- quantile: KLL, k = 200: 1.33 % of rank;
- most frequent values: frequent items with 2^10 counters: exact up to 768 distinct values,
  else a count is low by at most 3.5 / 1024 of the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasketches as ds
import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HLL_LG_K = 12
KLL_K = 200
FREQUENT_LG_MAP = 10


def _map(
    series: pl.Series, dtype: pl.DataType | type[pl.DataType], function: Callable[[list[Any]], Any]
) -> pl.Series:
    """`function` over the lists of `series`; nothing (null or empty) stays null."""
    return pl.Series(
        series.name,
        [function(items) if items else None for items in series.to_list()],
        dtype=dtype,
    )


def _hll(values: Iterable[Any]) -> bytes:
    sketch = ds.hll_sketch(HLL_LG_K, ds.tgt_hll_type.HLL_8)
    for value in values:
        sketch.update(value)
    return bytes(sketch.serialize_compact())


def _hll_union(sketches: Iterable[bytes]) -> Any:
    union = ds.hll_union(HLL_LG_K)
    for sketch in sketches:
        union.update(ds.hll_sketch.deserialize(sketch))
    return union.get_result(ds.tgt_hll_type.HLL_8)


def _hll_merge(sketches: list[bytes]) -> bytes:
    if len(sketches) == 1:
        return sketches[0]
    return bytes(_hll_union(sketches).serialize_compact())


def _hll_count(sketches: list[bytes]) -> int:
    if len(sketches) == 1:
        return _rounded(ds.hll_sketch.deserialize(sketches[0]))
    return _rounded(_hll_union(sketches))


def _rounded(sketch: Any) -> int:
    estimate: float = sketch.get_estimate()
    return round(estimate)


def build_distinct(values: pl.Series) -> pl.Series:
    """Lists of distinct values (ints, floats, strings) → HLL sketches."""
    return _map(values, pl.Binary, _hll)


def merge_distinct(sketches: pl.Series) -> pl.Series:
    """Lists of HLL sketches → their unions."""
    return _map(sketches, pl.Binary, _hll_merge)


def count_distinct(sketches: pl.Series) -> pl.Series:
    """Lists of HLL sketches → estimated distinct count, Int64."""
    return _map(sketches, pl.Int64, _hll_count)


def _kll(values: list[float]) -> bytes:
    sketch = ds.kll_doubles_sketch(KLL_K)
    sketch.update(np.array(values, dtype=np.float64))
    return bytes(sketch.serialize())


def _kll_union(sketches: list[bytes]) -> Any:
    union = ds.kll_doubles_sketch.deserialize(sketches[0])
    for sketch in sketches[1:]:
        union.merge(ds.kll_doubles_sketch.deserialize(sketch))
    return union


def build_quantile(values: pl.Series) -> pl.Series:
    """Lists of numbers → KLL sketches over doubles."""
    return _map(values, pl.Binary, _kll)


def merge_quantile(sketches: pl.Series) -> pl.Series:
    """Lists of KLL sketches → their unions."""

    def merge(items: list[bytes]) -> bytes:
        return items[0] if len(items) == 1 else bytes(_kll_union(items).serialize())

    return _map(sketches, pl.Binary, merge)


def quantile(sketches: pl.Series, q: float) -> pl.Series:
    """Lists of KLL sketches → the value at rank `q`, Float64."""
    return _map(sketches, pl.Float64, lambda items: float(_kll_union(items).get_quantile(q, True)))


def _frequent(pairs: list[dict[str, Any]]) -> bytes:
    sketch = ds.frequent_strings_sketch(FREQUENT_LG_MAP)
    for pair in pairs:
        sketch.update(pair["value"], pair["count"])
    return bytes(sketch.serialize())


def _frequent_union(sketches: list[bytes]) -> Any:
    union = ds.frequent_strings_sketch.deserialize(sketches[0])
    for sketch in sketches[1:]:
        union.merge(ds.frequent_strings_sketch.deserialize(sketch))
    return union


def build_frequent(pairs: pl.Series) -> pl.Series:
    """Lists of {value: String, count: Int64} → frequent-items sketches."""
    return _map(pairs, pl.Binary, _frequent)


def merge_frequent(sketches: pl.Series) -> pl.Series:
    """Lists of frequent-items sketches → their unions."""

    def merge(items: list[bytes]) -> bytes:
        return items[0] if len(items) == 1 else bytes(_frequent_union(items).serialize())

    return _map(sketches, pl.Binary, merge)


def top_k(sketches: pl.Series, k: int) -> pl.Series:
    """Lists of frequent-items sketches → lists of {value: String, count: Int64}, at most `k`.

    Ordered by estimated count, highest first; ties by the value's text.
    """

    def top(items: list[bytes]) -> list[dict[str, Any]]:
        found = _frequent_union(items).get_frequent_items(
            ds.frequent_items_error_type.NO_FALSE_NEGATIVES
        )
        ranked = sorted((-row[1], row[0]) for row in found)[:k]
        return [{"value": value, "count": -negative} for negative, value in ranked]

    pairs = pa.array(
        [top(items) if items else None for items in sketches.to_list()],
        type=pa.list_(pa.struct([("value", pa.string()), ("count", pa.int64())])),
    )
    # polars takes nested Python values one by one, Arrow in one go.
    return pl.Series(sketches.name, pairs)
