"""Partials in memory: merged now and then, and never more than once counted."""

from __future__ import annotations

import polars as pl

from streams.datapath.overlay import MERGE_FRAMES, MERGE_FRAMES_AT_MOST, Overlay
from streams.datapath.partials import ENTITY, PANE
from streams.windowing.accumulators import Columnar, Kind

COUNT = Columnar(name="n", kind=Kind.COUNT, dtype=pl.Int64())


def rows(*cells: tuple[int, str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        cells, schema={PANE: pl.Int64, ENTITY: pl.String, "n": pl.Int64}, orient="row"
    )


def held(frames: list[pl.DataFrame]) -> list[tuple[int, str, int]]:
    return sorted(pl.concat(frames).group_by(PANE, ENTITY).agg(pl.col("n").sum()).rows())


def test_an_empty_overlay_holds_nothing() -> None:
    overlay = Overlay([COUNT])
    overlay.add(rows())
    assert overlay.merged() is None
    assert overlay.between(None, 100) == []
    assert overlay.height == 0


def test_rows_of_one_pane_and_entity_become_one() -> None:
    overlay = Overlay([COUNT])
    overlay.add(rows((0, "a", 1), (10, "a", 2)))
    overlay.add(rows((0, "a", 3), (0, "b", 4)))
    merged = overlay.merged()
    assert merged is not None
    assert sorted(merged.rows()) == [(0, "a", 4), (0, "b", 4), (10, "a", 2)]
    assert overlay.height == 3


def test_a_range_of_panes_begins_with_its_start_and_ends_before_its_end() -> None:
    overlay = Overlay([COUNT])
    overlay.add(rows((0, "a", 1), (10, "a", 2), (20, "a", 3)))
    assert held(overlay.between(10, 20)) == [(10, "a", 2)]
    assert held(overlay.between(None, 20)) == [(0, "a", 1), (10, "a", 2)]


def test_many_small_frames_are_merged_on_the_way() -> None:
    overlay = Overlay([COUNT])
    for _ in range(10 * MERGE_FRAMES):
        overlay.add(rows((0, "a", 1)))
    assert len(overlay.between(None, 1)) <= MERGE_FRAMES
    assert held(overlay.between(None, 1)) == [(0, "a", 10 * MERGE_FRAMES)]


def test_small_frames_beside_a_large_one_are_merged_seldom_but_not_never() -> None:
    overlay = Overlay([COUNT])
    overlay.add(rows(*((0, f"e{n}", 1) for n in range(10_000))))
    for added in range(1, 2 * MERGE_FRAMES_AT_MOST):
        overlay.add(rows((0, "e0", 1)))
        assert len(overlay.between(None, 1)) <= MERGE_FRAMES_AT_MOST
        if added == MERGE_FRAMES:
            assert len(overlay.between(None, 1)) == MERGE_FRAMES + 1
    assert held(overlay.between(None, 1))[0] == (0, "e0", 2 * MERGE_FRAMES_AT_MOST)


def test_what_is_sealed_is_read_until_it_has_reached_the_disk() -> None:
    overlay = Overlay([COUNT])
    overlay.add(rows((0, "a", 1)))
    overlay.add(rows((0, "a", 2)))
    first = overlay.seal()
    overlay.add(rows((0, "a", 4), (10, "b", 1)))
    sealed = overlay.sealed(first)
    assert sealed is not None
    assert sealed.rows() == [(0, "a", 3)]
    assert held(overlay.between(None, 10)) == [(0, "a", 7)]
    recent = overlay.recent(None, 100)
    assert recent is not None
    assert sorted(recent.rows()) == [(0, "a", 7), (10, "b", 1)]
    second = overlay.seal()
    overlay.forget(first)
    assert held(overlay.between(None, 100)) == [(0, "a", 4), (10, "b", 1)]
    sealed = overlay.sealed(second)
    assert sealed is not None
    assert sorted(sealed.rows()) == [(0, "a", 4), (10, "b", 1)]
    overlay.forget(second)
    assert overlay.height == 0


def test_what_was_sealed_in_vain_is_sealed_again() -> None:
    overlay = Overlay([COUNT])
    overlay.add(rows((0, "a", 1)))
    overlay.seal()
    overlay.add(rows((0, "a", 2)))
    sealed = overlay.sealed(overlay.seal())
    assert sealed is not None
    assert sealed.rows() == [(0, "a", 3)]
