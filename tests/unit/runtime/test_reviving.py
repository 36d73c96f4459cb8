"""Where a version begins that has nothing: at what it needs, and not at the log's beginning."""

from __future__ import annotations

from streams.datapath.log_index import Entry, LogIndex
from streams.runtime.reviving import Need, Start, find_start, needed_offset
from tests.small import feature, feature_set
from tests.unit.datapath.rig import planned

INDEX = LogIndex(tuple(Entry(offset=10 * n, highest_ms=1_000 * n) for n in range(1, 10)))
NEED = Need(needed_ms=5_500, wanted_ms=3_500)


def start(
    need: Need | None = NEED, *, app_start: int = 0, log_start: int = 0, position: int = 95
) -> Start:
    return find_start(INDEX, need, app_start=app_start, log_start=log_start, position=position)


def test_a_version_needs_the_windows_of_its_next_as_of_time() -> None:
    one = feature_set(feature(window_ms=60), every_ms=20, retention_ms=100, name="a")
    # The next as-of time after 50 is 60, and its window begins at 0; it keeps 100 ms more than
    # the window as of C, whose entities are told when they leave.
    assert Need.of(planned(one).view, 50) == Need(needed_ms=0, wanted_ms=-120)


def test_it_begins_at_the_last_entry_before_what_it_keeps() -> None:
    assert start() == Start(offset=30, floor_ms=3_001)


def test_without_a_need_or_an_entry_it_begins_with_the_log() -> None:
    assert start(None, log_start=12) == Start(offset=12, gap=True)
    assert start(Need(needed_ms=900, wanted_ms=900)) == Start(offset=0)
    assert start(Need(needed_ms=900, wanted_ms=900), app_start=7) == Start(offset=7)


def test_of_a_trimmed_log_it_takes_what_is_left_of_what_it_keeps() -> None:
    assert start(log_start=31) == Start(offset=40, floor_ms=4_001)
    assert start(log_start=50) == Start(offset=50, floor_ms=5_001)


def test_where_the_log_begins_too_late_its_first_record_tells_the_floor() -> None:
    assert start(log_start=51) == Start(offset=51, gap=True)


def test_entries_beyond_the_position_are_about_another_time() -> None:
    assert start(position=25) == Start(offset=20, floor_ms=2_001)


def test_what_the_gate_asks_for() -> None:
    assert needed_offset(INDEX, NEED, app_start=0, position=95) == 50
    assert needed_offset(INDEX, NEED, app_start=60, position=95) == 60
    assert needed_offset(INDEX, NEED, app_start=0, position=9) == 0
