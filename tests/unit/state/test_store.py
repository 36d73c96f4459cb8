"""The meta record's byte form."""

from __future__ import annotations

import pytest

from streams.state.store import Meta


@pytest.mark.parametrize(
    "meta",
    [
        Meta(next_offset=0),
        Meta(
            next_offset=2**60,
            watermark_ms=-5,
            source_watermarks={3: 7, 0: -1},
            floor_ms=0,
            extra={"é": "\0"},
        ),
    ],
)
def test_a_meta_comes_back_as_it_was(meta: Meta) -> None:
    assert Meta.from_bytes(meta.to_bytes()) == meta


def test_equal_metas_have_equal_bytes() -> None:
    one = Meta(next_offset=1, source_watermarks={1: 2, 3: 4}, extra={"a": "b", "c": "d"})
    other = Meta(next_offset=1, source_watermarks={3: 4, 1: 2}, extra={"c": "d", "a": "b"})
    assert one.to_bytes() == other.to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        Meta(next_offset=1).to_bytes().replace(b'"format":1', b'"format":2'),
        Meta(next_offset=1).to_bytes().replace(b"floor_ms", b"ceiling"),
        Meta(next_offset=1).to_bytes().replace(b'"next_offset":1', b'"next_offset":null'),
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Meta.from_bytes(data)
