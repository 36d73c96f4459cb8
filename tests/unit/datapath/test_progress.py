"""What is committed with an offset comes back, and nothing else is believed."""

from __future__ import annotations

import pytest

from streams.datapath.progress import Closed, Cursor, Progress
from streams.errors import RewindowError

FULL = Progress(
    closed={"ümlaut": Closed(through_ms=-10, version="1.0.0-rc.1")},
    idle_watermark_ms=0,
    watermark_ms=-5,
    definitions_offset=7,
    cursor=Cursor(feature_set="ümlaut", version="1.0.0", as_of_ms=-20, entities_done=3),
    start=12,
)


@pytest.mark.parametrize("progress", [Progress(), FULL])
def test_progress_comes_back(progress: Progress) -> None:
    assert Progress.decode(progress.encode()) == progress


def test_nothing_takes_no_room() -> None:
    assert Progress().encode() == '{"f":1}'


def test_zero_is_not_nothing() -> None:
    assert Progress.decode(Progress(watermark_ms=0).encode()).watermark_ms == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"f":1,"c":7}',
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"f":2}',
        '{"f":1,"c":{"a":1}}',
        '{"f":1,"k":["a"]}',
    ],
)
def test_what_another_version_wrote_is_refused(text: str) -> None:
    with pytest.raises(RewindowError, match="was not written by this version of rewindow"):
        Progress.decode(text)
