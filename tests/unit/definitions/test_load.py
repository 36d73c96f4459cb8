"""Reading definitions from YAML and Python files."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from streams.definitions.load import load_files
from streams.errors import InvalidInputError
from tests.unit.definitions.files import FEATURE_SET, SOURCE, change, load, refusal

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_file_and_a_binary_one_are_refused_together(tmp_path: Path) -> None:
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError) as caught:
        load_files([tmp_path / "a.yaml", binary])
    first, second = str(caught.value).splitlines()
    assert first.endswith("a.yaml: can't be read: No such file or directory")
    assert second.endswith("b.yaml: is not UTF-8 text")


def test_the_same_definition_twice_is_refused(tmp_path: Path) -> None:
    lines = refusal(tmp_path, f"{SOURCE}---\n{SOURCE}")
    assert lines == ["one.yaml:9: name: source/flights is also defined in one.yaml"]


PYTHON = dedent(
    """
    from streams.dsl import FeatureSet, Source, approx_distinct, count, quantile

    flights = Source(name="flights", topic="flights", schema="flights-value",
                     event_time="departed_at", key=["origin"])
    departures = FeatureSet(
        name="origin_departures", version="1.0.0", source=flights, entity=["origin"],
        every="10m", allowed_lateness="30m", retention="24h", where="NOT cancelled",
        features={
            "departures_1h": count(window="1h"),
            "delay_p95_1d": quantile("dep_delay", q=0.95, window="24h"),
            "carriers_1d": approx_distinct("carrier", window="24h", where="distance > 500"),
        },
    )
    same = departures
    """
)


def test_the_python_form_is_the_same_thing(tmp_path: Path) -> None:
    python = load(tmp_path, PYTHON, "one.py")
    yaml = load(tmp_path, f"{SOURCE}---\n{FEATURE_SET}")
    assert python.sources == yaml.sources
    assert python.feature_sets == yaml.feature_sets


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'window="1h"',
            'window="65m"',
            "origin_departures@1.0.0: features.departures_1h",
        ),
        ('every="10m"', 'every="10"', "every: '10' is no duration"),
        ('entity=["origin"]', 'entity="origin"', "entity: needs a list: ['origin']"),
        ("flights = ", "raise RuntimeError('no')\nflights = ", "RuntimeError: no"),
        ("flights = ", "flights = = ", "SyntaxError"),
        ("q=0.95", "q=2", "delay_p95_1d.q: needs to be from 0 to 1"),
    ],
)
def test_a_wrong_python_file_is_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    lines = refusal(tmp_path, change(PYTHON, old, new), "one.py")
    assert lines[0].startswith("one.py: ")
    assert expected in lines[0]


def test_a_python_file_without_definitions_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "x = 1", "one.py") == ["one.py: defines no Source and no FeatureSet"]
