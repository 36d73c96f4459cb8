"""What the data path wants from stored panes, and the meta record that goes with them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

META_FORMAT = 1
"""Version of the meta record's JSON form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """How far the rows beside it have come; stored atomically with them.

    `next_offset` is the first offset of the stream partition not yet in the rows,
    `watermark_ms` the highest event time seen, `source_watermarks` the watermark of each
    source partition of a rekeyed stream. Panes from `floor_ms` on are whole; None is minus
    infinity. `extra` is the caller's.
    """

    next_offset: int
    watermark_ms: int | None = None
    source_watermarks: Mapping[int, int] = field(default_factory=dict)
    floor_ms: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """JSON with sorted keys: equal metas give equal bytes."""
        document = {
            "format": META_FORMAT,
            "next_offset": self.next_offset,
            "watermark_ms": self.watermark_ms,
            "source_watermarks": {str(p): ms for p, ms in self.source_watermarks.items()},
            "floor_ms": self.floor_ms,
            "extra": dict(self.extra),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Meta:
        """Raises ValueError for anything that `to_bytes` of this format did not make."""
        try:
            document: dict[str, Any] = json.loads(data)
            if document.pop("format") != META_FORMAT:
                raise ValueError(f"a meta record of another format than {META_FORMAT}")
            watermarks = document.pop("source_watermarks")
            meta = cls(source_watermarks={int(p): ms for p, ms in watermarks.items()}, **document)
        except (AttributeError, KeyError, TypeError):
            raise ValueError("not a meta record") from None
        if not isinstance(meta.next_offset, int):
            raise ValueError("not a meta record")
        return meta


class PaneStore(Protocol):
    """Rows of one bundle of one stream partition, as rows frames (see `rows`)."""

    @property
    def meta(self) -> Meta | None:
        """The meta of the last flush; None if there was none."""
        ...

    def scan(self, start_ms: int, end_ms: int, limit: int | None = None) -> pl.DataFrame:
        """Rows with `@pane` in [start_ms, end_ms), ascending by pane, then entity bytes.

        The first `limit` of them, or all.
        """
        ...

    def panes(self, start_ms: int, end_ms: int) -> list[int]:
        """The panes in [start_ms, end_ms) that have rows, ascending; reads no values."""
        ...

    def scan_each(self, panes: Sequence[int], after: str | None, limit: int) -> pl.DataFrame:
        """The first `limit` rows of each of the ascending `panes`, sorted as by `scan`.

        Counted are rows whose entity comes after `after` by its bytes; without it, all.
        """
        ...

    def lookup(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Rows that exist for `keys` (`@pane`, `@entity`; others ignored), each once, sorted."""
        ...

    def write(self, rows: pl.DataFrame, meta: Meta) -> None:
        """Write these rows and the meta aside, for `ingest`; nothing of it is seen before.

        May run beside readers. Raises ValueError if `rows` is no rows frame of the store's layout.
        """
        ...

    def ingest(self) -> None:
        """Add or replace what was written last, all of it or nothing."""
        ...

    def flush(self, rows: pl.DataFrame, meta: Meta) -> None:
        """Write and ingest."""
        ...

    def drop_below(self, pane_ms: int) -> None:
        """Delete rows with `@pane` < pane_ms. A crash may undo it; repeating it is safe."""
        ...

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        ...
