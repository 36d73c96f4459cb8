"""Sketches: exact over a few values, within their stated error over many, mergeable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from streams.windowing import sketches

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIRS = pl.List(pl.Struct({"value": pl.String, "count": pl.Int64}))


def lists(*groups: list[object], of: pl.DataType | type[pl.DataType] = pl.Int64) -> pl.Series:
    return pl.Series(groups, dtype=pl.List(of))


def sketch_lists(*groups: Sequence[bytes | None]) -> pl.Series:
    return pl.Series(groups, dtype=pl.List(pl.Binary))


def distinct(*values: object, of: pl.DataType | type[pl.DataType] = pl.Int64) -> bytes:
    return bytes(sketches.build_distinct(lists(list(values), of=of))[0])


def quantiles(*values: float) -> bytes:
    return bytes(sketches.build_quantile(lists(list(values), of=pl.Float64))[0])


def frequent(**counts: int) -> bytes:
    pairs = [{"value": value, "count": count} for value, count in counts.items()]
    return bytes(sketches.build_frequent(pl.Series([pairs], dtype=PAIRS))[0])


def test_nothing_has_no_sketch_and_no_answer() -> None:
    assert sketches.build_distinct(lists([])).to_list() == [None]
    assert sketches.build_quantile(lists([], of=pl.Float64)).to_list() == [None]
    assert sketches.build_frequent(pl.Series([[]], dtype=PAIRS)).to_list() == [None]
    assert sketches.count_distinct(sketch_lists([])).to_list() == [None]
    assert sketches.quantile(sketch_lists([]), 0.5).to_list() == [None]
    assert sketches.top_k(sketch_lists([]), 3).to_list() == [None]


def test_a_few_distinct_values_are_counted_exactly_over_several_sketches() -> None:
    both = sketch_lists([distinct(1, 2, 3), distinct(3, 4)], [distinct(-1)])
    assert sketches.count_distinct(both).to_list() == [4, 1]


def test_many_distinct_values_are_counted_within_five_percent() -> None:
    halves = [distinct(*range(60_000)), distinct(*range(40_000, 100_000))]
    (found,) = sketches.count_distinct(sketch_lists(halves)).to_list()
    assert abs(found - 100_000) < 5_000


def test_a_union_is_a_sketch_again() -> None:
    merged = sketches.merge_distinct(sketch_lists([distinct(1, 2), distinct(2, 3)]))
    again = sketch_lists([bytes(merged[0]), distinct(4)])
    assert sketches.count_distinct(again).to_list() == [4]


def test_quantiles_of_a_few_values_are_values() -> None:
    groups = sketch_lists([quantiles(5.0, 1.0), quantiles(3.0)])
    assert sketches.quantile(groups, 0.0).to_list() == [1.0]
    assert sketches.quantile(groups, 0.5).to_list() == [3.0]
    assert sketches.quantile(groups, 1.0).to_list() == [5.0]


def test_a_quantile_of_many_values_is_within_three_percent_of_rank() -> None:
    thirds = [quantiles(*map(float, range(start, 30_000, 3))) for start in range(3)]
    (found,) = sketches.quantile(sketch_lists(thirds), 0.9).to_list()
    assert abs(found / 30_000 - 0.9) < 0.03


def test_the_most_frequent_values_come_first_and_ties_by_text() -> None:
    groups = sketch_lists([frequent(b=2, a=1, c=1), frequent(a=1, d=9)])
    assert sketches.top_k(groups, 3).to_list() == [
        [
            {"value": "d", "count": 9},
            {"value": "a", "count": 2},
            {"value": "b", "count": 2},
        ]
    ]


def test_fewer_values_than_asked_for_are_all_there_are() -> None:
    assert sketches.top_k(sketch_lists([frequent(a=1)]), 5).to_list() == [
        [{"value": "a", "count": 1}]
    ]


def test_an_empty_text_and_one_with_a_null_character_are_values_like_others() -> None:
    pairs = [{"value": "", "count": 2}, {"value": "a\x00b", "count": 1}]
    built = sketches.build_frequent(pl.Series([pairs], dtype=PAIRS))
    assert sketches.top_k(sketch_lists([bytes(built[0])]), 2).to_list() == [pairs]
