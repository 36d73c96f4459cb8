"""A version that is warmed from where its windows begin serves what it would serve after a replay
of the whole log; where the log no longer holds that it is not said to be ready."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from streams.datapath import log_index
from streams.datapath.log_index import collect
from streams.definitions.model import Function
from streams.runtime import replay, verdicts, warming
from streams.runtime.log_index import IndexKeeper
from tests.property.test_floors import Log, rekeyed_logs
from tests.small import feature, feature_set
from tests.unit.runtime.town import ReadsWorld, Town

if TYPE_CHECKING:
    from collections.abc import Sequence

V1, V2 = "1.0.0", "1.1.0"


@st.composite
def keyed_logs(draw: st.DrawFn) -> tuple[int, Log]:
    """Events that drift forward, out of order; the number of source partitions is 0.

    They are stamped in the order of the log, as floors ask for; see `_stamps`."""
    now = draw(st.integers(0, 60))
    log: Log = [("a", now, 1)]
    for _ in range(draw(st.integers(10, 40))):
        now += draw(st.integers(0, 9))
        at = max(0, now - draw(st.sampled_from((0, 0, 3, 12, 40))))
        log.append((draw(st.sampled_from("ab")), at, draw(st.integers(1, 9))))
    return 0, [*log, ("b", now + 100, 1)]


def _stamps(sources: int, log: Log) -> dict[int, int]:
    """Timestamps of records: the time that its producer has come to. What is rekeyed needs none."""
    if sources:
        return {}
    times_ms = [item[1] for item in log if isinstance(item, tuple)]
    return dict(enumerate(accumulate(times_ms, max)))


class Indexed(Town):
    """A town whose owner keeps the index of its stream."""

    records: list[tuple[bytes, bytes]]
    keeper: IndexKeeper | None = None

    def note(self) -> None:
        assert self.pipeline is not None
        assert self.recovery is not None
        if self.keeper is None:
            self.records = []
            self.keeper = IndexKeeper(cast("Any", self), "clicks", 0, anew=True)
        for one in self.keeper.news(self.pipeline, self.recovery.replay.floors):
            pairs = zip(one.keys, one.values, strict=True)
            self.records += [(key or b"", value or b"") for key, value in pairs]
        found = collect(self.records)
        self.index = found.get(("clicks", 0), self.index)


async def _run(town: Indexed, before: Sequence[int], *, trimmed_to: int) -> bool:
    """Read `before` in batches, warm 1.1.0, switch to it if it is ready, and read the rest."""
    await town.claim()
    for count in before:
        await town.read_on(count)
        town.now_s += 1
        town.note()
    town.log_start = trimmed_to
    town.stats.replayed = 0
    town.publish(*town.later)  # type: ignore[attr-defined]  # set below
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    ready = town.ready() == [(V2, 0)]
    if ready:
        town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
        await town.obey()
    await town.read_on(len(town.log) - town.position)
    await town.stop()
    return ready


@settings(max_examples=25, deadline=None)
@given(st.one_of(keyed_logs(), rekeyed_logs()), st.data())
def test_warmed_from_where_its_windows_begin(made: tuple[int, Log], data: st.DataObject) -> None:
    sources, log = made
    window_ms, every_ms = data.draw(st.sampled_from(((10, 10), (20, 10), (15, 5), (40, 20))))
    later = feature_set(
        feature("s", Function.SUM, "x", window_ms=window_ms),
        name="a",
        version=V2,
        every_ms=every_ms,
        retention_ms=data.draw(st.sampled_from((0, 0, 10, 30))),
        allowed_lateness_ms=data.draw(st.sampled_from((0, 5))),
    )
    position = data.draw(st.integers(1, len(log) - 1))
    cuts = sorted(data.draw(st.sets(st.integers(1, position), max_size=12)) | {position})
    counts = [high - low for low, high in zip([0, *cuts], cuts, strict=False)]
    trimmed_to = data.draw(st.one_of(st.just(0), st.integers(0, position)))
    towns, ready = [], []
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_index, "STEP_MS", 1)
        for name, known in (("whole", False), ("known", True)):
            town = Indexed(
                Path(directory) / name,
                sets=(feature_set(name="a"),),
                sources=sources,
                log=log,
                timestamps=_stamps(sources, log),
            )
            town.later = (later,)  # type: ignore[attr-defined]  # for this test alone
            if not known:
                town.note = lambda: None  # type: ignore[method-assign]
            patch.setattr(replay, "read_log", town.read_log)
            patch.setattr(verdicts, "read_log", town.read_log)
            patch.setattr(warming, "BatchReader", ReadsWorld(town))
            ready.append(asyncio.run(_run(town, counts, trimmed_to=trimmed_to if known else 0)))
            towns.append(town)
    whole, revived = towns
    assert ready[0]
    if ready[1]:
        assert revived.vectors == whole.vectors
        assert revived.stats.replayed <= whole.stats.replayed
    else:
        assert trimmed_to > 0
    event(f"ready {ready[1]}, trimmed {trimmed_to > 0}")
    event(f"less was read: {revived.stats.replayed < whole.stats.replayed}")
