"""The versions of the benchmark's set: one that all accumulators are of, and others beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tests.bench.load import LATENESS_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Features = dict[str, dict[str, str]]

FIRST: Features = {
    "n": {"count": "*", "window": "1h"},
    "total": {"sum": "value", "window": "1h"},
    "middle": {"mean": "value", "window": "1h"},
    "least": {"min": "value", "window": "1h"},
    "most": {"max": "value", "window": "1h"},
}

SHARING: Mapping[str, Features] = {
    "1.0.0": FIRST,
    "1.1.0": {name: one for name, one in FIRST.items() if name != "least"},
    "1.2.0": {name: one for name, one in FIRST.items() if name != "most"},
}
"""Versions that need no accumulator that the first one has not."""

DISJOINT: Mapping[str, Features] = {
    "1.0.0": FIRST,
    "1.1.0": {name: {**one, "where": "value > -1000"} for name, one in FIRST.items()},
    "1.2.0": {name: {**one, "where": "value > -2000"} for name, one in FIRST.items()},
}
"""Versions that share no accumulator but the presence of a sensor; values are the same."""

LEFT_OUT: Mapping[str, str | None] = {"1.0.0": None, "1.1.0": "least", "1.2.0": "most"}
"""The feature that each version of `SHARING` has not."""


def write_source(directory: Path, topic: str) -> Path:
    """The file of a source on `topic`."""
    source = {
        "kind": "source",
        "name": "measurements",
        "topic": topic,
        "schema": f"{topic}-value",
        "event_time": "at",
        "key": ["sensor"],
    }
    return _write(directory / "source.yaml", source)


def write_versions(
    directory: Path, name: str, versions: Mapping[str, Features], *, retention: str = "24h"
) -> Sequence[Path]:
    """The files of some versions of a set."""
    return [
        _write(
            directory / f"{name}-{version}.yaml",
            {
                "kind": "feature_set",
                "name": name,
                "version": version,
                "source": "measurements",
                "entity": ["sensor"],
                "every": "1h",
                "allowed_lateness": f"{LATENESS_MS}ms",
                "retention": retention,
                "features": features,
            },
        )
        for version, features in versions.items()
    ]


def _write(file: Path, document: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file
