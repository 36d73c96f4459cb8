"""Pane and as-of arithmetic over integer milliseconds; every function is a polars expression.

A pane is `[pane, pane + pane_ms)`. An as-of time T is a multiple of `every_ms`. A window of
`window_ms` as of T is the run of panes in `[T - window_ms, T)`, so a pane belongs to the
as-of times from `first_as_of` to `last_as_of`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def floor_to(value_ms: int, step_ms: int) -> int:
    """Highest multiple of `step_ms` that is not above `value_ms`; negatives round down too."""
    return value_ms // step_ms * step_ms


def ceil_to(value_ms: int, step_ms: int) -> int:
    """Lowest multiple of `step_ms` that is not below `value_ms`."""
    return -(-value_ms // step_ms) * step_ms


def pane_of(event_time: pl.Expr, pane_ms: int) -> pl.Expr:
    """Start of the pane that holds `event_time`."""
    return event_time.floordiv(pane_ms) * pane_ms


def first_as_of(pane: pl.Expr, pane_ms: int, every_ms: int) -> pl.Expr:
    """First as-of time whose windows end after the pane."""
    return -((-(pane + pane_ms)).floordiv(every_ms)) * every_ms


def last_as_of(pane: pl.Expr, window_ms: int, every_ms: int) -> pl.Expr:
    """Last as-of time whose window of `window_ms` still holds the pane."""
    return (pane + window_ms).floordiv(every_ms) * every_ms
