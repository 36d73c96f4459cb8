"""The aggregate functions a feature may use."""

from __future__ import annotations

from enum import StrEnum


class Function(StrEnum):
    """Aggregate functions by the names that definitions use."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    VARIANCE = "variance"
    STDDEV = "stddev"
    FIRST = "first"
    LAST = "last"
    APPROX_DISTINCT = "approx_distinct"
    QUANTILE = "quantile"
    TOP_K = "top_k"
