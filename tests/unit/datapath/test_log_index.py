"""What is known of a log: entries that are true whichever of them are lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.datapath.log_index import SLOTS, STEP_MS, Entry, IndexWriter, LogIndex, collect

PLACE = ("clicks", 3)
HOUR_MS = 3_600_000


def at(offset: int, highest_ms: int) -> Entry:
    return Entry(offset=offset, highest_ms=highest_ms)


def written(*entries: Entry, anew: bool = False) -> list[tuple[bytes, bytes]]:
    writer = IndexWriter(*PLACE, anew=anew)
    return [record for entry in entries for record in writer.records(entry)]


def test_the_last_entry_before_a_time_and_the_first_after_an_offset() -> None:
    index = LogIndex((at(10, 1_000), at(20, 2_000), at(30, 3_000)))
    assert index.last_before(1_000) is None
    assert index.last_before(1_001) == at(10, 1_000)
    assert index.last_before(9_000) == at(30, 3_000)
    assert index.first_from(11, 9_000) == at(20, 2_000)
    assert index.first_from(20, 2_000) is None
    assert index.below(20).entries == (at(10, 1_000), at(20, 2_000))


def test_what_is_written_is_read_back() -> None:
    entries = at(10, 1_000), at(20, 2_000), at(30, 3_000)
    assert collect(written(*entries)) == {PLACE: LogIndex(entries)}


def test_nothing_is_written_before_event_time_has_come_a_step_further() -> None:
    writer = IndexWriter(*PLACE, anew=False)
    assert len(writer.records(at(10, 5_000))) == 1
    assert writer.records(at(20, 5_000 + STEP_MS - 1)) == []
    assert writer.records(at(30, 4_000)) == []
    assert len(writer.records(at(40, 5_000 + STEP_MS))) == 1


def test_a_log_that_begins_anew_makes_older_entries_void() -> None:
    records = [*written(at(10, 9_000), at(20, 19_000)), *written(at(5, 2_000), anew=True)]
    assert collect(records)[PLACE].entries == (at(5, 2_000),)
    # The beginning is said once, and by who has something to say.
    assert IndexWriter(*PLACE, anew=True)._anew
    assert len(written(at(5, 2_000), at(9, 7_000), anew=True)) == 3


def test_partitions_and_streams_are_told_apart() -> None:
    other = IndexWriter("clicks.by.who", 3, anew=False).records(at(7, 1_000))
    found = collect([*written(at(10, 2_000)), *other])
    assert found == {
        PLACE: LogIndex((at(10, 2_000),)),
        ("clicks.by.who", 3): LogIndex((at(7, 1_000),)),
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", b""),
        (b"clicks/3/1.1", b"no json"),
        (b"clicks/x/1.1", b'{"o":1,"h":2}'),
        (b"clicks/3/1.1", b"[]"),
        (b"\xff/3/1", b"{}"),
    ],
)
def test_what_cannot_be_read_is_left_out(key: bytes, value: bytes) -> None:
    assert collect([(key, value), *written(at(10, 2_000))])[PLACE].entries == (at(10, 2_000),)


@given(st.lists(st.integers(0, 90_000), min_size=1, max_size=60))
def test_slots_hold_each_the_newest_of_theirs(steps: list[int]) -> None:
    """Compaction keeps the last record of each key: nothing changes by it."""
    now, entries = 0, []
    for number, step in enumerate(steps):
        now += step
        entries.append(at(number, now))
    records = written(*entries)
    compacted = dict(records)
    assert collect(records) == collect(compacted.items())
    found = collect(records)[PLACE].entries
    assert set(found) <= set(entries)
    assert found[-1].highest_ms // STEP_MS == now // STEP_MS


def test_what_happened_an_age_ago_is_known_to_a_part_of_that_age() -> None:
    now = 40 * 24 * HOUR_MS
    index = collect(written(*(at(ms, ms) for ms in range(0, now, 17_000))))[PLACE]
    assert len(index.entries) < 40 * SLOTS
    for age in (HOUR_MS, 5 * HOUR_MS, 24 * HOUR_MS, 30 * 24 * HOUR_MS):
        found = index.last_before(now - age)
        assert found is not None
        assert now - found.highest_ms < age * (1 + 3 / SLOTS)
