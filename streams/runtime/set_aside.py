"""Records that are set aside: dead letters and late copies.

The original key, value and headers are kept; headers of ours say what is wrong and where the
record came from, all of them UTF-8 text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.names import HEADER_PREFIX

if TYPE_CHECKING:
    from streams.datapath.records import Record

_NAMES = ("error", "detail", "topic", "partition", "offset", "stream", "feature_set")
OWN_HEADERS = frozenset(HEADER_PREFIX + name for name in _NAMES)


def set_aside(
    record: Record,
    *,
    topic: str,
    partition: int,
    stream: str,
    error: str,
    detail: str,
    feature_set: str | None = None,
) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the copy of `record`, which is at `topic` and `partition`.

    A record that was set aside before, and produced again as it was, loses the old verdict.
    """
    texts = {
        "error": error,
        "detail": detail,
        "topic": topic,
        "partition": str(partition),
        "offset": str(record.offset),
        "stream": stream,
    }
    if feature_set is not None:
        texts["feature_set"] = feature_set
    kept = [header for header in record.headers if header[0] not in OWN_HEADERS]
    ours = [(HEADER_PREFIX + name, text.encode()) for name, text in texts.items()]
    return record.key, record.value, kept + ours
