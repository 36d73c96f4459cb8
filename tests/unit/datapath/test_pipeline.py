"""The pipeline of one partition: claims, crashes between steps, floors, shared bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest

from streams.datapath.batch import Marker
from streams.datapath.closing import Windows
from streams.definitions.model import Emit, Function
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click, Rig, batch

A = feature_set(name="a")
B = feature_set(name="b")
LONGER = feature_set(feature(window_ms=30), name="longer")
MANY = [(f"e{n:02}", 1, n) for n in range(20)]


def marker(p: int, watermark_ms: int | None, **said: object) -> Marker:
    return Marker(offset=-1, source_partition=p, watermark_ms=watermark_ms, **said)  # type: ignore[arg-type]  # silent, floor_ms


# -- positions --------------------------------------------------------------------------------


def test_a_batch_behind_the_position_is_refused() -> None:
    rig = Rig(A)
    rig.take(("ann", 3, 1), ("ann", 4, 1))
    with pytest.raises(ValueError, match="batch at 0 behind position 2"):
        next(rig.pipeline.steps(batch(0, [("ann", 3, 1)])))


def test_the_position_steps_over_transaction_markers() -> None:
    rig = Rig(A)
    rig.run(rig.pipeline.steps(batch(0, [("ann", 3, 1)], next_offset=7)))
    assert rig.position == 7
    rig.pipeline.skip_to(9)
    rig.pipeline.skip_to(4)
    assert rig.pipeline.position == 9
    assert rig.pipeline.flush() == 1
    assert next(iter(rig.stores.values())).meta.next_offset == 9  # type: ignore[union-attr]  # flushed


# -- a crash at every step --------------------------------------------------------------------


def test_a_closing_larger_than_a_step_goes_out_in_pieces_with_a_cursor() -> None:
    #     0           10                       1000
    #     |--e00..e19--|--- nothing for long ---|ann
    #                 T=10: 20 vectors, T=20: 20 empty ones, six at a time
    rig = Rig(A, pairs_per_step=6)
    rig.take(*MANY)
    assert rig.vectors == []
    before = len(rig.steps)
    rig.take(("ann", 1000, 1))
    steps = rig.steps[before:]
    cursors = [one.progress.cursor for one in steps]
    assert [c and (c.as_of_ms, c.entities_done) for c in cursors] == [
        *((10, 6), (10, 12), (10, 18), None),
        *((20, 6), (20, 12), (20, 18), None),
        None,  # up to T=1000
        None,  # ann's record itself
    ]
    assert {one.position for one in steps[:-1]} == {20}
    assert steps[-1].position == 21
    assert [(at, who) for _, at, who, kind, _ in rig.vectors if kind == "final"] == [
        (10, who) for who, _, _ in MANY
    ]


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("pairs_per_step", [1, 6, 50])
def test_a_crash_after_any_step_of_a_closing_loses_and_doubles_nothing(
    pairs_per_step: int, flushed: bool
) -> None:
    whole = Rig(A, LONGER)
    whole.take(*MANY)
    whole.take(("ann", 1000, 1), ("bob", 2000, 2))
    crashed = Rig(A, LONGER, pairs_per_step=pairs_per_step)
    crashed.take(*MANY)
    if flushed:
        crashed.pipeline.flush()
    crashed.take(("ann", 1000, 1), ("bob", 2000, 2), crash_after=1)
    for _ in range(500):
        if crashed.position == len(crashed.log):
            break
        crashed.open()
        unfinished = crashed.progress.cursor is not None
        if unfinished:
            crashed.run(crashed.pipeline.resume(), 1)
        else:
            crashed.take_rest(crash_after=1)
    assert sorted(crashed.vectors) == sorted(whole.vectors)


def test_a_crash_between_the_steps_of_an_idle_closing_loses_nothing() -> None:
    whole = Rig(A, LONGER)
    whole.take(*MANY)
    whole.idle(100)
    crashed = Rig(A, LONGER, pairs_per_step=6)
    crashed.take(*MANY)
    crashed.idle(100, crash_after=1)
    for _ in range(200):
        before = len(crashed.steps)
        crashed.open()
        crashed.run(crashed.pipeline.resume(), 1)
        if len(crashed.steps) == before:
            break
    assert sorted(crashed.vectors) == sorted(whole.vectors)


def test_a_set_added_later_keeps_where_it_began_over_a_crash_of_an_idle_closing() -> None:
    #     0         10        20        30
    #     |--ann----|----ann--|
    #                     ^ set b is published: its C is 10
    #                                   idle up to 30: a closes 20 and 30, crash, then b must
    rig = Rig(A)
    rig.take(("ann", 3, 1), ("ann", 14, 1))
    rig.crash(A, B)
    rig.idle(30, crash_after=1)
    assert rig.of("b") == []
    rig.crash()
    assert rig.of("b") == [
        ("b", 20, "ann", "final", (1,)),
        ("b", 30, "ann", "empty", (0,)),
    ]
    assert [(at, kind) for _, at, _, kind, _ in rig.of("a")] == [
        (10, "final"),
        (20, "final"),
        (30, "empty"),
    ]


# -- sets that come later -----------------------------------------------------------------------


def test_a_set_added_later_begins_at_the_watermark_with_whole_windows() -> None:
    #     0         10        20        30        40
    #     |--ann----|--ann----|----bob--|---ann
    #                               ^ `sums` (30 ms) is published at watermark 26: C is 20
    rig = Rig(A)
    rig.take(("ann", 3, 1), ("ann", 14, 2), ("bob", 26, 4))
    rig.pipeline.flush()
    rig.crash(A, feature_set(feature("total", Function.SUM, "x", 30), name="sums"))
    assert rig.of("sums") == []
    rig.take(("ann", 35, 8))
    assert rig.of("sums") == [
        ("sums", 30, "ann", "final", (3,)),
        ("sums", 30, "bob", "final", (4,)),
    ]


def test_a_set_added_later_on_a_bundle_in_use_waits_for_a_whole_window() -> None:
    # As before, but `longer` needs nothing that `a` does not keep, and shares its bundle. Of
    # that, panes before 10 are gone: the first window of 30 ms that is whole is [10, 40).
    rig = Rig(A)
    rig.take(("ann", 3, 1), ("ann", 14, 1), ("bob", 26, 1))
    rig.pipeline.flush()
    rig.crash(A, LONGER)
    rig.take(("cid", 45, 1))
    assert rig.of("longer") == [
        ("longer", 40, "ann", "final", (1,)),
        ("longer", 40, "bob", "final", (1,)),
    ]


def test_a_set_added_later_on_a_bundle_in_use_does_not_close_the_past() -> None:
    # Sets a and b share one bundle: same accumulators. By the time b comes, a flush has given
    # the bundle a floor, which must not be taken for where b begins.
    kept = replace(A, retention_ms=50)
    rig = Rig(kept)
    rig.take(*(("ann", at, 1) for at in range(3, 203, 10)))
    rig.pipeline.flush()
    rig.crash(kept, replace(B, retention_ms=50))
    rig.take(("ann", 211, 1))
    assert rig.of("b") == [("b", 200, "ann", "final", (1,)), ("b", 210, "ann", "empty", (0,))]


def test_sets_that_share_a_bundle_differ_in_lateness_and_length() -> None:
    #     0         10        20        30
    #     |--ann----|---------|----bob--|          then ann at 5, late for a only
    patient = replace(LONGER, name="patient", allowed_lateness_ms=20)
    rig = Rig(A, patient)
    assert len(rig.stores) == 1
    rig.take(("ann", 3, 1), ("bob", 25, 1))
    rig.take(("ann", 5, 1))
    rig.take(("cid", 60, 1))
    assert [(one.offset, one.feature_set) for one in rig.late] == [(2, "a")]
    assert ("patient", 10, "ann", "final", (2,)) in rig.of("patient")
    assert ("a", 10, "ann", "final", (1,)) in rig.of("a")


def test_a_shared_bundle_keeps_what_its_most_patient_set_needs() -> None:
    patient = replace(LONGER, name="patient", allowed_lateness_ms=20)
    rig = Rig(A, patient)
    rig.take(*(("ann", at, 1) for at in range(3, 103, 10)))
    rig.pipeline.flush()
    # Patient has closed 70; as of 80, and of 70 for the empty, its windows begin at 40.
    (store,) = rig.stores.values()
    assert store.scan(-1000, 1000)["@pane"].to_list() == [40, 50, 60, 70, 80, 90]


# -- floors -------------------------------------------------------------------------------------


def test_panes_below_the_floor_go_away_when_all_windows_that_need_them_are_closed() -> None:
    rig = Rig(replace(A, retention_ms=20))
    rig.take(*(("ann", at, 1) for at in range(3, 73, 10)))
    rig.pipeline.flush()
    # C is 60: its successor's `empty` needs pane 50, retention keeps two more.
    (store,) = rig.stores.values()
    assert store.scan(-1000, 1000)["@pane"].to_list() == [30, 40, 50, 60]
    assert store.meta is not None
    assert store.meta.floor_ms == 30


def test_nothing_is_said_before_the_first_whole_window_after_the_floor() -> None:
    #     0         10   15   20        30        40
    #     |--ann----|--ann(12)|ann(18)--|---------|
    #                     ^ floor 15: the first window of 10 ms that lies after it is [20, 30)
    rig = Rig(A)
    rig.pipeline.raise_floor(15)
    rig.take(("ann", 3, 1), ("ann", 12, 1), ("ann", 18, 1), ("ann", 21, 1), ("ann", 45, 1))
    assert rig.vectors == [
        ("a", 30, "ann", "final", (1,)),
        ("a", 40, "ann", "empty", (0,)),
    ]


@pytest.mark.parametrize("flushed", [False, True])
def test_a_floor_in_a_marker_holds_for_what_that_marker_closes(flushed: bool) -> None:
    # Source partition 1 began later in its log than 0, so its first marker raises the floor
    # to 25, and brings the watermark to 47: the first whole window is [30, 40).
    rig = Rig(A, sources=2)
    rig.take(("ann", 3, 1), ("ann", 22, 1), marker(0, 50, floor_ms=5))
    rig.take(("ann", 28, 1), ("bob", 33, 1))
    if flushed:
        rig.pipeline.flush()
    rig.take(marker(1, 47, floor_ms=25))
    assert rig.vectors == [("a", 40, "bob", "final", (1,))]


def test_a_crash_right_after_a_floor_marker_takes_nothing_back() -> None:
    rig = Rig(A, sources=2)
    rig.take(("ann", 3, 1), marker(0, 50, floor_ms=5), ("bob", 33, 1), marker(1, 27, floor_ms=25))
    committed = rig.progress.closed["a"].through_ms
    rig.crash()
    assert rig.pipeline.paths[0].closed_ms == committed


# -- several sources ----------------------------------------------------------------------------


def test_silence_is_obeyed_where_it_stands_in_the_log() -> None:
    #     0         10        20        30        40
    #     |--ann----|----ann--|
    #               silence: closes 20, the first T after the highest event time, 14
    #                   then ann(18) is late, and ann(35) closes 30
    rig = Rig(A, sources=1)
    rig.take(("ann", 3, 1), ("ann", 14, 1), marker(0, 14), marker(0, 14, silent=True))
    assert [(at, kind) for _, at, _, kind, _ in rig.vectors] == [(10, "final"), (20, "final")]
    rig.take(("ann", 18, 1), ("ann", 35, 1), marker(0, 35))
    assert [(one.offset, one.feature_set) for one in rig.late] == [(4, "a")]
    # By what is known at T=30, ann had an event as of T=20, and has none as of T=30.
    assert [(at, kind) for _, at, _, kind, _ in rig.vectors[2:]] == [(30, "empty")]


def test_the_cut_into_batches_does_not_show_around_silence_and_floors() -> None:
    items: list[Click | Marker] = [
        *(("ann", 3, 1), marker(0, 3, floor_ms=-20), ("bob", 14, 1), marker(1, 14)),
        *(marker(0, 3, silent=True), marker(1, 14, silent=True), ("ann", 16, 1), ("cid", 31, 1)),
        *(marker(0, 31), marker(1, 40, floor_ms=-20), ("ann", 50, 1), marker(0, 60)),
        marker(1, 61),
    ]
    whole, single = Rig(A, LONGER, sources=2), Rig(A, LONGER, sources=2)
    whole.take(*items)
    for item in items:
        single.take(item)
    assert sorted(single.vectors) == sorted(whole.vectors)
    assert single.late == whole.late
    assert single.progress.closed == whole.progress.closed


# -- idleness -----------------------------------------------------------------------------------


def test_an_idle_watermark_outlives_a_crash_and_makes_events_late() -> None:
    rig = Rig(A)
    rig.take(("ann", 3, 1))
    rig.idle(20)
    rig.crash()
    rig.take(("ann", 9, 1), ("ann", 19, 1), ("ann", 21, 1))
    assert [one.offset for one in rig.late] == [1, 2]
    rig.idle(15)
    rig.idle(30)
    assert rig.vectors[-1] == ("a", 30, "ann", "final", (1,))


def test_an_idle_watermark_never_lowers() -> None:
    rig = Rig(A)
    rig.take(("ann", 33, 1))
    steps = len(rig.steps)
    rig.idle(20)
    assert len(rig.steps) == steps
    assert rig.pipeline.progress.idle_watermark_ms is None


# -- updates ------------------------------------------------------------------------------------


def test_updates_are_coalesced_per_batch_and_go_to_the_window_under_way() -> None:
    #     0         10        20
    #     |-a-a--b--|----a----|
    rig = Rig(feature_set(feature(window_ms=20), name="a", emit=Emit.UPDATES))
    rig.take(("ann", 1, 1), ("ann", 2, 1), ("bob", 6, 1))
    assert rig.vectors == [
        ("a", 10, "ann", "update", (2,)),
        ("a", 10, "bob", "update", (1,)),
    ]
    rig.vectors.clear()
    rig.take(("ann", 15, 1))
    # T=10 closes; of T=20 only ann's value has changed.
    assert rig.vectors == [
        ("a", 10, "ann", "final", (2,)),
        ("a", 10, "bob", "final", (1,)),
        ("a", 20, "ann", "update", (3,)),
    ]


def test_a_late_event_updates_the_windows_that_are_still_open() -> None:
    # Lateness 20: at watermark 35 T=10 is closed, 20, 30 and 40 are open.
    rig = Rig(
        feature_set(feature(window_ms=20), name="a", emit=Emit.UPDATES, allowed_lateness_ms=20)
    )
    rig.take(("bob", 35, 1))
    rig.vectors.clear()
    rig.take(("ann", 5, 1))
    assert rig.late == []
    assert rig.vectors == [("a", 20, "ann", "update", (1,))]


def test_a_batch_with_too_many_updates_is_cut_and_each_value_is_told() -> None:
    # Lateness 1000: no as-of time closes, and each event changes the three that it is in.
    one = feature_set(feature(window_ms=30), name="a", emit=Emit.UPDATES, allowed_lateness_ms=1_000)
    clicks = [(f"e{n % 7}", 50 + n % 3 * 10, n) for n in range(40)]
    whole, cut = Rig(one), Rig(one, pairs_per_step=9)
    for rig in (whole, cut):
        rig.take(("ann", 100, 0))
        rig.vectors.clear()
        rig.take(*clicks)
    assert len(whole.steps) == 2
    assert len(cut.steps) > 10
    assert all(sum(v.height for v in step.vectors.values()) <= 9 for step in cut.steps)
    newest = {vector[:3]: vector for vector in cut.vectors}
    assert newest == {vector[:3]: vector for vector in whole.vectors}
    assert len(cut.vectors) > len(whole.vectors)


def test_updates_of_a_single_record_go_out_however_many() -> None:
    one = feature_set(
        feature(window_ms=200), name="a", emit=Emit.UPDATES, allowed_lateness_ms=1_000
    )
    rig = Rig(one, pairs_per_step=3)
    rig.take(*(("ann", at, 1) for at in range(0, 300, 10)))
    rig.pipeline.flush()
    rig.vectors.clear()
    rig.take(("ann", 100, 1))
    assert [at for _, at, *_ in rig.vectors] == list(range(110, 301, 10))
    assert [values for *_, values in rig.vectors][:2] == [(12,), (13,)]


# -- the rows that are held -------------------------------------------------------------------


class Counting(MemoryStore):
    """Remembers the largest number of rows that one call handed out."""

    def __init__(self, layout: RowLayout) -> None:
        super().__init__(layout)
        self.most = self.total = 0

    def scan(self, start_ms: int, end_ms: int, limit: int | None = None) -> pl.DataFrame:
        return self._counted(super().scan(start_ms, end_ms, limit))

    def scan_each(self, panes: Sequence[int], after: str | None, limit: int) -> pl.DataFrame:
        return self._counted(super().scan_each(panes, after, limit))

    def lookup(self, keys: pl.DataFrame) -> pl.DataFrame:
        return self._counted(super().lookup(keys))

    def _counted(self, found: pl.DataFrame) -> pl.DataFrame:
        self.most = max(self.most, found.height)
        self.total += found.height
        return found


@pytest.mark.parametrize("emit", [Emit.FINAL, Emit.UPDATES])
def test_a_closing_never_holds_more_rows_than_the_limit(
    emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20 panes of 80 entities in one window; the last record closes four as-of times over them.
    limit = 200
    given: list[int] = []
    made = Windows.values

    def watched(self: Windows, pairs: pl.LazyFrame, kind: str) -> pl.LazyFrame:
        given.append(pairs.collect().height)
        return made(self, pairs, kind)

    monkeypatch.setattr(Windows, "values", watched)
    one = feature_set(feature(window_ms=200), name="a", emit=emit, allowed_lateness_ms=40)
    bounded, whole = Rig(one, store=Counting, pairs_per_step=limit), Rig(one)
    for rig in (bounded, whole):
        rig.take(("ann", 0, 1))
        for pane in range(0, 200, 10):
            rig.take(*((f"e{n:03}", pane, 1) for n in range(80)))
            rig.pipeline.flush()
        rig.vectors.clear()
        given.clear()
        rig.take(("ann", 270, 1), ("bob", 271, 1))
        if rig is bounded:
            assert max(given) <= limit
    (store,) = bounded.stores.values()
    assert isinstance(store, Counting)
    assert store.most <= limit + 1
    assert store.total > 4 * 80 * 20
    finals = [[v for v in rig.vectors if v[3] != "update"] for rig in (bounded, whole)]
    assert finals[0] == finals[1]
    assert len(finals[0]) > 320


# -- sums ---------------------------------------------------------------------------------------


def test_a_sum_beyond_64_bits_is_null_and_comes_back_as_it_fits_again() -> None:
    #     0         10        20        30
    #     |max max--|---------|-- -1 ---|         window 20
    top = 2**63 - 1
    rig = Rig(feature_set(feature("total", Function.SUM, "x", 20), name="a"))
    rig.take(("ann", 1, top), ("ann", 2, top), ("ann", 25, -1), ("bob", 40, 1))
    finals = [(at, *values) for _, at, who, _, values in rig.vectors if who == "ann"]
    assert finals == [(10, None), (20, None), (30, -1), (40, -1)]
    assert sum(int(s.vectors["a"]["@overflowed"].sum()) for s in rig.steps if s.vectors) == 2
