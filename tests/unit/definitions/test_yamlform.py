"""The keys of sources and feature sets in YAML, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.definitions.model import Emit, EventTime, Function, StartAt, TimeUnit
from tests.unit.definitions.files import FEATURE_SET, SOURCE, change, load, refusal

if TYPE_CHECKING:
    from pathlib import Path


def test_a_source_takes_its_defaults(tmp_path: Path) -> None:
    (source,) = load(tmp_path, SOURCE).sources
    assert source.event_time == EventTime(field="departed_at", unit=TimeUnit.AVRO)
    assert source.key == ("origin",)
    assert source.start is StartAt.EARLIEST
    assert source.max_ahead_ms == 3_600_000
    assert source.idle_after_ms == 30_000
    assert source.close_after_ms is None


def test_a_source_says_everything(tmp_path: Path) -> None:
    text = change(SOURCE, "event_time: departed_at", "event_time: {field: ts, unit: s}")
    text += "start: 2013-01-01T00:00:00Z\nmax_ahead: 2d\nidle_after: 500ms\nclose_after: 10m\n"
    (source,) = load(tmp_path, text).sources
    assert source.event_time == EventTime(field="ts", unit=TimeUnit.S)
    assert source.start == 1_356_998_400_000
    assert source.max_ahead_ms == 2 * 86_400_000
    assert source.idle_after_ms == 500
    assert source.close_after_ms == 600_000


def test_a_feature_set_is_compiled_with_features_in_name_order(tmp_path: Path) -> None:
    (feature_set,) = load(tmp_path, FEATURE_SET).feature_sets
    assert [feature.name for feature in feature_set.features] == [
        "carriers_1d",
        "delay_p95_1d",
        "departures_1h",
    ]
    carriers, delay, departures = feature_set.features
    assert (departures.function, departures.expression) == (Function.COUNT, None)
    assert (delay.function, delay.q, delay.window_ms) == (Function.QUANTILE, 0.95, 86_400_000)
    assert carriers.where == "distance > 500"
    assert feature_set.emit is Emit.FINAL
    assert feature_set.longest_window_ms == 86_400_000


def test_one_file_may_hold_several_documents(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{SOURCE}---\n{FEATURE_SET}")
    assert len(loaded.sources) == len(loaded.feature_sets) == 1
    origin = loaded.origins["set/origin_departures@1.0.0"]
    assert origin.line(("features", "delay_p95_1d", "q")) == 19


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("topic:", "topik:", "one.yaml:3: topik: unknown key: did you mean 'topic'?"),
        ("name: flights", "name: Flights", "one.yaml:2: name: 'Flights' is no name"),
        ("name: flights", "name: as_of", "one.yaml:2: name: 'as_of' is reserved"),
        ("name: flights", "name: rewindow_x", "one.yaml:2: name: 'rewindow_x' is reserved"),
        ("name: flights", "name: 7", "one.yaml:2: name: needs text; '7' is none"),
        ("topic: flights", "topic: 'a b'", "one.yaml:3: topic: needs 1 to 249 letters"),
        ("[origin]", "origin", "one.yaml:6: key: needs a list of field names"),
        ("[origin]", "[a, a]", "one.yaml:6: key: names 'a' more than once"),
        ("kind: source", "kind: sauce", "one.yaml:1: kind: 'sauce' is not allowed"),
        ("kind: source\n", "", "one.yaml:1: kind is missing"),
        ("schema: flights-value\n", "", "one.yaml:1: schema is missing"),
        ("departed_at", "{field: ts}", "one.yaml:5: event_time: unit is missing"),
        ("departed_at", "{field: ts, unit: ns}", "event_time.unit: 'ns' is not allowed"),
        ("departed_at", "[a]", "one.yaml:5: event_time: needs to be a mapping"),
        ("name: flights", "name: flights\nname: b", "one.yaml:2: name: is given twice"),
    ],
)
def test_a_wrong_source_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    lines = refusal(tmp_path, change(SOURCE, old, new))
    assert any(expected in line for line in lines), lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("start: yesterday", "start: 'yesterday' is not allowed: earliest, latest or a UTC time"),
        ("start: 2013-01-01T00:00:00+02:00", "start: '2013-01-01T00:00:00+02:00' is not allowed"),
        ("max_ahead: 60", "max_ahead: 60 has no unit: write one of ms, s, m, h, d after it"),
        ("max_ahead: 1.5h", "max_ahead: '1.5h' is no duration"),
        ("max_ahead: 99999d", "max_ahead: needs to be from 0s to 3650d"),
        ("close_after: 0s", "close_after: needs to be from 1ms to 3650d"),
        ("idle_after: [1]", "idle_after: needs a duration such as 10m"),
    ],
)
def test_a_wrong_setting_of_a_source_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    (only,) = refusal(tmp_path, SOURCE + line)
    assert only.startswith(f"one.yaml:7: {expected}")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("1.0.0", "1.0", "one.yaml:3: version: '1.0' is no semantic version"),
        ("1.0.0", "v1.0.0", "version: 'v1.0.0' is no semantic version"),
        ("1.0.0", "1.0.0+b", "version: can't have build metadata"),
        ("[origin]", "[]", "one.yaml:5: entity: needs at least one field"),
        ("[origin]", "[origin, origin]", "entity: names 'origin' more than once"),
        ("[origin]", "[departures_1h]", "departures_1h: is the name of an entity field"),
        ("[origin]", "[as_of]", "entity: field 'as_of' has a reserved name"),
        ("every: 10m", "every: 10", "one.yaml:6: every: 10 has no unit"),
        ("every: 10m", "every: 0m", "every: needs to be from 1ms to 3650d"),
        ("every: 10m", "every: 7m", "1h is not a whole multiple of every (7m)"),
        ("window: 1h", "window: 0s", "features.departures_1h.window: needs to be from 1ms"),
        ("every: 10m", "every: 1ms", "is more than 100000 times every"),
        ('count: "*"', 'sum: "*"', "one.yaml:11: features.departures_1h.sum: only count takes"),
        ('count: "*"', 'count: ""', "features.departures_1h.count: is empty"),
        ('count: "*"', "count: true", "departures_1h.count: needs an SQL expression, in quotes"),
        ('count: "*", ', "", "departures_1h: has no aggregate: give exactly one of count, sum"),
        ('count: "*"', 'count: "*", sum: a', "departures_1h: has count and sum: give exactly one"),
        ('count: "*"', 'cuont: "*"', "cuont: unknown key: did you mean 'count'?"),
        ('count: "*"', 'count: "*", q: 0.5', "departures_1h.q: belongs to quantile only"),
        ('count: "*"', 'count: "*", k: 5', "departures_1h.k: belongs to top_k only"),
        ("q: 0.95", "q: 1.5", "delay_p95_1d.q: needs to be from 0 to 1"),
        ("q: 0.95", "q: .nan", "delay_p95_1d.q: "),
        ("q: 0.95", "q: high", "delay_p95_1d.q: 'high' is no number"),
        ("q: 0.95, ", "", "delay_p95_1d: quantile needs q"),
        ("quantile: dep_delay, q: 0.95", "top_k: carrier", "delay_p95_1d: top_k needs k"),
        ("quantile: dep_delay, q: 0.95", "top_k: carrier, k: 0", "k: needs to be from 1 to"),
        ("quantile: dep_delay, q: 0.95", "top_k: carrier, k: 1.5", "'1.5' is no whole number"),
        ("departures_1h:", "Departures:", "features.Departures: 'Departures' is no name"),
        ("source: flights", "source: {name: x}", "a feature set can't be one yet"),
        ("retention: 24h", "retention: 24h\nemit: often", "one.yaml:9: emit: 'often' is not"),
        ("entity: [origin]\n", "", "entity is missing"),
    ],
)
def test_a_wrong_feature_set_is_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    lines = refusal(tmp_path, change(FEATURE_SET, old, new))
    assert any(expected in line for line in lines), lines


def test_a_window_that_does_not_fit_names_those_that_do(tmp_path: Path) -> None:
    text = change(FEATURE_SET, "window: 1h", "window: 65m")
    (line,) = refusal(tmp_path, text)
    assert line == (
        "one.yaml:11: features.departures_1h.window: 65m is not a whole multiple of "
        "every (10m): take 1h or 70m, or another every"
    )


def test_all_that_is_wrong_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = change(FEATURE_SET, "every: 10m", "every: 10")
    text = change(text, "q: 0.95", "q: high")
    text = change(text, "source: flights", "sauce: flights")
    assert [line.split(" ")[0] for line in refusal(tmp_path, text)] == [
        "one.yaml:1:",
        "one.yaml:4:",
        "one.yaml:6:",
        "one.yaml:12:",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "one.yaml:1: is not YAML"),
        ("", "one.yaml: is empty"),
        ("- a", "one.yaml:1: needs to be a mapping"),
        ("name: \t@", "one.yaml:1: is not YAML"),
        ('kind: source\nname: "\\ud800"', "a character that UTF-8 can't hold"),
        ("!!python/object:os.system {}", "kind is missing"),
    ],
)
def test_what_is_no_definition_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    lines = refusal(tmp_path, text)
    assert any(expected in line for line in lines), lines
