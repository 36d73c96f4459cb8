"""What publishing definitions comes to, found out without changing anything.

1. Ask the registry for the newest schemas of the sources.
2. Decide, without I/O.
3. Check the output schemas of new versions with the registry, and look at the source topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.definitions.decide import Change, Decision, LatestSchema, decide
from streams.definitions.load import record_key
from streams.definitions.outputs import LEVEL as LEVEL
from streams.definitions.outputs import not_ours
from streams.durations import format_duration
from streams.errors import InvalidInputError
from streams.kafka import Admin
from streams.names import subjects
from streams.schema.output import OutputSchemas, output_schemas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.definitions.load import Loaded
    from streams.definitions.model import Source
    from streams.definitions.store import Definitions
    from streams.schema.registry import Registry
    from streams.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What is decided, refusals of the registry included, and what was found on the way.

    `schemas` are the output schemas of new versions, by set and version; `notes` are warnings by
    record key; `partitions` those of the topics that there are.
    """

    decision: Decision
    schemas: Mapping[tuple[str, str], OutputSchemas]
    notes: Mapping[str, list[str]]
    partitions: Mapping[str, int]


def examine(
    settings: Settings,
    loaded: Loaded,
    published: Definitions,
    registry: Registry,
    left_out: Mapping[str, Sequence[str]],
) -> Examined:
    """What becomes of `loaded` after `published`; `left_out` as for `decide`.

    Raises InvalidInputError for what is wrong in the files, UnreachableError. What a rule
    forbids is in the decision.
    """
    latest = _latest_schemas(loaded, published, registry)  # 1
    decision = decide(loaded, published, latest, left_out)  # 2
    if decision.invalid:
        raise InvalidInputError("\n".join(decision.invalid))
    schemas, lenient = _check_outputs(settings, decision, registry)  # 3
    notes, partitions = _look_at_sources(settings, decision)
    return Examined(
        decision=decision, schemas=schemas, notes={**notes, **lenient}, partitions=partitions
    )


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
) -> tuple[dict[tuple[str, str], OutputSchemas], dict[str, list[str]]]:
    """Output schemas of the new versions, by set and version; refuses what can't be registered.

    Second: warnings about levels that somebody has set on the subjects. These hold: who sets
    `NONE` on a subject wants a schema that breaks the rule, and answers for it. A set's first
    version comes with our level: a registry may say `NONE` where nobody has set anything.
    """
    schemas: dict[tuple[str, str], OutputSchemas] = {}
    lenient: dict[str, list[str]] = {}
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
        whose = not_ours(settings, registry, topic)
        if whose is not None:
            decision.refuse(
                record_key(one.feature_set),
                f"{whose}: give the set another name, set another `topics.prefix`, or use --app",
            )
            continue
        for subject, schema in zip(subjects(topic), (made.key, made.value), strict=True):
            level = LEVEL if one.serves else registry.compatibility(subject) or LEVEL
            decision.refuse(
                record_key(one.feature_set),
                *(
                    f"{name}@{one.feature_set.version}: subject {subject!r} ({level}): {reason}"
                    for reason in registry.check(subject, schema, level)
                ),
            )
            breaks = registry.check(subject, schema, LEVEL) if level != LEVEL else []
            lenient.setdefault(record_key(one.feature_set), []).extend(
                f"subject {subject!r} has level {level} in the registry, which takes the schema: "
                f"{reason}. Readers of the topic may fail, and no switch to this version is "
                f"accepted while the level is {LEVEL}"
                for reason in breaks
            )
    return schemas, lenient


def _look_at_sources(
    settings: Settings, decision: Decision
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Warnings by source name, and partitions of the source topics that there are."""
    admin = Admin(settings)
    partitions = admin.partitions()
    notes: dict[str, list[str]] = {}
    for change in decision.sources:
        source = change.published.source
        found = notes.setdefault(record_key(source), [])
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
