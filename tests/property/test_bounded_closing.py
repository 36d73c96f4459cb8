"""A closing says the same whether its rows are read at once or in runs of entities."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.definitions.model import FeatureSet
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click, Rig

EVENTS = st.tuples(
    st.sampled_from(["", "a", "a\0", "b", "ü", "\U0001f6eb", *(f"e{n}" for n in range(9))]),
    st.integers(0, 120),
    st.integers(-3, 3),
)
BATCHES = st.lists(st.lists(EVENTS, min_size=1, max_size=25), min_size=1, max_size=4)


@st.composite
def sets(draw: st.DrawFn) -> tuple[FeatureSet, ...]:
    """One or two sets over one stream; they share a bundle."""
    made = []
    for name in draw(st.sampled_from(("a", "ab"))):
        windows = draw(st.lists(st.integers(1, 6), min_size=1, max_size=2, unique=True))
        features = [feature(f"n{count}", window_ms=10 * count) for count in windows]
        lateness_ms = draw(st.sampled_from((0, 15, 200)))
        made.append(feature_set(*features, name=name, allowed_lateness_ms=lateness_ms))
    return tuple(made)


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
    whole, cut = Rig(*sets), Rig(*sets, pairs_per_step=limit)
    feed(whole, batches, flushed, last_ms)
    feed(cut, batches, flushed, last_ms)
    for one in sets:
        assert cut.of(one.name) == whole.of(one.name)
    assert Counter(cut.late) == Counter(whole.late)


@settings(max_examples=60, deadline=None)
@given(sets=sets(), batches=BATCHES, data=st.data(), limit=st.integers(1, 12))
def test_a_closing_goes_on_from_any_cursor_where_it_was(
    sets: tuple[FeatureSet, ...], batches: list[list[Click]], data: st.DataObject, limit: int
) -> None:
    flushed = [data.draw(st.booleans()) for _ in batches]
    whole, crashed = Rig(*sets), Rig(*sets, pairs_per_step=limit)
    feed(whole, batches, flushed, 1_000)
    for batch, flush in zip(batches, flushed, strict=True):
        crashed.take(*batch)
        if flush:
            crashed.pipeline.flush()
    crashed.take(("last", 1_000, 0), crash_after=1)
    while crashed.position < len(crashed.log) or crashed.progress.cursor is not None:
        # Another limit cuts elsewhere: the cursor counts entities, not slices.
        crashed.pairs_per_step = data.draw(st.integers(1, 12))
        crashed.open()
        before = len(crashed.steps)
        crashed.run(crashed.pipeline.resume(), 1)
        if len(crashed.steps) == before:
            crashed.take_rest(crash_after=1)
    for one in sets:
        assert crashed.of(one.name) == whole.of(one.name)
