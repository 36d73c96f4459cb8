"""From what a writer wrote to what the reader's schema says, a column at a time.

The rules are those of Avro's schema resolution for the fields that expressions can use, with
two additions: timestamps of different units are converted, and a nullable writer field may be
read by a field that is not nullable, where only the nulls are bad. All such fields of the
reader are resolved, needed or not: a record must not be good for one feature set and bad for
another one of the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from streams.errors import InvalidInputError
from streams.schema.types import RAW_TYPES, Branch, Field, fields, inline, polars_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from streams.schema.wire import Column

_PROMOTIONS: Mapping[str, frozenset[str]] = {
    "boolean": frozenset({"boolean"}),
    "int": frozenset({"int"}),
    "long": frozenset({"int", "long"}),
    "float": frozenset({"int", "long", "float"}),
    "double": frozenset({"int", "long", "float", "double"}),
    "string": frozenset({"string", "bytes"}),
    "enum": frozenset({"enum"}),
}
"""Kinds of the writer that each kind of the reader takes."""

_UNITS_PER_S: Mapping[str, int] = {"timestamp-millis": 1_000, "timestamp-micros": 1_000_000}
_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader's field that expressions can use."""

    field: Field
    branch: Branch
    dtype: pl.DataType


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How one target is made: from the writer's field `source`, or from its default if None.

    `may_fail` says that single values can be unreadable: then the step is taken even if nobody
    needs the column.
    """

    target: Target
    source: Field | None
    may_fail: bool
    default: pl.Series | None = None


@dataclass(slots=True)
class Resolved:
    """Columns by reader's field, and why rows are bad: row number to reason."""

    columns: dict[str, pl.Series] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)


def targets(reader: Mapping[str, Any]) -> tuple[Target, ...]:
    """The reader's usable fields. Raises InvalidInputError as `types.field_types` does."""
    described = ((f, polars_type(f)) for f in fields(inline(reader)))
    return tuple(
        Target(field=f, branch=f.branches[0], dtype=dtype)
        for f, dtype in described
        if isinstance(dtype, pl.DataType)
    )


def plan(
    reader: Sequence[Target], writer: Sequence[Field], needed: Collection[str]
) -> tuple[Step, ...]:
    """Steps that make the needed fields and check the others.

    Raises InvalidInputError if some usable field of the reader can't be made at all.
    """
    by_name = {f.name: f for f in writer}
    steps = []
    for target in reader:
        names = (target.field.name, *target.field.aliases)
        source = next((by_name[name] for name in names if name in by_name), None)
        step = _from_default(target) if source is None else _from_writer(target, source)
        if step.may_fail or target.field.name in needed:
            steps.append(step)
    return tuple(steps)


def sources(steps: Iterable[Step]) -> set[str]:
    """Names of the writer's fields that the steps read."""
    return {step.source.name for step in steps if step.source is not None}


def resolve(steps: Sequence[Step], columns: Mapping[str, Column], height: int) -> Resolved:
    """Take the steps over raw columns of `height` rows; the first bad field of a row counts."""
    resolved = Resolved()
    for step in steps:
        name = step.target.field.name
        if step.default is not None:
            resolved.columns[name] = step.default.new_from_index(0, height).alias(name)
            continue
        assert step.source is not None
        raw = columns[step.source.name]
        series, unreadable = _convert(raw, step.source, step.target)
        if step.may_fail:
            _note(resolved.bad, unreadable, f"field {name!r} can't be read as the schema says")
            if not step.target.field.nullable:
                _note(resolved.bad, _nulls(raw), f"field {name!r} is null, which it must not be")
        resolved.columns[name] = series.alias(name)
    return resolved


def _note(bad: dict[int, str], mask: np.ndarray[Any, Any] | None, reason: str) -> None:
    if mask is not None:
        for row in np.flatnonzero(mask).tolist():
            bad.setdefault(row, reason)


def _nulls(raw: Column) -> np.ndarray[Any, Any]:
    if isinstance(raw, pl.Series):
        return raw.is_null().to_numpy()
    return np.fromiter((value is None for value in raw), dtype=np.bool_, count=len(raw))


def _from_default(target: Target) -> Step:
    name = target.field.name
    if not target.field.has_default:
        raise InvalidInputError(
            f"field {name!r} is not in the writer's schema and has no default in the reader's"
        )
    default = target.field.default
    # Avro takes a default in JSON: a whole number stands for a double too.
    if target.branch.kind in ("float", "double") and type(default) is int:
        default = float(default)
    try:
        raw = pl.Series([default], dtype=RAW_TYPES[target.branch.kind], strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise InvalidInputError(f"the default of field {name!r} does not fit its type") from error
    if default is None and not target.field.nullable:
        raise InvalidInputError(f"the default of field {name!r} is null, which it must not be")
    return Step(target=target, source=None, may_fail=False, default=raw.cast(target.dtype))


def _from_writer(target: Target, source: Field) -> Step:
    readable = [branch for branch in source.branches if _accepts(target.branch, branch)]
    general = len(source.branches) > 1
    if not readable and not (source.nullable and target.field.nullable and not source.branches):
        theirs = " or ".join(_named(branch) for branch in source.branches) or "null"
        raise InvalidInputError(
            f"field {target.field.name!r} is {theirs} in the writer's schema "
            f"and {_named(target.branch)} in the reader's"
        )
    may_fail = general or (source.nullable and not target.field.nullable)
    if readable and not general:
        may_fail = may_fail or _value_may_fail(target.branch, readable[0])
    return Step(target=target, source=source, may_fail=may_fail)


def _named(branch: Branch) -> str:
    return f"{branch.kind} ({branch.logical})" if branch.logical else branch.kind


def _accepts(reader: Branch, writer: Branch) -> bool:
    """Whether some value of the writer's type can be read. Two times must be of one family."""
    if writer.kind not in _PROMOTIONS[reader.kind]:
        return False
    if reader.kind == "string" or None in (reader.logical, writer.logical):
        return True
    return reader.logical == writer.logical or {reader.logical, writer.logical} <= set(_UNITS_PER_S)


def _value_may_fail(reader: Branch, writer: Branch) -> bool:
    if writer.kind == "enum":
        return not set(writer.symbols) <= set(reader.symbols) and reader.default is None
    return writer.kind == "bytes" or _unit_factor(reader, writer) > 1


def _unit_factor(reader: Branch, writer: Branch) -> float:
    """Reader's units per writer's unit, where both are timestamps; else 1."""
    wanted, written = (_UNITS_PER_S.get(branch.logical or "") for branch in (reader, writer))
    return wanted / written if wanted and written else 1


def _convert(
    raw: Column, source: Field, target: Target
) -> tuple[pl.Series, np.ndarray[Any, Any] | None]:
    """The column in the target's type, and which values could not be read."""
    if not isinstance(raw, pl.Series):
        return _convert_values(raw, target)
    writer, reader = source.branches[0], target.branch
    if reader.kind == "enum" and not set(writer.symbols) <= set(reader.symbols):
        known = raw.is_in(reader.symbols).fill_null(value=True)
        kept = raw.zip_with(known, pl.Series([reader.default], dtype=pl.String))
        return kept, (~known & kept.is_null()).to_numpy()
    factor = _unit_factor(reader, writer)
    if factor < 1:
        return (raw // round(1 / factor)).cast(target.dtype), None
    if factor > 1:
        limit = _INT64.stop // round(factor)
        inside = raw.is_between(-limit, limit, closed="none").fill_null(value=True)
        scaled = raw.zip_with(inside, pl.Series([None], dtype=pl.Int64)) * round(factor)
        return scaled.cast(target.dtype), (~inside).to_numpy()
    return raw.cast(RAW_TYPES[reader.kind]).cast(target.dtype), None


def _convert_values(
    raw: Sequence[Any], target: Target
) -> tuple[pl.Series, np.ndarray[Any, Any] | None]:
    """The same for Python values: bytes, and unions whose branch each value tells itself."""
    take = _taker(target.branch)
    values: list[Any] = []
    unreadable = np.zeros(len(raw), dtype=np.bool_)
    for row, value in enumerate(raw):
        taken = None if value is None else take(value)
        unreadable[row] = value is not None and taken is None
        values.append(taken)
    series = pl.Series(values, dtype=RAW_TYPES[target.branch.kind])
    return series.cast(target.dtype), unreadable


def _taker(branch: Branch) -> Callable[[Any], Any]:
    """What makes a raw value of the branch's kind of a Python value, or None."""
    match branch.kind:
        case "boolean":
            return lambda value: value if type(value) is bool else None
        case "int":
            return lambda value: value if type(value) is int and value in _INT32 else None
        case "long":
            return lambda value: value if type(value) is int and value in _INT64 else None
        case "float" | "double":
            return lambda value: float(value) if type(value) in (int, float) else None
        case "enum":
            known = set(branch.symbols)
            return lambda value: (
                (value if value in known else branch.default) if type(value) is str else None
            )
    return _text


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None
