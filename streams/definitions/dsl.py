"""The Python form of sources and feature sets; it compiles to the same values as the YAML.

```python
from streams.dsl import FeatureSet, Source, count, mean

flights = Source(name="flights", topic="flights", schema="flights-value",
                 event_time="departed_at", key=["origin"])
departures = FeatureSet(name="origin_departures", version="1.0.0", source=flights,
                        entity=["origin"], every="10m",
                        features={"departures_1h": count(window="1h"),
                                  "delay_mean_1h": mean("dep_delay", window="1h")})
```

Durations are texts such as `10m`. A definition that breaks a rule raises InvalidInputError
where it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from streams.definitions import model, rules
from streams.definitions.problems import Problem
from streams.durations import parse_duration
from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One feature before it has its name; made by `count`, `sum`, `quantile` and the like."""

    function: model.Function
    expression: str | None
    window: str
    where: str | None = None
    q: float | None = None
    k: int | None = None


def count(expression: str = "*", *, window: str, where: str | None = None) -> Aggregate:
    """Number of events, or of non-null values of `expression`."""
    given = None if expression == "*" else expression
    return Aggregate(model.Function.COUNT, given, window, where)


def sum(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Sum of the non-null values."""
    return Aggregate(model.Function.SUM, expression, window, where)


def mean(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Mean of the non-null values."""
    return Aggregate(model.Function.MEAN, expression, window, where)


def min(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Smallest non-null value."""
    return Aggregate(model.Function.MIN, expression, window, where)


def max(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Largest non-null value."""
    return Aggregate(model.Function.MAX, expression, window, where)


def variance(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Variance of the sample (n - 1)."""
    return Aggregate(model.Function.VARIANCE, expression, window, where)


def stddev(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Standard deviation of the sample (n - 1)."""
    return Aggregate(model.Function.STDDEV, expression, window, where)


def first(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Non-null value with the earliest event time."""
    return Aggregate(model.Function.FIRST, expression, window, where)


def last(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Non-null value with the latest event time."""
    return Aggregate(model.Function.LAST, expression, window, where)


def approx_distinct(expression: str, *, window: str, where: str | None = None) -> Aggregate:
    """Approximate number of distinct values."""
    return Aggregate(model.Function.APPROX_DISTINCT, expression, window, where)


def quantile(expression: str, *, q: float, window: str, where: str | None = None) -> Aggregate:
    """Approximate quantile of rank `q` in [0, 1]."""
    return Aggregate(model.Function.QUANTILE, expression, window, where, q=q)


def top_k(expression: str, *, k: int, window: str, where: str | None = None) -> Aggregate:
    """The `k` most frequent values and how often each came."""
    return Aggregate(model.Function.TOP_K, expression, window, where, k=k)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTime:
    """A plain numeric event-time field and its unit since the epoch."""

    field: str
    unit: Literal["s", "ms", "us"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An event topic and how to read it; see the reference for each setting."""

    name: str
    topic: str
    schema: str
    event_time: str | EventTime
    key: Sequence[str] = ()
    start: Literal["earliest", "latest"] | datetime = "earliest"
    max_ahead: str = "1h"
    idle_after: str = "30s"
    close_after: str | None = None

    def __post_init__(self) -> None:
        self.compile()

    def compile(self) -> model.Source:
        """The value that workers read. Raises InvalidInputError naming each broken rule."""
        problems: list[Problem] = []
        event_time = self.event_time
        compiled = model.Source(
            name=self.name,
            topic=self.topic,
            schema=self.schema,
            event_time=model.EventTime(field=event_time)
            if isinstance(event_time, str)
            else model.EventTime(field=event_time.field, unit=model.TimeUnit(event_time.unit)),
            key=_names("key", self.key, problems),
            start=_start(self.start, problems),
            max_ahead_ms=_duration("max_ahead", self.max_ahead, problems),
            idle_after_ms=_duration("idle_after", self.idle_after, problems),
            close_after_ms=None
            if self.close_after is None
            else _duration("close_after", self.close_after, problems),
        )
        _raise(f"source {self.name!r}", problems or rules.check_source(compiled))
        return compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """One version of a named group of features of one entity."""

    name: str
    version: str
    source: str | Source
    entity: Sequence[str]
    every: str
    features: Mapping[str, Aggregate]
    allowed_lateness: str = "0s"
    retention: str = "0s"
    emit: Literal["final", "updates"] = "final"
    where: str | None = None
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        self.compile()

    def compile(self) -> model.FeatureSet:
        """The value that workers read. Raises InvalidInputError naming each broken rule."""
        problems: list[Problem] = []
        if self.emit not in list(model.Emit):
            problems.append(Problem(path=("emit",), message="one of final, updates"))
        compiled = model.FeatureSet(
            name=self.name,
            version=self.version,
            source=self.source if isinstance(self.source, str) else self.source.name,
            entity=_names("entity", self.entity, problems),
            every_ms=_duration("every", self.every, problems),
            features=tuple(
                _feature(name, self.features[name], problems) for name in sorted(self.features)
            ),
            allowed_lateness_ms=_duration("allowed_lateness", self.allowed_lateness, problems),
            retention_ms=_duration("retention", self.retention, problems),
            emit=model.Emit.UPDATES if self.emit == "updates" else model.Emit.FINAL,
            where=self.where,
            description=self.description,
            owner=self.owner,
        )
        title = f"feature set {self.name}@{self.version}"
        _raise(title, problems or rules.check_feature_set(compiled))
        return compiled


def _feature(name: str, aggregate: Aggregate, problems: list[Problem]) -> model.Feature:
    path = ("features", name, "window")
    return model.Feature(
        name=name,
        function=aggregate.function,
        expression=aggregate.expression,
        window_ms=_parse(path, aggregate.window, problems),
        where=aggregate.where,
        q=None if aggregate.q is None else float(aggregate.q),
        k=aggregate.k,
    )


def _names(key: str, names: Sequence[str], problems: list[Problem]) -> tuple[str, ...]:
    if isinstance(names, str):
        problems.append(Problem(path=(key,), message=f"needs a list: [{names!r}]"))
        return (names,)
    return tuple(names)


def _duration(key: str, text: str, problems: list[Problem]) -> int:
    return _parse((key,), text, problems)


def _parse(path: tuple[str, ...], text: str, problems: list[Problem]) -> int:
    try:
        return parse_duration(str(text))
    except ValueError as error:
        problems.append(Problem(path=path, message=str(error)))
        return 1


def _start(start: str | datetime, problems: list[Problem]) -> model.StartAt | int:
    if isinstance(start, datetime):
        if start.utcoffset() != timedelta(0):
            problems.append(Problem(path=("start",), message="needs a datetime in UTC"))
            return 0
        return (start - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    if start not in list(model.StartAt):
        problems.append(Problem(path=("start",), message="earliest, latest or a UTC datetime"))
        return 0
    return model.StartAt(start)


def _raise(title: str, problems: Sequence[Problem]) -> None:
    if problems:
        raise InvalidInputError("\n".join(f"{title}: {problem}" for problem in problems))
