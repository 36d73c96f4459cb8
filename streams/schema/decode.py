"""Batches of Confluent-framed Avro records to dataframes, by schema id.

A framed value is the byte 0, the writer's schema id (4 bytes, big-endian) and the Avro body.
Each record is read with its writer's schema and resolved to the reader's. Whether a record is
bad depends on its bytes and the two schemas alone: not on its batch, nor on the fields needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from streams.errors import InvalidInputError
from streams.schema.resolve import plan, resolve, sources, targets
from streams.schema.wire import WireReader

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

MAGIC = b"\x00"
HEADER_BYTES = 5


class BadRecord(StrEnum):
    """Why a record can't be read."""

    TOMBSTONE = "tombstone"
    WRONG_MAGIC_BYTE = "wrong_magic_byte"
    TRUNCATED = "truncated"
    UNKNOWN_SCHEMA_ID = "unknown_schema_id"
    UNDECODABLE = "undecodable"
    INCOMPATIBLE_SCHEMA = "incompatible_schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A record that can't be read: its position in the input, the kind, and what is wrong."""

    position: int
    error: BadRecord
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """`frame` has a row for each good record and `rows` its input position, both in input
    order; `bad` holds the others, in input order."""

    frame: pl.DataFrame
    rows: np.ndarray[Any, np.dtype[np.int64]]
    bad: list[Bad]


def header(schema_id: int) -> bytes:
    """The five bytes before the body of a record with that schema."""
    return MAGIC + schema_id.to_bytes(4, "big")


class Decoder:
    """Reads one source's records.

    `reader` is the schema that expressions are written against, `needed` the fields wanted in
    the frames. Raises InvalidInputError if a needed field can't be used, or as
    `types.field_types` does.
    """

    def __init__(self, reader: Mapping[str, Any], needed: Collection[str]) -> None:
        self._targets = targets(reader)
        types = {target.field.name: target.dtype for target in self._targets}
        missing = sorted(set(needed) - set(types))
        if missing:
            raise InvalidInputError(
                f"the schema has no usable field {', '.join(map(repr, missing))}; "
                f"usable are {', '.join(types)}"
            )
        self._types = {name: dtype for name, dtype in types.items() if name in set(needed)}
        self._writers: dict[int, _Writer | Bad] = {}
        self._unknown: dict[int, Bad] = {}

    @property
    def known_ids(self) -> frozenset[int]:
        """The schema ids that were added, and that the registry knows."""
        return frozenset(self._writers)

    def missing_ids(self, values: Sequence[bytes | None]) -> set[int]:
        """Schema ids in `values` to be looked up and added before `decode`.

        An id that the registry did not know is named again: it may have been registered since.
        Those that are not in `values` are forgotten: somebody may send ids at random.
        """
        missing = {
            schema_id
            for head in _heads(values)[0]
            if len(head) == HEADER_BYTES and head[:1] == MAGIC
            if (schema_id := int.from_bytes(head[1:], "big")) not in self._writers
        }
        self._unknown = {one: bad for one, bad in self._unknown.items() if one in missing}
        return missing

    def add(self, schema_id: int, schema: Mapping[str, Any] | None) -> None:
        """Tell the writer's schema of an id; None: the registry itself says there is none."""
        if schema is None:
            detail = f"the registry knows no schema with id {schema_id}"
            self._unknown[schema_id] = _verdict(BadRecord.UNKNOWN_SCHEMA_ID, detail)
            return
        try:
            self._writers[schema_id] = _Writer(schema, self)
        except InvalidInputError as error:
            detail = f"schema {schema_id}: {error}"
            self._writers[schema_id] = _verdict(BadRecord.INCOMPATIBLE_SCHEMA, detail)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode a batch. Raises KeyError if an id that `missing_ids` names was not added."""
        heads, none_is_null = _heads(values)
        if len(heads) == 1 and none_is_null:
            only = next(iter(heads))
            if len(only) == HEADER_BYTES and only[:1] == MAGIC:
                bodies = [value[HEADER_BYTES:] for value in values if value]
                return self._decode_group(only, np.arange(len(values)), bodies)
        groups, bad = _group(values)
        parts = [
            self._decode_group(head, np.array(positions, dtype=np.int64), bodies)
            for head, (positions, bodies) in groups.items()
        ]
        return self._join(parts, bad)

    def _decode_group(
        self, head: bytes, positions: np.ndarray[Any, np.dtype[np.int64]], bodies: list[bytes]
    ) -> Decoded:
        schema_id = int.from_bytes(head[1:], "big")
        writer = self._writers.get(schema_id) or self._unknown[schema_id]
        if isinstance(writer, Bad):
            bad = [_at(position, writer) for position in positions.tolist()]
            return Decoded(frame=self._empty(), rows=positions[:0], bad=bad)
        return writer.decode(positions, bodies)

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self._types)

    def _join(self, parts: list[Decoded], bad: list[Bad]) -> Decoded:
        if len(parts) == 1 and not bad:
            return parts[0]
        for part in parts:
            bad += part.bad
        bad.sort(key=lambda one: one.position)
        rows = np.concatenate([np.empty(0, dtype=np.int64), *(part.rows for part in parts)])
        frame = pl.concat([self._empty(), *(part.frame for part in parts)])
        if len(parts) > 1:
            order = np.argsort(rows, kind="stable")
            rows, frame = rows[order], frame[order] if self._types else frame
        return Decoded(frame=frame, rows=rows, bad=bad)


class _Writer:
    """One writer's schema, ready to be read as the decoder's."""

    def __init__(self, schema: Mapping[str, Any], decoder: Decoder) -> None:
        self._wire = WireReader(schema)
        self._types = decoder._types
        self._steps = plan(decoder._targets, self._wire.fields, self._types)
        self._names = sources(self._steps)

    def decode(
        self, positions: np.ndarray[Any, np.dtype[np.int64]], bodies: list[bytes]
    ) -> Decoded:
        raw = self._wire.read(bodies, self._names)
        resolved = resolve(self._steps, raw.columns, len(raw.good))
        frame = pl.DataFrame(
            {name: resolved.columns[name] for name in self._types}, schema=self._types
        )
        verdicts = [*raw.bad]
        rows = positions
        if raw.bad:
            rows = rows[np.array(raw.good, dtype=np.int64)]
        if resolved.bad:
            keep = np.ones(len(raw.good), dtype=np.bool_)
            keep[list(resolved.bad)] = False
            verdicts += [(raw.good[row], reason) for row, reason in resolved.bad.items()]
            frame, rows = frame.filter(keep) if self._types else frame, rows[keep]
        bad = [
            Bad(position=int(positions[at]), error=BadRecord.UNDECODABLE, detail=detail)
            for at, detail in sorted(verdicts)
        ]
        return Decoded(frame=frame, rows=rows, bad=bad)


def _heads(values: Sequence[bytes | None]) -> tuple[set[bytes], bool]:
    """The distinct first five bytes of values that are not null, and whether none is."""
    try:
        return {value[:HEADER_BYTES] for value in values}, True  # type: ignore[index]  # None raises TypeError, which is faster than asking
    except TypeError:
        return {value[:HEADER_BYTES] for value in values if value is not None}, False


def _group(
    values: Sequence[bytes | None],
) -> tuple[dict[bytes, tuple[list[int], list[bytes]]], list[Bad]]:
    """Positions and bodies by header, and the values that have no right header."""
    groups: dict[bytes, tuple[list[int], list[bytes]]] = {}
    bad = []
    for position, value in enumerate(values):
        fault = _framing_fault(value)
        if fault is not None:
            bad.append(_at(position, fault))
            continue
        assert value is not None
        positions, bodies = groups.setdefault(value[:HEADER_BYTES], ([], []))
        positions.append(position)
        bodies.append(value[HEADER_BYTES:])
    return groups, bad


def _framing_fault(value: bytes | None) -> Bad | None:
    if value is None:
        return _verdict(BadRecord.TOMBSTONE, "the value is null")
    if value[:1] != MAGIC and value:
        return _verdict(
            BadRecord.WRONG_MAGIC_BYTE,
            f"the first byte is 0x{value[0]:02x}, not 0x00: not written with a registry serializer",
        )
    if len(value) < HEADER_BYTES:
        return _verdict(BadRecord.TRUNCATED, f"{len(value)} bytes are no header and body")
    return None


def _verdict(error: BadRecord, detail: str) -> Bad:
    return Bad(position=-1, error=error, detail=detail)


def _at(position: int, verdict: Bad) -> Bad:
    return Bad(position=position, error=verdict.error, detail=verdict.detail)
