"""What a rekeyed stream holds can be read back as it was written."""

from __future__ import annotations

import pytest

from streams.datapath.batch import Marker
from streams.datapath.rekeyed import (
    key_header,
    marker_value,
    origin_header,
    original,
    read_marker,
    read_origin,
)
from streams.errors import RewindowError
from streams.testing import Record


@pytest.mark.parametrize(
    "marker",
    [
        Marker(offset=3, source_partition=0, watermark_ms=None),
        Marker(offset=3, source_partition=5, watermark_ms=-1),
        Marker(offset=3, source_partition=5, watermark_ms=0, silent=True, floor_ms=0),
    ],
)
def test_a_marker_comes_back(marker: Marker) -> None:
    assert read_marker(3, marker_value(marker)) == marker


def test_a_marker_says_only_what_there_is_to_say() -> None:
    plain = Marker(offset=0, source_partition=4, watermark_ms=7)
    assert marker_value(plain) == b'{"p":4,"w":7}'


@pytest.mark.parametrize("value", [None, b"", b"[]", b"7", b"{}", b"\xff"])
def test_a_record_that_is_no_marker_is_refused(value: bytes | None) -> None:
    with pytest.raises(RewindowError, match=r"offset 12 .* somebody else writes"):
        read_marker(12, value)


def test_an_origin_comes_back_from_among_other_headers() -> None:
    headers = [("trace", b"1"), origin_header(3, 2**40, -1), ("rewindow.origin", b"short")]
    assert read_origin(headers) == (3, 2**40, -1)


@pytest.mark.parametrize("headers", [[], [("rewindow.origin", b"short")]])
def test_an_event_without_an_origin_is_refused(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(RewindowError, match=r"no rewindow\.origin header"):
        read_origin(headers)


@pytest.mark.parametrize("key", [None, b"", b"EWR"])
def test_an_event_can_be_made_as_its_producer_wrote_it(key: bytes | None) -> None:
    record = Record(
        offset=9,
        timestamp=0,
        key=b"entity",
        value=b"v",
        headers=[origin_header(1, 2, 3), *key_header(key), ("trace", b"t")],
    )
    found = original(record)
    assert (found.partition, found.offset, found.timestamp) == (1, 2, 3)
    assert (found.key, found.value, list(found.headers)) == (key, b"v", [("trace", b"t")])
