"""Runs of whole entities, over one bundle or several."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from streams.datapath.bundle_state import BundleState
from streams.datapath.entity_runs import Range, entity_runs
from streams.datapath.partials import ENTITY, PANE
from streams.definitions.model import FeatureSet, Function
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from streams.windowing.watermark import Watermark
from tests.small import feature, feature_set
from tests.unit.datapath.rig import FIELDS, Click, batch, planned

COUNTS = feature_set()
SUMS = feature_set(feature("total", Function.SUM, "x"))
CROWD = [*((who, 1, 1) for who in "abcde"), ("a", 11, 1), ("c", 11, 1), ("z", 21, 1)]


def state(one: FeatureSet, clicks: Sequence[Click], flushed: int) -> BundleState:
    """The bundle of a set after some clicks; so many of them are on disk."""
    (bundle,) = planned(one).bundles
    made = BundleState(bundle, FIELDS, MemoryStore(RowLayout(bundle.columns)))
    made.take(batch(0, clicks[:flushed]))
    made.flush(Watermark(), None)
    made.take(batch(flushed, clicks[flushed:]))
    return made


def everything(of: BundleState) -> Range:
    return Range(bundle=of, start_ms=None, end_ms=1_000)


@pytest.mark.parametrize("flushed", [0, 8])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 8, 100])
def test_runs_are_whole_in_order_and_within_the_limit(limit: int, flushed: int) -> None:
    one = state(COUNTS, [*CROWD, ("e", 2, 1), ("z", 22, 1)], flushed)
    runs = list(entity_runs([everything(one)], limit))
    assert [run.last for run in runs] == [False] * (len(runs) - 1) + [True]
    assert all(run.frames[0].height <= max(limit, 6) for run in runs)
    assert [who for run in runs for who in run.entities] == list("abcdez")
    counted = pl.concat([run.frames[0] for run in runs]).drop(PANE).group_by(ENTITY).sum()
    assert counted.sort(ENTITY).rows() == [
        (w, n) for w, n in zip("abcdez", (2, 1, 2, 1, 2, 2), strict=True)
    ]


def test_runs_over_nothing_are_one_empty_one() -> None:
    (run,) = entity_runs([everything(state(COUNTS, [], 0))], 5)
    assert (run.frames[0].height, run.entities.len(), run.last) == (0, 0, True)


def test_a_run_takes_more_where_entities_crowd_in_one_pane() -> None:
    #     0  e000 … e199
    #    10  e000, then one pane each for e001 … e009
    crowded = [(f"e{n:03}", 1, 1) for n in range(200)]
    clicks = [*crowded, *((f"e{n:03}", 10 * n + 11, 1) for n in range(10))]
    one = state(COUNTS, clicks, len(clicks))
    heights = [run.frames[0].height for run in entity_runs([everything(one)], 50)]
    assert sum(heights) == 210
    assert all(25 < height <= 50 for height in heights[:-1])


@pytest.mark.parametrize("limit", [1, 5, 10, 100])
@pytest.mark.parametrize("flushed", [(0, 8), (8, 3)])
def test_runs_over_several_ranges_have_all_of_an_entity(
    limit: int, flushed: tuple[int, int]
) -> None:
    #     0         10        20
    #     |--a..e---|--a c----|--z---     counts: all of it, sums: the panes from 10 on
    counts, sums = state(COUNTS, CROWD, flushed[0]), state(SUMS, CROWD, flushed[1])
    ranges = [everything(counts), Range(bundle=sums, start_ms=10, end_ms=1_000)]
    runs = list(entity_runs(ranges, limit))
    assert [who for run in runs for who in run.entities] == list("abcdez")
    for run in runs:
        assert sum(frame.height for frame in run.frames) <= max(limit, 10)
    first, second = (pl.concat([run.frames[at] for run in runs]) for at in (0, 1))
    assert first.sort(PANE, ENTITY).select(PANE, ENTITY).rows() == sorted(
        (at // 10 * 10, who) for who, at, _ in CROWD if who is not None
    )
    assert second.sort(PANE, ENTITY).select(PANE, ENTITY).rows() == [
        (10, "a"),
        (10, "c"),
        (20, "z"),
    ]
