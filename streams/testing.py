"""Run a definition over a list of events, in memory and with time under control.

The pipeline is the worker's own; only the broker, the registry and RocksDB are left out::

    harness = Harness.from_files("sources/flights.yaml", "features/origin_departures.yaml",
                                 schema="schemas/flights-value/v0001.avsc")
    harness.send({"origin": "EWR", "departed_at": 1_000, "dep_delay": 3})
    harness.advance_to(7_200_000)
    assert harness.vectors[0].values["departures_1h"] == 1

One stream partition is run, so the watermark is the highest event time sent. Nothing here
reads a clock: `advance_to` is how time passes while no event comes.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import fastavro

from streams.datapath.bundle_state import BundleState, watermark_of
from streams.datapath.feature_set import SetPath
from streams.datapath.intake import Intake
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import PAIRS_PER_STEP, Late, Pipeline, Step
from streams.datapath.progress import Progress
from streams.definitions.load import load_files
from streams.definitions.plan import plan
from streams.definitions.validate import check_feature_set, check_source_fields
from streams.errors import InvalidInputError
from streams.names import AS_OF, KIND_FIELD
from streams.schema.decode import Decoder, header
from streams.schema.types import field_types, unsupported_fields
from streams.state.memory import MemoryStore
from streams.state.rows import ENTITY, RowLayout
from streams.windowing.entity import entity_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import polars as pl

    from streams.datapath.batch import DeadLetter
    from streams.definitions.model import FeatureSet, Source

_SCHEMA_ID = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One output record: `kind` is final, update or empty; `entity` and `values` by field."""

    feature_set: str
    entity: Mapping[str, Any]
    as_of_ms: int
    kind: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as Kafka would hand it over."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = field(default=())


class Harness:
    """A source and sets over it. What has come out is in `vectors`, `late` and `dead`."""

    def __init__(
        self,
        source: Source,
        *feature_sets: FeatureSet,
        schema: Mapping[str, Any],
        pairs_per_step: int = PAIRS_PER_STEP,
    ) -> None:
        """Raises `InvalidInputError` where a definition does not fit `schema` (Avro)."""
        self.vectors: list[Vector] = []
        self.late: list[Late] = []
        self.dead: list[DeadLetter] = []
        fields = field_types(schema)
        _check(source, feature_sets, schema)
        self._schema = fastavro.parse_schema(dict(schema))
        self._plans = [plan(feature_set, source, fields) for feature_set in feature_sets]
        decoder = Decoder(schema, fields)
        decoder.add(_SCHEMA_ID, schema)
        self._intake = Intake(source, decoder, fields)
        self._fields = fields
        self._pairs_per_step = pairs_per_step
        self._log: list[Record] = []
        self._bundles = {bundle.digest: bundle for p in self._plans for bundle in p.bundles}
        self._stores = {
            digest: MemoryStore(RowLayout(bundle.columns))
            for digest, bundle in self._bundles.items()
        }
        self._pipeline = self._open(Progress())

    @classmethod
    def from_files(cls, *paths: Path | str, schema: Path | str) -> Self:
        """From definition files, YAML or Python: one source and the sets over it.

        `schema` is a file with the Avro schema of the events. Raises `InvalidInputError` for
        what is wrong in a file, or does not fit the schema.
        """
        loaded = load_files([Path(path) for path in paths])
        if len(loaded.sources) != 1:
            raise InvalidInputError(f"the files define {len(loaded.sources)} sources: give one")
        file = Path(schema)
        try:
            parsed = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{file}: is no Avro schema: {error}") from None
        return cls(loaded.sources[0], *loaded.feature_sets, schema=parsed)

    def _open(self, progress: Progress) -> Pipeline:
        bundles = {
            digest: BundleState(bundle, self._fields, self._stores[digest])
            for digest, bundle in self._bundles.items()
        }
        paths = []
        for p in self._plans:
            closed = progress.closed.get(p.view.feature_set)
            closed_ms = None if closed is None else closed.through_ms
            paths.append(SetPath(LiveView.of(p, bundles, self._fields), closed_ms=closed_ms))
        oldest = min(bundles.values(), key=lambda bundle: bundle.next_offset)
        return Pipeline(
            paths,
            watermark=watermark_of(oldest.store.meta, 0),
            position=oldest.next_offset,
            progress=progress,
            pairs_per_step=self._pairs_per_step,
        )

    def send(self, *events: Mapping[str, Any], timestamp_ms: int | None = None) -> None:
        """Append events to the log and apply them as one batch.

        The record timestamp is `timestamp_ms`, by default unknown.
        """
        self.send_raw([self._encode(event) for event in events], timestamp_ms=timestamp_ms)

    def send_raw(self, values: Iterable[bytes | None], *, timestamp_ms: int | None = None) -> None:
        """Append records with these bytes, good or bad, and apply them as one batch."""
        stamp = -1 if timestamp_ms is None else timestamp_ms
        records = [
            Record(offset=len(self._log) + i, timestamp=stamp, key=None, value=value)
            for i, value in enumerate(values)
        ]
        self._log.extend(records)
        self._take(self._pipeline.steps(self._batch(records, self._pipeline.position)))

    def advance_to(self, watermark_ms: int) -> None:
        """Let event time reach `watermark_ms` without an event, as an idle partition does."""
        self._take(self._pipeline.idle(watermark_ms))

    def flush(self) -> None:
        """Bring what is in memory to the store, as a worker does every few seconds."""
        self._pipeline.flush()

    def restart(self) -> None:
        """Come back as after a crash: from the last flush and the committed position."""
        committed = self._pipeline.position
        self._pipeline = self._open(self._pipeline.progress)
        missing = self._log[self._pipeline.position : committed]
        if missing:
            self._pipeline.replay(self._batch(missing, self._pipeline.position))
        self._take(self._pipeline.resume())

    def vector(self, as_of_ms: int, **entity: Any) -> Vector | None:
        """The newest vector of an entity as of a time, if there is one."""
        found = [v for v in self.vectors if v.as_of_ms == as_of_ms and v.entity == entity]
        return found[-1] if found else None

    def _batch(self, records: Sequence[Record], first_offset: int) -> Any:
        for schema_id in self._intake.unknown_ids(records):
            self._intake.decoder.add(schema_id, None)
        return self._intake.batch(records, first_offset=first_offset, partition=0)

    def _encode(self, event: Mapping[str, Any]) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._schema, dict(event))
        return header(_SCHEMA_ID) + body.getvalue()

    def _take(self, steps: Iterator[Step]) -> None:
        for step in steps:
            self.late.extend(step.late)
            self.dead.extend(step.dead)
            for name, frame in step.vectors.items():
                self.vectors.extend(self._read(name, frame))

    def _read(self, name: str, frame: pl.DataFrame) -> Iterator[Vector]:
        view = next(p.view for p in self._plans if p.view.feature_set == name)
        entity = entity_fields(frame[ENTITY], view.entity)
        for row, *values in zip(frame.iter_rows(named=True), *entity, strict=True):
            yield Vector(
                feature_set=name,
                entity=dict(zip(view.entity, values, strict=True)),
                as_of_ms=row[AS_OF],
                kind=row[KIND_FIELD],
                values={feature.name: row[feature.name] for feature in view.features},
            )


def _check(source: Source, feature_sets: Sequence[FeatureSet], schema: Mapping[str, Any]) -> None:
    fields, unsupported = field_types(schema), unsupported_fields(schema)
    problems = [*check_source_fields(source, fields, unsupported)]
    for feature_set in feature_sets:
        problems += check_feature_set(feature_set, source, fields, unsupported)
    if problems:
        raise InvalidInputError("\n".join(str(problem) for problem in problems))
