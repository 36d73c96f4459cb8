"""A pane store in memory: for definitions run over a list of events, and as a model."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import polars as pl

from streams.state.rows import ENTITY, PANE, RowLayout, check_keys, first_of_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.state.store import Meta

_KEY = [PANE, ENTITY]


class MemoryStore:
    """Keeps one sorted rows frame; behaves like a bundle that never crashes."""

    __slots__ = ("_layout", "_meta", "_rows", "_written")

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout
        self._rows = layout.empty()
        self._meta: Meta | None = None
        self._written: tuple[pl.DataFrame, Meta] | None = None

    @property
    def meta(self) -> Meta | None:
        return self._meta

    def scan(self, start_ms: int, end_ms: int, limit: int | None = None) -> pl.DataFrame:
        found = self._between(start_ms, end_ms)
        return found if limit is None else found.head(limit)

    def panes(self, start_ms: int, end_ms: int) -> list[int]:
        return sorted(set(self._between(start_ms, end_ms)[PANE]))

    def scan_each(self, panes: Sequence[int], after: str | None, limit: int) -> pl.DataFrame:
        found = self._rows
        if not found.is_empty():
            found = found.filter(pl.col(PANE).is_in(panes))
        return first_of_each(found, after, limit)

    def lookup(self, keys: pl.DataFrame) -> pl.DataFrame:
        if self._rows.is_empty():
            return self._rows
        return self._rows.join(keys, on=_KEY, how="semi", maintain_order="left")

    def write(self, rows: pl.DataFrame, meta: Meta) -> None:
        """Raises ValueError for what a bundle would refuse."""
        rows = self._layout.conform(rows)
        if not rows.is_empty():
            rows = rows.sort(_KEY)
            check_keys(rows)
        self._written = rows, meta

    def ingest(self) -> None:
        if self._written is None:
            raise ValueError("nothing was written")
        (rows, meta), self._written = self._written, None
        if self._rows.is_empty():
            self._rows = rows
        elif not rows.is_empty():
            kept = self._rows.join(rows, on=_KEY, how="anti")
            self._rows = pl.concat([kept, rows]).sort(_KEY)
        self._meta = meta

    def flush(self, rows: pl.DataFrame, meta: Meta) -> None:
        self.write(rows, meta)
        self.ingest()

    def drop_below(self, pane_ms: int) -> None:
        self._rows = self._rows[bisect_left(self._rows[PANE], pane_ms) :]

    def close(self) -> None:
        """Nothing to let go of; rows stay readable."""

    def _between(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        panes = self._rows[PANE]
        return self._rows[bisect_left(panes, start_ms) : bisect_left(panes, end_ms)]
