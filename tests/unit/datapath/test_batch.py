"""Batches are cut by offset, and offsets have holes."""

from __future__ import annotations

from streams.datapath.batch import OFFSET, Batch, DeadLetter, Marker
from tests.unit.datapath.rig import batch


def shape(one: Batch) -> tuple[int, int, list[int], list[int], list[int], list[int]]:
    return (
        one.first_offset,
        one.next_offset,
        list(one.offsets),
        one.events[OFFSET].to_list(),
        [m.offset for m in one.markers],
        [d.offset for d in one.dead],
    )


def holed() -> Batch:
    #   offset  10   12   13      17    20        23 is next
    #           ann  bob  marker  dead  cid
    events = batch(10, [("ann", 1, 1), ("-", 0, 0), ("bob", 2, 1)]).events
    more = batch(20, [("cid", 3, 1)]).events
    return Batch(
        first_offset=8,
        next_offset=23,
        offsets=[10, 12, 13, 17, 20],
        events=events.filter(events[OFFSET] != 11).vstack(more),
        markers=(Marker(offset=13, source_partition=0, watermark_ms=1),),
        dead=(DeadLetter(offset=17, error="tombstone", detail=""),),
    )


def test_halves_are_cut_between_records_and_cover_all_offsets() -> None:
    first, second = holed().halves()
    assert shape(first) == (8, 13, [10, 12], [10, 12], [], [])
    assert shape(second) == (13, 23, [13, 17, 20], [20], [13], [17])


def test_two_records_are_halved_into_one_each() -> None:
    first, second = batch(5, [("ann", 1, 1), ("bob", 2, 1)]).halves()
    assert shape(first) == (5, 6, [5], [5], [], [])
    assert shape(second) == (6, 7, [6], [6], [], [])


def test_below_and_since_meet_at_the_offset() -> None:
    assert shape(holed().below(13)) == (8, 13, [10, 12], [10, 12], [], [])
    assert shape(holed().since(13)) == (13, 23, [13, 17, 20], [20], [13], [17])


def test_a_cut_in_a_hole_takes_nothing_apart() -> None:
    assert shape(holed().below(15)) == (8, 15, [10, 12, 13], [10, 12], [13], [])
    assert shape(holed().since(15)) == (15, 23, [17, 20], [20], [], [17])


def test_cuts_outside_the_batch_change_nothing_or_leave_nothing() -> None:
    assert shape(holed().since(3)) == shape(holed())
    assert shape(holed().below(99)) == shape(holed())
    assert shape(holed().since(23)) == (23, 23, [], [], [], [])
