"""The YAML form of sources and feature sets: which keys they have, and what is made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import yaml

from streams.definitions import rules
from streams.definitions.model import (
    Emit,
    EventTime,
    Feature,
    FeatureSet,
    Function,
    Source,
    StartAt,
    TimeUnit,
)
from streams.definitions.yamlnodes import Entries, Reader

if TYPE_CHECKING:
    from streams.definitions.problems import Origin, Problem
    from streams.definitions.yamlnodes import KeyPath

_SOURCE_KEYS = [
    "kind",
    "name",
    "topic",
    "schema",
    "event_time",
    "key",
    "start",
    "max_ahead",
    "idle_after",
    "close_after",
]
_SET_KEYS = [
    "kind",
    "name",
    "version",
    "description",
    "owner",
    "source",
    "entity",
    "every",
    "allowed_lateness",
    "retention",
    "emit",
    "where",
    "features",
]
_FEATURE_KEYS = ["window", "where", "q", "k", *(function.value for function in Function)]
_EARLIEST: StartAt | int = StartAt.EARLIEST


class _Unit(StrEnum):
    S = "s"
    MS = "ms"
    US = "us"


def read_yaml(
    file: str, text: str, problems: list[str]
) -> list[tuple[Source | FeatureSet, Origin]]:
    """The definitions of a file's documents, and where they were written.

    What is wrong is added to `problems`, a line for each thing in the order of the file; a
    definition may still be there where only rules are broken.
    """
    found: list[tuple[Source | FeatureSet, Origin]] = []
    try:
        documents = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        problems.append(f"{file}{line}: is not YAML: {error.problem}")
        return found
    except (yaml.YAMLError, RecursionError) as error:
        problems.append(f"{file}: is not YAML: {str(error).splitlines()[0]}")
        return found
    if not documents:
        problems.append(f"{file}: is empty: write 'kind: source' or 'kind: feature_set'")
    for document in documents:
        reader = Reader(file, document)
        definition = _definition(reader, document)
        origin = reader.origin()
        # Rules speak of compiled values, which exist only where the shape was right.
        if definition is not None and not reader.problems:
            reader.problems.extend(_broken_rules(definition))
            found.append((definition, origin))
        reader.problems.sort(key=lambda problem: origin.line(problem.path) or 0)
        problems.extend(origin.describe(problem) for problem in reader.problems)
    return found


def _broken_rules(definition: Source | FeatureSet) -> list[Problem]:
    if isinstance(definition, Source):
        return rules.check_source(definition)
    return rules.check_feature_set(definition)


def _definition(reader: Reader, node: yaml.Node) -> Source | FeatureSet | None:
    nodes = reader.mapping(node, ())
    kind = nodes.get("kind")
    if kind is None:
        if nodes or not reader.problems:
            reader.refuse((), "kind is missing: 'source' or 'feature_set'")
        return None
    entries = Entries(reader, (), nodes)
    value = kind.value if isinstance(kind, yaml.ScalarNode) else None
    if value == "source":
        for key in nodes:
            reader.refuse_unknown((key,), _SOURCE_KEYS)
        return _source(reader, entries)
    if value == "feature_set":
        for key in nodes:
            reader.refuse_unknown((key,), _SET_KEYS)
        return _feature_set(reader, entries)
    reader.refuse(("kind",), f"{value!r} is not allowed: one of source, feature_set")
    return None


def _source(reader: Reader, entries: Entries) -> Source:
    return Source(
        name=entries.need("name", reader.text, ""),
        topic=entries.need("topic", reader.text, ""),
        schema=entries.need("schema", reader.text, ""),
        event_time=entries.need("event_time", partial(_event_time, reader), EventTime(field="")),
        key=entries.get("key", reader.field_names, ()),
        start=entries.get("start", partial(_start, reader), _EARLIEST),
        max_ahead_ms=entries.get("max_ahead", reader.duration, 3_600_000),
        idle_after_ms=entries.get("idle_after", reader.duration, 30_000),
        close_after_ms=entries.get("close_after", reader.duration, None),
    )


def _event_time(reader: Reader, node: yaml.Node, path: KeyPath) -> EventTime | None:
    if isinstance(node, yaml.ScalarNode):
        field = reader.text(node, path, "the name of a field, or {field: ts, unit: ms}")
        return None if field is None else EventTime(field=field)
    entries = Entries(reader, path, reader.mapping(node, path, ("field", "unit")))
    unit = entries.need("unit", partial(reader.choice, kind=_Unit), _Unit.MS)
    return EventTime(field=entries.need("field", reader.text, ""), unit=TimeUnit(unit.value))


def _start(reader: Reader, node: yaml.Node, path: KeyPath) -> StartAt | int | None:
    return reader.parsed(node, path, _parse_start, "earliest, latest or a UTC time")


def _parse_start(text: str) -> StartAt | int:
    """`earliest`, `latest`, or milliseconds of a UTC time. Raises ValueError saying the forms."""
    if text in list(StartAt):
        return StartAt(text)
    allowed = (
        f"{text!r} is not allowed: earliest, latest or a UTC time such as 2026-01-31T12:00:00Z"
    )
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(allowed) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment.utcoffset() != timedelta(0):
        raise ValueError(allowed)
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def _feature_set(reader: Reader, entries: Entries) -> FeatureSet:
    return FeatureSet(
        name=entries.need("name", reader.text, ""),
        version=entries.need(
            "version", partial(reader.unquoted, what="a version such as 1.0.0"), ""
        ),
        source=entries.need("source", partial(_source_name, reader), ""),
        entity=entries.need("entity", reader.field_names, ()),
        every_ms=entries.need("every", reader.duration, 1),
        features=entries.need("features", partial(_features, reader), ()),
        allowed_lateness_ms=entries.get("allowed_lateness", reader.duration, 0),
        retention_ms=entries.get("retention", reader.duration, 0),
        emit=entries.get("emit", partial(reader.choice, kind=Emit), Emit.FINAL),
        where=entries.get("where", reader.sql, None),
        description=entries.get("description", reader.text, ""),
        owner=entries.get("owner", reader.text, ""),
    )


def _source_name(reader: Reader, node: yaml.Node, path: KeyPath) -> str | None:
    if isinstance(node, yaml.MappingNode):
        reader.refuse(path, "needs the name of a source; a feature set can't be one yet")
        return None
    return reader.text(node, path, "the name of a source")


def _features(reader: Reader, node: yaml.Node, path: KeyPath) -> tuple[Feature, ...]:
    entries = reader.mapping(node, path)
    features = [_feature(reader, name, at, (*path, name)) for name, at in entries.items()]
    return tuple(sorted((f for f in features if f), key=lambda feature: feature.name))


def _feature(reader: Reader, name: str, node: yaml.Node, path: KeyPath) -> Feature | None:
    nodes = reader.mapping(node, path, _FEATURE_KEYS)
    entries = Entries(reader, path, nodes)
    functions = [function for function in Function if function in nodes]
    if len(functions) != 1 and isinstance(node, yaml.MappingNode):
        given = f"has {' and '.join(functions)}" if functions else "has no aggregate"
        reader.refuse(path, f"{given}: give exactly one of {', '.join(Function)}")
    window_ms = entries.need("window", reader.duration, 1) if nodes else 1
    where = entries.get("where", reader.sql, None)
    q = entries.get("q", reader.number, None)
    k = entries.get("k", reader.whole_number, None)
    if len(functions) != 1:
        return None
    function = functions[0]
    expression = entries.need(function, reader.sql, "")
    return Feature(
        name=name,
        function=function,
        expression=None if expression.strip() == "*" else expression,
        window_ms=window_ms,
        where=where,
        q=q,
        k=k,
    )
