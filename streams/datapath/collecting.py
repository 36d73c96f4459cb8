"""Operations on frames of few rows, done together."""

from __future__ import annotations

import polars as pl

_AS_WRITTEN = pl.QueryOptFlags.none()


def collected(operations: pl.LazyFrame) -> pl.DataFrame:
    """What operations come to, in one go. They are few, and so are the rows, most of the time: to
    look for a better plan would take longer than it saves."""
    return operations.collect(engine="in-memory", optimizations=_AS_WRITTEN)
