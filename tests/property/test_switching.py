"""Versions of a set that serve in turns give what the reference model gives, wherever they are
switched, however the stream is cut or restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.definitions.model import FeatureSet, Function
from tests.property.pipeline_driver import Driver, held_after
from tests.property.strategies import (
    FIELDS,
    REKEYED_ENTITY,
    SOURCE,
    Decisions,
    keyed_streams,
    rekeyed_streams,
    switched,
    versions,
)
from tests.property.test_pipeline import EXAMPLES, check, run
from tests.reference import Event, Idle, Pin, Reference, Row, Switch, Toggle, compare
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click, Rig, plans_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.polars_pool

LIMITS = st.sampled_from((3, 50, 400_000))


@EXAMPLES
@given(st.data())
def test_versions_of_a_keyed_stream(data: st.DataObject) -> None:
    sets = data.draw(versions())
    stream = data.draw(switched(data.draw(keyed_streams(sets)), sets))
    driver = Driver(sets, pairs_per_step=data.draw(LIMITS))
    run(driver, stream, data)
    check(
        driver,
        Reference(sets, FIELDS, max_ahead_ms=SOURCE.max_ahead_ms).feed_all(stream.records),
    )


@EXAMPLES
@given(st.data())
def test_versions_of_a_rekeyed_stream(data: st.DataObject) -> None:
    sets = data.draw(versions(entities=(REKEYED_ENTITY,)))
    sources = data.draw(st.integers(1, 3))
    stream = data.draw(switched(data.draw(rekeyed_streams(sets, sources)), sets))
    driver = Driver(sets, sources=sources, pairs_per_step=data.draw(LIMITS))
    run(driver, stream, data)
    check(
        driver,
        Reference(sets, FIELDS, source_partitions=sources).feed_all(stream.records),
    )


# -- small ones -------------------------------------------------------------------------------

Item = Click | int | str | Toggle | Pin
"""An event, a watermark that idleness gives, the version that is switched to, with a `!` what was
said before is corrected, or what else is decided."""

CLICKS = st.tuples(st.sampled_from("abcde"), st.integers(0, 150), st.integers(-1, 3))


@st.composite
def small_versions(draw: st.DrawFn) -> tuple[FeatureSet, ...]:
    """Versions whose windows are a few panes long, so that entities come and go."""
    made = []
    for number in range(draw(st.integers(2, 3))):
        every_ms = draw(st.sampled_from((10, 10, 20, 5)))
        longest_ms = every_ms * draw(st.integers(1, 3))
        features = [feature("n", window_ms=longest_ms)]
        if draw(st.booleans()):
            features.append(feature("total", Function.SUM, "x", every_ms))
        made.append(
            feature_set(
                *features,
                name="a",
                version=f"{number + 1}.0.0",
                every_ms=every_ms,
                allowed_lateness_ms=draw(st.sampled_from((0, 7, 30))),
                retention_ms=draw(st.sampled_from((0, 20, 50))),
                where=draw(st.sampled_from((None, None, "x > 0"))),
            )
        )
    return tuple(made)


@st.composite
def items(draw: st.DrawFn, sets: Sequence[FeatureSet], *, more: bool = False) -> list[Item]:
    """Events that drift forward, with switches and idleness between them, and with `more` toggles
    and pins."""
    decisions = Decisions(sets)
    found: list[Item] = []
    now = 0
    for who, back, x in draw(st.lists(CLICKS, min_size=1, max_size=25)):
        now += draw(st.sampled_from((0, 3, 9, 25)))
        found.append((who, max(0, now - back % 40), x))
        match draw(st.integers(0, 7)):
            case 0 | 1:
                found.append(draw(st.sampled_from(sets)).version + draw(st.sampled_from(("", "!"))))
            case 2:
                found.append(now + draw(st.integers(0, 30)))
            case 3 | 4 if more:
                decided = decisions.draw(draw)
                if isinstance(decided, Switch):
                    found.append(decided.version + ("!" if decided.repair else ""))
                else:
                    found.append(decided)
            case _:
                pass
    return found


def feed(rig: Rig, found: Sequence[Item], data: st.DataObject | None = None) -> None:
    """The items, events that follow each other in random batches; with crashes and flushes."""

    def dies() -> int | None:
        return data.draw(st.sampled_from((None, None, 1, 2, 3, 5))) if data else None

    batch: list[Click] = []
    for item in (*found, None):
        if isinstance(item, tuple):
            batch.append(item)
            if data is None or data.draw(st.integers(0, 3)):
                continue
        if batch:
            after = dies()
            rig.take(*batch, crash_after=after)
            batch = []
            if after is not None:
                rig.crash()
                rig.take_rest()
            elif data and rig.pipeline.may_flush and not data.draw(st.integers(0, 3)):
                rig.pipeline.flush()
            if data and rig.pipeline.correcting:
                correct(rig, dies())
        after = dies()
        if isinstance(item, str):
            serving = rig.pipeline.paths[0].view.version
            corrects = serving if item.endswith("!") else None
            rig.switch("a", item.rstrip("!"), crash_after=after, corrects=corrects)
        elif isinstance(item, int):
            rig.idle(item, crash_after=after)
        elif isinstance(item, Toggle | Pin):
            rig.hold("a", held_after(rig.holds("a"), item), crash_after=after)
        if after is not None:
            rig.crash()
            if isinstance(item, int):
                rig.idle(item)  # what closed nothing was not committed: it is seen again
    rig.correct()


def correct(rig: Rig, steps: int | None) -> None:
    """Some of the corrections, and maybe a crash then."""
    rig.correct(crash_after=steps)
    if steps is not None and steps % 2:
        rig.crash()
        rig.take_rest()


def expected(sets: Sequence[FeatureSet], found: Sequence[Item]) -> Reference:
    """What the reference model makes of the same items."""
    reference, offset = Reference(sets, ("who", "at", "x")), 0
    for item in found:
        if isinstance(item, str):
            version, repair = item.rstrip("!"), item.endswith("!")
            reference.feed(Switch(feature_set="a", version=version, repair=repair))
        elif isinstance(item, Toggle | Pin):
            reference.feed(item)
        elif isinstance(item, int):
            reference.feed(Idle(watermark_ms=item))
        else:
            who, at, x = item
            fields = {"who": who, "at": at, "x": x}
            reference.feed(Event(offset=offset, timestamp_ms=0, event_time_ms=at, fields=fields))
            offset += 1
    return reference


def rows(rig: Rig) -> Iterator[Row]:
    """What the rig said, its values named as the reference names them, in order of name."""
    for name, at, who, kind, values in rig.vectors:
        names = ("n", "total")[: len(values)]
        yield Row(
            feature_set=name,
            entity=(who,),
            as_of_ms=at,
            kind=kind,
            values=dict(zip(names, values, strict=True)),
        )


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_small_versions(data: st.DataObject) -> None:
    sets = data.draw(small_versions())
    found = data.draw(items(sets, more=True))
    pairs = data.draw(st.sampled_from((1, 1, 4, 400_000)))
    rig = Rig(*sets, pairs_per_step=pairs, beside=data.draw(st.booleans()))
    feed(rig, found, data)
    reference = expected(sets, found)
    assert compare(reference.vectors, rows(rig), reference.corrections) == []
    assert sorted((one.feature_set, one.offset) for one in rig.late) == sorted(reference.late)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_going_there_and_back_leaves_no_trace(data: st.DataObject) -> None:
    # Panes, and what v1 closes in its own time after it is back, are as if it had stayed.
    sets = data.draw(small_versions())
    before, between, after = (data.draw(items(sets[:1])) for _ in range(3))
    stayed, went = Rig(*sets), Rig(*sets)
    for rig, switches in ((stayed, False), (went, True)):
        feed(rig, before)
        if switches:
            rig.switch("a", "2.0.0")
        feed(rig, [item for item in between if not isinstance(item, str)])
        if switches:
            rig.switch("a", "1.0.0")
        rig.vectors.clear()
    begins = max(rig.pipeline.paths[0].closed_ms or 0 for rig in (stayed, went))
    feed(stayed, after)
    feed(went, after, data)
    ours = [
        [one for one in rig.of("a") if one[1] > begins and one[3] == "final"]
        for rig in (stayed, went)
    ]
    assert ours[0] == ours[1]
    for rig in (stayed, went):
        rig.pipeline.flush()
    for digest in (bundle.digest for bundle in plans_of(sets[:1])[0].bundles):
        floors = [rig.stores[digest].meta.floor_ms for rig in (stayed, went)]  # type: ignore[union-attr]  # flushed
        lowest = max((ms for ms in floors if ms is not None), default=-1_000)
        panes = [rig.stores[digest].scan(lowest, 1_000) for rig in (stayed, went)]
        assert panes[0].equals(panes[1])
