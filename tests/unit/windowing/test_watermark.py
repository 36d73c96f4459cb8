"""How far event time has come: keyed sources, and rekeyed streams with their markers."""

from __future__ import annotations

import polars as pl

from streams.windowing.watermark import Watermark


def times(*ms: int) -> pl.Series:
    return pl.Series(ms, dtype=pl.Int64)


def test_a_keyed_stream_has_none_before_its_first_event() -> None:
    assert Watermark().value_ms is None
    assert Watermark().after_events(times()).value_ms is None


def test_a_keyed_streams_watermark_is_the_highest_event_time_so_far() -> None:
    watermark = Watermark().after_events(times(5, 9, 2))
    assert watermark.value_ms == 9
    assert watermark.after_events(times(4)).value_ms == 9
    assert watermark.after_events(times(-4, 10)).value_ms == 10


def test_event_times_before_1970_count_like_others() -> None:
    assert Watermark().after_events(times(-9, -5)).value_ms == -5


def test_each_event_sees_the_watermark_that_it_makes_itself() -> None:
    #   event    3   7   5   9        before the batch: 4
    #   at       4   7   7   9
    watermark = Watermark(highest_ms=4)
    seen = watermark.at_arrival(times(3, 7, 5, 9), times(0, 1, 2, 3), [])
    assert seen.to_list() == [4, 7, 7, 9]


def test_a_rekeyed_stream_has_none_until_every_source_partition_has_spoken() -> None:
    watermark = Watermark(sources=2).after_events(times(100)).after_marker(0, 50)
    assert watermark.value_ms is None
    assert watermark.after_marker(1, 30).value_ms == 30


def test_a_rekeyed_streams_watermark_is_the_lowest_of_its_sources() -> None:
    watermark = Watermark(sources=2).after_marker(0, 50).after_marker(1, 30)
    assert watermark.after_marker(1, 70).value_ms == 50


def test_a_marker_never_lowers() -> None:
    watermark = Watermark(sources=1).after_marker(0, 50)
    assert watermark.after_marker(0, 20).value_ms == 50
    assert watermark.after_marker(0, None).value_ms == 50


def test_an_event_of_a_rekeyed_stream_sees_the_markers_before_it() -> None:
    #   offset   0    1     2    3     4
    #            e   p0:50  e   p1:30  e
    #   at      none       none        30
    watermark = Watermark(sources=2)
    seen = watermark.at_arrival(times(99, 99, 99), times(0, 2, 4), [(1, 0, 50), (3, 1, 30)])
    assert seen.to_list() == [None, None, 30]


def test_a_source_is_silent_when_the_newest_marker_of_each_partition_says_so() -> None:
    watermark = Watermark(sources=2).after_marker(0, 50, silent=True)
    assert watermark.silence_ms is None
    watermark = watermark.after_marker(1, 70, silent=True)
    assert watermark.silence_ms == 70
    assert watermark.after_marker(0, 80).silence_ms is None


def test_a_source_without_any_event_has_no_highest_event_time_to_be_silent_at() -> None:
    watermark = Watermark(sources=1).after_marker(0, None, silent=True)
    assert watermark.silence_ms is None


def test_two_readers_of_one_log_know_the_higher_of_both() -> None:
    one = Watermark(sources=2, highest_ms=5, by_source={0: 9, 1: 3})
    other = Watermark(sources=2, highest_ms=7, by_source={0: 4})
    joined = one.joined(other)
    assert joined.highest_ms == 7
    assert dict(joined.by_source) == {0: 9, 1: 3}
    assert Watermark().joined(Watermark(highest_ms=-3)).value_ms == -3
