"""Which pane an event falls into, and which as-of times a pane belongs to."""

from __future__ import annotations

import polars as pl
import pytest

from streams.windowing.panes import ceil_to, first_as_of, floor_to, last_as_of, pane_of


def of(expr: pl.Expr, *values: int) -> list[int]:
    return pl.DataFrame({"v": values}, schema={"v": pl.Int64}).select(expr).to_series().to_list()


V = pl.col("v")


def test_an_event_lies_in_the_pane_that_begins_at_or_before_it() -> None:
    assert of(pane_of(V, 10), 0, 9, 10, 11) == [0, 0, 10, 10]


def test_panes_before_1970_begin_before_their_events_too() -> None:
    #   -20       -10         0
    #    |---------|--------x-|      x = -1 lies in [-10, 0)
    assert of(pane_of(V, 10), -1, -10, -11) == [-10, -10, -20]


def test_panes_may_be_a_millisecond_long() -> None:
    assert of(pane_of(V, 1), -1, 0, 1) == [-1, 0, 1]
    assert of(first_as_of(V, 1, 1), -1, 0, 7) == [0, 1, 8]
    assert of(last_as_of(V, 3, 1), -1, 0, 7) == [2, 3, 10]


def test_a_tumbling_window_is_one_pane_and_belongs_to_one_as_of_time() -> None:
    #     0         10        20
    #     |  pane   |                  as of 10 only
    assert of(first_as_of(V, 10, 10), 0, 10, -10) == [10, 20, 0]
    assert of(last_as_of(V, 10, 10), 0, 10, -10) == [10, 20, 0]


def test_a_pane_belongs_to_every_hop_whose_window_holds_it() -> None:
    #     0         10        20        30
    #     |  pane   |                        window of 30, every 10:
    #     |  [-20, 10)  [-10, 20)  [0, 30)   as of 10, 20 and 30
    assert of(first_as_of(V, 10, 10), 0) == [10]
    assert of(last_as_of(V, 30, 10), 0) == [30]


def test_a_pane_smaller_than_the_interval_belongs_to_the_times_at_or_after_its_end() -> None:
    #     0    5    10   15   20
    #     |    |pane|              panes of 5, every 10, window of 20: as of 10 and 20
    assert of(first_as_of(V, 5, 10), 0, 5, 10) == [10, 10, 20]
    assert of(last_as_of(V, 20, 10), 0, 5, 10) == [20, 20, 30]


@pytest.mark.parametrize(
    ("value", "low", "high"), [(0, 0, 0), (1, 0, 10), (10, 10, 10), (-1, -10, 0), (-10, -10, -10)]
)
def test_rounding_goes_to_multiples_on_either_side(value: int, low: int, high: int) -> None:
    assert (floor_to(value, 10), ceil_to(value, 10)) == (low, high)
