"""Definitions as bytes that never vary, and the digest that stands for what they compute."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from streams.definitions.model import (
    Emit,
    EventTime,
    Feature,
    FeatureSet,
    Function,
    Source,
    StartAt,
    TimeUnit,
)

FORMAT = 1


def canonical_json(definition: Source | FeatureSet) -> bytes:
    """The definition as UTF-8 JSON: sorted keys, no white space, times in milliseconds.

    Two definitions have the same bytes if and only if they are equal, but for the order in
    which features were written.
    """
    if isinstance(definition, Source):
        return _dump({"format": FORMAT, "kind": "source", **_source(definition)})
    return _dump({"format": FORMAT, "kind": "feature_set", **_feature_set(definition)})


def from_canonical(data: bytes) -> Source | FeatureSet:
    """The definition that `canonical_json` wrote. Raises ValueError for anything else."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ValueError(f"no canonical definition: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"no canonical definition of format {FORMAT}")
    try:
        if value["kind"] == "source":
            return _read_source(value)
        if value["kind"] == "feature_set":
            return _read_feature_set(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no canonical definition: {error!r}") from None
    raise ValueError(f"no canonical definition: kind {value['kind']!r}")


def digest(feature_set: FeatureSet, source: Source) -> str:
    """SHA-256 (hex) of all that changes the values of `feature_set` read from `source`.

    Description and owner don't, nor does where a source starts or when it counts as idle.
    """
    covered = {
        "format": FORMAT,
        "feature_set": _without(_feature_set(feature_set), "description", "owner"),
        "source": _without(_source(source), "start", "idle_after_ms", "close_after_ms"),
    }
    return hashlib.sha256(_dump(covered)).hexdigest()


def fixed_part(source: Source) -> dict[str, Any]:
    """What can't change under a source's name."""
    return _without(_source(source), "start", "idle_after_ms", "close_after_ms")


def _dump(value: dict[str, Any]) -> bytes:
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _without(value: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value[key] for key in value if key not in keys}


def _source(source: Source) -> dict[str, Any]:
    start = source.start
    return {
        "name": source.name,
        "topic": source.topic,
        "schema": source.schema,
        "event_time": {"field": source.event_time.field, "unit": source.event_time.unit.value},
        "key": list(source.key),
        "start": start.value if isinstance(start, StartAt) else start,
        "max_ahead_ms": source.max_ahead_ms,
        "idle_after_ms": source.idle_after_ms,
        "close_after_ms": source.close_after_ms,
    }


def _read_source(value: dict[str, Any]) -> Source:
    start = value["start"]
    return Source(
        name=value["name"],
        topic=value["topic"],
        schema=value["schema"],
        event_time=EventTime(
            field=value["event_time"]["field"], unit=TimeUnit(value["event_time"]["unit"])
        ),
        key=tuple(value["key"]),
        start=start if isinstance(start, int) else StartAt(start),
        max_ahead_ms=value["max_ahead_ms"],
        idle_after_ms=value["idle_after_ms"],
        close_after_ms=value["close_after_ms"],
    )


def _feature_set(feature_set: FeatureSet) -> dict[str, Any]:
    return {
        "name": feature_set.name,
        "version": feature_set.version,
        "source": feature_set.source,
        "entity": list(feature_set.entity),
        "every_ms": feature_set.every_ms,
        "allowed_lateness_ms": feature_set.allowed_lateness_ms,
        "retention_ms": feature_set.retention_ms,
        "emit": feature_set.emit.value,
        "where": feature_set.where,
        "description": feature_set.description,
        "owner": feature_set.owner,
        "features": {feature.name: _feature(feature) for feature in feature_set.features},
    }


def _read_feature_set(value: dict[str, Any]) -> FeatureSet:
    features = value["features"]
    return FeatureSet(
        name=value["name"],
        version=value["version"],
        source=value["source"],
        entity=tuple(value["entity"]),
        every_ms=value["every_ms"],
        features=tuple(_read_feature(name, features[name]) for name in sorted(features)),
        allowed_lateness_ms=value["allowed_lateness_ms"],
        retention_ms=value["retention_ms"],
        emit=Emit(value["emit"]),
        where=value["where"],
        description=value["description"],
        owner=value["owner"],
    )


def _feature(feature: Feature) -> dict[str, Any]:
    return {
        "function": feature.function.value,
        "expression": feature.expression,
        "window_ms": feature.window_ms,
        "where": feature.where,
        # One form for equal ranks: 1 and 1.0 are the same number.
        "q": None if feature.q is None else float(feature.q) + 0.0,
        "k": feature.k,
    }


def _read_feature(name: str, value: dict[str, Any]) -> Feature:
    return Feature(
        name=name,
        function=Function(value["function"]),
        expression=value["expression"],
        window_ms=value["window_ms"],
        where=value["where"],
        q=value["q"],
        k=value["k"],
    )
