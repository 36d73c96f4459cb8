"""Defects to plant in the product, to see that the simulation finds them.

Each is a set of replacements at seams of the product or of the fakes, for as long as a run takes;
the product itself knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from streams.control import draft
from streams.control.audit import chained
from streams.control.gate import _Checks
from streams.control.records import GENESIS, AuditEvent, Code, Head, RequestRecord, State
from streams.control.state import ControlState
from streams.datapath import pipeline as pipeline_module
from streams.datapath.bundle_state import BundleState
from streams.datapath.fence import fence
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.datapath.progress import Progress
from streams.datapath.stand_ins import Off
from streams.datapath.versions import Versions
from streams.names import Names
from streams.runtime import committing as committing_module
from streams.runtime import owner as owner_module
from streams.runtime.committing import Committing
from streams.runtime.control.tail import Tail
from streams.runtime.obedience import Obedience, acknowledged
from streams.runtime.owner import PartitionOwner
from streams.runtime.roster import Roster, roster
from tests.simulation.broker import Broker
from tests.simulation.exclude_defects import DEFECTS, Patch
from tests.simulation.loop import Process
from tests.simulation.store import Bundle

if TYPE_CHECKING:
    from streams.datapath.batch import Batch

BREAKS: dict[str, Callable[[], list[Patch]]] = {}
"""Defects by name; their docstrings say what they are."""


def _defect(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    BREAKS[make.__name__.strip("_").replace("_", "-")] = make
    return make


# -- fences -------------------------------------------------------------------------------------


@_defect
def _skipped_fence() -> list[Patch]:
    """A new owner begins with the newest version, without a fence."""

    def newest(stream: Any, progress: Progress, decided: Any) -> Roster:
        found = roster(stream, progress, decided)
        held, following = dict(found.held), list(found.following)
        for name, version in found.serving.items():
            route = decided.route(name)
            if route is not None and route.held.speaker != version:
                held[name] = route.held
                following.remove((name, route.held.speaker))
                following.append((name, version))
        return Roster(held=held, following=tuple(following))

    return [(owner_module, "roster", newest)]


@_defect
def _c_not_inherited() -> list[Patch]:
    """A version that takes over closes again what the one before has closed."""

    def forgetful(*args: Any, **given: Any) -> Any:
        step, paths = fence(*args, **given)
        if paths[0].closed_ms is not None:
            paths[0].closed_ms -= paths[0].view.every_ms
        return step, paths

    return [(pipeline_module, "fence", forgetful)]


@_defect
def _epoch_not_committed() -> list[Patch]:
    """A fence is acknowledged, and the epoch does not go into the commit metadata."""

    def forgetful(at: Any, *args: Any, **given: Any) -> Any:
        epochs = at.progress.epochs
        step, paths = fence(at, *args, **given)
        at.progress = replace(at.progress, epochs=epochs)
        return replace(step, progress=at.progress), paths

    return [(pipeline_module, "fence", forgetful)]


@_defect
def _lost_ack() -> list[Patch]:
    """A fence is committed without its ack, in one partition."""

    def silent(fences: Any, stream: Any, partition: int) -> Any:
        return [] if partition == 0 else acknowledged(fences, stream, partition)

    return [(committing_module, "acknowledged", silent)]


@_defect
def _empties_forgotten() -> list[Patch]:
    """Entities that only the version before had a vector for are not told that it is gone."""
    return [(Versions, "predecessor", lambda *_: None)]


@_defect
def _corrections_of_now() -> list[Patch]:
    """Corrections are made of what has come since the fence, too."""
    return [(LiveView, "on_disk", lambda self: self), (Off, "on_disk", lambda self: self)]


@_defect
def _flush_amid_corrections() -> list[Patch]:
    """What comes after a fence is flushed while corrections are pending that are made of the
    disk."""
    return [(Pipeline, "may_flush", True)]


@_defect
def _fence_before_the_record() -> list[Patch]:
    """A fence does not wait for the record that has closed something and is not applied yet."""

    def encode(self: Progress) -> str:
        return encoded(replace(self, owing=False))

    encoded = Progress.encode
    return [(Progress, "encode", encode)]


@_defect
def _ready_too_soon() -> list[Patch]:
    """A version counts as ready before the window of its next as-of time is whole."""
    return [(Obedience, "_is_whole", lambda *_: True)]


# -- state --------------------------------------------------------------------------------------


@_defect
def _half_flush() -> list[Patch]:
    """The meta of a flush is on disk before its rows are."""

    def ingest(self: Bundle) -> None:
        assert self._written is not None
        _, self._meta = self._written
        self.keep()
        self._before_ingest()
        super(Bundle, self).ingest()
        self.keep()

    return [(Bundle, "ingest", ingest)]


@_defect
def _state_ahead() -> list[Patch]:
    """Rows are flushed before the transaction that they belong to."""
    commit = Committing._commit

    async def early(self: Any, *args: Any) -> None:
        await self._run(self._pipeline.flush)
        await commit(self, *args)

    return [(Committing, "_commit", early)]


@_defect
def _replayed_twice() -> list[Patch]:
    """A replay gives a bundle what it has applied already."""

    replay = Pipeline.replay

    def twice(self: Pipeline, batch: Batch) -> None:
        there = {bundle: bundle.next_offset for bundle in self.bundles}
        replay(self, batch)
        for bundle, offset in there.items():
            known = batch.events.filter(pl.col("@offset") < offset)
            selected = bundle.partials.select(known).filter(pl.col("@entity").is_not_null())
            bundle.overlay.add(bundle.partials.build(selected, ["@pane", "@entity"]))

    return [(Pipeline, "replay", twice)]


@_defect
def _follower_not_fed() -> list[Patch]:
    """Bundles that only versions read which do not serve miss what comes in."""
    take, replay = BundleState.take, Pipeline.replay
    replaying = [False]

    def starve(self: BundleState, batch: Batch) -> None:
        if replaying[0]:
            take(self, batch)
        else:
            self.next_offset = max(self.next_offset, batch.next_offset)

    def feed(self: Pipeline, batch: Batch) -> None:
        replaying[0] = True
        try:
            replay(self, batch)
        finally:
            replaying[0] = False

    return [(BundleState, "take", starve), (Pipeline, "replay", feed)]


@_defect
def _closing_not_resumed() -> list[Patch]:
    """A claim does not finish the closing that was under way."""
    return [(Pipeline, "resume", lambda _: iter(()))]


@_defect
def _floor_too_high() -> list[Patch]:
    """Panes are deleted that only a version needs which does not serve."""

    def wanted(self: Versions, bundle: Any) -> int | None:
        closed = {path.view.feature_set: path.closed_ms for path in self.paths}
        floors = [
            path.windows.kept_from_ms(closed[path.view.feature_set] or 0)
            for path in self.paths
            if bundle in path.live.bundles and closed[path.view.feature_set] is not None
        ]
        return min(floors, default=None)

    return [(Versions, "wanted_floor_ms", wanted)]


# -- claims -------------------------------------------------------------------------------------


@_defect
def _zombie_not_fenced() -> list[Patch]:
    """Owners of a partition have transactional ids of their own."""

    def own(self: Names, stream: str, partition: int) -> str:
        return f"{self.app}:{stream}:{partition}:{Process.current().name}"

    return [(Names, "transactional_id", own)]


@_defect
def _zombie_coordinator() -> list[Patch]:
    """Coordinators have transactional ids of their own."""

    def own(self: Names) -> str:
        return f"{self.app}:coordinator:{Process.current().name}"

    return [(Names, "coordinator_transactional_id", property(own))]


@_defect
def _stale_batches() -> list[Patch]:
    """An owner takes batches that were fetched for an earlier claim, or after a lost one."""
    work = PartitionOwner._work

    async def take(self: Any, fetched: Any) -> None:
        if not self._gone:
            self._waiting.put_nowait(fetched)

    async def careless(self: Any, fetched: Any) -> None:
        self._due = fetched.position
        if fetched.records.offsets[0] >= self._pipeline.position:
            await work(self, fetched)

    return [(PartitionOwner, "take", take), (PartitionOwner, "_work", careless)]


@_defect
def _epoch_not_read() -> list[Patch]:
    """A claim begins with the first version, whichever epoch its position was committed under."""

    def first(stream: Any, progress: Progress, decided: Any) -> Roster:
        return roster(stream, replace(progress, epochs={}), decided)

    return [(owner_module, "roster", first)]


@_defect
def _toggles_forgotten() -> list[Patch]:
    """A claim does not know what is switched off by the epoch that is committed."""

    def on(stream: Any, progress: Progress, decided: Any) -> Roster:
        found = roster(stream, progress, decided)
        held = {name: replace(one, toggles=()) for name, one in found.held.items()}
        return Roster(held=held, following=found.following)

    return [(owner_module, "roster", on)]


@_defect
def _pin_begins_anew() -> list[Patch]:
    """After a claim a pinned version closes again what it has closed."""
    obey = Versions.obey

    def forgetful(self: Versions, name: str, held: Any, _closed: Any) -> Any:
        return obey(self, name, held, {})

    return [(Versions, "obey", forgetful)]


@_defect
def _aborted_read() -> list[Patch]:
    """Records of transactions that were aborted are read like others."""
    read = Broker.read

    def everything(self: Broker, at: Any, start: int, most: int) -> Any:
        found, after = read(self, at, start, most)
        if at[0] != "clicks":
            return found, after
        entries = self.log(at).entries[start : start + most]
        records = [one.record for one in entries if one.record is not None]
        return records, start + len(entries)

    return [(Broker, "read", everything)]


# -- the control path ---------------------------------------------------------------------------


@_defect
def _decided_twice() -> list[Patch]:
    """A request that is over is not remembered by its id."""
    apply = ControlState.apply

    def forget(self: ControlState, record: Any) -> None:
        apply(self, record)
        body = record.body
        if isinstance(body, RequestRecord) and body.state in (State.COMPLETED, State.REJECTED):
            self.requests.pop(body.request_id or "", None)

    return [(ControlState, "apply", forget)]


@_defect
def _audit_link_dropped() -> list[Patch]:
    """A coordinator that takes over begins the audit chain anew."""

    def broken(head: Head, record: Any) -> Any:
        if record.event is AuditEvent.RESUMED:
            head = Head(next_seq=head.next_seq, hash=GENESIS)
        return chained(head, record)

    return [(draft, "chained", broken)]


@_defect
def _acks_forgotten() -> list[Patch]:
    """A coordinator that takes over does not read the acks that the one before had read."""
    rest = Tail.rest

    async def newest(self: Tail, topic: str) -> list[Any]:
        found = await rest(self, topic)
        return [] if topic.endswith(".acks") else found

    return [(Tail, "rest", newest)]


@_defect
def _two_in_flight() -> list[Patch]:
    """The gate does not look whether another request is under way for the set."""
    still_true = _Checks.still_true

    def unaware(self: Any) -> Any:
        return (reason for reason in still_true(self) if reason.code != Code.IN_FLIGHT)

    return [(_Checks, "still_true", unaware)]


# -- leaving events out -------------------------------------------------------------------------

for _make in DEFECTS:
    _defect(_make)
