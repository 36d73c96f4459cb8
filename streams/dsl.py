"""Define sources and feature sets in Python; see `streams.definitions.dsl`."""

from streams.definitions.dsl import (
    Aggregate,
    EventTime,
    FeatureSet,
    Source,
    approx_distinct,
    count,
    first,
    last,
    max,
    mean,
    min,
    quantile,
    stddev,
    sum,
    top_k,
    variance,
)

__all__ = [
    "Aggregate",
    "EventTime",
    "FeatureSet",
    "Source",
    "approx_distinct",
    "count",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "quantile",
    "stddev",
    "sum",
    "top_k",
    "variance",
]
