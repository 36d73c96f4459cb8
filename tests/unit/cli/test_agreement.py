"""Vectors of two versions side by side."""

from __future__ import annotations

import math
from typing import Any

import pytest

from streams.cli.agreement import Agreement, Counted, FeatureAgreement, Vectors, compare

A, B = "1.0.0", "2.0.0"


def vectors(*rows: tuple[str, int, str, Any], kind: str = "final") -> Vectors:
    """Rows of entity, as-of time, version and the value of feature `x`."""
    made = Vectors(["x"])
    for entity, as_of_ms, version, value in rows:
        made.add(entity=entity, as_of_ms=as_of_ms, version=version, kind=kind, values={"x": value})
    return made


def compared(*rows: tuple[str, int, str, Any]) -> Agreement:
    return compare(vectors(*rows).frame(), A, B, ["x"])


def feature(*rows: tuple[str, int, str, Any]) -> FeatureAgreement:
    (found,) = compared(*rows).features
    return found


def values(*pairs: tuple[Any, Any]) -> FeatureAgreement:
    """How `x` agrees over these pairs of values."""
    rows = [
        (f"e{at}", 10, version, value)
        for at, pair in enumerate(pairs)
        for version, value in zip((A, B), pair, strict=True)
    ]
    return feature(*rows)


def test_only_vectors_of_the_same_entity_and_time_are_compared() -> None:
    found = compared(
        ("a", 10, A, 1), ("a", 20, A, 1), ("a", 10, B, 1), ("b", 10, B, 1), ("c", 10, "9.9.9", 1)
    )
    assert (found.pairs, found.only_a, found.only_b) == (1, 1, 1)
    assert (found.first_as_of_ms, found.last_as_of_ms) == (10, 10)
    assert found.kinds == {"final/final": 1}


def test_a_later_vector_replaces_an_earlier_one_of_its_version() -> None:
    found = feature(("a", 10, A, 1), ("a", 10, B, 9), ("a", 10, A, 2), ("a", 10, B, 2))
    assert (found.compared, found.equal) == (1, 1)


def test_numbers_have_a_largest_difference_and_the_worst_come_first() -> None:
    found = values((1, 1), (5, 2), (1, 11), (2, 1), (7, 8))
    assert (found.compared, found.equal, found.max_difference) == (5, 1, 10.0)
    assert [(one.entity, one.a, one.b) for one in found.examples] == [
        ("e2", 1, 11),
        ("e1", 5, 2),
        ("e3", 2, 1),
    ]


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.0, 1.0 + 1e-12, True),
        (1.0, 1.0 + 1e-6, False),
        (1e12, 1e12 + 1, True),
        (0.0, 1e-300, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (None, None, True),
        (None, 0.0, False),
        (1, 1.0, True),
        (2**53, 2**53 + 1, False),
        ("x", "x", True),
        ("x", None, False),
        ([{"value": "a", "count": 1}], [{"value": "a", "count": 1}], True),
        ([{"value": "a", "count": 1}], [{"value": "a", "count": 2}], False),
        (True, False, False),
        ("1", 1, True),
    ],
)
def test_what_counts_as_equal(a: Any, b: Any, equal: bool) -> None:
    assert (values((a, b)).equal == 1) is equal


def test_without_a_pair_nothing_is_compared() -> None:
    assert compared(("a", 10, A, 1), ("b", 10, B, 1)).pairs == 0
    assert compared().pairs == 0


def test_many_vectors_are_packed_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.cli.agreement.CHUNK_ROWS", 3)
    rows: list[tuple[str, int, str, Any]] = [
        (f"e{at}", 10, version, None if at < 5 else at) for version in (A, B) for at in range(10)
    ]
    frame = vectors(*rows).frame()
    assert frame.height == 20
    assert compare(frame, A, B, ["x"]).features[0].equal == 10


def test_the_newest_as_of_times_are_chosen_as_far_as_there_is_room() -> None:
    counted = Counted()
    for cell, of_a, of_b in (((0, 10), 2, 2), ((0, 20), 5, 5), ((1, 30), 1, 1), ((1, 40), 3, 0)):
        for is_b, number in ((False, of_a), (True, of_b)):
            for _ in range(number):
                counted.add(cell, is_b=is_b)
    assert counted.common() == [(1, 30), (0, 20), (0, 10)]
    assert counted.chosen(100) == {(1, 30), (0, 20), (0, 10)}
    assert counted.chosen(6) == {(1, 30), (0, 10)}
    assert counted.chosen(1) == set()
