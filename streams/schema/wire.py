"""How the bytes of one writer's schema are taken apart, not yet what they mean.

The *wire schema* is the writer's without names and logical types, which change no byte. Two
decoders read it: pyruhvro, which makes Arrow columns of a whole batch, and fastavro, record by
record, for the few types that pyruhvro lacks. Which one a schema gets is decided by the schema
alone, so that one record's verdict never depends on the records beside it.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastavro
import polars as pl
import pyarrow as pa
import pyruhvro

from streams.errors import InvalidInputError
from streams.schema.types import RAW_TYPES, Field, fields, inline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_INT32 = range(-(2**31), 2**31)
_MAX_BRANCHES = 16
_COLUMNAR = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "enum"})

Column = pl.Series | list[Any]
"""Raw values of one field: a series of its `RAW_TYPES` type, else Python values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Decoded bodies: raw columns of the good ones, and why each other one is bad.

    `good` are positions in the bodies, ascending; a column has one value for each.
    """

    good: Sequence[int]
    columns: Mapping[str, Column]
    bad: Sequence[tuple[int, str]]


class WireReader:
    """Reads bodies of one writer's schema. Raises InvalidInputError if that can't be done."""

    def __init__(self, writer: Mapping[str, Any]) -> None:
        inlined = inline(writer)
        self.fields: tuple[Field, ...] = fields(inlined)
        _refuse_empty_items(inlined)
        self._columnar = bool(inlined["fields"]) and all(
            _is_columnar(spec["type"], top_level=True) for spec in inlined["fields"]
        )
        if self._columnar:
            self._json = json.dumps(_wire_form(inlined, bytes_as="string"))
            self._check()
        else:
            try:
                self._parsed = fastavro.parse_schema(_wire_form(inlined, bytes_as="bytes"))
            except Exception as error:
                raise InvalidInputError(f"the schema is not valid Avro: {error}") from error

    def _check(self) -> None:
        try:
            pyruhvro.avro_to_arrow_schema(self._json)
        except BaseException as error:
            if not isinstance(error, Exception) and not _is_panic(error):
                raise
            raise InvalidInputError(f"the schema is not valid Avro: {error}") from error

    def read(self, bodies: Sequence[bytes], names: Iterable[str]) -> Raw:
        """Decode `bodies` and return the raw columns of the fields `names`."""
        wanted = [field for field in self.fields if field.name in set(names)]
        return (
            self._read_columns(bodies, wanted)
            if self._columnar
            else self._read_rows(bodies, wanted)
        )

    def _read_columns(self, bodies: Sequence[bytes], wanted: Sequence[Field]) -> Raw:
        batch, _ = self._attempt(bodies)
        bad: list[tuple[int, str]] = []
        good: Sequence[int] = range(len(bodies))
        if batch is None:
            bad = self._find_bad(bodies)
            rejected = {position for position, _ in bad}
            good = [position for position in good if position not in rejected]
            batch, error = self._attempt([bodies[position] for position in good])
            if batch is None:
                raise RuntimeError(f"records decode alone but not together: {error}")
        columns = {field.name: _column(batch.column(field.name), field) for field in wanted}
        return Raw(good=good, columns=columns, bad=bad)

    def _attempt(self, bodies: Sequence[bytes]) -> tuple[pa.RecordBatch | None, str]:
        """The batch, or None and why. Any record that is bad fails the whole of it."""
        try:
            batch = pyruhvro.deserialize_array(bodies, self._json)
            for field, column in zip(self.fields, batch.columns, strict=True):
                # Text is not checked by the decoder; bytes were read as if they were text.
                if not any(branch.kind == "bytes" for branch in field.branches):
                    column.validate(full=True)
        except (ValueError, pa.ArrowException) as error:
            return None, str(error)
        except BaseException as error:
            if not _is_panic(error):
                raise
            return None, str(error)
        return batch, ""

    def _find_bad(self, bodies: Sequence[bytes]) -> list[tuple[int, str]]:
        """Halve a failing batch down to the records that fail alone, in order."""
        bad = []
        pending = [(0, len(bodies))]
        while pending:
            start, end = pending.pop()
            batch, error = self._attempt(bodies[start:end])
            if batch is not None:
                continue
            if end - start == 1:
                bad.append((start, error))
                continue
            middle = (start + end) // 2
            pending += [(middle, end), (start, middle)]
        return bad

    def _read_rows(self, bodies: Sequence[bytes], wanted: Sequence[Field]) -> Raw:
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        values: dict[str, list[Any]] = {field.name: [] for field in wanted}
        ints = [f.name for f in wanted if any(branch.kind == "int" for branch in f.branches)]
        for position, body in enumerate(bodies):
            try:
                row: Any = fastavro.schemaless_reader(io.BytesIO(body), self._parsed, None)
            except Exception as error:
                bad.append((position, _fault(error)))
                continue
            if any(type(row[name]) is int and row[name] not in _INT32 for name in ints):
                bad.append((position, "an int does not fit into 32 bits"))
                continue
            good.append(position)
            for name, column in values.items():
                column.append(row[name])
        columns = {field.name: _series(values[field.name], field) for field in wanted}
        return Raw(good=good, columns=columns, bad=bad)


def _is_panic(error: BaseException) -> bool:
    """Whether the decoder gave up. Its panics are no Exception, and nothing names their type."""
    return type(error).__name__ == "PanicException"


def _fault(error: Exception) -> str:
    """In our words: some of fastavro's hold addresses, and would differ from replay to replay."""
    if isinstance(error, EOFError):
        return "unexpected end of the body"
    if isinstance(error, UnicodeDecodeError):
        return "text is not UTF-8"
    return f"the body does not follow the schema ({type(error).__name__})"


def _column(array: pa.Array, field: Field) -> Column:
    kind = field.branches[0].kind if len(field.branches) == 1 else ""
    if kind == "bytes":
        return list(array.cast(pa.binary()).to_pylist())
    if kind not in RAW_TYPES or isinstance(array.type, pa.UnionType):
        return list(array.to_pylist())
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _series(values: list[Any], field: Field) -> Column:
    kind = field.branches[0].kind if len(field.branches) == 1 else ""
    if kind not in RAW_TYPES:
        return values
    return pl.Series(values, dtype=RAW_TYPES[kind])


def _is_columnar(schema: Any, *, top_level: bool) -> bool:
    """Whether pyruhvro reads the type. Bytes pass for text where that column can be told apart."""
    if isinstance(schema, list):
        if "bytes" in map(_kind, schema):
            return top_level and set(map(_kind, schema)) <= {"bytes", "null"}
        # Each branch of a union becomes a column as long as the batch.
        return 0 < len(schema) <= _MAX_BRANCHES and all(
            _is_columnar(member, top_level=False) for member in schema
        )
    kind = _kind(schema)
    if kind == "bytes":
        return top_level
    if kind == "array":
        return _is_columnar(schema["items"], top_level=False)
    if kind == "map":
        return _is_columnar(schema["values"], top_level=False)
    if kind == "record":
        return bool(schema["fields"]) and all(
            _is_columnar(spec["type"], top_level=False) for spec in schema["fields"]
        )
    return kind in _COLUMNAR


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema if isinstance(schema, str) else schema["type"])


def _wire_form(schema: Any, *, bytes_as: str) -> Any:
    """Strip what changes no byte: logical types, defaults, aliases."""
    if isinstance(schema, list):
        return [_wire_form(member, bytes_as=bytes_as) for member in schema]
    kind = _kind(schema)
    match kind:
        case "array":
            return {"type": "array", "items": _wire_form(schema["items"], bytes_as=bytes_as)}
        case "map":
            return {"type": "map", "values": _wire_form(schema["values"], bytes_as=bytes_as)}
        case "enum":
            return {"type": "enum", "name": schema["name"], "symbols": schema["symbols"]}
        case "fixed":
            return {"type": "fixed", "name": schema["name"], "size": schema["size"]}
        case "record":
            members = [
                {"name": spec["name"], "type": _wire_form(spec["type"], bytes_as=bytes_as)}
                for spec in schema["fields"]
            ]
            return {"type": "record", "name": schema["name"], "fields": members}
        case "bytes":
            return bytes_as
    return kind


def _refuse_empty_items(schema: Any) -> None:
    """Refuse arrays whose items take no bytes: a few bytes could then claim any number of them."""
    if isinstance(schema, list):
        for member in schema:
            _refuse_empty_items(member)
        return
    kind = _kind(schema)
    if kind == "array":
        if _may_be_empty(schema["items"]):
            raise InvalidInputError("arrays of items that take no bytes can't be read")
        _refuse_empty_items(schema["items"])
    elif kind == "map":
        _refuse_empty_items(schema["values"])
    elif kind == "record":
        for spec in schema["fields"]:
            _refuse_empty_items(spec["type"])


def _may_be_empty(schema: Any) -> bool:
    kind = _kind(schema)
    if kind == "record":
        return all(_may_be_empty(spec["type"]) for spec in schema["fields"])
    return kind == "null" or (kind == "fixed" and schema["size"] == 0)
