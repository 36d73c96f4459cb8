"""A stream partition in memory, without records to decode: for tests of the pipeline."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from streams.control.set_record import Held
from streams.datapath.batch import OFFSET, Batch, Marker
from streams.datapath.bundle_state import BundleState, watermark_of
from streams.datapath.feature_set import SetPath
from streams.datapath.intake import empty_events
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.datapath.progress import Progress
from streams.datapath.step import Fenced, Late, Step
from streams.definitions.exclusions import Exclusion
from streams.definitions.plan import Plan, plan, plan_versions
from streams.names import AS_OF, KIND_FIELD
from streams.schema.types import field_types
from streams.state.memory import MemoryStore
from streams.state.rows import ENTITY, RowLayout
from streams.windowing.accumulators import EVENT_TIME, SOURCE_OFFSET, SOURCE_PARTITION
from streams.windowing.watermark import Watermark
from tests.small import schema, source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from streams.definitions.model import FeatureSet

FIELDS = field_types(schema(x=["null", "long"]))

Click = tuple[str | None, int, int]
"""An event: who, at, x."""

Vector = tuple[str, int, str, str, tuple[Any, ...]]
"""Feature set, as-of time, entity, kind, values by feature name."""


def planned(one: FeatureSet) -> Plan:
    """The plan of a set over `tests.small.source`."""
    return plan(one, source(), FIELDS)


def plans_of(sets: Sequence[FeatureSet], exclusions: Sequence[Exclusion] = ()) -> list[Plan]:
    """The plans of some sets; those of one name are its versions, in order of publication.

    After them come those that leave events out, as far as each of the exclusions.
    """
    by_name: dict[str, list[FeatureSet]] = {}
    for one in sets:
        by_name.setdefault(one.name, []).append(one)
    return [
        p
        for count in range(len(exclusions) + 1)
        for group in by_name.values()
        for p in plan_versions(group, source(), FIELDS, exclusions[:count])
    ]


def batch(
    first_offset: int, items: Sequence[Click | Marker], *, next_offset: int | None = None
) -> Batch:
    """A batch of items at consecutive offsets from `first_offset` on."""
    offsets = range(first_offset, first_offset + len(items))
    clicks = [(o, *one) for o, one in zip(offsets, items, strict=True) if isinstance(one, tuple)]
    frame = pl.DataFrame(
        {
            OFFSET: [o for o, *_ in clicks],
            EVENT_TIME: [at for _, _, at, _ in clicks],
            SOURCE_PARTITION: [0] * len(clicks),
            SOURCE_OFFSET: [o for o, *_ in clicks],
            "who": [who for _, who, _, _ in clicks],
            "at": [at for _, _, at, _ in clicks],
            "x": [x for *_, x in clicks],
        },
        schema=empty_events(FIELDS).schema,
    )
    return Batch(
        first_offset=first_offset,
        next_offset=first_offset + len(items) if next_offset is None else next_offset,
        offsets=list(offsets),
        events=frame,
        markers=tuple(
            replace(one, offset=o)
            for o, one in zip(offsets, items, strict=True)
            if isinstance(one, Marker)
        ),
    )


class Rig:
    """The pipeline of some sets with stores that outlive a crash, and what came out of it.

    Sets of one name are versions of a set: the first one serves, or the one in `serving`. What
    they are by `exclusions` follows the stream, too.
    """

    def __init__(
        self,
        *sets: FeatureSet,
        sources: int = 0,
        pairs_per_step: int = 400_000,
        progress: Progress | None = None,
        store: Callable[[RowLayout], MemoryStore] = MemoryStore,
        serving: Mapping[str, str] | None = None,
        exclusions: Sequence[Exclusion] = (),
        beside: bool = False,
    ) -> None:
        """With `beside` corrections are made by `correct` only."""
        self.sets = sets
        self.beside = beside
        self.exclusions = exclusions
        self.serving = dict(serving or {})
        self.sources = sources
        self.pairs_per_step = pairs_per_step
        self.store = store
        self.stores: dict[str, MemoryStore] = {}
        self.log: list[Click | Marker] = []
        self.position = 0
        self.progress = Progress() if progress is None else progress
        self.vectors: list[Vector] = []
        self.late: list[Late] = []
        self.steps: list[Step] = []
        self.acks: list[Fenced] = []
        self.begun = False
        self.held: dict[tuple[str, int], Held] = {}
        """By set and epoch, where it was decided."""
        self.open()

    def open(self) -> None:
        """A claim: open the bundles, replay what is committed, begin."""
        plans = plans_of(self.sets, self.exclusions)
        bundles = {}
        for bundle in (bundle for one in plans for bundle in one.bundles):
            digest = bundle.digest
            if digest not in self.stores:
                self.stores[digest] = self.store(RowLayout(bundle.columns))
            bundles[digest] = BundleState(bundle, FIELDS, self.stores[digest])
        first = {one.view.feature_set: one.view.name for one in reversed(plans)}
        serving = {**first, **self.serving}
        closed = {name: c.through_ms for name, c in self.progress.closed.items()}
        oldest = min(bundles.values(), key=lambda bundle: bundle.next_offset)
        watermark = Watermark(sources=self.sources)
        for state in bundles.values():
            watermark = watermark.joined(watermark_of(state.store.meta, self.sources))
        self.pipeline = Pipeline(
            [
                SetPath(
                    LiveView.of(one, bundles, FIELDS), closed_ms=closed.get(one.view.feature_set)
                )
                for one in plans
                if one.view.name == serving[one.view.feature_set]
            ],
            followers=[
                LiveView.of(one, bundles, FIELDS)
                for one in plans
                if one.view.name != serving[one.view.feature_set]
            ],
            watermark=watermark,
            position=oldest.next_offset,
            progress=self.progress,
            held={
                name: self.held[name, epoch]
                for name, epoch in self.progress.epochs.items()
                if (name, epoch) in self.held
            },
            pairs_per_step=self.pairs_per_step,
        )
        if self.progress.correcting is not None:
            self._replay(self.progress.correcting.offset)
            self.pipeline.flush()
        self._replay(self.position)
        self.pipeline.begin(0)

    def _replay(self, position: int) -> None:
        start = self.pipeline.position
        if start < position:
            self.pipeline.replay(batch(start, self.log[start:position]))

    def crash(self, *sets: FeatureSet) -> None:
        """Lose what is in memory; come back, with other sets if given, and finish things."""
        self.sets = sets or self.sets
        self.open()
        self.run(self.pipeline.resume())
        if not self.beside:
            self.correct()

    def take(self, *items: Click | Marker, crash_after: int | None = None) -> None:
        """Append to the log and apply as one batch, or only so many steps of it."""
        start = len(self.log)
        self.log.extend(items)
        self.run(self.pipeline.steps(batch(start, items)), crash_after)

    def take_rest(self, *, crash_after: int | None = None) -> None:
        """Apply what a crash left unread."""
        rest = self.log[self.position :]
        if rest:
            self.run(self.pipeline.steps(batch(self.position, rest)), crash_after)

    def idle(self, watermark_ms: int, *, crash_after: int | None = None) -> None:
        """Follow a watermark that idleness gives."""
        self.run(self.pipeline.idle(watermark_ms), crash_after)

    def switch(
        self,
        name: str,
        version: str,
        *,
        epoch: int | None = None,
        crash_after: int | None = None,
        corrects: str | None = None,
    ) -> None:
        """The fence of the next epoch, from which on this version serves; the rest stays."""
        held = replace(self.holds(name), serving=version, corrects=corrects)
        self.hold(name, held, epoch=epoch, crash_after=crash_after)

    def holds(self, name: str) -> Held:
        """What holds of a set by the epoch that is committed."""
        known = self.held.get((name, self.progress.epochs.get(name, 0)))
        first = next((one.version for one in self.sets if one.name == name), "")
        return known or Held(serving=self.serving.get(name, first))

    def hold(
        self, name: str, held: Held, *, epoch: int | None = None, crash_after: int | None = None
    ) -> None:
        """The fence of the next epoch, from which on this holds."""
        if self.pipeline.must_wait(name, held):
            self.correct()
        following = self.progress.epochs.get(name, 0) + 1 if epoch is None else epoch
        self.held.setdefault((name, following), held)
        made = self.pipeline.switch(name, held, epoch=following, control_offset=following)
        self.run(chain(made, self._corrections()), crash_after)

    def correct(self, *, crash_after: int | None = None) -> None:
        """Make the corrections that are pending, or only so many steps of them."""
        self.run(self.pipeline.corrections(), crash_after)

    def _corrections(self) -> Iterator[Step]:
        """What follows a fence: all of them, or what they are made of where that is enough."""
        if self.pipeline.correcting:
            self.pipeline.flush()
        if not self.beside:
            yield from self.pipeline.corrections()

    def run(self, steps: Iterator[Step], crash_after: int | None = None) -> None:
        """Commit steps, all of them or the first few."""
        if crash_after == 0:
            return
        for number, step in enumerate(steps, start=1):
            self.steps.append(step)
            self.position = step.position
            self.progress = Progress.decode(step.progress.encode())
            self.late.extend(step.late)
            self.acks.extend(step.acks)
            for ack in step.acks:
                held = self.held[ack.feature_set, ack.epoch]
                assert ack.version == held.serving
                self.serving[ack.feature_set] = held.speaker
            for name, frame in step.vectors.items():
                self.vectors.extend(_vectors(name, frame))
            if number == crash_after:
                return

    def of(self, name: str) -> list[Vector]:
        """Vectors of one set, in the order in which they came."""
        return [one for one in self.vectors if one[0] == name]


def _vectors(name: str, frame: pl.DataFrame) -> Iterable[Vector]:
    ours = (ENTITY, AS_OF, KIND_FIELD)
    features = [c for c in frame.columns if c not in ours and not c.startswith("@")]
    for row in frame.iter_rows(named=True):
        values = tuple(row[feature] for feature in features)
        yield name, row[AS_OF], row[ENTITY], row[KIND_FIELD], values
