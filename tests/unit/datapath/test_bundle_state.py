"""A bundle's rows: those on disk, those in memory, and how the ones become the others."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from streams.datapath.bundle_state import BundleState, watermark_of
from streams.datapath.partials import ENTITY, PANE, Partials
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from streams.windowing.watermark import Watermark
from tests.small import feature_set
from tests.unit.datapath.rig import FIELDS, Click, batch, planned

(BUNDLE,) = planned(feature_set()).bundles
COUNT = BUNDLE.columns[0][0]


def state(store: MemoryStore | None = None, **options: Any) -> BundleState:
    return BundleState(BUNDLE, FIELDS, store or MemoryStore(RowLayout(BUNDLE.columns)), **options)


def partials(*clicks: Click) -> pl.DataFrame:
    of = Partials([BUNDLE], FIELDS)
    return of.build(of.select(batch(0, clicks).events), [PANE, ENTITY])


def rows(
    one: BundleState, start_ms: int | None = None, end_ms: int = 1_000
) -> list[tuple[object, ...]]:
    found, whole_ms = one.rows(start_ms, end_ms, 1_000)
    assert whole_ms == end_ms
    frames = [frame.select(PANE, ENTITY, COUNT) for frame in found]
    whole = pl.concat(frames).group_by(PANE, ENTITY).agg(pl.col(COUNT).sum())
    return whole.sort(PANE, ENTITY).rows()


def test_what_was_applied_is_not_applied_again() -> None:
    one = state()
    one.apply(partials(("ann", 3, 1)), 1)
    one.apply(partials(("ann", 3, 1)), 1)
    assert rows(one) == [(0, "ann", 1)]
    assert one.next_offset == 1


def test_rows_are_those_of_the_disk_and_of_memory_together() -> None:
    one = state()
    one.apply(partials(("ann", 3, 1), ("bob", 13, 1)), 2)
    assert one.flush(Watermark(highest_ms=13), None) == 2
    assert one.overlay.height == 0
    one.apply(partials(("ann", 4, 1)), 3)
    assert rows(one) == [(0, "ann", 2), (10, "bob", 1)]
    assert rows(one, 10, 20) == [(10, "bob", 1)]
    assert rows(one, None, 10) == [(0, "ann", 2)]


def test_a_flush_writes_only_the_rows_that_changed_each_with_what_was_there() -> None:
    one = state()
    one.apply(partials(("ann", 3, 1), ("bob", 13, 1)), 2)
    one.flush(Watermark(), None)
    one.apply(partials(("ann", 4, 1), ("cid", 5, 1)), 4)
    assert one.flush(Watermark(), None) == 2
    assert rows(one) == [(0, "ann", 2), (0, "cid", 1), (10, "bob", 1)]


def test_batches_go_on_while_a_flush_is_written() -> None:
    one = state()
    one.apply(partials(("ann", 3, 1), ("bob", 13, 1)), 2)
    one.flush(Watermark(), None)
    one.apply(partials(("ann", 4, 1)), 3)
    begun = one.begin_flush(Watermark(highest_ms=13), None)
    one.apply(partials(("ann", 5, 1), ("cid", 6, 1)), 5)
    wanted = [(0, "ann", 3), (0, "cid", 1), (10, "bob", 1)]
    assert rows(one) == wanted
    assert begun.write() == 1
    assert rows(one) == wanted
    begun.ingest()
    assert rows(one) == wanted
    assert one.store.meta is not None
    assert (one.store.meta.next_offset, one.next_offset) == (3, 5)
    assert rows(state(store=one.store)) == [(0, "ann", 2), (10, "bob", 1)]  # type: ignore[arg-type]
    assert one.flush(Watermark(), None) == 2
    assert rows(state(store=one.store)) == wanted  # type: ignore[arg-type]


def test_a_flush_of_nothing_still_says_how_far_it_has_come() -> None:
    one = state()
    one.next_offset = 9
    assert one.flush(Watermark(highest_ms=4), None) == 0
    assert one.store.meta is not None
    assert (one.store.meta.next_offset, one.store.meta.watermark_ms) == (9, 4)


def test_a_bundle_comes_back_where_it_was() -> None:
    one = state()
    one.apply(partials(("ann", 33, 1)), 7)
    one.flush(Watermark(sources=2, highest_ms=33, by_source={0: 5}, silent=frozenset({1})), 20)
    assert isinstance(one.store, MemoryStore)
    again = state(one.store, next_offset=3, floor_ms=-100)
    assert (again.next_offset, again.floor_ms) == (7, 20)
    assert watermark_of(again.store.meta, 2) == Watermark(
        sources=2, highest_ms=33, by_source={0: 5}, silent=frozenset({1})
    )
    assert watermark_of(None, 2) == Watermark(sources=2)


def test_a_floor_never_lowers() -> None:
    one = state()
    one.raise_floor(20)
    one.raise_floor(10)
    assert one.floor_ms == 20
    one.flush(Watermark(), 15)
    assert one.floor_ms == 20


def test_a_flush_drops_panes_below_the_floor_from_disk_and_memory() -> None:
    #     0         10        20        30
    #     |--disk---|--disk---|  floor 20
    #     |--memory-|         |--memory-|
    one = state()
    one.apply(partials(("ann", 3, 1), ("ann", 13, 1)), 2)
    one.flush(Watermark(), None)
    one.apply(partials(("bob", 3, 1), ("bob", 23, 1)), 4)
    assert one.flush(Watermark(), 20) == 1
    assert rows(one) == [(20, "bob", 1)]


# -- more rows than the limit -----------------------------------------------------------------


def crowd(*, flushed: bool) -> BundleState:
    """Entities a to e in pane 0, a and c in pane 10, z alone in pane 20; e and z also in memory."""
    one = state()
    clicks = [*((who, 1, 1) for who in "abcde"), ("a", 11, 1), ("c", 11, 1), ("z", 21, 1)]
    one.apply(partials(*clicks), 8)
    if flushed:
        one.flush(Watermark(), None)
    one.apply(partials(("e", 2, 1), ("z", 22, 1)), 10)
    return one


@pytest.mark.parametrize("flushed", [False, True])
def test_rows_beyond_the_limit_are_left_out_by_whole_panes(flushed: bool) -> None:
    one = crowd(flushed=flushed)
    whole = {limit: one.rows(None, 100, limit)[1] for limit in (5, 6, 8, 9, 10)}
    assert whole == {5: 0, 6: 10, 8: 20, 9: 20, 10: 100}
    found, _ = one.rows(None, 100, 9)
    assert pl.concat([frame.select(PANE) for frame in found])[PANE].max() == 10


def test_what_was_too_much_is_known_until_the_next_flush() -> None:
    one = crowd(flushed=True)
    assert not one.crowded(0, 30, 5)
    one.rows(0, 30, 5)
    assert one.crowded(0, 30, 5)
    assert one.crowded(None, 40, 4)
    assert not one.crowded(10, 30, 5)
    assert not one.crowded(0, 20, 5)
    assert not one.crowded(0, 30, 6)
    one.flush(Watermark(), None)
    assert not one.crowded(0, 30, 5)


@pytest.mark.parametrize("flushed", [False, True])
def test_panes_are_those_of_disk_and_memory(flushed: bool) -> None:
    one = crowd(flushed=flushed)
    one.apply(partials(("a", 55, 1)), 11)
    assert one.panes(None, 100) == [0, 10, 20, 50]
    assert one.panes(10, 50) == [10, 20]


@pytest.mark.parametrize("flushed", [False, True])
def test_rows_of_some_entities_are_all_of_theirs_or_none(flushed: bool) -> None:
    one = crowd(flushed=flushed)

    def of(who: str, limit: int) -> list[tuple[object, ...]] | None:
        found = one.rows_of(pl.DataFrame({ENTITY: list(who)}), None, 100, limit)
        if found is None:
            return None
        whole = pl.concat([frame.select(PANE, ENTITY, COUNT) for frame in found])
        return whole.group_by(PANE, ENTITY).agg(pl.col(COUNT).sum()).sort(PANE, ENTITY).rows()

    expected = [(0, "a", 1), (0, "e", 2), (10, "a", 1)]
    assert of("ae", 100) == of("ae", 10) == expected
    assert of("z", 1) == [(20, "z", 2)]
    assert of("aez", 8) == (None if flushed else [*expected, (20, "z", 2)])


def test_a_replay_takes_what_is_news_and_says_nothing_about_it() -> None:
    one = state(floor_ms=10)
    one.take(batch(0, [("ann", 13, 1), ("bob", 14, 1)]))
    one.take(batch(0, [("ann", 13, 1), ("bob", 14, 1), (None, 15, 1), ("ann", 3, 1)]))
    assert rows(one) == [(10, "ann", 1), (10, "bob", 1)]
    assert one.next_offset == 4
    one.take(batch(2, [("ann", 13, 1)]))
    assert one.next_offset == 4
