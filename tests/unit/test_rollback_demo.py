"""What the rollback demo judges with: it sees what is missing, doubled or of another version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from examples.flights.data import flights
from examples.flights.demo.rollback.asking import Asked
from examples.flights.demo.rollback.corrupting import ABSURD, corrupted, is_absurd, without
from examples.flights.demo.rollback.judging import Expected, Found, Verdict, expect, judge
from examples.flights.demo.rollback.rehearsal import ACTS, BAD, FIRST, NEXT, SOURCE
from examples.flights.demo.rollback.report import Findings, Switched
from examples.flights.demo.sent import sent
from examples.flights.demo.site import Site
from examples.flights.produce import SCHEMAS, Encoder
from streams.definitions.load import load_files
from streams.devstack import Addresses
from tests.integration.pipeline_check import Cut
from tests.reference import Row, Vector

if TYPE_CHECKING:
    from pathlib import Path

    from streams.definitions.model import FeatureSet

FLIGHTS = 2_000
NAME = "origin_departures"


@pytest.fixture(scope="module")
def versions() -> list[FeatureSet]:
    return [load_files([SOURCE, file]).feature_sets[0] for file in (FIRST, NEXT, BAD)]


@pytest.fixture(scope="module")
def expected(versions: list[FeatureSet]) -> Expected:
    contents = sent(flights(limit=FLIGHTS), ())
    halves = {partition: len(events) // 2 for partition, events in contents.by_partition.items()}
    cut = Cut(feature_set=NAME, version="1.1.0", offsets=halves)
    source = load_files([SOURCE]).sources[0]
    return expect(versions[:2], source, contents, [cut])


def as_found(expected: Expected, versions: list[FeatureSet]) -> list[Found]:
    """Empty vectors as they must come: the values of others are ranges and sketches."""
    found = []
    for key, vector in expected.vectors.items():
        if vector.kind == "empty":
            values = {
                one.name: 0 if vector.values[one.name].judge(0) is None else None
                for one in next(
                    it for it in versions if it.version == expected.version[key]
                ).features
            }
            row = Row(
                feature_set=key[0], entity=key[1], as_of_ms=key[2], kind="empty", values=values
            )
            found.append(Found(row=row, version=expected.version[key]))
    return found


def test_both_versions_serve_and_windows_are_open_at_the_cut(expected: Expected) -> None:
    assert set(expected.version.values()) == {"1.0.0", "1.1.0"}
    assert expected.version.keys() == expected.vectors.keys()
    assert expected.open_windows[0] > 0


def test_what_is_right_is_not_blamed(expected: Expected, versions: list[FeatureSet]) -> None:
    empty = as_found(expected, versions)
    keys = {one.row.key for one in empty}
    only = Expected(
        vectors={key: it for key, it in expected.vectors.items() if key in keys},
        version=expected.version,
        open_windows=expected.open_windows,
    )
    verdict = judge(only, versions, empty)
    assert empty
    assert (verdict.vectors, verdict.lost, verdict.duplicated, verdict.wrong) == (
        len(empty), 0, 0, 0,
    )  # fmt: skip


def test_what_is_not_as_it_must_be_is_blamed(
    expected: Expected, versions: list[FeatureSet]
) -> None:
    first, *_ = as_found(expected, versions)
    other = replace(first, version="2.0.0")
    verdict = judge(expected, versions, [first, other])
    assert verdict.duplicated == 1
    assert verdict.wrong == 1
    assert verdict.lost == len(expected.vectors) - 1
    assert verdict.by_version[f"{NAME}@2.0.0"] == 1


def test_a_correction_must_be_asked_for(expected: Expected, versions: list[FeatureSet]) -> None:
    first, *_ = as_found(expected, versions)
    again = replace(first, row=replace(first.row, kind="correction"))
    vector = replace(expected.vectors[first.row.key], kind="correction")
    only = {first.row.key: expected.vectors[first.row.key]}
    asked = replace(
        expected,
        vectors=only,
        corrections={first.row.key: [vector]},
        repairing=[first.version],
    )
    verdict = judge(asked, versions, [first, again])
    assert (verdict.vectors, verdict.corrections) == (1, 1)
    assert (verdict.lost, verdict.duplicated, verdict.wrong) == (0, 0, 0)
    assert judge(asked, versions, [first]).lost == 1
    unasked = judge(replace(expected, vectors=only), versions, [first, again])
    assert (unasked.duplicated, unasked.wrong) == (1, 1)


def test_a_sensor_breaks_the_same_way_each_time() -> None:
    flown = flights(limit=FLIGHTS)
    broken = corrupted(flown, 0.5)
    assert broken == corrupted(flown, 0.5)
    half = FLIGHTS // 2
    assert broken[:half] == flown[:half]
    absurd = [one for one in broken if is_absurd(one.event)]
    assert 0 < len(absurd) < half // 10
    encode = Encoder((SCHEMAS / "flights-value" / "v0001.avsc").read_text(encoding="utf-8"), 0)
    for one in absurd:
        assert encode(one.event)
        assert not one.event["cancelled"]
    assert [one.timestamp_ms for one in broken] == [one.timestamp_ms for one in flown]


def test_absurd_delays_are_corrected_by_the_same_version(versions: list[FeatureSet]) -> None:
    contents = sent(corrupted(flights(limit=FLIGHTS), 0.25), ())
    ends = {partition: len(events) * 3 // 4 for partition, events in contents.by_partition.items()}
    first = versions[0]
    cut = Cut(feature_set=NAME, version=without(first).version, offsets=ends, repair=True)
    source = load_files([SOURCE]).sources[0]
    expected = expect([first, without(first)], source, contents, [cut])
    assert set(expected.version.values()) == {first.version} == set(expected.repairing)
    again = {key: said for key, [said] in expected.corrections.items()}
    last = max(as_of_ms for _, _, as_of_ms in again)
    later = {key: it for key, it in expected.vectors.items() if key[2] > last}
    assert any(is_highest_absurd(expected.vectors[key]) for key in again.keys() & expected.version)
    assert later
    assert not any(is_highest_absurd(it) for it in [*again.values(), *later.values()])


def is_highest_absurd(vector: Vector) -> bool:
    return vector.values["delay_max_6h"].judge(ABSURD) is None


def test_a_correction_that_says_the_same_changes_nothing(
    expected: Expected, versions: list[FeatureSet]
) -> None:
    first, *_ = as_found(expected, versions)
    key = first.row.key
    same = replace(expected.vectors[key], kind="correction")
    judged = judge(replace(expected, corrections={key: [same]}), versions, [first])
    assert judged.changed[first.version] == 0
    other = next(one for one in expected.vectors.values() if one.kind == "final")
    other = replace(other, kind="correction")
    judged = judge(replace(expected, corrections={key: [other]}), versions, [first])
    assert judged.changed[first.version] == 1


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, False),
        ({"lost": 1}, True),
        ({"duplicated": 1}, True),
        ({"wrong": 1}, True),
        ({"by_version": {f"{NAME}@1.0.0": 3, f"{NAME}@1.1.0": 0}}, True),
        ({"open_windows": 0}, True),
        ({"changed": 0}, True),
        ({"corrections": 0}, True),
    ],
)
def test_a_run_fails_unless_it_shows_what_it_is_for(
    changes: dict[str, Any], failed: bool, tmp_path: Path
) -> None:
    verdict = Verdict(vectors=3, corrections=4)
    verdict.by_version[f"{NAME}@1.0.0"] = 3
    open_windows, changed = changes.pop("open_windows", 9), changes.pop("changed", 1)
    for name, value in changes.items():
        setattr(verdict, name, value)
    reply = {"action": "rollback", "target": "1.0.0", "cut": {"0": 7}, "corrections": 2}
    asked = Asked(request_id="r", sent_s=0.0, answered_ms={"completed": 9.0}, reply=reply)
    addresses = Addresses(bootstrap_servers="h:1", registry_url="http://h")
    *_, back, exclude = (act.name for act in ACTS)
    findings = Findings(
        place=Site(addresses=addresses, directory=tmp_path, app="demo", prefix=""),
        events=3,
        excluded_events=1,
        switches={
            back: Switched(asked=asked, open_windows=9, changed=1),
            exclude: Switched(asked=asked, open_windows=open_windows, changed=changed),
        },
        verdict=verdict,
        seconds={},
    )
    assert findings.failed is failed
    told = json.loads(findings.as_json())
    assert told["exclude_corrections"] == 2
    assert told["exclude_open_windows_at_cut"] == open_windows
    findings.print(Console(quiet=True))
