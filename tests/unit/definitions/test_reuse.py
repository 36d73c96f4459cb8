"""What a version shares with live ones, puts together from their panes, or has replayed."""

from __future__ import annotations

from streams.definitions.model import FeatureSet, Function
from streams.definitions.plan import plan_versions
from streams.definitions.reuse import Reuse, Takes, reuse
from streams.schema.types import field_types
from tests.small import feature, feature_set, schema, source

FIELDS = field_types(schema(x="long"))
SUM, MEAN = Function.SUM, Function.MEAN
FIRST = feature_set(feature("n", window_ms=20), feature("total", SUM, "x", 20), retention_ms=5)


def used(*versions: FeatureSet, live: tuple[str, ...] = ("1.0.0",)) -> Reuse:
    """What the last of the versions takes."""
    plans = plan_versions(versions, source(), FIELDS)
    return reuse(plans[-1], plans[:-1], live)


def takes(found: Reuse) -> dict[str, Takes]:
    return {use.feature.name: use.takes for use in found.features}


def why(found: Reuse, name: str) -> str:
    return next(use.why for use in found.features if use.feature.name == name)


def test_the_first_version_has_everything_replayed() -> None:
    found = used(FIRST)
    assert set(takes(found).values()) == {Takes.REPLAY}
    assert [len(bundle.accumulators) for bundle in found.replayed] == [2]
    assert (found.kept_ms, found.kept_before_ms) == (0, 0)
    assert found.takes is Takes.REPLAY


def test_what_a_live_version_stores_is_shared() -> None:
    mean = feature("mean", MEAN, "x")
    found = used(feature_set(feature("a", SUM, "x"), mean), feature_set(mean, version="1.1.0"))
    (use,) = found.features
    assert (use.takes, use.shared_with, use.why) == (Takes.SHARED, ("1.0.0",), "")
    assert all(one.stored_by == ("1.0.0",) for one in use.accumulators)
    assert not found.replayed
    assert found.row_bytes == 0


def test_a_longer_window_comes_from_panes_that_are_kept_longer_then() -> None:
    longer = feature_set(feature("n", window_ms=20), feature("n40", window_ms=40), version="1.1.0")
    found = used(FIRST, longer)
    assert takes(found) == {"n": Takes.SHARED, "n40": Takes.PANES}
    assert why(found, "n40") == "a window of 40ms, and the longest so far is 20ms"
    assert (found.kept_before_ms, found.kept_ms) == (25, 40)
    assert found.takes is Takes.PANES


def test_a_coarser_interval_comes_from_panes_and_a_finer_one_from_a_replay() -> None:
    coarser = feature_set(feature("n", window_ms=40), every_ms=20, version="1.1.0")
    assert takes(used(FIRST, coarser)) == {"n": Takes.PANES}
    assert why(used(FIRST, coarser), "n").startswith(
        "its interval of 20ms is put together from 10ms panes; a window of 40ms"
    )
    finer = feature_set(feature("n", window_ms=20), every_ms=5, version="1.1.0")
    found = used(FIRST, finer)
    assert takes(found) == {"n": Takes.REPLAY}
    assert why(found, "n").endswith("an interval of 5ms is no multiple of 10ms panes")


def test_a_feature_that_lacks_one_accumulator_is_replayed_for_it() -> None:
    found = used(FIRST, feature_set(feature("mean", MEAN, "x", 20), version="1.1.0"))
    (use,) = found.features
    assert use.takes is Takes.REPLAY
    assert use.why == "no live version stores its count"
    assert {str(one.accumulator.kind): one.stored_by for one in use.accumulators} == {
        "sum": ("1.0.0",),
        "count": (),
    }
    assert found.row_bytes > 0


def test_what_only_versions_store_that_are_not_live_is_replayed() -> None:
    second = feature_set(
        feature("n", window_ms=20), feature("top", Function.MAX, "x"), version="2.0.0"
    )
    third = feature_set(feature("top", Function.MAX, "x"), version="3.0.0")
    assert takes(used(FIRST, second, third)) == {"top": Takes.REPLAY}
    assert takes(used(FIRST, second, third, live=("1.0.0", "2.0.0"))) == {"top": Takes.SHARED}


def test_a_version_does_not_share_with_itself() -> None:
    """It may be live already when that is asked: right after it was published."""
    assert takes(used(FIRST, live=("1.0.0",))) == {"n": Takes.REPLAY, "total": Takes.REPLAY}
