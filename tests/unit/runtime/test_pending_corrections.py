"""Corrections that are pending, and a log or disk that lacks what they are made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from streams.datapath import corrections
from streams.definitions.model import Function
from tests.small import feature, feature_set
from tests.unit.runtime.town import Town, made

if TYPE_CHECKING:
    from pathlib import Path

V1, V2 = "1.0.0", "1.1.0"
COUNT, SUM = feature("n"), feature("s", Function.SUM, "x")
ONCE = feature_set(COUNT, name="a", version=V1, retention_ms=1_000)
AGAIN = feature_set(COUNT, SUM, name="a", version=V2, retention_ms=1_000)
FIRST = [("ann", 3, 1), ("ann", 11, 1)]
SAID = [("ann", 12, 4), ("bob", 14, 2), ("ann", 22, 1), ("bob", 33, 1), ("x", 45, 1)]
LATER = [("x", 46, 1), ("x", 57, 1), ("x", 58, 1), ("x", 69, 1)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Town]:
    return partial(made, tmp_path, monkeypatch, sets=(ONCE, AGAIN))


async def amid_corrections(town: Town, monkeypatch: pytest.MonkeyPatch) -> int:
    """V1 has taken over again, nothing of V2 is corrected yet; the process is gone."""
    monkeypatch.setattr(corrections, "PAIRS_PER_STEP", 1)
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.claim()
    await town.take(*FIRST)
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    await town.take(*SAID)
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V1, epoch=2, corrects=V2)
    assert town.obedience is not None
    assert town.pipeline is not None
    await town.obedience.obey()
    town.pipeline.flush()
    assert town.progress.correcting is not None
    fence = town.position
    await town.take(*LATER)
    await town.stop(flush=False)
    town.vectors = []
    return fence


async def test_without_any_loss_all_are_made(
    make: Callable[..., Town], monkeypatch: pytest.MonkeyPatch
) -> None:
    town = make()
    await amid_corrections(town, monkeypatch)
    await town.claim()
    said = [one for one in town.vectors if one[1] <= 40]
    assert said == [
        ("a", 20, "ann", 2),
        ("a", 20, "bob", 1),
        ("a", 30, "ann", 1),
        ("a", 40, "bob", 1),
    ]
    await town.stop()


LONG = feature("n", window_ms=30)
LONG_ONCE = feature_set(LONG, name="a", version=V1, retention_ms=1_000)
LONG_AGAIN = feature_set(LONG, SUM, name="a", version=V2, retention_ms=1_000)


async def test_windows_that_are_not_whole_any_more_are_not_corrected(
    make: Callable[..., Town], monkeypatch: pytest.MonkeyPatch
) -> None:
    town = make(sets=(LONG_ONCE, LONG_AGAIN))
    await amid_corrections(town, monkeypatch)
    # The partition moves to an empty disk, and of the log what is before 19 is gone by now.
    shutil.rmtree(town.directory)
    town.log_start, town.timestamps = 3, {3: 14}
    await town.claim()
    assert town.floors() == [19]
    # As of 30 ann had three events; as of 40 the window is [10, 40).
    said = [one for one in town.vectors if one[1] <= 40]
    assert said == [], "their windows begin before 19"
    assert town.progress.correcting is None
    await town.stop()


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_log_that_begins_after_the_fence_does_not_end_the_partition(
    make: Callable[..., Town], monkeypatch: pytest.MonkeyPatch, *, emptied: bool
) -> None:
    town = make()
    fence = await amid_corrections(town, monkeypatch)
    if emptied:
        shutil.rmtree(town.directory)
    # All that the open window [60, 70) needs is there.
    town.log_start, town.timestamps = fence + 1, {fence + 1: 50}
    await town.claim()
    await town.take(("x", 90, 1))
    assert ("a", 70, "x", 1) in town.vectors
    await town.stop()
