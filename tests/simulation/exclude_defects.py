"""Defects of leaving events out, to plant as those of `tests.simulation.defects`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from streams.control.set_record import SetRecord
from streams.datapath import fence as fence_module
from streams.datapath.batch import OFFSET
from streams.datapath.bundle_state import BundleState
from streams.datapath.corrections import planned
from streams.datapath.partials import Partials, _kept
from streams.datapath.pipeline import Pipeline
from streams.datapath.versions import Versions
from streams.definitions.exclusions import NEVER, Exclude
from streams.runtime import owner as owner_module
from streams.runtime import streams as streams_module
from streams.runtime.replay import Replay
from streams.runtime.roster import Roster, roster
from streams.runtime.streams import _plans

if TYPE_CHECKING:
    from streams.datapath.batch import Batch

Patch = tuple[Any, str, Any]
"""What is replaced: an object, the name of its attribute, and what stands there instead."""


def _exclusions_forgotten() -> list[Patch]:
    """A claim does not know what is left out by the epoch that is committed."""

    def everything(stream: Any, progress: Any, decided: Any) -> Roster:
        found = roster(stream, progress, decided)
        held = {name: replace(one, excluding=0) for name, one in found.held.items()}
        wanted = [(name, one) for name, it in held.items() for one in it.needed]
        wanted += [(name, it.speaker) for name, it in found.held.items()]
        speakers = {(name, it.speaker) for name, it in held.items()}
        following = dict.fromkeys((*found.following, *wanted))
        return Roster(held=held, following=tuple(one for one in following if one not in speakers))

    return [(owner_module, "roster", everything)]


def _excluded_one_replayed() -> list[Patch]:
    """A replay counts the first event of a batch that is left out."""
    make, take, replay = Partials.__init__, BundleState.take, Pipeline.replay
    replaying = [False]

    def making(self: Partials, bundles: Any, fields: Any) -> None:
        make(self, bundles, fields)
        self.everything = _kept(replace(bundles[0], exclusions=()), fields)  # type: ignore[attr-defined]

    def one_more(self: BundleState, batch: Batch) -> None:
        if not replaying[0] or not self.bundle.exclusions:
            take(self, batch)
            return
        partials: Any = self.partials
        kept, everything, events = partials._where, partials.everything, batch.events
        out = events.filter(~kept) if everything is None else events.filter(everything & ~kept)
        partials._where = None
        try:
            more = pl.concat([events.filter(kept), out.head(1)]).sort(OFFSET)
            take(self, replace(batch, events=more))
        finally:
            partials._where = kept

    def feed(self: Pipeline, batch: Batch) -> None:
        replaying[0] = True
        try:
            replay(self, batch)
        finally:
            replaying[0] = False

    return [
        (Partials, "__init__", making),
        (BundleState, "take", one_more),
        (Pipeline, "replay", feed),
    ]


def _only_the_last_exclusion() -> list[Patch]:
    """What a set leaves out takes the place of what it has left out before."""

    def last(definitions: Any, name: str, exclusions: Any) -> Any:
        return _plans(definitions, name, exclusions[-1:])

    return [(streams_module, "_plans", last)]


def _exclusion_left_behind() -> list[Patch]:
    """An attempt that has failed leaves its exclusion with the set."""
    return [(SetRecord, "in_force", property(lambda self: self.exclusions))]


def _not_corrected() -> list[Patch]:
    """What was said with the events is not said again without them."""

    def none_of_itself(withdrawn: Any, target: Any, at: Any) -> Any:
        same = withdrawn.view.version == target.view.version
        return None if same else planned(withdrawn, target, at)

    return [(fence_module, "planned", none_of_itself)]


def _pin_keeps_events() -> list[Patch]:
    """A pinned version goes on with the events that are left out from here on."""
    obey = Versions.obey

    def partly(self: Versions, name: str, held: Any, closed: Any) -> Any:
        before = {path.outlet: path for path in self.paths if path.pinned}
        new = obey(self, name, held, closed)
        self.paths = tuple(before.get(path.outlet, path) for path in self.paths)
        return new

    return [(Versions, "obey", partly)]


def _only_the_target_awaited() -> list[Patch]:
    """Events are left out as soon as the target is ready, whatever else speaks."""
    preparing = SetRecord.preparing

    def target_only(self: SetRecord, target: str) -> Any:
        return tuple(one for one in preparing(self, target) if one.version == target)

    return [(SetRecord, "preparing", target_only)]


def _former_too_far() -> list[Patch]:
    """What leaves events out begins with a checkpoint that has them in it."""

    async def anywhere(self: Replay, exclusions: Any, start: int, end: int) -> list[int]:
        del self, start
        return [end] * len(exclusions)

    return [
        (Exclude, "first_offset", lambda *_: NEVER),
        (Replay, "clean_below", anywhere),
    ]


DEFECTS = (
    _exclusions_forgotten,
    _excluded_one_replayed,
    _only_the_last_exclusion,
    _exclusion_left_behind,
    _not_corrected,
    _pin_keeps_events,
    _only_the_target_awaited,
    _former_too_far,
)
