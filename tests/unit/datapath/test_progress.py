"""What is committed with an offset comes back, and nothing else is believed."""

from __future__ import annotations

import pytest

from streams.datapath.progress import Closed, Correcting, Cursor, Progress
from streams.errors import RewindowError

FULL = Progress(
    closed={"ümlaut": Closed(through_ms=-10, version="1.0.0-rc.1")},
    idle_watermark_ms=0,
    watermark_ms=-5,
    definitions_offset=7,
    control_offset=9,
    epochs={"ümlaut": 4, "gone": 1},
    cursor=Cursor(outlet="ümlaut", version="1.0.0", as_of_ms=-20, entities_done=3),
    began={"ümlaut": -30},
    took_over={"ümlaut": -20},
    correcting=Correcting(
        offset=5,
        feature_set="ümlaut",
        version="1.0.0",
        through_ms=-10,
        as_of_ms=-15,
        entities_done=2,
        made=5,
    ),
    owing=True,
    start=12,
)


@pytest.mark.parametrize("progress", [Progress(), FULL])
def test_progress_comes_back(progress: Progress) -> None:
    assert Progress.decode(progress.encode()) == progress


def test_nothing_takes_no_room() -> None:
    assert Progress().encode() == '{"f":4}'


def test_what_was_written_before_there_were_epochs_is_understood() -> None:
    old = '{"f":1,"c":{"a":[20,"1.0.0"]},"i":7,"w":9,"d":3,"s":2,"k":["a","1.0.0",30,4]}'
    assert Progress.decode(old) == Progress(
        closed={"a": Closed(through_ms=20, version="1.0.0")},
        idle_watermark_ms=7,
        watermark_ms=9,
        definitions_offset=3,
        began={"a": 20},
        start=2,
        cursor=Cursor(outlet="a", version="1.0.0", as_of_ms=30, entities_done=4),
    )


def test_a_version_is_named_once_it_has_closed_something() -> None:
    known = Progress().closed_further("a", 20, "1.0.0")
    assert known.closed == {"a": Closed(through_ms=20, version="1.0.0")}
    assert known.closed_further("a", 20, "2.0.0") == known
    assert known.closed_further("a", 10, "2.0.0") == known
    assert known.closed_further("a", None, "2.0.0") == known
    assert known.closed_further("a", 21, "2.0.0").closed["a"].version == "2.0.0"
    assert known.closed_further("b", -5, "2.0.0").closed.keys() == {"a", "b"}


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
        '{"f":5}',
        '{"f":3,"x":["a","1.0.0",10,5,0,0]}',
        '{"f":1,"c":{"a":1}}',
        '{"f":1,"k":["a"]}',
    ],
)
def test_what_another_version_wrote_is_refused(text: str) -> None:
    with pytest.raises(RewindowError, match="was not written by this version of rewindow"):
        Progress.decode(text)
