"""Small definitions that tests can check by hand: one source, counts of ten milliseconds."""

from __future__ import annotations

from typing import Any

from streams.definitions.model import EventTime, Feature, FeatureSet, Function, Source, TimeUnit
from streams.testing import Harness

AT = "at"
"""Event time, in ms: small numbers, so that a window fits a drawing."""


def source(**changed: Any) -> Source:
    """A source keyed by `who`, its event time a plain number of milliseconds."""
    given: dict[str, Any] = {
        "name": "clicks",
        "topic": "clicks",
        "schema": "clicks-value",
        "event_time": EventTime(field=AT, unit=TimeUnit.MS),
        "key": ("who",),
    }
    return Source(**{**given, **changed})


def feature(
    name: str = "n",
    function: Function = Function.COUNT,
    expression: str | None = None,
    window_ms: int = 10,
    **changed: Any,
) -> Feature:
    """By default the number of events in a window of 10 ms."""
    return Feature(
        name=name, function=function, expression=expression, window_ms=window_ms, **changed
    )


def feature_set(*features: Feature, **changed: Any) -> FeatureSet:
    """A set over `source()`, every 10 ms, by `who`; without features it counts events."""
    given: dict[str, Any] = {
        "name": "clicks_by_who",
        "version": "1.0.0",
        "source": "clicks",
        "entity": ("who",),
        "every_ms": 10,
        "features": features or (feature(),),
    }
    return FeatureSet(**{**given, **changed})


def schema(at: Any = "long", **fields: Any) -> dict[str, Any]:
    """Avro schema of the events: `who`, `at`, and the given fields by name and Avro type."""
    named = {"who": ["null", "string"], AT: ["null", at], **fields}
    return {
        "type": "record",
        "name": "click",
        "fields": [{"name": name, "type": kind} for name, kind in named.items()],
    }


def spoken(harness: Harness) -> list[tuple[Any, ...]]:
    """All vectors so far: as-of time, entity values, kind, feature values, in order."""
    return [
        (one.as_of_ms, *one.entity.values(), one.kind, *one.values.values())
        for one in harness.vectors
    ]
