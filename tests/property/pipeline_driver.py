"""Drives the product's pipeline over generated streams, in batches and with restarts."""

from __future__ import annotations

import io
from copy import copy
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import fastavro

from streams.control import set_record
from streams.control.set_record import Held
from streams.datapath import batch
from streams.datapath.bundle_state import BundleState, Flush, watermark_of
from streams.datapath.feature_set import SetPath
from streams.datapath.intake import Intake
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline, Step
from streams.datapath.progress import Progress
from streams.datapath.rekeyed import marker_value, origin_header
from streams.definitions.plan import plan_versions
from streams.names import AS_OF, KIND_FIELD
from streams.schema.decode import Decoder, header
from streams.schema.types import field_types
from streams.state.memory import MemoryStore
from streams.state.rows import ENTITY, RowLayout
from streams.testing import Record
from streams.windowing.entity import entity_fields
from tests.property.strategies import SCHEMA, SOURCE
from tests.reference import Decided, Idle, Marker, Row, Switch, Toggle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streams.definitions.model import FeatureSet
    from tests import reference

_PARSED = fastavro.parse_schema(dict(SCHEMA))


class Driver:
    """A stream partition with memory stores that outlive restarts.

    Sets of one name are versions of a set, in order of publication. The first serves.
    """

    def __init__(
        self, sets: Sequence[FeatureSet], *, sources: int = 0, pairs_per_step: int = 400_000
    ) -> None:
        self._sources = sources
        self._pairs_per_step = pairs_per_step
        fields = field_types(SCHEMA)
        self._fields = fields
        by_name: dict[str, list[FeatureSet]] = {}
        for one in sets:
            by_name.setdefault(one.name, []).append(one)
        self._plans = [p for one in by_name.values() for p in plan_versions(one, SOURCE, fields)]
        self._held = {(name, 0): Held(serving=it[0].version) for name, it in by_name.items()}
        """By set and epoch."""
        self._bundles = {bundle.digest: bundle for p in self._plans for bundle in p.bundles}
        self._stores = {
            digest: MemoryStore(RowLayout(bundle.columns))
            for digest, bundle in self._bundles.items()
        }
        decoder = Decoder(SCHEMA, fields)
        decoder.add(1, SCHEMA)
        self._intake = Intake(SOURCE, decoder, fields, rekeyed=bool(sources))
        self._log: list[Record] = []
        self._position = 0
        self._idle_ms: int | None = None
        self._progress = Progress()
        self.rows: list[Row] = []
        self.late: list[tuple[str, int]] = []
        self.dead: list[tuple[int, str]] = []
        self._open()

    def _open(self) -> None:
        self._begun: list[Flush] = []
        bundles = {
            digest: BundleState(bundle, self._fields, self._stores[digest])
            for digest, bundle in self._bundles.items()
        }
        closed = {name: one.through_ms for name, one in self._progress.closed.items()}
        held = {name: self._now(name) for name, _ in self._held}
        paths = [
            SetPath(
                LiveView.of(p, bundles, self._fields),
                closed_ms=closed.get(p.view.feature_set),
            )
            for p in self._plans
            if p.view.version == held[p.view.feature_set].serving
        ]
        followers = [
            LiveView.of(p, bundles, self._fields)
            for p in self._plans
            if p.view.version != held[p.view.feature_set].serving
        ]
        oldest = min(bundles.values(), key=lambda one: one.next_offset)
        self._pipeline = Pipeline(
            paths,
            followers=followers,
            watermark=watermark_of(oldest.store.meta, self._sources),
            position=oldest.next_offset,
            progress=self._progress,
            held=held,
            pairs_per_step=self._pairs_per_step,
        )

    def take(self, records: Iterable[reference.Record], *, crash_after: int | None = None) -> None:
        """Append to the log and apply as one batch; with `crash_after`, only so many steps."""
        start = len(self._log)
        chunk = [self._record(one, start + i) for i, one in enumerate(records)]
        self._log.extend(chunk)
        if chunk:
            self._run(self._pipeline.steps(self._batch(chunk, self._position)), crash_after)

    def idle(self, watermark_ms: int, *, crash_after: int | None = None) -> None:
        """Follow a watermark that idleness gives."""
        self._idle_ms = max(watermark_ms, self._idle_ms or watermark_ms)
        self._run(self._pipeline.idle(watermark_ms), crash_after)

    def obey(self, decided: Decided, *, crash_after: int | None = None) -> None:
        """The fence of the set's next epoch."""
        name = decided.feature_set
        epoch = self._progress.epochs.get(name, 0) + 1
        held = self._held[name, epoch] = held_after(self._now(name), decided)
        if decided.repair if isinstance(decided, Switch) else False:
            self._finish_flush()
        made = self._pipeline.switch(name, held, epoch=epoch, control_offset=epoch)
        self._run(chain(made, self._corrections()), crash_after)

    def _corrections(self) -> Iterator[Step]:
        if self._pipeline.correcting:
            if self._pipeline.may_flush:
                self._pipeline.flush()
            yield from self._pipeline.corrections()

    def _now(self, name: str) -> Held:
        """What holds by the epoch that is committed."""
        return self._held[name, self._progress.epochs.get(name, 0)]

    def _batch(self, records: Sequence[Record], first: int) -> batch.Batch:
        return self._intake.batch(records, first_offset=first, partition=0)

    def _run(self, steps: Iterator[Step], crash_after: int | None) -> None:
        for number, step in enumerate(steps):
            self._position, self._progress = step.position, Progress.decode(step.progress.encode())
            self.late.extend((one.feature_set, one.offset) for one in step.late)
            self.dead.extend((one.offset, one.error) for one in step.dead)
            for name, frame in step.vectors.items():
                view = self._path(name).view
                entity = zip(*entity_fields(frame[ENTITY], view.entity), strict=True)
                for row, key in zip(frame.iter_rows(named=True), entity, strict=True):
                    values = {f.name: row[f.name] for f in view.features}
                    self.rows.append(
                        Row(
                            feature_set=name,
                            entity=key,
                            as_of_ms=row[AS_OF],
                            kind=row[KIND_FIELD],
                            values=values,
                        )
                    )
            if crash_after is not None and number >= crash_after:
                return

    def _path(self, outlet: str) -> SetPath:
        return next(path for path in self._pipeline.paths if path.outlet == outlet)

    def flush(self) -> None:
        """As the worker does between batches: begun and written, or that ingested later on."""
        if self._begun:
            self._finish_flush()
            return
        self._begun = self._pipeline.begin_flush()
        for one in self._begun:
            one.write()

    def _finish_flush(self) -> None:
        for one in self._begun:
            one.ingest()
        self._begun = []

    def die_flushing(self, bundles: int) -> None:
        """Flush so many bundles, then crash."""
        self._finish_flush()
        kept = [one.store for one in self._pipeline.bundles[:bundles]]
        before = {digest: copy(store) for digest, store in self._stores.items()}
        self._pipeline.flush()
        for digest, store in self._stores.items():
            if store not in kept:
                self._stores[digest] = before[digest]
        self.crash()

    def crash(self) -> None:
        """Lose what is in memory, claim anew and catch up with the committed position."""
        self._open()
        start = self._pipeline.position
        missing = [one for one in self._log if start <= one.offset < self._position]
        half = len(missing) // 2
        for part in (missing[:half], missing[half:]):
            if part:
                self._pipeline.replay(self._batch(part, self._pipeline.position))
        self._pipeline.begin(0)
        if self._pipeline.correcting:
            self._pipeline.flush()
        self._run(chain(self._pipeline.resume(), self._corrections()), None)
        if self._idle_ms is not None:
            # What closed nothing was not committed: it is seen again.
            self._run(self._pipeline.idle(self._idle_ms), None)

    def take_rest(self) -> None:
        """Apply what a crash left unread."""
        rest = [one for one in self._log if one.offset >= self._position]
        if rest:
            self._run(self._pipeline.steps(self._batch(rest, self._position)), None)

    def _record(self, record: reference.Record, number: int) -> Record:
        assert not isinstance(record, Idle | Decided), "not in the log"
        if isinstance(record, Marker):
            value = marker_value(
                batch.Marker(
                    offset=0,
                    source_partition=record.source_partition,
                    watermark_ms=record.watermark_ms,
                    silent=record.silent,
                    floor_ms=record.floor_ms,
                )
            )
            return Record(offset=number, timestamp=0, key=None, value=value)
        body = io.BytesIO()
        fastavro.schemaless_writer(body, _PARSED, dict(record.fields))
        headers = [
            origin_header(record.source_partition, record.source_offset or 0, record.timestamp_ms)
        ]
        return Record(
            offset=record.offset,
            timestamp=record.timestamp_ms,
            key=b"k",
            value=header(1) + body.getvalue(),
            headers=headers if self._sources else (),
        )


def held_after(held: Held, decided: Decided) -> Held:
    """What holds once this is decided."""
    if isinstance(decided, Switch):
        corrects = held.serving if decided.repair else None
        return replace(held, serving=decided.version, corrects=corrects)
    if isinstance(decided, Toggle):
        name = (decided.version, decided.feature)
        toggles = tuple(one for one in held.toggles if (one.version, one.feature) != name)
        if decided.off:
            toggle = set_record.Toggle(
                version=decided.version, feature=decided.feature, fallback=decided.stand_in
            )
            toggles = (*toggles, toggle)
        return replace(held, toggles=toggles)
    pinned = tuple(one for one in held.pinned if one.version != decided.version)
    if decided.pinned:
        pin = set_record.Pin(version=decided.version, key_schema_id=1, value_schema_id=2)
        pinned = (*pinned, pin)
    return replace(held, pinned=pinned)
