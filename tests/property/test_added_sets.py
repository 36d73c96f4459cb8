"""A set that is added to a running stream says what it would have said had it always been there,
from the first as-of time after it was added; sets that were there before notice nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.definitions.model import FeatureSet, Function
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click, Rig

CLICKS = st.tuples(st.sampled_from("ab"), st.integers(0, 120), st.integers(0, 3))


@st.composite
def pairs_of_sets(draw: st.DrawFn) -> tuple[FeatureSet, FeatureSet]:
    """Two sets of the same source, whose bundles differ."""
    lateness = st.sampled_from((0, 7, 25))
    old = feature_set(
        feature(window_ms=draw(st.sampled_from((10, 30)))),
        name="old",
        allowed_lateness_ms=draw(lateness),
        retention_ms=draw(st.sampled_from((0, 40))),
    )
    new = feature_set(
        feature("total", Function.SUM, "x", draw(st.sampled_from((20, 60)))),
        name="new",
        every_ms=draw(st.sampled_from((5, 20))),
        allowed_lateness_ms=draw(lateness),
    )
    return old, new


@settings(max_examples=50, deadline=None)
@given(pairs_of_sets(), st.lists(CLICKS, min_size=2, max_size=40), st.data())
def test_a_set_added_later_catches_up(
    sets: tuple[FeatureSet, FeatureSet], clicks: list[Click], data: st.DataObject
) -> None:
    old, new = sets
    added_at = data.draw(st.integers(1, len(clicks) - 1))
    always = Rig(old, new)
    rig = Rig(old, pairs_per_step=data.draw(st.sampled_from((2, 400_000))))
    begins_after: int | None = None
    for number, click in enumerate(clicks):
        if number == added_at:
            rig.crash(old, new)
            begins_after = next(
                path.closed_ms for path in rig.pipeline.paths if path.view.feature_set == "new"
            )
        rig.take(click)
        always.take(click)
        match data.draw(st.sampled_from(("go on", "flush", "crash", "idle"))):
            case "flush":
                rig.pipeline.flush()
            case "crash":
                rig.crash()
            case "idle" if number >= added_at:
                # Before that, what idleness closes for nobody is forgotten by a crash.
                watermark_ms = data.draw(st.integers(0, 150))
                always.idle(watermark_ms)
                rig.idle(watermark_ms, crash_after=data.draw(st.sampled_from((None, 1))))
                rig.crash()
    assert begins_after is not None
    assert sorted(rig.of("old")) == sorted(always.of("old"))
    expected = [one for one in always.of("new") if one[1] > begins_after]
    assert sorted(rig.of("new")) == sorted(expected)
