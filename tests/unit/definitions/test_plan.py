"""From a definition to a bundle and a view: what is shared, and what makes another bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from streams.definitions.exclusions import Exclusion, OffsetRange
from streams.definitions.model import Emit, Feature, FeatureSet, Function, Source
from streams.definitions.plan import Bundle, Plan, formers, needs_rekeying, plan, plan_versions
from streams.errors import InvalidInputError
from streams.schema.types import field_types
from tests.small import feature, feature_set, schema, source

FIELDS = field_types(schema(x="long", y=["null", "double"], place="string"))
SUM, MEAN, COUNT = Function.SUM, Function.MEAN, Function.COUNT


def planned(one: FeatureSet, of: Source | None = None) -> Plan:
    return plan(one, of or source(), FIELDS)


def bundle(one: FeatureSet) -> Bundle:
    """The only bundle of a version that has none before it."""
    (found,) = planned(one).bundles
    return found


def kinds(*features: Feature, **changed: Any) -> list[str]:
    return [str(a.kind) for a in bundle(feature_set(*features, **changed)).accumulators]


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
    assert bundle(changed) == bundle(feature_set())


DIFFERENT_BUNDLES = {
    "filter": feature_set(where="x > 1"),
    "interval": feature_set(feature(window_ms=20), every_ms=20),
    "function": feature_set(feature("n", SUM, "x")),
    "entity": feature_set(entity=("who", "place")),
    "a feature more": feature_set(feature(), feature("total", SUM, "x")),
}


@pytest.mark.parametrize("changed", DIFFERENT_BUNDLES.values(), ids=DIFFERENT_BUNDLES)
def test_whatever_changes_rows_makes_another_bundle(changed: FeatureSet) -> None:
    assert bundle(changed).digest != bundle(feature_set()).digest


def test_a_bundles_digest_is_the_same_for_ever() -> None:
    # It names directories on disk: if this fails, existing state will not be found.
    one = feature_set(feature("total", SUM, "x", where="y > 0"), where="x > 1")
    assert bundle(one).digest == (
        "2565cefbae0434a854a788f9a1802490ab80fd90eb994d3a83ffe3681eb74ee4"
    )


# -- versions of a set ------------------------------------------------------------------------


def versions(*given: FeatureSet) -> list[Plan]:
    numbered = [replace(one, version=f"{n}.0.0") for n, one in enumerate(given, start=1)]
    return list(plan_versions(numbered, source(), FIELDS))


def kept(one: Plan) -> list[list[str]]:
    return [[str(a.kind) for a in bundle.accumulators] for bundle in one.bundles]


def digests(one: Plan) -> set[str]:
    return {bundle.digest for bundle in one.bundles}


def test_the_first_version_is_planned_as_if_it_were_alone() -> None:
    one = feature_set(feature("a", MEAN, "x"))
    assert versions(one, one)[0].bundles == planned(one).bundles


def test_a_version_that_needs_nothing_new_has_no_bundle_of_its_own() -> None:
    first, less, longer = versions(
        feature_set(feature("a", MEAN, "x"), feature("b")),
        feature_set(feature("b")),
        feature_set(feature("c", MEAN, "x", 70)),
    )
    assert less.bundles == longer.bundles == first.bundles
    assert [name.split(".")[0] for name, _ in less.view.columns] == ["count"]


def test_a_version_stores_only_what_none_before_it_does() -> None:
    total, smallest = feature("total", SUM, "x"), feature("low", Function.MIN, "x")
    first, second, third = versions(
        feature_set(feature()),
        feature_set(feature(), total),
        feature_set(feature(), total, smallest),
    )
    assert kept(first) == [["count"]]
    assert sorted(kept(second)) == [["count"], ["sum"]]
    assert sorted(kept(third)) == [["count"], ["min"], ["sum"]]
    assert digests(first) < digests(second) < digests(third)


def test_a_version_leaves_out_bundles_that_it_does_not_need() -> None:
    first, second = versions(feature_set(feature()), feature_set(feature("total", SUM, "x")))
    assert kept(second) == [["sum"]]
    assert not digests(first) & digests(second)


def test_panes_of_an_earlier_version_are_used_where_they_fit() -> None:
    coarser, finer, between = (
        feature_set(feature(window_ms=60), every_ms=every) for every in (30, 5, 20)
    )
    first, *others = versions(feature_set(), coarser, finer, between)
    assert [one.view.pane_ms for one in others] == [10, 5, 10]
    assert [one.bundles == first.bundles for one in others] == [True, False, True]


def test_the_panes_are_those_by_which_most_is_there() -> None:
    #  every 10: a count;  every 15: a sum and a minimum;  every 30 needs all three
    low, total = feature("low", Function.MIN, "x", 60), feature("total", SUM, "x", 60)
    made = versions(
        feature_set(feature(window_ms=60)),
        feature_set(low, total, every_ms=15),
        feature_set(feature(window_ms=60), low, total, every_ms=30),
    )
    assert made[2].view.pane_ms == 15
    assert sorted(kept(made[2])) == [["count"], ["min", "sum"]]


def test_another_filter_shares_nothing() -> None:
    first, other = versions(
        feature_set(), feature_set(feature(window_ms=20), every_ms=20, where="x > 1")
    )
    assert other.view.pane_ms == 20
    assert not digests(first) & digests(other)


def test_all_bundles_of_a_version_have_panes_and_filter_in_common() -> None:
    made = versions(
        feature_set(feature(), where="x > 1"),
        feature_set(feature(), feature("total", SUM, "x"), where="x > 1"),
    )
    assert {(b.pane_ms, b.where) for b in made[1].bundles} == {(10, "x > 1")}


def test_the_order_of_features_does_not_matter() -> None:
    features = (feature("a", SUM, "x"), feature("b", MEAN, "y"), feature("c"))
    one, other = planned(feature_set(*features)), planned(feature_set(*features[::-1]))
    assert one.bundles == other.bundles
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


EXCLUSION = Exclusion(number=3, where="x > 5")
OTHER = Exclusion(number=4, offsets=(OffsetRange(partition=0, start=1, end=9),))


def without(*exclusions: Exclusion, one: FeatureSet | None = None) -> Plan:
    (found,) = plan_versions([one or feature_set()], source(), FIELDS, exclusions)
    return found


def test_an_exclusion_makes_other_accumulators_and_another_name() -> None:
    made = without(EXCLUSION)
    assert made.view.name == "1.0.0~3"
    assert (made.view.version, made.view.digest) == ("1.0.0", planned(feature_set()).view.digest)
    (cleaned,) = made.bundles
    assert cleaned.digest != bundle(feature_set()).digest
    assert {a.name for a in cleaned.accumulators}.isdisjoint(
        a.name for a in bundle(feature_set()).accumulators
    )


def test_what_is_left_out_decides_and_not_its_number() -> None:
    again = replace(EXCLUSION, number=8)
    assert without(EXCLUSION).bundles == without(again).bundles
    digests = {
        one.bundles[0].digest
        for one in (without(), without(EXCLUSION), without(OTHER), without(EXCLUSION, OTHER))
    }
    assert len(digests) == 4
    assert without(EXCLUSION, OTHER).view.name == "1.0.0~4"


def test_versions_that_leave_out_the_same_share() -> None:
    sets = (feature_set(), feature_set(feature(window_ms=600), version="2.0.0"))
    first, second = plan_versions(sets, source(), FIELDS, (EXCLUSION,))
    assert first.bundles == second.bundles


def test_an_exclusion_has_to_fit_the_fields() -> None:
    with pytest.raises(InvalidInputError, match="nowhere"):
        without(Exclusion(number=1, where="nowhere > 1"))


def test_what_a_bundle_was_is_what_is_planned_without_its_exclusions() -> None:
    wheres = [feature(f"f{n}", COUNT, where=f"x > {n}") for n in range(9)]
    versions = (
        feature_set(*wheres[:6], feature("m", MEAN, "y"), where="x < 90"),
        feature_set(*wheres, feature("m", MEAN, "y"), where="x < 90", version="2.0.0"),
    )
    planned = [
        [it for one in plan_versions(versions, source(), FIELDS, left) for it in one.bundles]
        for left in ((), (EXCLUSION,), (EXCLUSION, OTHER))
    ]
    digests = [{it.digest: it for it in found} for found in planned]
    for cleaned in planned[2]:
        once, never = formers(cleaned)
        assert (digests[1][once.digest], digests[0][never.digest]) == (once, never)
        for was in (once, never):
            assert [dtype for _, dtype in was.columns] == [dtype for _, dtype in cleaned.columns]
            assert [(a.expression, a.where) for a in was.accumulators] == [
                (a.expression, a.where) for a in cleaned.accumulators
            ]
    assert formers(planned[0][0]) == ()
