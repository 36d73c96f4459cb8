"""Dead letters and late copies keep what came and say what is wrong."""

from __future__ import annotations

from streams.runtime.set_aside import set_aside
from streams.testing import Record


def test_the_original_is_kept_and_the_reason_added() -> None:
    record = Record(
        offset=7, timestamp=5, key=b"k", value=b"\xff", headers=[("trace", b"1"), ("trace", b"2")]
    )
    key, value, headers = set_aside(
        record, topic="t", partition=3, stream="s", error="truncated", detail="zu kurz, größer"
    )
    assert (key, value) == (b"k", b"\xff")
    assert headers == [
        ("trace", b"1"),
        ("trace", b"2"),
        ("rewindow.error", b"truncated"),
        ("rewindow.detail", "zu kurz, größer".encode()),
        ("rewindow.topic", b"t"),
        ("rewindow.partition", b"3"),
        ("rewindow.offset", b"7"),
        ("rewindow.stream", b"s"),
    ]


def test_a_late_copy_names_its_set() -> None:
    record = Record(offset=0, timestamp=0, key=None, value=None)
    _, _, headers = set_aside(
        record, topic="t", partition=0, stream="s", error="late", detail="", feature_set="f"
    )
    assert headers[-1] == ("rewindow.feature_set", b"f")


def test_an_old_verdict_is_replaced() -> None:
    record = Record(
        offset=0,
        timestamp=0,
        key=None,
        value=None,
        headers=[("rewindow.error", b"old"), ("rewindow.feature_set", b"old"), ("a", b"b")],
    )
    _, _, headers = set_aside(record, topic="t", partition=0, stream="s", error="new", detail="d")
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    assert dict(headers)["rewindow.error"] == b"new"
    assert "rewindow.feature_set" not in names
