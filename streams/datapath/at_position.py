"""Closing at a position: over the panes as they are there, in as many transactions as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.datapath.progress import Cursor
from streams.datapath.step import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from streams.datapath.feature_set import SetPath
    from streams.datapath.standing import Standing
    from streams.datapath.versions import Versions


class ClosingAtPosition:
    """Makes the steps of closings ahead of the record at a position, or where there is none."""

    def __init__(self, standing: Standing, versions: Versions, *, pairs_per_step: int) -> None:
        self._at = standing
        self._versions = versions
        self._pairs_per_step = pairs_per_step

    def close(self, path: SetPath, target_ms: int, position: int) -> Iterator[Step]:
        """Steps that close `(C, target]`: runs of as-of times, each run within the limit.

        The first as-of time that a version closes after another has a closing to itself.
        """
        if path.behind(target_ms) and self._versions.predecessor(path, self._at.progress):
            yield from self.close_one(path, path.next_ms, position, 0)
        while path.behind(target_ms):
            rows, whole_ms = path.rows(target_ms, self._pairs_per_step)
            through = whole_ms if path.behind(whole_ms) else None
            while through is not None and path.behind(whole_ms):
                through = path.run(rows, whole_ms, self._pairs_per_step)
                if through is not None:
                    yield self._step(path, position, path.close(rows, through), through)
            if through is None:
                del rows
                yield from self.close_one(path, path.next_as_of(target_ms), position, 0)

    def close_one(self, path: SetPath, as_of_ms: int, position: int, done: int) -> Iterator[Step]:
        """Steps that close a single as-of time, so many entities at a time, by their bytes.

        The first `done` of them have gone out already.
        """
        before = as_of_ms - path.view.every_ms
        predecessor = self._versions.predecessor(path, self._at.progress)
        for vectors, count, last in path.slices(as_of_ms, done, self._pairs_per_step, predecessor):
            if last:
                yield self._step(path, position, vectors, as_of_ms)
                return
            cursor = Cursor(
                outlet=path.outlet,
                version=path.view.name,
                as_of_ms=as_of_ms,
                entities_done=count,
            )
            yield self._step(path, position, vectors, before, cursor)

    def _step(
        self,
        path: SetPath,
        position: int,
        vectors: pl.DataFrame,
        through_ms: int,
        cursor: Cursor | None = None,
    ) -> Step:
        path.closed_ms = through_ms
        name = path.outlet
        closed = self._at.progress.closed_further(name, through_ms, path.view.name)
        self._at.note(closed, cursor)
        return Step(
            position=position,
            progress=self._at.progress,
            vectors={} if vectors.is_empty() else {name: vectors},
        )
