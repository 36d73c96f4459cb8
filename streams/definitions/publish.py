"""Publishing definitions: check them, register what they put out, write them, all or nothing.

Order of work, the same numbers in `publish`:

1. Read the files, and make the topics of definitions and of the control path.
2. Fence other publishers, then read what is published: from here on only one of us can write.
3. Examine them: schemas, rules, output schemas. Nothing goes on if something is refused.
4. Register the output schemas, make the feature topics. Both can be done again.
5. Write the definitions in one transaction. Who was fenced meanwhile fails here.
6. Wait until readers see them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.clock import SystemClock
from streams.definitions.decide import Change, Decision
from streams.definitions.examine import LEVEL, examine
from streams.definitions.load import load_files, record_key
from streams.definitions.store import (
    PublishedSet,
    PublishedSource,
    definitions_topic,
    pack,
    read_definitions,
)
from streams.definitions.topics import (
    control_topics,
    features_topic,
    index_topic,
    stream_partitions,
)
from streams.errors import RefusedError
from streams.kafka import confluent_config, ensure_topics, explain
from streams.names import subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from streams.schema.output import OutputSchemas
    from streams.schema.registry import Registry
    from streams.settings import Settings

_TIMEOUT_S = 20.0
_VISIBLE_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOutcome:
    """What became of one definition. `version` and `digest` are a set's; `notes` are warnings.

    `serves` says that it is its set's first version, which serves until another is activated.
    """

    kind: str
    name: str
    change: Change
    version: str | None = None
    digest: str | None = None
    serves: bool = False
    notes: tuple[str, ...] = ()


def _nothing() -> Mapping[str, Sequence[str]]:
    return {}


def publish(
    settings: Settings,
    files: Sequence[Path],
    registry: Registry,
    *,
    dry_run: bool = False,
    left_out: Callable[[], Mapping[str, Sequence[str]]] = _nothing,
) -> list[PublishOutcome]:
    """Publish what `files` define, all of it or nothing; see the module for the order.

    With `dry_run` everything is checked and nothing is changed. `left_out` reads what published
    sets leave out, as `decide` wants it: it is decided elsewhere. Raises InvalidInputError for
    what is wrong in the files, RefusedError for what a rule forbids (each with a line for
    every thing), UnreachableError.
    """
    # 1
    loaded = load_files(files)
    if dry_run:
        published, producer = read_definitions(settings), None
    else:
        own = [definitions_topic(settings), *control_topics(settings), index_topic(settings)]
        ensure_topics(settings, own)
        # 2
        producer = _fence(settings)
        published = read_definitions(settings)
    # 3
    examined = examine(settings, loaded, published, registry, left_out())
    decision = examined.decision
    if decision.refused:
        raise RefusedError("\n".join(decision.refused))
    if producer is not None:
        # 4
        new_sets = _register(settings, decision, examined.schemas, registry)
        _make_topics(settings, decision, examined.partitions)
        # 5
        changed = [one.published for one in decision.sources if one.change is not Change.UNCHANGED]
        records: list[PublishedSource | PublishedSet] = [*changed, *new_sets]
        _write(settings, producer, records)
        # 6
        _await_visible(settings, records)
    return _outcomes(decision, examined.notes)


def _fence(settings: Settings) -> Producer:
    try:
        producer = Producer(
            confluent_config(
                settings,
                **{
                    "transactional.id": settings.names.publish_transactional_id,
                    "transaction.timeout.ms": 60_000,
                },
            )
        )
        producer.init_transactions(_TIMEOUT_S)
    except KafkaException as error:
        raise explain(settings, error, "publishing") from None
    return producer


def _write(
    settings: Settings, producer: Producer, records: Sequence[PublishedSource | PublishedSet]
) -> None:
    if not records:
        return
    topic = settings.names.definitions_topic
    try:
        producer.begin_transaction()
        for record in sorted(records, key=lambda record: record.order):
            key, value = pack(record)
            producer.produce(topic, key=key, value=value, partition=0)
        producer.commit_transaction(_TIMEOUT_S)
    except KafkaException as error:
        cause = error.args[0]
        fenced = (
            KafkaError._FENCED,
            KafkaError.INVALID_PRODUCER_EPOCH,
            KafkaError.PRODUCER_FENCED,
        )
        if isinstance(cause, KafkaError) and cause.code() in fenced:
            raise RefusedError(
                "another publish of this app ran at the same time: nothing of this one was "
                "published, run it again"
            ) from None
        raise explain(settings, error, "publishing") from None


def _await_visible(settings: Settings, records: Sequence[PublishedSource | PublishedSet]) -> None:
    """Wait until readers see what is committed: brokers tell them a moment later.

    Whoever asks for a new version after this is not told that there is none.
    """
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + _VISIBLE_S
    while clock.monotonic_s() < deadline_s:
        known = read_definitions(settings)
        seen = {
            *map(_identity, known.sources.values()),
            *(_identity(one) for versions in known.sets.values() for one in versions),
        }
        if seen.issuperset(_identity(one) for one in records):
            return
        time.sleep(_POLL_S)


def _identity(record: PublishedSource | PublishedSet) -> tuple[str, str | None, int]:
    if isinstance(record, PublishedSet):
        return record.feature_set.name, record.feature_set.version, record.order
    return record.source.name, None, record.order


def _register(
    settings: Settings,
    decision: Decision,
    schemas: Mapping[tuple[str, str], OutputSchemas],
    registry: Registry,
) -> list[PublishedSet]:
    """Register the output schemas; returns the versions to write, with their schemas' ids."""
    records: list[PublishedSet] = []
    for one in decision.sets:
        if one.change is Change.UPDATED and one.before is not None:
            records.append(replace(one.before, feature_set=one.feature_set))
        if one.change is not Change.PUBLISHED:
            continue
        made = schemas[one.feature_set.name, one.feature_set.version]
        ids = []
        topic = settings.names.features_topic(one.feature_set.name)
        for subject, schema in zip(subjects(topic), (made.key, made.value), strict=True):
            ids.append(registry.register(subject, schema))
            # After the first schema: a registry may refuse a level for a subject without any.
            level = registry.compatibility(subject)
            if level is None or (one.serves and level != LEVEL):
                registry.set_compatibility(subject, LEVEL)
        records.append(
            PublishedSet(
                feature_set=one.feature_set,
                digest=one.digest,
                key_schema_id=ids[0],
                value_schema_id=ids[1],
                order=one.order,
            )
        )
    return records


def _make_topics(settings: Settings, decision: Decision, partitions: Mapping[str, int]) -> None:
    """The feature topics of serving sets whose source's topic exists; workers make the rest."""
    specs = []
    for one in decision.sets:
        of = partitions.get(one.source.topic)
        if one.serves and of is not None:
            count = stream_partitions(settings, one.source, one.feature_set.entity, of)
            specs.append(features_topic(settings, one.feature_set.name, count))
    if specs:
        ensure_topics(settings, specs)


def _outcomes(decision: Decision, notes: Mapping[str, list[str]]) -> list[PublishOutcome]:
    outcomes = []
    for change in decision.sources:
        source = change.published.source
        outcomes.append(
            PublishOutcome(
                kind="source",
                name=source.name,
                change=change.change,
                notes=tuple(notes.get(record_key(source), ())),
            )
        )
    for one in decision.sets:
        name, version = one.feature_set.name, one.feature_set.version
        waits = one.change is Change.PUBLISHED and not one.serves
        note = f"workers warm it; `rewindow activate {name}@{version}` makes it serve"
        outcomes.append(
            PublishOutcome(
                kind="feature_set",
                name=name,
                version=version,
                change=one.change,
                digest=one.digest,
                serves=one.serves,
                notes=(*notes.get(record_key(one.feature_set), ()), *((note,) if waits else ())),
            )
        )
    return outcomes
