"""A bundle's rows: those on disk, those in memory, and how the ones become the others."""

from __future__ import annotations

from typing import Any

import polars as pl

from streams.datapath.bundle_state import BundleState, watermark_of
from streams.datapath.partials import ENTITY, PANE, Partials
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from streams.windowing.watermark import Watermark
from tests.small import feature_set
from tests.unit.datapath.rig import FIELDS, Click, batch, planned

BUNDLE = planned(feature_set()).bundle
COUNT = BUNDLE.columns[0][0]


def state(store: MemoryStore | None = None, **options: Any) -> BundleState:
    return BundleState(BUNDLE, FIELDS, store or MemoryStore(RowLayout(BUNDLE.columns)), **options)


def partials(*clicks: Click) -> pl.DataFrame:
    of = Partials(BUNDLE, FIELDS)
    return of.build(of.select(batch(0, clicks).events), [PANE, ENTITY])


def rows(
    one: BundleState, start_ms: int | None = None, end_ms: int = 1_000
) -> list[tuple[object, ...]]:
    frames = [frame.select(PANE, ENTITY, COUNT) for frame in one.rows(start_ms, end_ms)]
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
