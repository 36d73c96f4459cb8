"""The one group-by of a batch: which events, which values, by pane and entity."""

from __future__ import annotations

from typing import Any

import polars as pl

from streams.datapath.batch import OFFSET
from streams.datapath.partials import ENTITY, PANE, Partials
from streams.definitions.exclusions import Exclusion, OffsetRange
from streams.definitions.model import Feature, FeatureSet, Function
from streams.definitions.plan import plan_versions
from tests.small import feature, feature_set, source
from tests.unit.datapath.rig import FIELDS, Click, batch, planned

SUM = Function.SUM


def built(one: FeatureSet, *clicks: Click) -> list[tuple[Any, ...]]:
    """Partials of some events, ordered by pane and entity."""
    partials = Partials(planned(one).bundles, FIELDS)
    selected = partials.select(batch(0, clicks).events)
    frame = partials.build(selected, [PANE, ENTITY])
    return frame.select(PANE, ENTITY, *dict(planned(one).view.columns)).sort(PANE, ENTITY).rows()


def test_events_are_counted_by_pane_and_entity() -> None:
    assert built(
        feature_set(), ("ann", 3, 1), ("bob", 4, 1), ("ann", 9, 1), ("ann", 10, 1), ("", -1, 1)
    ) == [(-10, "", 1), (0, "ann", 2), (0, "bob", 1), (10, "ann", 1)]


def test_what_the_sets_filter_takes_out_leaves_no_row() -> None:
    only_large = feature_set(where="x > 5")
    assert built(only_large, ("ann", 3, 1), ("bob", 4, 6)) == [(0, "bob", 1)]


def test_a_filter_that_says_null_takes_an_event_out() -> None:
    frame = batch(0, [("ann", 3, 1), ("bob", 4, 6)]).events
    frame = frame.with_columns(pl.when(pl.col("who") == "bob").then(pl.col("x")).alias("x"))
    partials = Partials(planned(feature_set(where="x > 5")).bundles, FIELDS)
    assert partials.select(frame)[ENTITY].to_list() == ["bob"]


def test_a_row_stays_where_only_the_features_filter_takes_the_event_out() -> None:
    filtered = feature_set(feature("n", where="x > 5"))
    assert built(filtered, ("ann", 3, 1)) == [(0, "ann", 0)]


def test_a_null_entity_is_left_to_the_caller() -> None:
    partials = Partials(planned(feature_set()).bundles, FIELDS)
    selected = partials.select(batch(5, [(None, 3, 1), ("ann", 4, 1)]).events, extra=[OFFSET])
    assert selected.select(OFFSET, ENTITY).rows() == [(5, None), (6, "ann")]


def test_equal_values_are_computed_once() -> None:
    def values(*features: Feature) -> int:
        partials = Partials(planned(feature_set(*features)).bundles, FIELDS)
        frame = partials.select(batch(0, [("ann", 3, 1)]).events)
        return sum(name.startswith("_v") for name in frame.columns)

    assert values(feature("a", SUM, "x"), feature("b", SUM, "x", 20)) == 1
    assert values(feature("a", SUM, "x"), feature("b", SUM, "x + 1")) == 2
    assert values(feature("a", SUM, "x"), feature("b", SUM, "x", where="x > 1")) == 2
    # A sum gathers 128 bits, a minimum 64; a count looks for null only.
    mixed = (feature("a", SUM, "x"), feature("b", Function.MIN, "x"))
    assert values(*mixed, feature("c", Function.COUNT, "x")) == 3


def test_excluded_events_leave_no_row_and_null_excludes_nothing() -> None:
    exclusions = (
        Exclusion(number=1, where="x > 5"),
        Exclusion(number=2, offsets=(OffsetRange(partition=0, start=2, end=3),)),
        Exclusion(number=3, offsets=(OffsetRange(partition=1, start=0, end=9),)),
    )
    (one,) = plan_versions([feature_set()], source(), FIELDS, exclusions)
    frame = batch(0, [("ann", 1, 6), ("bob", 2, 5), ("cid", 3, 1), ("dan", 4, 1)]).events
    frame = frame.with_columns(pl.when(pl.col("who") != "dan").then(pl.col("x")).alias("x"))
    selected = Partials(one.bundles, FIELDS).select(frame)
    assert selected[ENTITY].to_list() == ["bob", "dan"]
