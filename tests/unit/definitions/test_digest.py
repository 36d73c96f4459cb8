"""Canonical JSON round trips and digests cover what changes values, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.definitions.digest import canonical_json, digest, from_canonical
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

SOURCE = Source(
    name="flights",
    topic="flights",
    schema="flights-value",
    event_time=EventTime(field="at"),
    key=("origin",),
)
FEATURE = Feature(name="n", function=Function.COUNT, expression=None, window_ms=60_000)
FEATURE_SET = FeatureSet(
    name="departures",
    version="1.0.0",
    source="flights",
    entity=("origin",),
    every_ms=60_000,
    features=(FEATURE,),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.integers(0, 2**53)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
sources = st.builds(
    Source,
    name=names,
    topic=texts,
    schema=texts,
    event_time=st.builds(EventTime, field=texts, unit=st.sampled_from(TimeUnit)),
    key=st.lists(texts, max_size=3).map(tuple),
    start=st.sampled_from(StartAt) | st.integers(-(2**53), 2**53),
    max_ahead_ms=times,
    idle_after_ms=times,
    close_after_ms=st.none() | times,
)
features = st.builds(
    Feature,
    name=names,
    function=st.sampled_from(Function),
    expression=st.none() | texts,
    window_ms=times,
    where=st.none() | texts,
    q=st.none() | st.floats(0, 1),
    k=st.none() | st.integers(1, 10_000),
)
feature_sets = st.builds(
    FeatureSet,
    name=names,
    version=texts,
    source=names,
    entity=st.lists(texts, max_size=3).map(tuple),
    every_ms=times,
    features=st.lists(features, max_size=4, unique_by=lambda f: f.name).map(
        lambda found: tuple(sorted(found, key=lambda feature: feature.name))
    ),
    allowed_lateness_ms=times,
    retention_ms=times,
    emit=st.sampled_from(Emit),
    where=st.none() | texts,
    description=texts,
    owner=texts,
)


@given(sources | feature_sets)
def test_canonical_json_round_trips(definition: Source | FeatureSet) -> None:
    data = canonical_json(definition)
    assert from_canonical(data) == definition
    assert canonical_json(from_canonical(data)) == data


@given(feature_sets)
def test_the_order_of_features_does_not_matter(feature_set: FeatureSet) -> None:
    turned = replace(feature_set, features=feature_set.features[::-1])
    assert canonical_json(turned) == canonical_json(feature_set)
    assert digest(turned, SOURCE) == digest(feature_set, SOURCE)


def test_canonical_json_is_compact_sorted_utf8() -> None:
    data = canonical_json(replace(FEATURE_SET, description="größer"))
    assert "größer".encode() in data
    assert b" " not in data.replace(b'"', b"")
    text = data.decode()
    assert text == json.dumps(
        json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert json.loads(data)["format"] == 1


def test_equal_ranks_have_one_form() -> None:
    whole = replace(FEATURE, function=Function.QUANTILE, expression="x", q=1)
    point = replace(whole, q=1.0)
    assert canonical_json(replace(FEATURE_SET, features=(whole,))) == canonical_json(
        replace(FEATURE_SET, features=(point,))
    )


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"format":2}', b'{"format":1,"kind":"x"}', b"\xff", b"null",
             b'{"format":1,"kind":"source"}', b'{"format":1}']
)  # fmt: skip
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no canonical definition"):
        from_canonical(data)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.0.1"},
        {"entity": ("origin", "carrier")},
        {"every_ms": 30_000},
        {"features": (replace(FEATURE, window_ms=120_000),)},
        {"features": (replace(FEATURE, where="a > 1"),)},
        {"allowed_lateness_ms": 1},
        {"emit": Emit.UPDATES},
        {"where": "a > 1"},
    ],
)
def test_the_digest_covers_what_changes_values(change: dict[str, object]) -> None:
    assert digest(replace(FEATURE_SET, **change), SOURCE) != digest(FEATURE_SET, SOURCE)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "other"},
        {"schema": "other"},
        {"event_time": EventTime(field="at", unit=TimeUnit.S)},
        {"key": ()},
        {"max_ahead_ms": 1},
    ],
)
def test_the_digest_covers_the_fixed_part_of_the_source(change: dict[str, object]) -> None:
    assert digest(FEATURE_SET, replace(SOURCE, **change)) != digest(FEATURE_SET, SOURCE)  # type: ignore[arg-type]  # fields by name


def test_the_digest_leaves_out_what_changes_no_value() -> None:
    told = replace(FEATURE_SET, description="more", owner="somebody")
    moved = replace(SOURCE, start=StartAt.LATEST, idle_after_ms=1, close_after_ms=1)
    assert digest(told, moved) == digest(FEATURE_SET, SOURCE)


def test_the_digest_stays_what_it_was() -> None:
    """Stored digests name state on disk and records in topics."""
    assert digest(FEATURE_SET, SOURCE) == (
        "b8a19925962d202d4102c60e4833353fa013cfd5214d439e14a2e3820e0b9936"
    )
