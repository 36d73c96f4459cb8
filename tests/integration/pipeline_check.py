"""Publishes feature sets over a load, and judges what a worker made of it.

What must come out is worked out from the source topic as it is, record by record, by the
reference model; what did come out is read by a `read_committed` consumer.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import fastavro

from streams.config import load_settings
from streams.definitions.publish import publish
from streams.definitions.store import read_definitions
from streams.errors import UnreachableError
from streams.runtime.offsets import Offsets
from streams.schema.registry import Registry
from streams.settings import Settings
from tests.integration import load
from tests.integration.kafka_tools import MAGIC, Incoming, KafkaTools
from tests.integration.load import Load
from tests.reference import (
    Event,
    Mismatch,
    Pin,
    Reference,
    Row,
    Switch,
    Toggle,
    Vector,
    VectorKey,
    compare,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from streams.definitions.model import FeatureSet

_FIELDS = (*load.FIELDS, "at_partition", "at_offset")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SOURCE = """\
kind: source
name: purchases
topic: {prefix}_purchases
schema: {prefix}_purchases-value
event_time: at
key: [customer]
start: {start}
max_ahead: 1h
idle_after: 1d
"""

TUMBLING = """\
kind: feature_set
name: {prefix}_tumbling
version: 1.0.0
source: purchases
entity: [customer]
every: 30s
allowed_lateness: 5s
features:
  n: {{count: "*", window: 30s}}
  total: {{sum: quantity, window: 30s}}
  mean: {{mean: amount, window: 30s}}
  newest: {{last: quantity, window: 30s}}
"""

HOPPING = """\
kind: feature_set
name: {prefix}_hopping
version: 1.0.0
source: purchases
entity: [customer]
every: 1m
allowed_lateness: 20s
where: "quantity > 2"
features:
  n_1m: {{count: amount, window: 1m}}
  n_3m: {{count: "*", window: 3m}}
  highest_3m: {{max: amount, window: 3m}}
"""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What a worker made of a load; all is well if nothing is lost, duplicated or wrong."""

    events: int = 0
    vectors: int = 0
    late: int = 0
    dead_letters: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    open_windows_at_cut: int = 0
    by_version: Counter[str] = field(default_factory=Counter)
    """Vectors, by the version of their set that they are of; of all published ones."""
    first: list[str] = field(default_factory=list)
    """The first few things that are not as they must be."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)

    def blame(self, what: str, detail: str) -> None:
        """Count one difference; `what` as in `Mismatch`."""
        match what:
            case "missing":
                self.lost += 1
            case "duplicate":
                self.duplicated += 1
            case _:
                self.wrong += 1
        if len(self.first) < 10:
            self.first.append(f"{what}: {detail}")


class PipelineCheck:
    """An app with feature sets over a source topic of its own."""

    def __init__(
        self, kafka: KafkaTools, directory: Path, prefix: str, *, app: str | None = None
    ) -> None:
        """`prefix` begins the names of topics and sets, and is the app's name unless given."""
        self.kafka = kafka
        self.app = app or prefix
        self.topic = f"{prefix}_purchases"
        self._directory = directory
        self._prefix = prefix
        self._partitions = 0
        self._read: dict[str, list[Incoming]] = {}
        self.settings = self._settings()
        self._offsets = Offsets(self.settings)

    def _settings(self) -> Settings:
        return load_settings(
            bootstrap_servers=self.kafka.addresses.bootstrap_servers,
            registry_url=self.kafka.addresses.registry_url,
            app=self.app,
            environ={"HOME": str(self._directory)},
        )

    def prepare(
        self,
        *sets: str,
        partitions: int = 4,
        start: str = "earliest",
        **topic_config: str,
    ) -> int:
        """Make the source topic, register the schema, publish; the schema's id.

        `sets` are YAML with `{prefix}` in it, by default a tumbling and a hopping set.
        """
        self._partitions = partitions
        self.kafka.create_topic(self.topic, partitions=partitions, **topic_config)
        schema_id = self.kafka.register(f"{self.topic}-value", load.SCHEMA)
        self.publish(*(sets or (TUMBLING, HOPPING)), start=start)
        return schema_id

    def publish(self, *sets: str, start: str = "earliest") -> None:
        """Publish the source and `sets`."""
        files = []
        for number, text in enumerate((SOURCE, *sets)):
            file = self._directory / f"definition{number}.yaml"
            file.write_text(text.format(prefix=self._prefix, start=start))
            files.append(file)
        with Registry.from_settings(self.settings.registry_options()) as registry:
            publish(self.settings, files, registry)

    # -- positions ----------------------------------------------------------------------------

    def committed(self) -> dict[int, int]:
        """Committed offset of each partition that has one; none where the broker can't tell."""
        group = self.settings.names.worker_group
        at = [(self.topic, partition) for partition in range(self._partitions)]
        try:
            found = self._offsets.committed(group, at, stable=False)
        except UnreachableError:
            return {}
        return {partition: one.offset for (_, partition), one in found.items()}

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Whether the group has committed what each of these partitions holds."""
        committed = self.committed()
        return all(committed.get(p, 0) >= end for p, end in ends.items())

    # -- judging ------------------------------------------------------------------------------

    def verdict(self, switches: Sequence[Cut] = (), cleaned: Sequence[FeatureSet] = ()) -> Verdict:
        """Compare all that came out with what the source topic asks for.

        `switches` are those of the versions that serve, in order. `cleaned` are what versions are
        that leave events out, under names of their own; their filters may use `at_partition` and
        `at_offset`, where an event lies in the source.
        """
        definitions = read_definitions(self.settings)
        sets = [one.feature_set for name in definitions.sets for one in definitions.sets[name]]
        names = self.settings.names
        topics = [self.topic, names.late_topic, names.dlq_topic]
        topics += [names.features_topic(name) for name in definitions.sets]
        pins = {
            one.decided for one in switches if isinstance(one.decided, Pin) and one.decided.pinned
        }
        topics += [names.pinned_topic(pin.feature_set, pin.version) for pin in pins]
        # Each read waits for the broker most of the time.
        with ThreadPoolExecutor(len(topics)) as pool:
            self._read = dict(zip(topics, pool.map(self.kafka.consume_all, topics), strict=True))
        log = self._read[self.topic]
        expected = expect([*sets, *cleaned], log, switches)
        found = Verdict(events=len(log))
        versions = {(one.name, one.version): one for one in sets}
        rows = [row for name in definitions.sets for row in self._rows(name, versions)]
        for pin in pins:
            topic = names.pinned_topic(pin.feature_set, pin.version)
            own = self._rows(pin.feature_set, versions, topic=topic)
            rows += [replace(row, feature_set=f"{pin.feature_set}@{pin.version}") for row in own]
        found.vectors = len(rows)
        found.open_windows_at_cut = expected.open_windows_at_cut
        found.by_version = self._by_version(sets)
        for mismatch in compare(expected.vectors, rows, expected.corrections):
            found.blame(mismatch.what, _told(mismatch))
        found.late = self._judge_copies(found, self.settings.names.late_topic, expected.late)
        found.dead_letters = self._judge_copies(found, self.settings.names.dlq_topic, expected.dead)
        return found

    def _by_version(self, sets: Iterable[FeatureSet]) -> Counter[str]:
        counted: Counter[str] = Counter({f"{one.name}@{one.version}": 0 for one in sets})
        for one in sets:
            for record in self._read[self.settings.names.features_topic(one.name)]:
                if record.headers["rewindow.version"].decode() == one.version:
                    counted[f"{one.name}@{one.version}"] += 1
        return counted

    def _rows(
        self,
        name: str,
        versions: Mapping[tuple[str, str], FeatureSet],
        *,
        topic: str | None = None,
    ) -> Iterable[Row]:
        """Vectors with the features of the version that they say they are of."""
        for record in self._read[topic or self.settings.names.features_topic(name)]:
            assert record.value is not None, "a vector without a value"
            value = self.kafka.decode(record.value)
            feature_set = versions[name, value["rewindow_version"]]
            yield Row(
                feature_set=name,
                entity=tuple(value[name] for name in feature_set.entity),
                as_of_ms=(value["as_of"] - EPOCH) // timedelta(milliseconds=1),
                kind=value["rewindow_kind"],
                values={one.name: value[one.name] for one in feature_set.features},
            )

    def _judge_copies(self, found: Verdict, topic: str, wanted: frozenset[Copy]) -> int:
        """Each wanted copy once, and no other; how many there are.

        A record may be dead for several sets, once for each.
        """
        copies = Counter(
            (copy_of(record), record.headers.get("rewindow.feature_set"))
            for record in self._read[topic]
        )
        seen = {copy for copy, _ in copies}
        for (copy, _), times in copies.items():
            for _again in range(times - 1):
                found.blame("duplicate", f"on {topic}: {copy}")
        for copy in wanted - seen:
            found.blame("missing", f"on {topic}: {copy}")
        for copy in seen - wanted:
            found.blame("unexpected", f"on {topic}: {copy}")
        return len(seen)


Copy = tuple[int, int, str]
"""Partition and offset in the source, and the set it is late for or what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """From these offsets of each partition on, this version of a set serves, or something else
    holds that is `decided` about it. With `repair` it says again what the one before has said."""

    feature_set: str
    version: str
    offsets: Mapping[int, int]
    decided: Toggle | Pin | None = None
    repair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOutput:
    """Everything that a source topic asks for."""

    vectors: Mapping[VectorKey, Vector]
    corrections: Mapping[VectorKey, Sequence[Vector]]
    late: frozenset[Copy]
    dead: frozenset[Copy]
    open_windows_at_cut: int = 0
    """As-of times of the versions that took over that had events and were not closed, over all
    switches and partitions."""


def expect(
    sets: Sequence[FeatureSet], log: Iterable[Incoming], switches: Sequence[Cut] = ()
) -> ExpectedOutput:
    """What must come out for `log`, the whole of a keyed source topic.

    Each partition is a stream of its own; a partition's records come in order. `sets` has all
    versions, in order of publication.
    """
    references: dict[int, Reference] = {}
    pending: dict[int, list[Cut]] = {}
    dead: set[Copy] = set()
    open_windows = 0
    for record in log:
        reference = references.setdefault(
            record.partition, Reference(sets, _FIELDS, max_ahead_ms=load.AHEAD_MS)
        )
        waiting = pending.setdefault(record.partition, list(switches))
        while waiting and waiting[0].offsets[record.partition] <= record.offset:
            open_windows += take_over(reference, waiting.pop(0), sets)
        problem, fields = read(record.value)
        if problem is not None:
            dead.add((record.partition, record.offset, problem))
            continue
        reference.feed(
            Event(
                offset=record.offset,
                timestamp_ms=record.timestamp_ms,
                event_time_ms=fields["at"],
                fields={**fields, "at_partition": record.partition, "at_offset": record.offset},
            )
        )
    late: set[Copy] = set()
    vectors: dict[VectorKey, Vector] = {}
    corrections: dict[VectorKey, list[Vector]] = {}
    for partition, reference in references.items():
        for cut in pending[partition]:
            open_windows += take_over(reference, cut, sets)
        late.update((partition, offset, name) for name, offset in reference.late)
        dead.update((partition, offset, error) for offset, error in reference.dead)
        vectors |= reference.vectors
        corrections |= reference.corrections
    return ExpectedOutput(
        vectors=vectors,
        corrections=corrections,
        late=frozenset(late),
        dead=frozenset(dead),
        open_windows_at_cut=open_windows,
    )


def take_over(reference: Reference, cut: Cut, sets: Iterable[FeatureSet]) -> int:
    """Let a version take over; how many of its as-of times have events and are not closed.

    Where something else is decided there are none.
    """
    if cut.decided is not None:
        reference.feed(cut.decided)
        return 0
    reference.feed(Switch(feature_set=cut.feature_set, version=cut.version, repair=cut.repair))
    closed_ms = reference.closed_through_ms[cut.feature_set]
    highest_ms = reference.highest_event_time_ms
    if closed_ms is None or highest_ms is None:
        return 0
    every_ms = next(
        one.every_ms for one in sets if (one.name, one.version) == (cut.feature_set, cut.version)
    )
    return max(0, highest_ms // every_ms + 1 - closed_ms // every_ms)


_SCHEMA = fastavro.parse_schema(
    {
        **load.SCHEMA,
        "fields": [
            {**one, "type": ["null", "long"]} if one["name"] == "at" else one
            for one in load.SCHEMA["fields"]
        ],
    }
)


def read(value: bytes | None) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with a record's value, if anything, and the event in it."""
    if value is None:
        return "tombstone", {}
    if value[0] != MAGIC:
        return "wrong_magic_byte", {}
    if struct.unpack_from(">I", value, 1)[0] == load.UNKNOWN_SCHEMA_ID:
        return "unknown_schema_id", {}
    try:
        event: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), _SCHEMA, None)
    except (EOFError, IndexError):
        return "undecodable", {}
    return None, event


def copy_of(record: Incoming) -> Copy:
    """Where a record of the late topic or the DLQ came from, and why it is there."""
    headers = {name: value.decode() for name, value in record.headers.items()}
    error = headers["rewindow.error"]
    why = headers["rewindow.feature_set"] if error == "late" else error
    return int(headers["rewindow.partition"]), int(headers["rewindow.offset"]), why


def ends(records: Iterable[Any]) -> dict[int, int]:
    """How many of these records go to each partition."""
    return dict(Counter(record.partition for record in records))


def _told(mismatch: Mismatch) -> str:
    return f"{mismatch.key} {mismatch.detail}"


__all__ = [
    "HOPPING",
    "TUMBLING",
    "Cut",
    "Load",
    "PipelineCheck",
    "Verdict",
    "ends",
    "expect",
    "take_over",
]
