"""From a definition to a bundle and a view: what is shared, and what makes another bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from streams.definitions.model import Emit, Feature, FeatureSet, Function, Source
from streams.definitions.plan import Plan, needs_rekeying, plan
from streams.errors import InvalidInputError
from streams.schema.types import field_types
from tests.small import feature, feature_set, schema, source

FIELDS = field_types(schema(x="long", y=["null", "double"], place="string"))
SUM, MEAN, COUNT = Function.SUM, Function.MEAN, Function.COUNT


def planned(one: FeatureSet, of: Source | None = None) -> Plan:
    return plan(one, of or source(), FIELDS)


def kinds(*features: Feature, **changed: Any) -> list[str]:
    return [str(a.kind) for a in planned(feature_set(*features, **changed)).bundle.accumulators]


def test_features_share_the_accumulators_they_have_in_common() -> None:
    assert kinds(feature("a", SUM, "x"), feature("b", MEAN, "x"), feature("c", COUNT, "x")) == [
        "count",
        "sum",
    ]
    assert kinds(feature("a", SUM, "x"), feature("b", SUM, "x", 60)) == ["sum"]


def test_another_filter_or_expression_is_another_accumulator() -> None:
    assert kinds(feature("a", SUM, "x"), feature("b", SUM, "x", where="y > 0")) == ["sum"] * 2
    assert kinds(feature("a", SUM, "x"), feature("b", SUM, "x + 1")) == ["sum"] * 2


DIFFERENT_VIEWS = {
    "name": feature_set(name="other"),
    "version": feature_set(version="2.0.0"),
    "window": feature_set(feature(window_ms=600)),
    "feature name": feature_set(feature("other")),
    "lateness": feature_set(allowed_lateness_ms=5),
    "retention": feature_set(retention_ms=5),
    "emit": feature_set(emit=Emit.UPDATES),
    "description": feature_set(description="Counted.", owner="us"),
}


@pytest.mark.parametrize("changed", DIFFERENT_VIEWS.values(), ids=DIFFERENT_VIEWS)
def test_versions_that_store_the_same_share_a_bundle(changed: FeatureSet) -> None:
    assert planned(changed).bundle == planned(feature_set()).bundle


DIFFERENT_BUNDLES = {
    "filter": feature_set(where="x > 1"),
    "interval": feature_set(feature(window_ms=20), every_ms=20),
    "function": feature_set(feature("n", SUM, "x")),
    "entity": feature_set(entity=("who", "place")),
    "a feature more": feature_set(feature(), feature("total", SUM, "x")),
}


@pytest.mark.parametrize("changed", DIFFERENT_BUNDLES.values(), ids=DIFFERENT_BUNDLES)
def test_whatever_changes_rows_makes_another_bundle(changed: FeatureSet) -> None:
    assert planned(changed).bundle.digest != planned(feature_set()).bundle.digest


def test_a_bundles_digest_is_the_same_for_ever() -> None:
    # It names directories on disk: if this fails, existing state will not be found.
    one = feature_set(feature("total", SUM, "x", where="y > 0"), where="x > 1")
    assert planned(one).bundle.digest == (
        "2565cefbae0434a854a788f9a1802490ab80fd90eb994d3a83ffe3681eb74ee4"
    )


def test_the_order_of_features_does_not_matter() -> None:
    features = (feature("a", SUM, "x"), feature("b", MEAN, "y"), feature("c"))
    one, other = planned(feature_set(*features)), planned(feature_set(*features[::-1]))
    assert one.bundle == other.bundle
    assert [f.name for f in other.view.features] == ["a", "b", "c"]


def test_output_types_follow_the_function_and_its_input() -> None:
    view = planned(
        feature_set(
            feature("a", SUM, "x"),
            feature("b", SUM, "y"),
            feature("c", MEAN, "x"),
            feature("d", Function.LAST, "place"),
            feature("e", Function.TOP_K, "place", k=3),
        )
    ).view
    assert [f.dtype for f in view.features] == [
        pl.Int64(),
        pl.Float64(),
        pl.Float64(),
        pl.String(),
        pl.List(pl.Struct({"value": pl.String(), "count": pl.Int64()})),
    ]


@pytest.mark.parametrize(
    ("key", "entity", "expected"),
    [
        (("who",), ("who",), False),
        (("who",), ("who", "place"), False),
        (("who", "place"), ("place", "who"), False),
        (("who", "place"), ("who",), True),
        (("who",), ("place",), True),
        ((), ("who",), True),
    ],
)
def test_rekeying_is_needed_where_the_key_does_not_tell_the_entity(
    key: tuple[str, ...], entity: tuple[str, ...], expected: bool
) -> None:
    assert needs_rekeying(source(key=key), entity) is expected


def test_a_rekeyed_stream_is_named_after_source_and_entity() -> None:
    keyed, rekeyed = feature_set(), feature_set(entity=("place", "who"))
    assert (planned(keyed).stream, planned(keyed).rekeyed) == ("clicks", False)
    apart = planned(rekeyed, source(key=("x",)))
    assert (apart.stream, apart.rekeyed) == ("clicks.by.place.who", True)


def test_an_expression_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nope"):
        planned(feature_set(feature("a", SUM, "nope")))
    with pytest.raises(InvalidInputError):
        planned(replace(feature_set(), where="x + 1"))
