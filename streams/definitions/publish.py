"""Publishing definitions: check them, register what they put out, write them, all or nothing.

Order of work, the same numbers in `publish`:

1. Read the files, and make the topics of definitions and of the control path.
2. Fence other publishers, then read what is published: from here on only one of us can write.
3. Ask the registry for the newest schemas of the sources.
4. Decide, without I/O.
5. Check and register the output schemas, make the feature topics. Both can be done again.
6. Write the definitions in one transaction. Who was fenced meanwhile fails here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.definitions.decide import (
    Change,
    Decision,
    LatestSchema,
    decide,
)
from streams.definitions.load import Loaded, load_files
from streams.definitions.store import (
    Definitions,
    PublishedSet,
    PublishedSource,
    definitions_topic,
    pack,
    read_definitions,
)
from streams.definitions.topics import control_topics, features_topic, stream_partitions
from streams.durations import format_duration
from streams.errors import InvalidInputError, RefusedError
from streams.kafka import Admin, confluent_config, ensure_topics, explain
from streams.names import subjects
from streams.schema.output import OutputSchemas, output_schemas, owner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from streams.config import Settings
    from streams.definitions.model import Source
    from streams.schema.registry import Registry

LEVEL = "FULL_TRANSITIVE"
_TIMEOUT_S = 20.0


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


def publish(
    settings: Settings, files: Sequence[Path], registry: Registry, *, dry_run: bool = False
) -> list[PublishOutcome]:
    """Publish what `files` define, all of it or nothing; see the module for the order.

    With `dry_run` everything is checked and nothing is changed. Raises InvalidInputError for
    what is wrong in the files, RefusedError for what a rule forbids (each with a line for
    every thing), UnreachableError.
    """
    # 1
    loaded = load_files(files)
    if dry_run:
        published, producer = read_definitions(settings), None
    else:
        ensure_topics(settings, [definitions_topic(settings), *control_topics(settings)])
        # 2
        producer = _fence(settings)
        published = read_definitions(settings)
    # 3
    latest = _latest_schemas(loaded, published, registry)
    # 4
    decision = decide(loaded, published, latest)
    if decision.invalid:
        raise InvalidInputError("\n".join(decision.invalid))
    if decision.refused:
        raise RefusedError("\n".join(decision.refused))
    # 5
    schemas, lenient = _check_outputs(settings, decision, registry)
    notes, partitions = _look_at_sources(settings, decision)
    if producer is not None:
        new_sets = _register(settings, decision, schemas, registry)
        _make_topics(settings, decision, partitions)
        # 6
        changed = [one.published for one in decision.sources if one.change is not Change.UNCHANGED]
        _write(settings, producer, [*changed, *new_sets])
    return _outcomes(decision, notes, lenient)


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


def _latest_schemas(
    loaded: Loaded, published: Definitions, registry: Registry
) -> dict[str, LatestSchema]:
    """Newest schema of each subject that the files' sources and sets read."""
    places: dict[str, str] = {}
    for source in loaded.sources:
        origin = loaded.origins[f"source/{source.name}"]
        line = origin.line(("schema",))
        places[source.schema] = origin.file if line is None else f"{origin.file}:{line}"
    for feature_set in loaded.feature_sets:
        known = published.sources.get(feature_set.source)
        if known is not None:
            places.setdefault(known.source.schema, f"source {feature_set.source}")
    found: dict[str, LatestSchema] = {}
    missing = []
    for subject, place in places.items():
        latest = registry.schema(subject, "latest")
        if latest is None:
            missing.append(
                f"{place}: schema: the registry at {registry.url} has no subject {subject!r}: "
                "register the Avro schema of the events under it "
                f"(`rewindow schemas register {subject} FILE`), or mend the name"
            )
        else:
            found[subject] = LatestSchema(schema=latest.schema, schema_id=latest.schema_id)
    if missing:
        raise InvalidInputError("\n".join(missing))
    return found


def _check_outputs(
    settings: Settings, decision: Decision, registry: Registry
) -> tuple[dict[tuple[str, str], OutputSchemas], dict[tuple[str, str], list[str]]]:
    """Output schemas of the new versions, by set and version, if all of them may be registered.

    Second: warnings about levels that somebody has set on the subjects. These hold: who sets
    `NONE` on a subject wants a schema that breaks the rule, and answers for it. A set's first
    version comes with our level: a registry may say `NONE` where nobody has set anything.
    """
    schemas: dict[tuple[str, str], OutputSchemas] = {}
    lenient: dict[tuple[str, str], list[str]] = {}
    reasons = []
    for one in decision.sets:
        if one.change is not Change.PUBLISHED:
            continue
        name = one.feature_set.name
        topic = settings.names.features_topic(name)
        made = output_schemas(
            feature_set=name,
            topic=topic,
            entity=one.entity,
            features=one.outputs,
            app=settings.app,
        )
        schemas[name, one.feature_set.version] = made
        value_subject = subjects(topic)[1]
        held = registry.schema(value_subject, "latest")
        owned_by = settings.app if held is None else owner(held.schema)
        if owned_by != settings.app:
            whose = f"belongs to app {owned_by!r}" if owned_by else "was not made by rewindow"
            reasons.append(
                f"topic {topic} {whose} (subject {value_subject!r}): give the set another name, "
                "set another `topics.prefix`, or use --app"
            )
            continue
        for subject, schema in zip(subjects(topic), (made.key, made.value), strict=True):
            level = LEVEL if one.serves else registry.compatibility(subject) or LEVEL
            reasons.extend(
                f"{name}@{one.feature_set.version}: subject {subject!r} ({level}): {reason}"
                for reason in registry.check(subject, schema, level)
            )
            breaks = registry.check(subject, schema, LEVEL) if level != LEVEL else []
            lenient.setdefault((name, one.feature_set.version), []).extend(
                f"subject {subject!r} has level {level} in the registry, which takes the schema: "
                f"{reason}. Readers of the topic may fail, and no switch to this version is "
                f"accepted while the level is {LEVEL}"
                for reason in breaks
            )
    if reasons:
        raise RefusedError("\n".join(reasons))
    return schemas, lenient


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


def _look_at_sources(
    settings: Settings, decision: Decision
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Warnings by source name, and partitions of the source topics that there are."""
    admin = Admin(settings)
    partitions = admin.partitions()
    notes: dict[str, list[str]] = {}
    for change in decision.sources:
        source = change.published.source
        found = notes.setdefault(source.name, [])
        if source.topic not in partitions:
            found.append(
                f"topic {source.topic} does not exist: create it, or let its producer do so, "
                "before a worker starts"
            )
            continue
        reading = [one.feature_set for one in decision.sets if one.source.name == source.name]
        needed_ms = max(
            (one.longest_window_ms + one.allowed_lateness_ms for one in reading), default=0
        )
        found.extend(_retention_notes(source, admin.config(source.topic), needed_ms))
    return notes, partitions


def _retention_notes(source: Source, config: Mapping[str, str], needed_ms: int) -> list[str]:
    """Warnings about a topic that does not keep what windows need."""
    found = []
    retention = config.get("retention.ms", "-1")
    if "compact" in config.get("cleanup.policy", "delete"):
        found.append(f"topic {source.topic} is compacted: events of the same key may be missing")
    if retention.isdigit() and int(retention) < needed_ms:
        found.append(
            f"topic {source.topic} keeps records for {format_duration(int(retention))} "
            f"(retention.ms), and windows with lateness need {format_duration(needed_ms)}: "
            "what is gone can't be recovered after a loss of state; raise retention.ms"
        )
    return found


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


def _outcomes(
    decision: Decision,
    notes: Mapping[str, list[str]],
    lenient: Mapping[tuple[str, str], list[str]],
) -> list[PublishOutcome]:
    outcomes = []
    for change in decision.sources:
        source = change.published.source
        outcomes.append(
            PublishOutcome(
                kind="source",
                name=source.name,
                change=change.change,
                notes=tuple(notes.get(source.name, ())),
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
                notes=(*lenient.get((name, version), ()), *((note,) if waits else ())),
            )
        )
    return outcomes
