"""Rules that a definition keeps whatever its events look like.

Both forms, YAML and Python, compile to model values and are held to these.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import semver

from streams.definitions.model import Feature, FeatureSet, Function, Source
from streams.definitions.problems import Problem
from streams.durations import DAY_MS, format_duration
from streams.names import NAME, is_reserved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_MS = 3_650 * DAY_MS
MAX_PANES = 100_000
MAX_FEATURES = 1_000
MAX_ENTITY_FIELDS = 16
MAX_NAME = 100
MAX_SQL = 4_000
MAX_K = 10_000

FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")


def check_source(source: Source) -> list[Problem]:
    """All that is wrong with `source` in itself; empty if nothing is."""
    found = list(_name(("name",), source.name))
    if not TOPIC.match(source.topic) or source.topic in {".", ".."}:
        found.append(_problem("topic", "needs 1 to 249 letters, digits, dots, _ or -"))
    if not source.schema:
        found.append(_problem("schema", "needs the registry subject of the record values"))
    found.extend(_fields("event_time", [source.event_time.field]))
    found.extend(_fields("key", source.key))
    found.extend(_range("max_ahead", source.max_ahead_ms, 0))
    found.extend(_range("idle_after", source.idle_after_ms, 1))
    if source.close_after_ms is not None:
        found.extend(_range("close_after", source.close_after_ms, 1))
    return found


def check_feature_set(feature_set: FeatureSet) -> list[Problem]:
    """All that is wrong with `feature_set` in itself; empty if nothing is."""
    found = list(_name(("name",), feature_set.name))
    found.extend(_version(feature_set.version))
    found.extend(_name(("source",), feature_set.source))
    found.extend(_entity(feature_set.entity))
    found.extend(_range("every", feature_set.every_ms, 1))
    found.extend(_range("allowed_lateness", feature_set.allowed_lateness_ms, 0))
    found.extend(_range("retention", feature_set.retention_ms, 0))
    found.extend(_sql(("where",), feature_set.where))
    if not feature_set.features:
        found.append(_problem("features", "needs at least one feature"))
    if len(feature_set.features) > MAX_FEATURES:
        found.append(_problem("features", f"has more than {MAX_FEATURES} features"))
    for feature in feature_set.features:
        found.extend(_feature(feature_set, feature))
    return found


def _feature(feature_set: FeatureSet, feature: Feature) -> Iterator[Problem]:
    path = ("features", feature.name)
    yield from _name(path, feature.name)
    if feature.name in feature_set.entity:
        yield Problem(path=path, message="is the name of an entity field: take another name")
    yield from _window((*path, "window"), feature.window_ms, feature_set.every_ms)
    yield from _sql((*path, feature.function.value), feature.expression)
    yield from _sql((*path, "where"), feature.where)
    if feature.expression is None and feature.function is not Function.COUNT:
        message = f"only count takes '*': give {feature.function} a field or an expression"
        yield Problem(path=(*path, feature.function.value), message=message)
    yield from _quantile(path, feature)
    yield from _top_k(path, feature)


def _window(path: tuple[str, ...], window_ms: int, every_ms: int) -> Iterator[Problem]:
    if window_ms < 1 or window_ms > LONGEST_MS:
        yield Problem(path=path, message="needs to be from 1ms to 3650d")
    elif every_ms >= 1 and window_ms % every_ms:
        low = window_ms - window_ms % every_ms
        around = [ms for ms in (low, low + every_ms) if ms > 0]
        near = " or ".join(format_duration(ms) for ms in around)
        message = (
            f"{format_duration(window_ms)} is not a whole multiple of "
            f"every ({format_duration(every_ms)}): take {near}, or another every"
        )
        yield Problem(path=path, message=message)
    elif every_ms >= 1 and window_ms // every_ms > MAX_PANES:
        message = f"is more than {MAX_PANES} times every: take a longer every"
        yield Problem(path=path, message=message)


def _quantile(path: tuple[str, ...], feature: Feature) -> Iterator[Problem]:
    if feature.function is not Function.QUANTILE:
        if feature.q is not None:
            yield Problem(path=(*path, "q"), message="belongs to quantile only")
    elif feature.q is None:
        yield Problem(path=path, message="quantile needs q, a number from 0 to 1")
    elif not 0.0 <= feature.q <= 1.0:
        yield Problem(path=(*path, "q"), message="needs to be from 0 to 1")


def _top_k(path: tuple[str, ...], feature: Feature) -> Iterator[Problem]:
    if feature.function is not Function.TOP_K:
        if feature.k is not None:
            yield Problem(path=(*path, "k"), message="belongs to top_k only")
    elif feature.k is None:
        yield Problem(path=path, message="top_k needs k, the length of the list")
    elif not 1 <= feature.k <= MAX_K:
        yield Problem(path=(*path, "k"), message=f"needs to be from 1 to {MAX_K}")


def _name(path: tuple[str, ...], name: str) -> Iterator[Problem]:
    if not NAME.match(name):
        message = f"{name!r} is no name: lower-case letters, digits and _, a letter first"
        yield Problem(path=path, message=message)
    elif is_reserved(name):
        yield Problem(path=path, message=f"{name!r} is reserved: 'as_of' and 'rewindow_…' are ours")
    elif len(name) > MAX_NAME:
        yield Problem(path=path, message=f"is longer than {MAX_NAME} characters")


def _version(version: str) -> Iterator[Problem]:
    parsed = semver.Version.parse(version) if semver.Version.is_valid(version) else None
    if parsed is None:
        yield _problem("version", f"{version!r} is no semantic version: write it as 1.0.0")
    elif parsed.build is not None:
        yield _problem("version", "can't have build metadata (the part from '+' on)")


def _entity(entity: tuple[str, ...]) -> Iterator[Problem]:
    if not entity:
        yield _problem("entity", "needs at least one field")
    if len(entity) > MAX_ENTITY_FIELDS:
        yield _problem("entity", f"has more than {MAX_ENTITY_FIELDS} fields")
    yield from _fields("entity", entity)
    for field in entity:
        if is_reserved(field):
            yield _problem(
                "entity", f"field {field!r} has a reserved name: rename it in the events"
            )


def _fields(key: str, fields: Iterable[str]) -> Iterator[Problem]:
    names = tuple(fields)
    for name in names:
        if not FIELD.match(name):
            yield _problem(key, f"{name!r} can't be the name of an Avro field")
    for name, times in Counter(names).items():
        if times > 1:
            yield _problem(key, f"names {name!r} more than once")


def _range(key: str, value_ms: int, least_ms: int) -> Iterator[Problem]:
    if not least_ms <= value_ms <= LONGEST_MS:
        least = format_duration(least_ms) if least_ms else "0s"
        yield _problem(key, f"needs to be from {least} to 3650d")


def _sql(path: tuple[str, ...], sql: str | None) -> Iterator[Problem]:
    if sql is None:
        return
    if not sql.strip():
        yield Problem(path=path, message="is empty: write an SQL expression")
    elif len(sql) > MAX_SQL:
        yield Problem(path=path, message=f"is longer than {MAX_SQL} characters")


def _problem(key: str, message: str) -> Problem:
    return Problem(path=(key,), message=message)
