"""Every function over values that are easy to get wrong; merges are in tests/property."""

from __future__ import annotations

import math
from typing import Any

import pytest

from streams.definitions.model import Function
from streams.testing import Harness
from tests.small import feature, feature_set, schema, source

F = Function
INF = math.inf
MAX = 2**63 - 1


def answer(function: Function, kind: Any, *values: Any, **changed: Any) -> Any:
    """What the function says of values that come one after the other in one window."""
    harness = Harness(
        source(),
        feature_set(feature("f", function, "x", **changed)),
        schema=schema(x=["null", kind]),
    )
    harness.send(*({"who": "ann", "at": at, "x": x} for at, x in enumerate(values)))
    harness.advance_to(10)
    (vector,) = harness.vectors
    return vector.values["f"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (F.COUNT, 2),
        (F.SUM, 4.0),
        (F.MEAN, 2.0),
        (F.MIN, 1.0),
        (F.MAX, 3.0),
        (F.VARIANCE, 2.0),
        (F.STDDEV, math.sqrt(2)),
        (F.FIRST, 1.0),
        (F.LAST, 3.0),
        (F.APPROX_DISTINCT, 2),
    ],
)
def test_nulls_and_nan_are_skipped(function: Function, expected: float) -> None:
    assert answer(function, "double", None, 1.0, math.nan, 3.0, None) == pytest.approx(expected)


@pytest.mark.parametrize("function", [F.COUNT, F.APPROX_DISTINCT])
def test_counts_over_nothing_are_zero(function: Function) -> None:
    assert answer(function, "double", None, math.nan) == 0


@pytest.mark.parametrize(
    "function", [F.SUM, F.MEAN, F.MIN, F.MAX, F.VARIANCE, F.STDDEV, F.FIRST, F.LAST]
)
def test_the_others_over_nothing_are_null(function: Function) -> None:
    assert answer(function, "double", None, math.nan) is None


def test_quantile_and_top_k_over_nothing_are_null() -> None:
    assert answer(F.QUANTILE, "double", None, q=0.5) is None
    assert answer(F.TOP_K, "string", None, k=2) is None


@pytest.mark.parametrize("function", [F.VARIANCE, F.STDDEV])
def test_the_spread_of_one_value_is_null(function: Function) -> None:
    assert answer(function, "double", 3.0) is None


def test_the_spread_of_equal_large_values_is_zero() -> None:
    assert answer(F.VARIANCE, "double", 1e9, 1e9, 1e9) == 0.0
    assert answer(F.STDDEV, "long", MAX, MAX) == 0.0


def test_whole_numbers_are_summed_exactly_up_to_64_bits() -> None:
    assert answer(F.SUM, "long", MAX, -1, 1) == MAX
    assert answer(F.SUM, "long", -MAX, -1) == -MAX - 1


def test_a_sum_beyond_64_bits_is_null_but_not_what_passed_through_there() -> None:
    assert answer(F.SUM, "long", MAX, 1) is None
    assert answer(F.SUM, "long", -MAX, -2) is None
    assert answer(F.SUM, "long", MAX, MAX, -MAX) == MAX


def test_the_mean_of_huge_whole_numbers_does_not_overflow() -> None:
    assert answer(F.MEAN, "long", MAX, MAX, MAX) == pytest.approx(float(MAX))


def test_sums_of_int_are_long() -> None:
    assert answer(F.SUM, "int", 2**31 - 1, 2**31 - 1) == 2**32 - 2


def test_infinities_are_values() -> None:
    assert answer(F.SUM, "double", INF, 1.0) == INF
    assert answer(F.MIN, "double", -INF, 1.0) == -INF
    assert answer(F.MAX, "double", INF, 1.0) == INF
    assert answer(F.MEAN, "double", -INF, 1.0) == -INF


def test_both_zeros_are_one_value_to_those_that_compare() -> None:
    assert answer(F.APPROX_DISTINCT, "double", 0.0, -0.0) == 1
    assert answer(F.MIN, "double", 0.0, -0.0) == 0.0
    assert answer(F.SUM, "double", -0.0) == 0.0


def test_an_empty_text_is_a_value() -> None:
    assert answer(F.COUNT, "string", "", None) == 1
    assert answer(F.FIRST, "string", None, "", "a") == ""
    assert answer(F.MIN, "string", "a", "") == ""
    assert answer(F.APPROX_DISTINCT, "string", "", "a", "") == 2
    assert answer(F.TOP_K, "string", "", "", "a", k=1) == [{"value": "", "count": 2}]


def test_texts_are_ordered_by_their_bytes() -> None:
    assert answer(F.MAX, "string", "z", "ü", "Z") == "ü"


def test_first_and_last_go_by_event_time_then_by_offset() -> None:
    #   offset   0     1     2     3     4
    #   time     5     2     2     8     8
    #   x        a     b     c     d     e        first b, last e
    harness = Harness(
        source(),
        feature_set(feature("a", F.FIRST, "x"), feature("z", F.LAST, "x")),
        schema=schema(x="string"),
    )
    for at, x in ((5, "a"), (2, "b"), (2, "c"), (8, "d"), (8, "e")):
        harness.send({"who": "ann", "at": at, "x": x})
    harness.advance_to(10)
    assert harness.vectors[0].values == {"a": "b", "z": "e"}


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("long", (7, -7, 7), [{"value": 7, "count": 2}, {"value": -7, "count": 1}]),
        ("boolean", (True, False, True), [{"value": True, "count": 2}]),
        ("string", ("b", "a", "b"), [{"value": "b", "count": 2}, {"value": "a", "count": 1}]),
    ],
)
def test_top_k_gives_values_as_they_were(kind: str, values: tuple[Any], expected: Any) -> None:
    assert answer(F.TOP_K, kind, *values, k=len(expected)) == expected


def test_quantiles_of_few_values_are_exact() -> None:
    assert answer(F.QUANTILE, "long", 1, 2, 3, 4, q=0.5) == 2.0
    assert answer(F.QUANTILE, "double", 4.0, -1.0, 2.0, q=1.0) == 4.0


def test_a_features_filter_leaves_events_out_of_that_feature_only() -> None:
    harness = Harness(
        source(),
        feature_set(feature("a"), feature("b", where="x > 1"), feature("c", F.SUM, "x")),
        schema=schema(x=["null", "long"]),
    )
    harness.send(*({"who": "ann", "at": 1, "x": x} for x in (1, 2, None)))
    harness.advance_to(10)
    assert harness.vectors[0].values == {"a": 3, "b": 1, "c": 3}
