"""Sources and feature sets from files: YAML, or Python that defines them.

A file is read whole before anything is refused, so that one run shows everything there is
to mend, as `file:line: field: what is wrong`.
"""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import yaml

from streams.definitions import dsl, rules
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
from streams.definitions.problems import Origin, Problem
from streams.durations import parse_duration
from streams.errors import InvalidInputError
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
Path_ = tuple[str, ...]

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
_EARLIEST: StartAt | int = StartAt.EARLIEST
_FEATURE_KEYS = ["window", "where", "q", "k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the files define. `origins` is by record key: `source/NAME`, `set/NAME@VERSION`."""

    sources: tuple[Source, ...]
    feature_sets: tuple[FeatureSet, ...]
    origins: Mapping[str, Origin]


def record_key(definition: Source | FeatureSet) -> str:
    """What identifies a definition, in files and in the definitions topic."""
    if isinstance(definition, Source):
        return f"source/{definition.name}"
    return f"set/{definition.name}@{definition.version}"


def load_files(paths: Sequence[Path]) -> Loaded:
    """Read the definitions in `paths`, `.py` or YAML.

    Raises InvalidInputError with one line for each thing that is wrong in any of them.
    """
    problems: list[str] = []
    found: dict[str, tuple[Source | FeatureSet, Origin]] = {}
    for path in paths:
        for definition, origin in _load_file(path, problems):
            key = record_key(definition)
            if key in found:
                message = f"{key} is also defined in {found[key][1].file}"
                problems.append(origin.describe(Problem(path=("name",), message=message)))
            else:
                found[key] = (definition, origin)
    if problems:
        raise InvalidInputError("\n".join(problems))
    values = [definition for definition, _ in found.values()]
    return Loaded(
        sources=tuple(value for value in values if isinstance(value, Source)),
        feature_sets=tuple(value for value in values if isinstance(value, FeatureSet)),
        origins={key: origin for key, (_, origin) in found.items()},
    )


def _load_file(path: Path, problems: list[str]) -> Iterable[tuple[Source | FeatureSet, Origin]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text")
        return []
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror}")
        return []
    if path.suffix == ".py":
        return _load_python(path, problems)
    return _load_yaml(str(path), text, problems)


def _load_python(path: Path, problems: list[str]) -> list[tuple[Source | FeatureSet, Origin]]:
    """Run the file and take the definitions among its module-level names."""
    try:
        values = runpy.run_path(str(path)).values()
    except InvalidInputError as error:
        problems.extend(f"{path}: {line}" for line in str(error).splitlines())
        return []
    except Exception as error:  # whatever a user's file raises is that file's problem
        problems.append(f"{path}: {type(error).__name__}: {error}")
        return []
    origin = Origin(file=str(path))
    written = (value for value in values if isinstance(value, dsl.Source | dsl.FeatureSet))
    unique = {id(value): value.compile() for value in written}
    if not unique:
        problems.append(f"{path}: defines no Source and no FeatureSet")
    return [(definition, origin) for definition in unique.values()]


def _load_yaml(
    file: str, text: str, problems: list[str]
) -> list[tuple[Source | FeatureSet, Origin]]:
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
        reader = _Reader(file, document)
        definition = _definition(reader, document)
        origin = reader.origin()
        # Rules speak of compiled values, which exist only where the shape was right.
        if definition is not None and not reader.problems:
            reader.problems.extend(_rules(definition))
            found.append((definition, origin))
        problems.extend(_in_file_order(origin, reader.problems))
    return found


def _in_file_order(origin: Origin, problems: Iterable[Problem]) -> list[str]:
    ordered = sorted(problems, key=lambda problem: origin.line(problem.path) or 0)
    return [origin.describe(problem) for problem in ordered]


def _rules(definition: Source | FeatureSet) -> list[Problem]:
    if isinstance(definition, Source):
        return rules.check_source(definition)
    return rules.check_feature_set(definition)


class _Reader:
    """Takes YAML nodes apart, noting the line of each key and all that is wrong."""

    def __init__(self, file: str, root: yaml.Node) -> None:
        self._file = file
        self._lines: dict[Path_, int] = {(): root.start_mark.line + 1}
        self.problems: list[Problem] = []

    def origin(self) -> Origin:
        return Origin(file=self._file, lines=dict(self._lines))

    def refuse(self, path: Path_, message: str) -> None:
        self.problems.append(Problem(path=path, message=message))

    def mapping(
        self, node: yaml.Node, path: Path_, allowed: Sequence[str] | None = None
    ) -> dict[str, yaml.Node]:
        """The entries of a mapping; keys beyond `allowed` and repeated ones are refused."""
        if not isinstance(node, yaml.MappingNode):
            self.refuse(path, "needs to be a mapping of keys to values")
            return {}
        entries: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            at = (*path, key)
            line = key_node.start_mark.line + 1
            if key in entries:
                self.refuse(at, f"is given twice, here and in line {line}")
                continue
            self._lines[at] = line
            entries[key] = value
            if allowed is not None and key not in allowed:
                self.refuse(at, f"unknown key: {did_you_mean(key, allowed)}")
        return entries

    def text(self, node: yaml.Node, path: Path_, what: str = "text") -> str | None:
        """A scalar as it was written, if YAML takes it for text."""
        if not isinstance(node, yaml.ScalarNode) or not node.tag.endswith(":str"):
            written = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            self.refuse(path, f"needs {what}; {written} is none (quote it if it is meant as text)")
            return None
        return self._encodable(node, path)

    def scalar(self, node: yaml.Node, path: Path_, tags: Sequence[str], what: str) -> str | None:
        """A scalar as it was written, if YAML gives it one of `tags`."""
        if not isinstance(node, yaml.ScalarNode) or node.tag.rpartition(":")[2] not in tags:
            self.refuse(path, f"needs {what}")
            return None
        return self._encodable(node, path)

    def _encodable(self, node: yaml.ScalarNode, path: Path_) -> str | None:
        value = str(node.value)
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(path, "has a character that UTF-8 can't hold (a lone surrogate)")
            return None
        return value

    def texts(self, node: yaml.Node, path: Path_) -> tuple[str, ...] | None:
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(path, "needs a list of field names, such as [origin]")
            return None
        items = [self.text(item, path, "names of fields") for item in node.value]
        return tuple(item for item in items if item is not None)

    def parsed(
        self, node: yaml.Node, path: Path_, parse: Callable[[str], T], what: str
    ) -> T | None:
        text = self.scalar(node, path, ("str", "int", "float", "timestamp"), what)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.refuse(path, str(error))
            return None

    def duration(self, node: yaml.Node, path: Path_) -> int | None:
        return self.parsed(node, path, _duration, "a duration such as 10m or 24h")

    def choice(self, node: yaml.Node, path: Path_, kind: type[E]) -> E | None:
        allowed = ", ".join(kind)
        text = self.text(node, path, f"one of {allowed}")
        if text is None:
            return None
        if text not in list(kind):
            self.refuse(path, f"{text!r} is not allowed: one of {allowed}")
            return None
        return kind(text)


def _duration(text: str) -> int:
    if text.strip().isdigit():
        raise ValueError(f"{text} has no unit: write one of ms, s, m, h, d after it")
    return parse_duration(text)


def _definition(reader: _Reader, node: yaml.Node) -> Source | FeatureSet | None:
    entries = reader.mapping(node, ())
    kind = entries.get("kind")
    if kind is None:
        if entries or not reader.problems:
            reader.refuse((), "kind is missing: 'source' or 'feature_set'")
        return None
    value = kind.value if isinstance(kind, yaml.ScalarNode) else None
    if value == "source":
        return _source(reader, node)
    if value == "feature_set":
        return _feature_set(reader, node)
    reader.refuse(("kind",), f"{value!r} is not allowed: one of source, feature_set")
    return None


class _Entries:
    """The entries of one mapping, read by name with what they default to."""

    def __init__(self, reader: _Reader, path: Path_, entries: dict[str, yaml.Node]) -> None:
        self._reader = reader
        self._path = path
        self._entries = entries

    def need(self, key: str, read: Callable[[yaml.Node, Path_], T | None], empty: T) -> T:
        """The value of `key`, refused where it is absent; `empty` stands for what is wrong."""
        node = self._entries.get(key)
        if node is None:
            self._reader.refuse(self._path, f"{key} is missing")
            return empty
        value = read(node, (*self._path, key))
        return empty if value is None else value

    def get(self, key: str, read: Callable[[yaml.Node, Path_], T | None], default: T) -> T:
        """The value of `key`, or `default` where it is absent or null."""
        node = self._entries.get(key)
        if node is None or node.tag.endswith(":null"):
            return default
        value = read(node, (*self._path, key))
        return default if value is None else value


def _source(reader: _Reader, node: yaml.Node) -> Source:
    before = len(reader.problems)
    entries = _Entries(reader, (), reader.mapping(node, (), _SOURCE_KEYS))
    # The first look at `kind` has noted repeated keys already.
    reader.problems[:] = _unique(reader.problems, before)
    return Source(
        name=entries.need("name", reader.text, ""),
        topic=entries.need("topic", reader.text, ""),
        schema=entries.need("schema", reader.text, ""),
        event_time=entries.need("event_time", _event_time(reader), EventTime(field="")),
        key=entries.get("key", reader.texts, ()),
        start=entries.get("start", _start(reader), _EARLIEST),
        max_ahead_ms=entries.get("max_ahead", reader.duration, 3_600_000),
        idle_after_ms=entries.get("idle_after", reader.duration, 30_000),
        close_after_ms=entries.get("close_after", reader.duration, None),
    )


def _feature_set(reader: _Reader, node: yaml.Node) -> FeatureSet:
    before = len(reader.problems)
    entries = _Entries(reader, (), reader.mapping(node, (), _SET_KEYS))
    reader.problems[:] = _unique(reader.problems, before)
    return FeatureSet(
        name=entries.need("name", reader.text, ""),
        version=entries.need("version", _version(reader), ""),
        source=entries.need("source", _source_name(reader), ""),
        entity=entries.need("entity", reader.texts, ()),
        every_ms=entries.need("every", reader.duration, 1),
        features=entries.need("features", _features(reader), ()),
        allowed_lateness_ms=entries.get("allowed_lateness", reader.duration, 0),
        retention_ms=entries.get("retention", reader.duration, 0),
        emit=entries.get("emit", lambda at, path: reader.choice(at, path, Emit), Emit.FINAL),
        where=entries.get("where", _sql(reader), None),
        description=entries.get("description", reader.text, ""),
        owner=entries.get("owner", reader.text, ""),
    )


def _unique(problems: list[Problem], before: int) -> list[Problem]:
    seen = problems[:before]
    return seen + [problem for problem in problems[before:] if problem not in seen]


def _sql(reader: _Reader) -> Callable[[yaml.Node, Path_], str | None]:
    def read(node: yaml.Node, path: Path_) -> str | None:
        return reader.scalar(node, path, ("str", "int", "float"), "an SQL expression, in quotes")

    return read


def _version(reader: _Reader) -> Callable[[yaml.Node, Path_], str | None]:
    def read(node: yaml.Node, path: Path_) -> str | None:
        return reader.scalar(node, path, ("str", "int", "float"), "a version such as 1.0.0")

    return read


def _source_name(reader: _Reader) -> Callable[[yaml.Node, Path_], str | None]:
    def read(node: yaml.Node, path: Path_) -> str | None:
        if isinstance(node, yaml.MappingNode):
            reader.refuse(path, "needs the name of a source; a feature set can't be one yet")
            return None
        return reader.text(node, path, "the name of a source")

    return read


def _event_time(reader: _Reader) -> Callable[[yaml.Node, Path_], EventTime | None]:
    def read(node: yaml.Node, path: Path_) -> EventTime | None:
        if isinstance(node, yaml.ScalarNode):
            field = reader.text(node, path, "the name of a field, or {field: ts, unit: ms}")
            return None if field is None else EventTime(field=field)
        entries = _Entries(reader, path, reader.mapping(node, path, ("field", "unit")))
        unit = entries.need("unit", lambda at, where: reader.choice(at, where, _Unit), _Unit.MS)
        return EventTime(field=entries.need("field", reader.text, ""), unit=TimeUnit(unit.value))

    return read


class _Unit(StrEnum):
    S = "s"
    MS = "ms"
    US = "us"


def _start(reader: _Reader) -> Callable[[yaml.Node, Path_], StartAt | int | None]:
    def read(node: yaml.Node, path: Path_) -> StartAt | int | None:
        return reader.parsed(node, path, parse_start, "earliest, latest or a UTC time")

    return read


def parse_start(text: str) -> StartAt | int:
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


def _features(reader: _Reader) -> Callable[[yaml.Node, Path_], tuple[Feature, ...] | None]:
    def read(node: yaml.Node, path: Path_) -> tuple[Feature, ...] | None:
        entries = reader.mapping(node, path)
        features = [_feature(reader, name, at, (*path, name)) for name, at in entries.items()]
        return tuple(sorted((f for f in features if f), key=lambda feature: feature.name))

    return read


def _feature(reader: _Reader, name: str, node: yaml.Node, path: Path_) -> Feature | None:
    allowed = [*_FEATURE_KEYS, *(function.value for function in Function)]
    nodes = reader.mapping(node, path, allowed)
    entries = _Entries(reader, path, nodes)
    functions = [function for function in Function if function in nodes]
    if len(functions) != 1 and isinstance(node, yaml.MappingNode):
        given = f"has {' and '.join(functions)}" if functions else "has no aggregate"
        reader.refuse(path, f"{given}: give exactly one of {', '.join(Function)}")
    window_ms = entries.need("window", reader.duration, 1) if nodes else 1
    where = entries.get("where", _sql(reader), None)
    q = entries.get("q", _number(reader), None)
    k = entries.get("k", _whole(reader), None)
    if len(functions) != 1:
        return None
    function = functions[0]
    expression = entries.need(function, _sql(reader), "")
    return Feature(
        name=name,
        function=function,
        expression=None if expression.strip() == "*" else expression,
        window_ms=window_ms,
        where=where,
        q=q,
        k=k,
    )


def _number(reader: _Reader) -> Callable[[yaml.Node, Path_], float | None]:
    def read(node: yaml.Node, path: Path_) -> float | None:
        return reader.parsed(node, path, _parse_number, "a number")

    return read


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _whole(reader: _Reader) -> Callable[[yaml.Node, Path_], int | None]:
    def read(node: yaml.Node, path: Path_) -> int | None:
        return reader.parsed(node, path, _parse_whole, "a whole number")

    return read


def _parse_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None
