"""Vectors on a terminal: a table where it fits, else lines that fit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from streams.cli.vectors import as_json, shown
from streams.errors import RewindowError


def vector(**features: Any) -> dict[str, Any]:
    return {
        "customer": "ann",
        "as_of": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "rewindow_version": "1.0.0",
        "rewindow_kind": "final",
        **features,
    }


def lines(vectors: list[dict[str, Any]], width: int) -> list[str]:
    console = Console(width=width, record=True, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(shown(vectors, width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_table_where_it_fits_with_numbers_to_the_right() -> None:
    assert lines([vector(spent=12.5, n=3), vector(spent=None, n=12)], 80) == [
        "customer  as_of                kind   spent   n",
        "ann       2026-01-01 12:00:00  final   12.5   3",
        "ann       2026-01-01 12:00:00  final      -  12",
    ]


def test_lines_of_whole_features_where_a_table_does_not_fit() -> None:
    assert lines([vector(spent_in_the_last_hour=12.5, orders=3, last="tea")], 45) == [
        "2026-01-01 12:00:00  final   ann",
        "    spent_in_the_last_hour=12.5  orders=3",
        "    last=tea",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    many = vector(**{f"a_feature_{i}": i * 1000.5 for i in range(30)})
    assert max(len(line) for line in lines([many, many], width)) <= width


def test_vectors_of_versions_with_other_features_go_together() -> None:
    assert "new" in lines([vector(old=1), vector(new=2)], 80)[0]


def test_frequent_values_are_shown_with_their_counts() -> None:
    found = lines([vector(top=[{"value": "tea", "count": 2}, {"value": "cup", "count": 1}])], 80)
    assert "tea:2 cup:1" in found[1]


def test_markup_in_values_is_text() -> None:
    assert "[red]x" in lines([vector(last="[red]x")], 80)[1]


def test_json_has_times_in_utc() -> None:
    assert json.loads(as_json(vector(n=1)))["as_of"] == "2026-01-01T12:00:00Z"


def test_a_record_that_is_no_vector_is_refused() -> None:
    with pytest.raises(RewindowError, match="no vectors"):
        as_json({"a": 1})
