"""A closing says the same whether its rows are read at once or in runs of entities, and whether
they lie in one bundle or in several."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.definitions.model import Emit, FeatureSet, Function
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click, Rig, Vector

pytestmark = pytest.mark.polars_pool

EVENTS = st.tuples(
    st.sampled_from(["", "a", "a\0", "b", "ü", "\U0001f6eb", *(f"e{n}" for n in range(9))]),
    st.integers(0, 120),
    st.integers(-3, 3),
)
BATCHES = st.lists(st.lists(EVENTS, min_size=1, max_size=25), min_size=1, max_size=4)


LAST_MS = 450
"""Closes all that events leave open, whatever the lateness, and the `empty` after it."""

SERVING = {"a": "2.0.0", "b": "2.0.0"}


@st.composite
def sets(draw: st.DrawFn) -> tuple[FeatureSet, ...]:
    """One or two sets over one stream; they share a bundle.

    Of each set version 2.0.0 serves. It comes after so many versions that store part of what it
    needs, if it does.
    """
    made = []
    for name in draw(st.sampled_from(("a", "ab"))):
        windows = draw(st.lists(st.integers(1, 6), min_size=1, max_size=2, unique=True))
        counts = [feature(f"n{count}", window_ms=10 * count) for count in windows]
        rest = [
            feature("total", Function.SUM, "x", draw(st.sampled_from((10, 60)))),
            feature("least", Function.MIN, "x", draw(st.sampled_from((10, 60)))),
        ]
        parts = draw(
            st.sampled_from(([], [counts], [counts, rest], [counts, rest[:1]], [rest[1:], counts]))
        )
        shape: dict[str, Any] = {
            "name": name,
            "allowed_lateness_ms": draw(st.sampled_from((0, 15, 200))),
            "emit": draw(st.sampled_from((Emit.FINAL, Emit.FINAL, Emit.UPDATES))),
        }
        for number, part in enumerate(parts):
            # Wide windows, so that the panes are kept that the last version needs.
            wide = [replace(one, window_ms=60) for one in part]
            made.append(feature_set(*wide, version=f"1.{number}.0", **shape))
        made.append(feature_set(*counts, *rest, version="2.0.0", **shape))
    return tuple(made)


def last(sets: tuple[FeatureSet, ...]) -> list[FeatureSet]:
    return [one for one in sets if one.version == SERVING[one.name]]


def finals(rig: Rig, name: str) -> list[Vector]:
    """All but updates, of which a cut may make more."""
    return [one for one in rig.of(name) if one[3] != "update"]


def feed(rig: Rig, batches: list[list[Click]], flushed: list[bool], last_ms: int) -> None:
    """The batches, then one record that closes all that they left open."""
    for batch, flush in zip(batches, flushed, strict=True):
        rig.take(*batch)
        if flush:
            rig.pipeline.flush()
    rig.take(("last", last_ms, 0))


@settings(max_examples=60, deadline=None)
@given(
    sets=sets(),
    batches=BATCHES,
    data=st.data(),
    limit=st.integers(1, 40),
    last_ms=st.integers(0, 1_000),
)
def test_a_cut_closing_says_what_a_whole_one_says_in_the_same_order(
    sets: tuple[FeatureSet, ...],
    batches: list[list[Click]],
    data: st.DataObject,
    limit: int,
    last_ms: int,
) -> None:
    flushed = [data.draw(st.booleans()) for _ in batches]
    whole, cut = Rig(*last(sets)), Rig(*sets, serving=SERVING, pairs_per_step=limit)
    feed(whole, batches, flushed, last_ms)
    feed(cut, batches, flushed, last_ms)
    for one in last(sets):
        assert finals(cut, one.name) == finals(whole, one.name)
    assert Counter(cut.late) == Counter(whole.late)


@settings(max_examples=25, deadline=None)
@given(sets=sets(), batches=BATCHES, data=st.data(), limit=st.integers(1, 12))
def test_a_closing_goes_on_from_any_cursor_where_it_was(
    sets: tuple[FeatureSet, ...], batches: list[list[Click]], data: st.DataObject, limit: int
) -> None:
    flushed = [data.draw(st.booleans()) for _ in batches]
    whole = Rig(*last(sets))
    crashed = Rig(*sets, serving=SERVING, pairs_per_step=limit)
    feed(whole, batches, flushed, LAST_MS)
    for batch, flush in zip(batches, flushed, strict=True):
        crashed.take(*batch)
        if flush:
            crashed.pipeline.flush()
    crashed.take(("last", LAST_MS, 0), crash_after=1)
    while crashed.position < len(crashed.log) or crashed.progress.cursor is not None:
        # Another limit cuts elsewhere: the cursor counts entities, not slices.
        crashed.pairs_per_step = data.draw(st.integers(1, 12))
        crashed.open()
        before, steps = len(crashed.steps), data.draw(st.integers(1, 8))
        crashed.run(crashed.pipeline.resume(), steps)
        if len(crashed.steps) == before:
            crashed.take_rest(crash_after=steps)
    for one in last(sets):
        assert finals(crashed, one.name) == finals(whole, one.name)
