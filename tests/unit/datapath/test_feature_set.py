"""One set over its bundle: what a batch means to it, and how much it closes at once."""

from __future__ import annotations

import polars as pl

from streams.datapath.bundle_state import BundleState
from streams.datapath.closing import CLOSED
from streams.datapath.feature_set import ARRIVAL, Prepared, SetPath
from streams.datapath.live_view import LiveView
from streams.datapath.partials import ENTITY, PANE
from streams.definitions.model import FeatureSet
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from tests.small import feature, feature_set
from tests.unit.datapath.rig import FIELDS, Click, batch, planned


def path(one: FeatureSet, *, closed_ms: int | None = None, floor_ms: int | None = None) -> SetPath:
    made = planned(one)
    states = {
        bundle.digest: BundleState(
            bundle, FIELDS, MemoryStore(RowLayout(bundle.columns)), floor_ms=floor_ms
        )
        for bundle in made.bundles
    }
    return SetPath(LiveView.of(made, states, FIELDS), closed_ms=closed_ms)


def prepare(one: SetPath, *clicks: Click, arrival: list[int | None]) -> Prepared:
    events = batch(0, clicks).events
    return one.prepare(events.with_columns(pl.Series(ARRIVAL, arrival, dtype=pl.Int64)))


def partials(prepared: Prepared) -> list[tuple[object, ...]]:
    return prepared.partials.select(PANE, ENTITY, CLOSED).sort(PANE, ENTITY, CLOSED).rows()


def test_events_in_time_count_for_every_window_of_their_pane() -> None:
    found = prepare(path(feature_set()), ("ann", 3, 1), ("ann", 4, 1), arrival=[3, 4])
    assert partials(found) == [(0, "ann", None)]
    assert (found.late, found.without_entity) == ((), ())


def test_an_event_is_late_when_its_last_window_had_closed_as_it_came() -> None:
    #     0         10        20
    #     |-x-------|    x = 5, the watermark is 9, then 10
    found = prepare(path(feature_set()), ("ann", 5, 1), ("ann", 5, 1), arrival=[9, 10])
    assert found.late == (1,)
    assert partials(found) == [(0, "ann", None), (0, "ann", 10)]


def test_an_event_in_time_for_its_last_window_only_is_not_late() -> None:
    wide = path(feature_set(feature(window_ms=30)))
    found = prepare(wide, *[("ann", 5, 1)] * 3, arrival=[10, 29, 30])
    assert found.late == (2,)
    assert [closed for *_, closed in partials(found)] == [10, 20, 30]


def test_what_silence_has_closed_makes_late_whatever_the_watermark() -> None:
    found = prepare(path(feature_set(), closed_ms=20), ("ann", 15, 1), arrival=[15])
    assert found.late == (0,)


def test_lateness_is_allowed_for() -> None:
    patient = path(feature_set(allowed_lateness_ms=7))
    found = prepare(patient, ("ann", 5, 1), ("bob", 5, 1), arrival=[16, 17])
    assert found.late == (1,)


def test_events_without_an_entity_are_named_and_left_out() -> None:
    found = prepare(path(feature_set()), (None, 3, 1), ("ann", 4, 1), arrival=[3, 4])
    assert found.without_entity == (0,)
    assert partials(found) == [(0, "ann", None)]


def test_panes_that_begin_before_the_floor_are_left_out() -> None:
    floored = path(feature_set(), floor_ms=15)
    found = prepare(floored, ("ann", 9, 1), ("ann", 17, 1), ("ann", 20, 1), arrival=[20] * 3)
    assert [pane for pane, *_ in partials(found)] == [20]


def test_the_first_window_lies_wholly_after_the_floor() -> None:
    assert path(feature_set(), floor_ms=15).closed_ms == 20
    assert path(feature_set(), floor_ms=20).closed_ms == 20
    assert path(feature_set(feature(window_ms=30)), floor_ms=-25).closed_ms == 0
    assert path(feature_set(), floor_ms=15, closed_ms=70).closed_ms == 70


def test_a_set_begins_where_the_watermark_is_but_not_before_its_floor() -> None:
    new, floored = path(feature_set(allowed_lateness_ms=5)), path(feature_set(), floor_ms=55)
    for one in (new, floored):
        one.begin(38)
    assert (new.closed_ms, floored.closed_ms) == (30, 60)


def test_what_is_needed_is_the_longest_window_and_retention_before_what_is_closed() -> None:
    kept = feature_set(feature(window_ms=30), retention_ms=25)
    assert path(kept).live.windows.kept_from_ms(100) == 40  # 100 - 30 - 25, whole panes


def test_a_batch_without_a_watermark_closes_nothing() -> None:
    one = path(feature_set())
    found = prepare(one, ("ann", 3, 1), arrival=[None])
    reading = one.read(found, None, 0)
    assert reading is not None
    assert reading.pairs == 0
    assert one.close_batch(found, None, reading, 0) is None
    assert one.open_windows(100) == 0


def test_open_windows_are_those_begun_and_not_closed() -> None:
    #     0         10        20        30
    #            C=10              ^ 25: 20 and 30 are open
    assert path(feature_set(), closed_ms=10).open_windows(25) == 2
    assert path(feature_set(), closed_ms=10).open_windows(10) == 1
    assert path(feature_set(), closed_ms=90).open_windows(25) == 0


def test_events_that_came_late_are_whole_again_in_the_bundle() -> None:
    one = path(feature_set())
    one.apply(prepare(one, *[("ann", 5, 1)] * 2, arrival=[9, 10]), 2)
    found, _ = one.live.rows(None, 100, 100)
    (merged,) = [frame for frame in found if not frame.is_empty()]
    assert merged.height == 1
    assert merged[one.view.columns[0][0]].to_list() == [2]


def test_slices_of_one_as_of_time_go_by_entity_and_say_which_is_the_last() -> None:
    one = path(feature_set(), closed_ms=0)
    one.apply(prepare(one, *((w, 3, 1) for w in "dbca"), arrival=[3] * 4), 4)
    found = [(v[ENTITY].to_list(), done, last) for v, done, last in one.slices(10, 0, 3)]
    assert found == [(["a", "b", "c"], 3, False), (["d"], 4, True)]
    resumed = [(v[ENTITY].to_list(), done, last) for v, done, last in one.slices(10, 3, 9)]
    assert resumed == [(["d"], 4, True)]
    assert [(done, last) for _, done, last in one.slices(10, 1, 1)] == [
        (2, False),
        (3, False),
        (4, False),
        (4, True),
    ]


def test_a_run_is_as_long_as_its_pairs_allow() -> None:
    one = path(feature_set(), closed_ms=0)
    clicks = [("ann", at, 1) for at in range(5, 105, 10)]
    found = prepare(one, *clicks, arrival=[at for _, at, _ in clicks])
    rows, whole_ms = one.rows(100, 0, found)
    assert whole_ms == 100
    assert one.run(rows, 100, 1_000) == 100
    through = one.run(rows, 100, 12)
    assert through is not None
    assert 10 <= through < 100
    assert one.windows.cost(rows.own, 0, through) <= 12
    assert one.windows.cost(rows.own, 0, through + 10) > 12
    assert one.run(rows, 100, 1) is None
