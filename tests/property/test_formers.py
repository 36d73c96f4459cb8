"""A bundle without bad events that begins with a checkpoint of what it was before holds what it
would hold after a replay; so does what comes out of it, corrections among it."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from streams.datapath import log_index
from streams.definitions.model import Function
from streams.runtime import replay, verdicts, warming
from streams.runtime.replay import Replay
from tests.property.test_floors import Log, rekeyed_logs
from tests.property.test_reviving import Indexed, keyed_logs
from tests.small import feature, feature_set
from tests.unit.runtime.checkpoint_rig import Rig
from tests.unit.runtime.cleaning import Cleaned, exclusion
from tests.unit.runtime.town import CrashError, ReadsWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.definitions.exclusions import Exclusion


@dataclass
class IndexedTown(Cleaned, Indexed):
    """Both."""


@st.composite
def exclusions(draw: st.DrawFn, length: int) -> tuple[Exclusion, ...]:
    """One or two; most of them begin late in the log."""
    made = []
    for number in range(3, 3 + draw(st.integers(1, 2))):
        start = draw(st.integers(0, length))
        ranges = ((0, start, start + draw(st.integers(1, 5))),)
        where = draw(st.sampled_from((None, None, "x > 8", f"x > 6 AND at > {start * 4}")))
        made.append(exclusion(number, where, *(ranges if where is None else ())))
    return tuple(made)


async def _run(
    rig: Rig, town: IndexedTown, before: Sequence[int], taken: Sequence[int], crash: bool
) -> list[tuple[Any, ...]]:
    """Read `before` in batches, leave out one exclusion after the other, and read the rest."""
    town.decided.decide("1.0.0!/1")
    await town.claim()
    for at, count in enumerate(before):
        await town.read_on(count)
        town.now_s += 1
        town.note()
        if at in taken:
            await rig.take()
    for number in range(1, len(town.exclusions) + 1):
        town.leave_out(number, force=number - 1, epoch=number - 1)
        if crash:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Replay, "bring", _dies)
                with pytest.raises(CrashError):
                    await town.warmed()
            rig.start()
            await town.claim()
        await town.warmed()
        town.leave_out(number, force=number, epoch=number, ready=True)
        await town.obey()
        if taken and number < len(town.exclusions):
            await rig.take()
    await town.read_on(len(town.log) - town.position)
    rows = town.rows(len(town.exclusions))
    await town.stop()
    return rows


async def _dies(*_: Any) -> None:
    """What is restored is in its place, and nothing of it is replayed."""
    raise CrashError


@settings(max_examples=25, deadline=None)
@given(st.one_of(keyed_logs(), rekeyed_logs()), st.data())
def test_begun_from_what_it_was_before(made: tuple[int, Log], data: st.DataObject) -> None:
    sources, log = made
    one = feature_set(
        feature("s", Function.SUM, "x"),
        feature("n", Function.COUNT, where="x > 4"),
        feature("m", Function.COUNT, where="x < 4"),
        feature("f", Function.FIRST, "x"),
        name="a",
        every_ms=10,
        retention_ms=data.draw(st.sampled_from((0, 10, 30, 1_000))),
        allowed_lateness_ms=data.draw(st.sampled_from((0, 5))),
    )
    left_out = data.draw(exclusions(len(log)))
    position = data.draw(st.integers(1, len(log) - 1))
    cuts = sorted(data.draw(st.sets(st.integers(1, position), max_size=8)) | {position})
    counts = [high - low for low, high in zip([0, *cuts], cuts, strict=False)]
    taken = data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1, unique=True))
    crash = data.draw(st.booleans())
    towns, rows = [], []
    with tempfile.TemporaryDirectory() as directory:
        for name, checkpoints in (("log", ()), ("checkpoints", taken)):
            base = Path(directory) / name
            town = IndexedTown(
                base / "state", sets=(one,), sources=sources, log=log, exclusions=left_out
            )
            rig = Rig(town, base)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(log_index, "STEP_MS", 1)
                patch.setattr(replay, "read_log", town.read_log)
                patch.setattr(verdicts, "read_log", town.read_log)
                patch.setattr(warming, "BatchReader", ReadsWorld(town))
                rows.append(asyncio.run(_run(rig, town, counts, checkpoints, crash)))
            towns.append(town)
    assert towns[1].vectors == towns[0].vectors
    assert rows[1] == rows[0]
    event(f"restored {towns[1].stats.restored}")
