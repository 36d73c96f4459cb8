"""What a set makes of a stream whose beginning is gone is what it makes of the whole stream, from
the first window that lies after its floor; it serves no half of a window."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.datapath.batch import Marker
from streams.runtime import replay, verdicts
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click
from tests.unit.runtime.world import World, marker

Log = list[Click | Marker]


@st.composite
def rekeyed_logs(draw: st.DrawFn) -> tuple[int, Log]:
    """Number of source partitions, and what their cursors write in turns: some events, and a
    marker now and then. Each is at its own time, and its events are out of order."""
    sources = draw(st.integers(1, 3))
    now = [draw(st.integers(0, 60)) for _ in range(sources)]
    watermarks: list[int | None] = [now[0], *[None] * (sources - 1)]
    log: Log = [("a", now[0], 1)]
    for _ in range(draw(st.integers(4, 25))):
        p = draw(st.integers(0, sources - 1))
        for _ in range(draw(st.integers(0, 3))):
            now[p] += draw(st.integers(0, 12))
            at = max(0, now[p] - draw(st.sampled_from((0, 0, 5, 30))))
            watermarks[p] = max(watermarks[p] or 0, at)
            log.append((draw(st.sampled_from("ab")), at, 1))
        if watermarks[p] is not None and draw(st.booleans()):
            log.append(marker(p, watermarks[p]))
    end = max(now) + 100
    log += [marker(p, end) for p in range(sources)]
    return sources, log


async def _run(world: World, cuts: st.DataObject | None) -> None:
    """Read the rest of the log in batches, with crashes in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "read_log", world.read_log)
        patch.setattr(verdicts, "read_log", world.read_log)
        await world.claim()
        while left := len(world.log) - world.position:
            many = left if cuts is None else cuts.draw(st.integers(1, left))
            await world.read_on(many)
            if cuts is not None and cuts.draw(st.booleans()):
                await world.stop(flush=cuts.draw(st.booleans()))
                await world.claim()
        await world.stop()


@settings(max_examples=40)
@given(rekeyed_logs(), st.sampled_from((10, 20)), st.data())
def test_a_trimmed_stream_gives_whole_windows_only(
    made: tuple[int, Log], window_ms: int, data: st.DataObject
) -> None:
    sources, log = made
    sets = (feature_set(feature(window_ms=window_ms), name="a"),)
    with tempfile.TemporaryDirectory() as directory:
        whole = World(Path(directory) / "whole", sets=sets, sources=sources, log=log)
        asyncio.run(_run(whole, None))
        trimmed = World(Path(directory) / "trimmed", sets=sets, sources=sources, log=log)
        trimmed.log_start = data.draw(st.integers(1, len(log) - 1))
        if data.draw(st.booleans()):
            trimmed.read_up_to(data.draw(st.integers(trimmed.log_start, len(log))))
        asyncio.run(_run(trimmed, data))
    assert set(trimmed.vectors) <= set(whole.vectors)
    assert len(set(trimmed.vectors)) == len(trimmed.vectors)
