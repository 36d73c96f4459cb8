"""What a rekeying cursor commits, and when its watermark is worth a marker."""

from __future__ import annotations

import pytest

from streams.datapath.rekey_progress import RekeyProgress, closes_something
from streams.definitions.model import Emit
from streams.definitions.plan import View
from streams.errors import RewindowError


def _view(every_ms: int, lateness_ms: int) -> View:
    return View(
        feature_set="s",
        version="1.0.0",
        digest="",
        entity={},
        pane_ms=every_ms,
        every_ms=every_ms,
        allowed_lateness_ms=lateness_ms,
        retention_ms=0,
        longest_window_ms=every_ms,
        emit=Emit.FINAL,
        features=(),
    )


@pytest.mark.parametrize(
    "progress",
    [
        RekeyProgress(),
        RekeyProgress(watermark_ms=0, floor_ms=-5),
        RekeyProgress(watermark_ms=-1, floor_wanted=True, silent=True),
    ],
)
def test_progress_survives_its_text(progress: RekeyProgress) -> None:
    assert RekeyProgress.decode(progress.encode()) == progress


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"f":2}'])
def test_another_format_is_refused(text: str) -> None:
    with pytest.raises(RewindowError, match="not written by this version"):
        RekeyProgress.decode(text)


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "due"),
    [
        (None, -10_000, True),  # the first time
        (100, 1_024, False),  # T = 1000 closes at 1025
        (100, 1_025, True),
        (1_025, 2_024, False),
        (1_024, 2_024, True),
        (-976, -975, True),  # T = -1000
        (500, 500, False),
    ],
)
def test_a_marker_is_due_when_a_set_could_close_something(
    before_ms: int | None, after_ms: int, due: bool
) -> None:
    assert closes_something([_view(1_000, 25)], before_ms, after_ms) is due


def test_any_set_will_do() -> None:
    views = [_view(60_000, 0), _view(1_000, 0)]
    assert closes_something(views, 999, 1_000)
    assert not closes_something(views[:1], 999, 1_000)


def test_without_sets_only_the_first_watermark_counts() -> None:
    assert closes_something([], None, 5)
    assert not closes_something([], 5, 10**12)


@pytest.mark.parametrize(
    ("known", "came", "result"), [(None, None, None), (None, 3, 3), (3, None, 3), (3, 2, 3)]
)
def test_the_watermark_never_lowers(
    known: int | None, came: int | None, result: int | None
) -> None:
    assert RekeyProgress(watermark_ms=known).after(came) == result
