"""Corrections: what a withdrawn version has said, said again by the version that took over.

They are made of the panes as of the fence, beside the batches that follow it. What is on disk is
as of the fence, and stays so: memory is flushed there first, and not again until all of them are
made; see runtime/correcting.py. After a crash a replay stops there and flushes. In order of as-of
time, then of entity bytes, and in as many transactions as it takes; all but the last commit where
to go on.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.entity_runs import Range, entity_runs
from streams.datapath.partials import ENTITY
from streams.datapath.progress import Correcting
from streams.datapath.step import Fenced, Step
from streams.windowing.panes import ceil_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.datapath.bundle_state import BundleState
    from streams.datapath.feature_set import SetPath
    from streams.datapath.live_view import LiveView
    from streams.datapath.stand_ins import Off
    from streams.datapath.standing import Standing
    from streams.datapath.versions import Versions


PAIRS_PER_STEP = 50_000
"""How many (row, as-of time) pairs one transaction may touch: live batches wait for that."""

PAIRS_PER_TIME = 2_000
"""What an as-of time counts for before any row of it is read."""


def planned(withdrawn: LiveView, target: SetPath, at: Standing) -> Correcting | None:
    """What a switch from `withdrawn` to `target` has to correct at the fence; None: nothing.

    Those as-of times up to C that were said by `withdrawn`, whose windows lie above the floors of
    both and of those that stand in for features that are off, and whose panes all these retain.
    Where that begins is a function of what is committed, whatever was flushed.
    """
    name = withdrawn.view.feature_set
    closed = at.progress.closed.get(name)
    if closed is None:
        return None
    begun = [at.progress.began.get(name), at.progress.took_over.get(name)]
    first_ms = max((ms + 1 for ms in begun if ms is not None), default=None)
    for one in (withdrawn, target.live, *target.off.stand_ins):
        retained_ms = closed.through_ms - one.view.retention_ms
        first_ms = retained_ms if first_ms is None else max(first_ms, retained_ms)
        if one.floor_ms is not None:
            first_ms = max(first_ms, one.floor_ms + one.view.longest_window_ms)
    assert first_ms is not None
    first_ms = ceil_to(first_ms, withdrawn.view.every_ms)
    if first_ms > closed.through_ms:
        return None
    return Correcting(
        feature_set=name,
        version=withdrawn.view.name,
        offset=at.position,
        through_ms=closed.through_ms,
        as_of_ms=first_ms,
    )


class Corrections:
    """Makes the steps of the corrections that are pending."""

    def __init__(self, standing: Standing, versions: Versions, *, pairs_per_step: int) -> None:
        self._at = standing
        self._versions = versions
        self._pairs_per_step = min(pairs_per_step, PAIRS_PER_STEP)

    @property
    def pending(self) -> Correcting | None:
        """What is left of them, if anything."""
        return self._at.progress.correcting

    @property
    def ready(self) -> bool:
        """Whether there are any, and the disk has the panes that they are made of."""
        pending = self.pending
        return pending is not None and all(
            state.stored_at == pending.offset
            for live in self._sources(pending)
            for state in live.bundles
        )

    @property
    def withdrawn(self) -> set[tuple[str, str]]:
        """The version that is being corrected."""
        pending = self.pending
        return set() if pending is None else {(pending.feature_set, pending.version)}

    def kept_from_ms(self, bundle: BundleState) -> int | None:
        """Start of the oldest pane of a bundle that is still needed for them; None: of none."""
        pending = self.pending
        if pending is None:
            return None
        sources = [live for live in self._sources(pending) if bundle in live.bundles]
        longest = max((live.view.longest_window_ms for live in sources), default=None)
        return None if longest is None else pending.as_of_ms - longest

    def _sources(self, pending: Correcting) -> list[LiveView]:
        path = self._versions.path(pending.feature_set)
        withdrawn = self._versions.follower(pending.feature_set, pending.version)
        return [withdrawn, path.live, *path.off.stand_ins]

    def given_up(self) -> Step:
        """Says that no more can be made: nothing has what they are made of any more."""
        pending = self.pending
        assert pending is not None
        return self._step(self._versions.path(pending.feature_set), pending, [], last=True)

    def steps(self) -> Iterator[Step]:
        """All that is left of them, each at the position that the pipeline is at by then; the last
        one acknowledges how many there were. Raises ValueError unless they are `ready`.

        Windows that are not whole any more, where a disk was lost and the log was trimmed, are
        left out.
        """
        pending = self.pending
        if pending is None:
            return
        if not self.ready:
            raise ValueError(f"the disk is not as of {pending.offset}, where corrections are due")
        name = pending.feature_set
        path = self._versions.path(name)
        target, off = path.live.on_disk(), path.off.on_disk()
        withdrawn = self._versions.follower(name, pending.version).on_disk()
        pending = _whole(pending, withdrawn, [target, withdrawn, *off.stand_ins])
        held: list[pl.DataFrame] = []
        pairs = 0
        for as_of_ms in _times(target, withdrawn, pending):
            done = pending.entities_done if as_of_ms == pending.as_of_ms else 0
            for part in _corrected(target, off, withdrawn, as_of_ms, done, self._pairs_per_step):
                held.append(part.vectors)
                pairs += part.pairs
                if pairs < self._pairs_per_step:
                    continue
                upcoming = as_of_ms + withdrawn.view.every_ms if part.last else as_of_ms
                pending = replace(
                    pending, as_of_ms=upcoming, entities_done=0 if part.last else part.done
                )
                step = self._step(path, pending, held)
                pending = step.progress.correcting
                assert pending is not None
                held, pairs = [], 0
                yield step
        yield self._step(path, pending, held, last=True)

    def _step(
        self, path: SetPath, pending: Correcting, held: list[pl.DataFrame], *, last: bool = False
    ) -> Step:
        vectors = pl.concat(held) if held else None
        made = pending.made + (0 if vectors is None else vectors.height)
        name = pending.feature_set
        upcoming = None if last else replace(pending, made=made)
        self._at.note(replace(self._at.progress, correcting=upcoming))
        ack = Fenced(
            feature_set=name,
            version=path.view.version,
            epoch=self._at.progress.epochs[name],
            offset=pending.offset,
            closed_through_ms=pending.through_ms,
            corrections=made,
        )
        return Step(
            position=self._at.position,
            progress=self._at.progress,
            vectors={} if vectors is None or vectors.is_empty() else {name: vectors},
            acks=(ack,) if last else (),
        )


def _whole(pending: Correcting, withdrawn: LiveView, sources: Sequence[LiveView]) -> Correcting:
    """What is pending from the first as-of time on whose windows are whole in all of these."""
    first_ms = max(
        (one.floor_ms + one.view.longest_window_ms for one in sources if one.floor_ms is not None),
        default=pending.as_of_ms,
    )
    if first_ms <= pending.as_of_ms:
        return pending
    return replace(pending, as_of_ms=ceil_to(first_ms, withdrawn.view.every_ms), entities_done=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Corrections of some entities of one as-of time, which count as so many pairs.

    `done` is how many of its entities are done with them, `last` whether all are.
    """

    vectors: pl.DataFrame
    pairs: int
    done: int
    last: bool


def _corrected(
    target: LiveView, off: Off, withdrawn: LiveView, as_of_ms: int, done: int, limit: int
) -> Iterator[_Part]:
    """Corrections of one as-of time in order of entity, the first `done` entities skipped."""
    view = target.view
    on_grid = as_of_ms % view.every_ms == 0
    start_ms = as_of_ms - view.longest_window_ms
    own = target.ranges(start_ms, as_of_ms) if on_grid else []
    others = off.ranges(as_of_ms - view.every_ms, as_of_ms)
    # Any of a version's bundles tells who has an event.
    theirs = Range(
        bundle=withdrawn.bundles[0],
        start_ms=as_of_ms - withdrawn.view.longest_window_ms,
        end_ms=as_of_ms,
    )
    counted = 0
    for run in entity_runs([*own, *chain(*others), theirs], limit):
        entities = run.entities
        skipped = min(max(done - counted, 0), entities.len())
        counted += entities.len()
        if skipped == entities.len() and not run.last:
            continue
        frames = run.frames
        if skipped:
            frames = tuple(one.filter(pl.col(ENTITY) > entities[skipped - 1]) for one in frames)
        known = frames[-1][ENTITY]
        left = iter(frames)
        rows = target.frame(list(islice(left, len(own)))) if on_grid else None
        stand_ins = off.frames([list(islice(left, len(one))) for one in others])
        made = target.windows.correct(rows, known, as_of_ms)
        yield _Part(
            vectors=off.fill(made, stand_ins, as_of_ms - view.every_ms, as_of_ms),
            pairs=PAIRS_PER_TIME + sum(one.height for one in frames),
            done=counted,
            last=run.last,
        )


def _times(target: LiveView, withdrawn: LiveView, pending: Correcting) -> Iterator[int]:
    """The as-of times of the withdrawn version that have anything to say, from where it goes on.

    Panes tell it: no value is read.
    """
    every, as_of_ms = withdrawn.view.every_ms, pending.as_of_ms
    sides = []
    for one in (target, withdrawn):
        oldest = as_of_ms - one.view.longest_window_ms
        sides.append((one.view, one.panes(oldest, pending.through_ms)))
    while True:
        candidates = []
        for view, panes in sides:
            at = bisect_left(panes, as_of_ms - view.longest_window_ms)
            if at < len(panes):
                candidates.append(max(as_of_ms, ceil_to(panes[at] + view.pane_ms, every)))
        if not candidates or min(candidates) > pending.through_ms:
            return
        as_of_ms = min(candidates)
        yield as_of_ms
        as_of_ms += every
