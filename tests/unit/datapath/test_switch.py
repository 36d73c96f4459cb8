"""Another version serves: at the fence, after it, and when a crash comes between.

Version 1 counts events of 10 ms. Drawings: one column is 10 ms of event time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from streams.datapath import feature_set as feature_set_module
from streams.datapath.batch import Marker
from streams.datapath.bundle_state import BundleState
from streams.datapath.closing import Windows
from streams.datapath.entity_runs import Range, Run, entity_runs
from streams.datapath.live_view import LiveView
from streams.datapath.progress import Closed
from streams.datapath.step import Fenced
from streams.definitions.model import Emit, FeatureSet, Function
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from tests.small import feature, feature_set
from tests.unit.datapath.rig import FIELDS, Click, Rig, batch, plans_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANY: list[Click] = [(f"e{n:02}", 1, n) for n in range(20)]


def version(number: int, *features: Any, **changed: Any) -> FeatureSet:
    return feature_set(*features, name="a", version=f"{number}.0.0", **changed)


V1 = version(1)
TOTAL = feature("total", Function.SUM, "x")
V2 = version(2, feature(), TOTAL)


def spoken(rig: Rig) -> list[tuple[Any, ...]]:
    return [(at, who, kind, *values) for _, at, who, kind, values in rig.vectors]


# -- the fence --------------------------------------------------------------------------------


def test_the_fence_commits_the_epoch_with_its_ack_and_says_nothing() -> None:
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    before = len(rig.steps)
    rig.switch("a", "2.0.0")
    (step,) = rig.steps[before:]
    assert step.acks == (
        Fenced(feature_set="a", version="2.0.0", epoch=1, offset=2, closed_through_ms=10),
    )
    assert (step.position, step.vectors, step.late, step.dead) == (2, {}, (), ())
    assert rig.progress.epochs == {"a": 1}
    assert rig.progress.control_offset == 1
    # Nothing has been closed by the new version yet.
    assert rig.progress.closed == {"a": Closed(through_ms=10, version="1.0.0")}


def test_from_the_fence_on_the_new_version_speaks_over_windows_that_are_whole() -> None:
    #     0         10        20
    #     |-ann-----|-ann   fence
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.switch("a", "2.0.0")
    rig.take(("ann", 17, 4), ("ann", 25, 8))
    assert spoken(rig) == [(10, "ann", "final", 1), (20, "ann", "final", 2, 6)]


def test_an_epoch_that_holds_changes_nothing() -> None:
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1))
    rig.switch("a", "2.0.0", epoch=4)
    before = len(rig.steps)
    rig.switch("a", "1.0.0", epoch=4)
    rig.switch("a", "1.0.0", epoch=3)
    assert len(rig.steps) == before
    assert [path.view.version for path in rig.pipeline.paths] == ["2.0.0"]


def test_an_epoch_of_the_version_that_serves_is_fenced_too() -> None:
    rig = Rig(V1, V2)
    rig.switch("a", "1.0.0", epoch=2)
    assert [(one.epoch, one.version, one.closed_through_ms) for one in rig.acks] == [
        (2, "1.0.0", None)
    ]


def test_only_a_version_that_follows_can_be_switched_to() -> None:
    rig = Rig(V1, V2)
    with pytest.raises(LookupError, match=r"a@3\.0\.0 does not follow"):
        rig.switch("a", "3.0.0")
    with pytest.raises(LookupError, match="no version of b serves"):
        rig.switch("b", "1.0.0")


def test_there_is_no_fence_while_a_closing_is_pending() -> None:
    rig = Rig(V1, V2, pairs_per_step=6)
    rig.take(*MANY)
    rig.take(("ann", 1000, 1), crash_after=1)
    rig.open()
    with pytest.raises(ValueError, match="while a closing is pending"):
        rig.switch("a", "2.0.0")


def test_other_sets_notice_nothing() -> None:
    other = feature_set(name="b")
    rig, quiet = Rig(V1, V2, other), Rig(V1, V2, other)
    rig.take(("ann", 3, 1))
    rig.switch("a", "2.0.0")
    rig.take(("ann", 14, 1), ("ann", 25, 1))
    quiet.take(("ann", 3, 1), ("ann", 14, 1), ("ann", 25, 1))
    assert rig.of("b") == quiet.of("b")
    assert [one.feature_set for one in rig.acks] == ["a"]


# -- what is closed ---------------------------------------------------------------------------


def test_a_less_patient_version_closes_at_the_fence_what_it_does_not_wait_for() -> None:
    #     0         10        20        30        35
    #     |-ann-----|-bob-----|---------|--x      v1 waits for 30 ms, v2 for none
    rig = Rig(version(1, allowed_lateness_ms=30), V2)
    rig.take(("ann", 3, 1), ("bob", 14, 2), ("cid", 35, 3))
    assert rig.vectors == []
    rig.switch("a", "2.0.0")
    assert spoken(rig) == [
        *((10, "ann", "final", 1, 1), (20, "ann", "empty", 0, None)),
        *((20, "bob", "final", 1, 2), (30, "bob", "empty", 0, None)),
    ]
    assert rig.progress.closed["a"] == Closed(through_ms=30, version="2.0.0")


def test_a_more_patient_version_closes_nothing_twice() -> None:
    rig = Rig(V1, version(2, feature(), TOTAL, allowed_lateness_ms=20))
    rig.take(("ann", 3, 1), ("ann", 14, 1), ("ann", 25, 1))
    assert [at for at, *_ in spoken(rig)] == [10, 20]
    rig.switch("a", "2.0.0")
    rig.take(("ann", 45, 1))
    assert [at for at, *_ in spoken(rig)] == [10, 20]
    rig.take(("ann", 55, 1))
    assert [at for at, *_ in spoken(rig)] == [10, 20, 30]


def test_as_of_times_are_those_of_the_version_that_serves() -> None:
    #     every 10, then every 30 from 47 on, then every 10 again from 95 on
    coarse = version(2, feature(window_ms=30), every_ms=30)
    rig = Rig(V1, coarse)
    rig.take(*(("ann", at, 1) for at in range(3, 48, 10)))
    rig.switch("a", "2.0.0")
    rig.take(*(("ann", at, 1) for at in range(53, 98, 10)))
    rig.switch("a", "1.0.0")
    rig.take(("ann", 103, 1), ("ann", 113, 1))
    assert [(at, n) for at, _, _, n in spoken(rig)] == [
        *((10, 1), (20, 1), (30, 1), (40, 1)),
        *((60, 3), (90, 3)),
        *((100, 1), (110, 1)),
    ]
    assert rig.late == []


def test_lateness_is_judged_by_the_version_that_serves() -> None:
    wide = version(2, feature(window_ms=40), allowed_lateness_ms=10)
    rig = Rig(V1, wide)
    rig.take(("ann", 35, 1), ("late for v1", 25, 1))
    rig.switch("a", "2.0.0")
    rig.take(("in time for v2", 25, 1))
    rig.switch("a", "1.0.0")
    rig.take(("late for v1", 25, 1))
    assert [one.offset for one in rig.late] == [1, 3]


def test_updates_go_on_with_the_new_versions_windows() -> None:
    rig = Rig(V1, version(2, feature(window_ms=20), emit=Emit.UPDATES))
    rig.take(("ann", 3, 1))
    rig.switch("a", "2.0.0")
    rig.take(("ann", 14, 1))
    assert spoken(rig) == [(10, "ann", "final", 1), (20, "ann", "update", 2)]


# -- who has left -----------------------------------------------------------------------------


def test_who_had_a_vector_and_has_no_event_gets_one_empty() -> None:
    #     0         10        20        30
    #     |-ann-bob-|-bob-----|-cid
    narrow, wide = V2, version(1, feature(window_ms=30))
    rig = Rig(wide, narrow)
    rig.take(("ann", 3, 1), ("bob", 4, 1), ("bob", 14, 1), ("cid", 25, 1))
    rig.vectors.clear()
    rig.switch("a", "2.0.0")
    assert rig.pipeline.predecessors == {("a", "1.0.0")}
    rig.take(("cid", 31, 1))
    # As of 20 version 1 had ann and bob; as of 30 version 2 has cid alone.
    assert spoken(rig) == [
        (30, "ann", "empty", 0, None),
        (30, "bob", "empty", 0, None),
        (30, "cid", "final", 1, 1),
    ]
    assert rig.pipeline.predecessors == set()


def test_who_had_no_vector_gets_no_empty_whatever_the_new_versions_windows() -> None:
    # As of 20, 40 ms before 60, nobody but ann had an event; version 1 had told her end at 20.
    rig = Rig(V1, version(2, feature(window_ms=40)))
    rig.take(("ann", 3, 1), ("bob", 52, 1))
    rig.switch("a", "2.0.0")
    rig.vectors.clear()
    rig.take(("bob", 61, 1))
    assert spoken(rig) == [(60, "bob", "final", 1)]


def test_another_filter_leaves_out_entities() -> None:
    rig = Rig(V1, version(2, where="x > 5"))
    rig.take(("ann", 3, 1), ("bob", 4, 9), ("bob", 12, 9), ("ann", 13, 9))
    rig.switch("a", "2.0.0")
    rig.vectors.clear()
    rig.take(("bob", 25, 9), ("bob", 35, 1))
    assert spoken(rig) == [
        (20, "ann", "final", 1),
        (20, "bob", "final", 1),
        (30, "ann", "empty", 0),
        (30, "bob", "final", 1),
    ]


def test_what_came_late_by_the_last_vectors_is_known_for_the_first_ones() -> None:
    # ann's event came after version 1 had closed 10, and before version 2 closes 20.
    rig = Rig(V1, V2)
    rig.take(("bob", 11, 1))
    rig.switch("a", "2.0.0")
    rig.take(("ann", 5, 1), ("bob", 21, 1), ("cid", 6, 1))
    assert spoken(rig) == [(20, "ann", "empty", 0, None), (20, "bob", "final", 1, 1)]


def test_there_and_back_before_anything_closed_is_as_if_nothing_was() -> None:
    wide = version(2, feature(window_ms=30), where="x > 0")
    rig, stayed = Rig(V1, wide), Rig(V1, wide)
    for one in (rig, stayed):
        one.take(("ann", 3, 1), ("bob", 14, 1))
        if one is rig:
            one.switch("a", "2.0.0")
            one.switch("a", "1.0.0")
            assert one.pipeline.predecessors == set()
        one.take(("bob", 35, 1))
    assert spoken(rig) == spoken(stayed)


def test_a_version_that_closed_nothing_is_no_predecessor() -> None:
    # From 1 over 2 to 3: as of 10 it was version 1 that spoke, of ann.
    rig = Rig(V1, version(2, where="x > 5"), version(3, where="x < 5"))
    rig.take(("ann", 3, 9), ("bob", 14, 1))
    rig.switch("a", "2.0.0")
    rig.switch("a", "3.0.0")
    assert rig.pipeline.predecessors == {("a", "1.0.0")}
    rig.pipeline.leave("a", "2.0.0")
    rig.vectors.clear()
    rig.take(("bob", 25, 1))
    assert spoken(rig) == [(20, "ann", "empty", 0), (20, "bob", "final", 1)]


def test_silence_holds_for_a_version_that_takes_over() -> None:
    #     both source partitions were silent at 14: version 1 closed up to 20; 30 is version 2's
    rig = Rig(V1, version(2, feature(window_ms=30), every_ms=30), sources=2)
    said = [Marker(offset=-1, source_partition=p, watermark_ms=14, silent=True) for p in (0, 1)]
    rig.take(("ann", 14, 1), *said)
    assert rig.progress.closed["a"] == Closed(through_ms=20, version="1.0.0")
    rig.switch("a", "2.0.0")
    assert rig.progress.closed["a"] == Closed(through_ms=30, version="2.0.0")
    assert spoken(rig) == [(20, "ann", "final", 1), (30, "ann", "final", 1)]


# -- crashes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("pairs_per_step", [1, 3, 50])
@pytest.mark.parametrize("lateness_ms", [0, 30])
def test_a_crash_after_any_step_loses_and_doubles_nothing(
    pairs_per_step: int, flushed: bool, lateness_ms: int
) -> None:
    # Version 1 has twenty entities, version 2 another ten: of the union every third one is left.
    old = version(1, feature(window_ms=20), allowed_lateness_ms=lateness_ms)
    new = version(2, feature(), TOTAL, where="x > 9")
    rest: list[Click] = [("e15", 12, 20), ("f", 22, 20), ("f", 47, 20)]
    whole = Rig(old, new)
    whole.take(*MANY, ("f", 11, 20))
    whole.switch("a", "2.0.0")
    whole.take(*rest)
    crashed = Rig(old, new, pairs_per_step=pairs_per_step)
    crashed.take(*MANY, ("f", 11, 20))
    if flushed:
        crashed.pipeline.flush()
    crashed.switch("a", "2.0.0", crash_after=1)
    crashed.log.extend(rest)
    for _ in range(500):
        crashed.open()
        before = len(crashed.steps)
        crashed.run(crashed.pipeline.resume(), 1)
        if len(crashed.steps) == before:
            if crashed.position == len(crashed.log):
                break
            crashed.take_rest(crash_after=1)
    assert sorted(crashed.vectors) == sorted(whole.vectors)
    assert any(step.progress.cursor is not None for step in crashed.steps) is (pairs_per_step < 50)


def test_the_version_of_a_pending_closing_has_to_be_the_one_that_serves() -> None:
    rig = Rig(V1, V2, pairs_per_step=6)
    rig.take(*MANY)
    rig.take(("ann", 1000, 1), crash_after=1)
    rig.serving["a"] = "2.0.0"
    rig.open()
    with pytest.raises(ValueError, match=r"a@1\.0\.0 has a closing to finish"):
        rig.run(rig.pipeline.resume())


@pytest.mark.parametrize("flushed", [False, True])
def test_taking_over_never_holds_more_rows_than_the_limit(
    flushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20 panes of 100 entities: version 1 reads one bundle of them, version 2 two.
    limit = 300
    given: list[int] = []
    held: list[int] = []
    values = Windows.values

    def watched(self: Windows, pairs: pl.LazyFrame, kind: str) -> pl.LazyFrame:
        given.append(pairs.collect().height)
        return values(self, pairs, kind)

    def counted(ranges: Sequence[Range], limit: int) -> Iterator[Run]:
        for run in entity_runs(ranges, limit):
            held.append(sum(frame.height for frame in run.frames))
            yield run

    monkeypatch.setattr(Windows, "values", watched)
    monkeypatch.setattr(feature_set_module, "entity_runs", counted)
    old = version(1, feature(window_ms=200))
    new = version(2, feature(window_ms=190), TOTAL)
    whole, cut = Rig(old, new), Rig(old, new, pairs_per_step=limit)
    for rig in (whole, cut):
        for pane in range(0, 200, 10):
            rig.take(*((f"e{n:03}", pane, n) for n in range(100)))
        if flushed:
            rig.pipeline.flush()
        rig.vectors.clear()
        rig.switch("a", "2.0.0")
        given.clear()
        held.clear()
        rig.take(("x", 202, 1), ("x", 212, 1))
    assert max(given) <= limit
    assert max(held) <= limit
    assert cut.vectors == whole.vectors
    assert len([one for one in whole.vectors if one[1] == 200]) == 100


# -- a crash between what a record closes and the record ------------------------------------------


def test_what_a_record_closes_belongs_to_the_version_before_the_fence() -> None:
    #  T=10 closes at the third record, an entity at a time. The process ends when that is done
    #  and the record itself is not: a fence here would come between the two.
    rig = Rig(V1, V2, pairs_per_step=1)
    rig.take(("ann", 3, 1), ("bob", 4, 2))
    rig.take(("ann", 14, 1), crash_after=2)
    rig.crash()
    assert spoken(rig) == [(10, "ann", "final", 1), (10, "bob", "final", 1)]
    assert rig.progress.owing
    with pytest.raises(ValueError, match="while a closing is pending"):
        rig.switch("a", "2.0.0")
    rig.take_rest()
    assert not rig.progress.owing
    rig.switch("a", "2.0.0")
    assert rig.acks[-1].offset == 3


def test_the_first_definitions_offset_of_a_claim_is_no_lower_than_what_is_committed() -> None:
    rig = Rig(V1)
    rig.pipeline.begin(7)
    rig.pipeline.begin(3)
    assert rig.pipeline.progress.definitions_offset == 7


def test_a_set_that_was_adopted_is_corrected_only_where_it_has_spoken() -> None:
    """Its state goes back further than what it has said."""
    first = feature_set(feature("n", where="x > 0"), name="b", retention_ms=100)
    second = feature_set(
        feature("n", where="x > 0"),
        feature("k", Function.SUM, "x"),
        name="b",
        version="1.1.0",
        retention_ms=100,
    )
    rig = Rig(feature_set(feature("n"), name="a"))
    rig.take(("ann", 5, 1), ("ann", 15, 1), ("ann", 25, 1), ("ann", 35, 1))
    plans = plans_of((first, second))
    states = {
        bundle.digest: BundleState(bundle, FIELDS, MemoryStore(RowLayout(bundle.columns)))
        for plan in plans
        for bundle in plan.bundles
    }
    for state in states.values():
        state.take(batch(0, rig.log))
    for plan in plans:
        rig.pipeline.follow(LiveView.of(plan, states, FIELDS))
    rig.pipeline.adopt("b", "1.0.0", definitions_offset=3)
    rig.sets = (*rig.sets, first, second)
    rig.take(("ann", 45, 1), ("ann", 55, 1))
    assert [(at, kind) for _, at, _, kind, _ in rig.of("b")] == [(40, "final"), (50, "final")]
    rig.switch("b", "1.1.0", corrects="1.0.0")
    corrected = [at for _, at, _, kind, _ in rig.of("b") if kind == "correction"]
    assert corrected == [40, 50]
