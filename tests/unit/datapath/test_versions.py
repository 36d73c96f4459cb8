"""Live versions that do not serve: they are fed, keep what they need, come and go."""

from __future__ import annotations

import pytest

from streams.datapath.bundle_state import BundleState
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.datapath.progress import Progress
from streams.definitions.model import Function
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from streams.windowing.watermark import Watermark
from tests.small import feature
from tests.unit.datapath.rig import FIELDS, Click, Rig, batch, plans_of
from tests.unit.datapath.test_switch import V1, V2, spoken, version


def test_followers_are_fed_once_and_flushed_and_skip_markers() -> None:
    rig = Rig(V1, V2, version(3, feature("total", Function.SUM, "x", 60)))
    rig.run(rig.pipeline.steps(batch(0, [("ann", 3, 5), (None, 4, 1)], next_offset=4)))
    rig.pipeline.skip_to(6)
    assert len(rig.pipeline.bundles) == 2
    assert [one.next_offset for one in rig.pipeline.bundles] == [6, 6]
    assert rig.pipeline.unflushed_rows == 2
    assert rig.pipeline.flush() == 2
    assert rig.pipeline.unflushed_rows == 0


def test_a_bundle_keeps_what_any_live_version_needs() -> None:
    patient = version(2, feature(window_ms=40), retention_ms=20)
    clicks = [("ann", at, 1) for at in range(3, 203, 10)]
    alone, both = Rig(V1), Rig(V1, patient)
    for rig in (alone, both):
        rig.take(*clicks)
        rig.pipeline.flush()
    lowest = [
        next(iter(rig.stores.values())).scan(0, 1_000)["@pane"].min() for rig in (alone, both)
    ]
    assert lowest == [180, 130]  # C is 190: less 10, and less 40 and 20


def test_a_version_may_begin_to_follow_once_its_bundles_are_at_the_position() -> None:
    rig, later = Rig(V1), Rig(V1, V2)
    for one in (rig, later):
        one.take(("ann", 3, 1), ("ann", 14, 2))
    new = later.pipeline.followers[0]
    with pytest.raises(ValueError, match="in another state"):
        rig.pipeline.follow(new)
    (gone,) = later.pipeline.leave("a", "2.0.0")
    assert [str(a.kind) for a in gone.bundle.accumulators] == ["sum"]
    later.pipeline.follow(new)
    later.switch("a", "2.0.0")
    later.take(("ann", 25, 8))
    assert spoken(later)[-1] == (20, "ann", "final", 1, 2)


def test_bundles_that_are_behind_can_not_follow() -> None:
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1))
    new = rig.pipeline.followers[0]
    rig.pipeline.leave("a", "2.0.0")
    rig.take(("ann", 4, 1))
    with pytest.raises(ValueError, match="is at 1, not at 2"):
        rig.pipeline.follow(new)


def test_a_version_is_brought_to_the_stream_by_itself() -> None:
    # Where no version serves a replay feeds the followers, and a flush leaves out nothing.
    rig = Rig(V1)
    clicks: list[Click] = [("ann", at, 1) for at in range(3, 103, 10)]
    rig.take(*clicks)
    (known,) = rig.pipeline.bundles
    plan = plans_of((V1, V2))[1]
    (missing,) = [one for one in plan.bundles if one.digest != known.bundle.digest]
    new = BundleState(missing, FIELDS, MemoryStore(RowLayout(missing.columns)))
    warming = Pipeline(
        (),
        followers=[LiveView(plan.view, [new], FIELDS)],
        watermark=Watermark(),
        position=0,
        progress=Progress(),
    )
    warming.replay(batch(0, clicks[:6]))
    assert warming.flush() == 6
    warming.replay(batch(6, clicks[6:]))
    states = {state.bundle.digest: state for state in (known, new)}
    rig.pipeline.follow(LiveView.of(plan, states, FIELDS))
    rig.switch("a", "2.0.0")
    rig.take(("ann", 111, 7))
    assert spoken(rig)[-2:] == [(100, "ann", "final", 1, 1), (110, "ann", "empty", 0, None)]


def test_a_predecessor_can_not_leave() -> None:
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.switch("a", "2.0.0")
    with pytest.raises(ValueError, match="by the one that has taken over"):
        rig.pipeline.leave("a", "1.0.0")
    rig.take(("ann", 25, 8))
    assert rig.pipeline.leave("a", "1.0.0") == []
    assert rig.pipeline.followers == ()


def test_who_closed_last_has_to_be_there_after_a_crash() -> None:
    rig = Rig(V1, V2, version(3))
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.switch("a", "2.0.0")
    rig.sets = (V2,)
    with pytest.raises(LookupError, match=r"a@1\.0\.0 does not follow"):
        rig.open()


def test_control_offsets_only_grow() -> None:
    rig = Rig(V1, V2, progress=Progress(control_offset=3))
    rig.pipeline.heard(2)
    assert rig.pipeline.progress.control_offset == 3
    rig.pipeline.heard(8)
    rig.take(("ann", 3, 1))
    assert rig.progress.control_offset == 8
