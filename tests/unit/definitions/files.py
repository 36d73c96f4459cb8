"""Definitions as a user writes them, and what reading them gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.definitions.load import Loaded, load_files
from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """\
kind: source
name: flights
topic: flights
schema: flights-value
event_time: departed_at
key: [origin]
"""

FEATURE_SET = """\
kind: feature_set
name: origin_departures
version: 1.0.0
source: flights
entity: [origin]
every: 10m
allowed_lateness: 30m
retention: 24h
where: "NOT cancelled"
features:
  departures_1h: {count: "*", window: 1h}
  delay_p95_1d: {quantile: dep_delay, q: 0.95, window: 24h}
  carriers_1d: {approx_distinct: carrier, window: 24h, where: "distance > 500"}
"""


def load(tmp_path: Path, text: str, name: str = "one.yaml") -> Loaded:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return load_files([file])


def refusal(tmp_path: Path, text: str, name: str = "one.yaml") -> list[str]:
    """The lines of the refusal, without the directory."""
    with pytest.raises(InvalidInputError) as caught:
        load(tmp_path, text, name)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)
