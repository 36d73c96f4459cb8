"""What a plan depends on besides the definitions, read from Kafka: nothing is changed.

1. What is decided, and what partition owners said when versions got ready.
2. How far each partition of a set's stream has come, and what its log holds.
3. Where that log does not begin with the stream: the index of event times at its offsets, or the
   time of the first record.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.cli.control_topics import Values, read_acks, read_control, reading
from streams.control.preview import PartitionFacts, Preview, preview
from streams.control.records import Ready
from streams.control.routes import Rules
from streams.control.state import ControlState, fold
from streams.datapath.log_index import LogIndex, collect
from streams.datapath.progress import Progress
from streams.definitions.model import StartAt
from streams.definitions.plan import plan_versions
from streams.errors import RewindowError
from streams.kafka import Admin, confluent_config, explain
from streams.runtime.offsets import Committed, Offsets
from streams.runtime.producer import read_spilled
from streams.runtime.reviving import Need, Start, find_start, needed_offset
from streams.schema.types import field_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streams.datapath.log_index import Place
    from streams.definitions.model import FeatureSet, Source
    from streams.definitions.plan import Plan
    from streams.definitions.store import Definitions, PublishedSource
    from streams.schema.registry import Registry
    from streams.settings import Settings

POLL_S = 0.5
PATIENCE_POLLS = 20
TIMEOUT_S = 10.0

_At = tuple[str, int]
_Floors = dict[tuple[str, str, int], int | None]
"""By set, version and partition."""


class Outlook:
    """Works out what versions would take, as things stand when it is made."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises UnreachableError, and `RewindowError` for records that can't be read."""
        self._settings = settings
        self._topics = Admin(settings).partitions()
        self._offsets = Offsets(settings)
        self._state, self._floors = self._decided(Values(registry))  # 1
        self._indexes = self._read_indexes()

    def preview(
        self, source: PublishedSource, versions: Sequence[FeatureSet], version: str
    ) -> Preview:
        """What publishing `version` comes to; `versions` are all of its set, in order, with it."""
        known = self._state.sets.get(versions[0].name)
        exclusions = () if known is None else known.in_force
        plans = plan_versions(versions, source.source, field_types(source.schema), exclusions)
        plan = next(one for one in plans if one.view.version == version)
        return preview(
            plans,
            version,
            known,
            Rules(
                published=tuple(one.version for one in versions if one.version != version),
                keep=self._settings.versions.keep,
            ),
            self._partitions(plan, source.source),
        )

    def of_published(self, definitions: Definitions, name: str, version: str | None) -> Preview:
        """What a version that is published takes, beside those that were published before it."""
        versions = [one.feature_set for one in definitions.sets[name]]
        at = next(i for i, one in enumerate(versions) if one.version == version)
        source = definitions.sources[versions[at].source]
        return self.preview(source, versions[: at + 1], versions[at].version)

    def state(self, feature_set: str, version: str, published: Sequence[str]) -> str:
        """What a published version does: serving, live, retired, or published only."""
        route = self._state.route(feature_set, Rules(published=published))
        if route.serving == version:
            return "serving"
        if version in route.retired:
            return "retired"
        return "live" if route.live_version(version) is not None else "published"

    def _decided(self, values: Values) -> tuple[ControlState, _Floors]:
        names = self._settings.names
        if not {names.control_topic, names.acks_topic} <= self._topics.keys():
            return ControlState(), {}
        state = fold(record for _, record in read_control(self._settings, values))
        floors: _Floors = {}
        for _, ack in read_acks(self._settings, values, 0):
            if isinstance(ack, Ready):
                floors[ack.feature_set, ack.version, ack.partition] = ack.floor_ms
        return state, floors

    def _read_indexes(self) -> Mapping[Place, LogIndex]:
        topic = self._settings.names.index_topic
        if topic not in self._topics:
            return {}
        with reading(self._settings, topic) as reader:
            return collect((stored.key or b"", stored.value) for stored in reader.rest())

    def _partitions(self, plan: Plan, source: Source) -> list[PartitionFacts]:
        """Facts of the set's stream; of its source where that is not rekeyed yet."""
        names = self._settings.names
        topic = source.topic
        if (
            plan.rekeyed
            and names.stream_topic(source.name, tuple(plan.view.entity)) in self._topics
        ):
            topic = names.stream_topic(source.name, tuple(plan.view.entity))
        at = [(topic, number) for number in range(self._topics.get(topic, 0))]
        committed = self._offsets.committed(names.worker_group, at, stable=False)  # 2
        progress = {one: progress_of(self._settings, committed.get(one)) for one in at}
        starts, ends = self._offsets.starts(at), self._offsets.ends(at)
        fresh = self._fresh(source, [one for one in at if one not in committed], starts, ends)
        begins: dict[_At, Start] = {one: Start(offset=offset) for one, offset in fresh.items()}
        needs: dict[_At, int] = {}
        name = plan.view.feature_set
        for one, found in committed.items():
            closed = progress[one].closed.get(name)
            index = self._indexes.get((plan.stream, one[1]), LogIndex())
            app_start = progress[one].start
            need = None if closed is None else Need.of(plan.view, closed.through_ms)
            begins[one] = find_start(
                index,
                need,
                app_start=app_start,
                log_start=starts[one],
                position=found.offset,
            )
            if need is not None:
                needs[one] = needed_offset(index, need, app_start=app_start, position=found.offset)
        floors = self._begin_floors(source, topic, begins, ends)
        return [
            PartitionFacts(
                topic=topic,
                partition=one[1],
                log_start=starts[one],
                begin=begins[one].offset,
                needs_offset=needs.get(one),
                position=committed[one].offset if one in committed else ends[one],
                begin_floor_ms=floors.get(one),
                closed_ms=None
                if name not in progress[one].closed
                else progress[one].closed[name].through_ms,
                floors_ms={
                    version: floor
                    for (of, version, number), floor in self._floors.items()
                    if (of, number) == (name, one[1])
                },
            )
            for one in at
        ]

    def _fresh(
        self,
        source: Source,
        at: Sequence[_At],
        starts: Mapping[_At, int],
        ends: Mapping[_At, int],
    ) -> dict[_At, int]:
        """Where partitions begin of which nothing was read yet."""
        if source.start is StartAt.EARLIEST:
            return {one: starts[one] for one in at}
        if source.start is StartAt.LATEST:
            return {one: ends[one] for one in at}
        return self._offsets.at_time(at, int(source.start))

    def _begin_floors(
        self, source: Source, topic: str, begins: Mapping[_At, Start], ends: Mapping[_At, int]
    ) -> dict[_At, int]:
        """From when on panes are whole that are made from a log's later part."""
        known = {one: start.floor_ms for one, start in begins.items()}
        floors = {one: floor for one, floor in known.items() if floor is not None}
        if topic != source.topic:
            return floors
        later = {
            one: start.offset
            for one, start in begins.items()
            if one not in floors and 0 < start.offset < ends[one]
        }
        times = first_times(self._settings, later)  # 3
        return floors | {one: time_ms + source.max_ahead_ms for one, time_ms in times.items()}


def progress_of(settings: Settings, found: Committed | None) -> Progress:
    """What was committed with a position; nothing by who set it by hand.

    Raises RewindowError if that can't be read.
    """
    if found is None or not found.metadata:
        return Progress()
    spilled = read_spilled(found.metadata)
    if spilled is None:
        return Progress.decode(found.metadata)
    topic, offset = settings.names.acks_topic, spilled[0]
    with reading(settings, topic, offset) as reader:
        stored = next(reader.rest(), None)
    if stored is None or stored.offset != offset:
        raise RewindowError(
            f"commit metadata names offset {offset} of {topic}, which is gone: its retention "
            "must be unlimited"
        )
    return Progress.decode(stored.value.decode())


@contextmanager
def _reader(settings: Settings, group: str) -> Iterator[Consumer]:
    """A client that reads partitions by hand and never joins its group."""
    options = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
    }
    consumer = Consumer(confluent_config(settings, **options))
    try:
        yield consumer
    except KafkaException as error:
        raise explain(settings, error, "reading the first records of partitions") from None
    finally:
        consumer.close()


def first_times(settings: Settings, offsets: Mapping[_At, int]) -> dict[_At, int]:
    """Timestamps of the first records from these offsets on; absent where none has any."""
    if not offsets:
        return {}
    found: dict[_At, int] = {}
    wanted, patience = set(offsets), PATIENCE_POLLS
    with _reader(settings, f"{settings.app}.plan") as consumer:
        consumer.assign([TopicPartition(*one, offset) for one, offset in offsets.items()])
        while wanted and patience:
            message = consumer.poll(POLL_S)
            if message is None:
                patience -= 1
                continue
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            one = (message.topic() or "", message.partition() or 0)
            if one in wanted:
                wanted.discard(one)
                if error is None and message.timestamp()[1] >= 0:
                    found[one] = message.timestamp()[1]
    return found
