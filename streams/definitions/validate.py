"""Whether a definition fits the events: its fields, the types of its expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from streams.definitions.expressions import (
    Checked,
    FieldTypes,
    check_expression,
    check_filter,
    type_name,
)
from streams.definitions.model import Feature, FeatureSet, Function, Source, TimeUnit
from streams.definitions.problems import Problem
from streams.errors import InvalidInputError
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NUMERIC = frozenset(
    {Function.SUM, Function.MEAN, Function.VARIANCE, Function.STDDEV, Function.QUANTILE}
)
_COUNTS = frozenset({Function.COUNT, Function.APPROX_DISTINCT})
_DOUBLES = frozenset({Function.MEAN, Function.VARIANCE, Function.STDDEV, Function.QUANTILE})


def output_dtype(function: Function, input_dtype: pl.DataType | None) -> pl.DataType:
    """Type of a feature's values; `input_dtype` is None only for `count` of `*`."""
    if function in _COUNTS:
        return pl.Int64()
    if input_dtype is None:
        raise ValueError(f"{function} needs an expression")
    if function in _DOUBLES:
        return pl.Float64()
    if function is Function.SUM:
        return pl.Int64() if input_dtype.is_integer() else pl.Float64()
    if function is Function.TOP_K:
        return pl.List(pl.Struct({"value": input_dtype, "count": pl.Int64()}))
    return input_dtype


def check_source_fields(
    source: Source, fields: FieldTypes, unsupported: Mapping[str, str] | None = None
) -> list[Problem]:
    """What of `source` does not fit the schema of its events."""
    known = _Known(fields, unsupported or {})
    found = list(known.check(("key",), source.key))
    path = ("event_time",)
    field, unit = source.event_time.field, source.event_time.unit
    missing = known.missing(path, field)
    if missing is not None:
        found.append(missing)
    elif unit is TimeUnit.AVRO and not isinstance(fields[field], pl.Datetime):
        message = (
            f"field {field!r} is {type_name(fields[field])}: use a timestamp-millis or "
            f"timestamp-micros field, or write {{field: {field}, unit: s|ms|us}} for a number"
        )
        found.append(Problem(path=path, message=message))
    elif unit is not TimeUnit.AVRO and not fields[field].is_integer():
        message = f"field {field!r} is {type_name(fields[field])}: a unit needs an int or long"
        found.append(Problem(path=path, message=message))
    return found


def check_feature_set(
    feature_set: FeatureSet,
    source: Source,
    fields: FieldTypes,
    unsupported: Mapping[str, str] | None = None,
) -> list[Problem]:
    """What of `feature_set` does not fit its source's events; empty if all does.

    `unsupported` says why fields that are not in `fields` can't be used.
    """
    if feature_set.source != source.name:
        raise ValueError(f"{feature_set.name} does not read {source.name}")
    known = _Known(fields, unsupported or {})
    found = list(known.check(("entity",), feature_set.entity))
    if feature_set.where is not None:
        found.extend(known.filter(("where",), feature_set.where))
    for feature in feature_set.features:
        found.extend(_feature(feature, known))
    return found


def output_dtypes(feature_set: FeatureSet, fields: FieldTypes) -> dict[str, pl.DataType]:
    """Type of each feature of a checked set, in name order."""
    outputs: dict[str, pl.DataType] = {}
    for feature in sorted(feature_set.features, key=lambda feature: feature.name):
        sql = feature.expression
        dtype = None if sql is None else check_expression(sql, fields).dtype
        outputs[feature.name] = output_dtype(feature.function, dtype)
    return outputs


def _feature(feature: Feature, known: _Known) -> Iterator[Problem]:
    path = ("features", feature.name)
    if feature.where is not None:
        yield from known.filter((*path, "where"), feature.where)
    if feature.expression is None:
        return
    at = (*path, feature.function.value)
    try:
        checked = known.expression(feature.expression)
    except InvalidInputError as error:
        yield Problem(path=at, message=str(error))
        return
    reason = _unfit(feature.function, checked.dtype)
    if reason:
        yield Problem(path=at, message=reason)


def _unfit(function: Function, dtype: pl.DataType) -> str | None:
    """Why `function` can't take values of `dtype`, if it can't."""
    if function in NUMERIC and not (dtype.is_integer() or dtype.is_float()):
        reason = f"{function} needs a number, not {type_name(dtype)}"
        if dtype == pl.Boolean:
            return f"{reason}: write CASE WHEN … THEN 1 ELSE 0 END"
        if dtype == pl.String:
            return f"{reason}: write CAST(… AS DOUBLE), null where the text is no number"
        return reason
    if function is Function.TOP_K and not (
        dtype.is_integer() or dtype == pl.String or dtype == pl.Boolean
    ):
        return f"top_k needs text, whole numbers or true/false, not {type_name(dtype)}"
    return None


def _entity_type(dtype: pl.DataType) -> bool:
    """Whether equal values of a type have equal bytes, so that they can name an entity."""
    return dtype.is_integer() or isinstance(dtype, pl.String | pl.Boolean | pl.Date | pl.Datetime)


class _Known:
    """The fields of an event, those that can be used and why the others can't."""

    def __init__(self, fields: FieldTypes, unsupported: Mapping[str, str]) -> None:
        self._fields = fields
        self._unsupported = unsupported

    def missing(self, path: tuple[str, ...], name: str) -> Problem | None:
        if name in self._fields:
            return None
        if name in self._unsupported:
            message = f"can't use field {name!r}: {self._unsupported[name]}"
        else:
            message = f"unknown field {name!r}: {did_you_mean(name, self._fields)}"
        return Problem(path=path, message=message)

    def check(self, path: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Problem]:
        for name in names:
            missing = self.missing(path, name)
            if missing is not None:
                yield missing
            elif not _entity_type(self._fields[name]):
                message = (
                    f"field {name!r} is {type_name(self._fields[name])}, which can't name an "
                    "entity: use string, int, long, boolean, date, timestamp or enum"
                )
                yield Problem(path=path, message=message)

    def expression(self, sql: str) -> Checked:
        return check_expression(sql, self._fields, self._unsupported)

    def filter(self, path: tuple[str, ...], sql: str) -> Iterator[Problem]:
        try:
            check_filter(sql, self._fields, self._unsupported)
        except InvalidInputError as error:
            yield Problem(path=path, message=str(error))
