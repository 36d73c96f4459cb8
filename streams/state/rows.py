"""The byte layout of rows: frames to sorted keys and values, and back.

A rows frame has `@pane` (Int64, start of the pane in ms since the epoch), `@entity` (String)
and one column per accumulator; there is at most one row per (pane, entity).

Key (sorts by time, then by the entity's bytes, as unsigned bytes)::

    8 bytes   pane start in ms, big-endian, sign bit flipped
    rest      entity, UTF-8

Value, all numbers big-endian::

    1 byte    FORMAT
    b bytes   null bitmap, b = ceil(columns / 8); bit 7 of the first byte is column 0,
              1 means null; unused bits are 0
    slots     one per fixed-width column, in column order; 0 where null:
              Int32, Date, Float32: 4   Int64, Datetime, Float64: 8   Int128: 16   Boolean: 1
    lengths   4 bytes for each String and Binary column, in column order; 0 where null
    rest      their bytes, in the same order

All work is done on whole columns. The one trick: a run of variable-size pieces is one Arrow
binary array whose offsets are the pieces' bounds, so cutting rows into pieces or joining
pieces to rows moves views, not bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
"""First byte of each value; another one means another layout."""

PANE = "@pane"
ENTITY = "@entity"

PANE_LIMIT_MS = 0x7F << 56
"""Panes start before this, so that every row key sorts before the one byte 0xFF."""

_SIGN = np.uint64(1 << 63)
_PANE_BYTES = 8
_WORD = 1 << 64

_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One accumulator: `slots` are its (field, numpy type) pairs in the fixed part."""

    name: str
    dtype: pl.DataType
    slots: tuple[tuple[str, str], ...]
    variable: bool


class RowLayout:
    """Packs rows frames with the given accumulator columns.

    Raises ValueError for a column type that has no slot or a name used twice.
    """

    __slots__ = ("_columns", "_fixed", "_nulls", "_variable", "schema")

    def __init__(self, columns: Sequence[tuple[str, pl.DataType]]) -> None:
        names = {PANE, ENTITY, *(name for name, _ in columns)}
        if len(names) != len(columns) + 2:
            raise ValueError("column names must be unique, and neither '@pane' nor '@entity'")
        self.schema = pl.Schema([(PANE, pl.Int64()), (ENTITY, pl.String()), *columns])
        self._columns = tuple(_column(i, name, dtype) for i, (name, dtype) in enumerate(columns))
        self._variable = tuple(c for c in self._columns if c.variable)
        self._nulls = (len(columns) + 7) // 8
        fixed = [s for c in self._columns if not c.variable for s in c.slots]
        lengths = [s for c in self._variable for s in c.slots]
        self._fixed = np.dtype(
            [("format", "u1"), ("nulls", "u1", (self._nulls,)), *fixed, *lengths]
        )

    @property
    def least_bytes(self) -> int:
        """What a value takes, without texts and bytes."""
        return int(self._fixed.itemsize)

    def empty(self) -> pl.DataFrame:
        """A rows frame without rows."""
        return self.schema.to_frame()

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with its columns in this layout's order.

        Raises ValueError if columns are missing, unknown or of another type.
        """
        if dict(frame.schema) != dict(self.schema):
            raise ValueError(f"not a rows frame of this layout: {frame.schema} != {self.schema}")
        return frame.select(self.schema.names())

    def encode(self, frame: pl.DataFrame) -> tuple[list[bytes], list[bytes]]:
        """Keys, strictly ascending, and their values.

        Raises ValueError for another schema, a null pane or entity, a pane at or after
        PANE_LIMIT_MS, or two rows of one pane and entity.
        """
        frame = self.conform(frame).sort(PANE, ENTITY).rechunk()
        keys = encode_keys(frame)
        if frame.is_empty():
            return [], []
        packed = np.zeros(frame.height, self._fixed)
        packed["format"] = FORMAT
        pieces = []
        for index, column in enumerate(self._columns):
            series = frame[column.name]
            if series.null_count():
                bits = series.is_null().to_numpy().astype("u1") << (7 - index % 8)
                packed["nulls"][:, index // 8] |= bits
            if column.variable:
                pieces.append(_fill(series.cast(pl.Binary), b""))
                packed[column.slots[0][0]] = pieces[-1].bin.size().to_numpy()
            else:
                for (field, _), words in zip(column.slots, _words(series), strict=True):
                    packed[field] = words
        return keys, _join([_cut(packed.tobytes(), self._fixed.itemsize), *pieces])

    def decode(self, keys: Sequence[bytes], values: Sequence[bytes]) -> pl.DataFrame:
        """The rows frame behind `keys` and `values`, in their order.

        Raises ValueError on input that `encode` of this layout did not make: short or long
        values, another format byte, stray null bits, keys or strings that are not UTF-8.
        """
        if len(keys) != len(values):
            raise ValueError(f"{len(keys)} keys but {len(values)} values")
        if not keys:
            return self.empty()
        pane, entity = _decode_keys(keys)
        packed, parts = self._split(values)
        series = [pl.Series(PANE, pane), entity.alias(ENTITY)]
        for index, column in enumerate(self._columns):
            if column.variable:
                data = _as(parts[column.name], column.dtype)
            else:
                data = _number([packed[field] for field, _ in column.slots], column.dtype)
            null = (packed["nulls"][:, index // 8] & (0x80 >> index % 8)) != 0
            if null.any():
                data = pl.select(pl.when(pl.Series(~null)).then(data)).to_series()
            series.append(data.alias(column.name))
        return pl.DataFrame(series)

    def _split(self, values: Sequence[bytes]) -> tuple[_Array, dict[str, pl.Series]]:
        """The fixed parts as one structured array, and the variable columns' bytes."""
        bounds, data = _ragged(values)
        packed = _heads(bounds, data, self._fixed)
        if (packed["format"] != FORMAT).any():
            raise ValueError(f"a value does not begin with format byte {FORMAT}")
        unused = 8 * self._nulls - len(self._columns)
        if unused and (packed["nulls"][:, -1] & ((1 << unused) - 1)).any():
            raise ValueError("a value has null bits for columns that do not exist")
        lengths = np.empty((len(values), 1 + len(self._variable)), "i8")
        lengths[:, 0] = self._fixed.itemsize
        for index, column in enumerate(self._variable, 1):
            lengths[:, index] = packed[column.slots[0][0]]
        if (lengths.sum(axis=1) != np.diff(bounds)).any():
            raise ValueError("a value is shorter or longer than its layout says")
        pieces = _pieces(lengths.ravel(), data)
        step = lengths.shape[1]
        return packed, {
            column.name: pieces.gather_every(step, index)
            for index, column in enumerate(self._variable, 1)
        }


def key(pane_ms: int, entity: str) -> bytes:
    """Key of one row."""
    return pane_prefix(pane_ms) + entity.encode()


def pane_prefix(pane_ms: int) -> bytes:
    """First 8 bytes of the keys of a pane; no key of an earlier pane sorts after it."""
    return (pane_ms + (1 << 63)).to_bytes(_PANE_BYTES, "big")


def pane_of_key(row_key: bytes) -> int:
    """The pane, start in ms, of a row's key."""
    return int.from_bytes(row_key[:_PANE_BYTES], "big") - (1 << 63)


def encode_keys(frame: pl.DataFrame) -> list[bytes]:
    """Keys of the `@pane` and `@entity` columns of a frame sorted by them.

    Raises ValueError for a null, a pane at or after PANE_LIMIT_MS, or a row out of order.
    """
    check_keys(frame)
    if frame.is_empty():
        return []
    prefixes = (frame[PANE].to_numpy().view("u8") ^ _SIGN).astype(">u8").tobytes()
    return _join([_cut(prefixes, _PANE_BYTES), frame[ENTITY].cast(pl.Binary)])


def check_keys(frame: pl.DataFrame) -> None:
    """Raises ValueError where `encode_keys` does."""
    pane, entity = frame[PANE], frame[ENTITY]
    if pane.null_count() or entity.null_count():
        raise ValueError("pane and entity must not be null")
    here, there = pane[1:], pane[:-1]
    if not ((here > there) | ((here == there) & (entity[1:] > entity[:-1]))).all():
        raise ValueError("two rows of one pane and entity, or rows out of order")
    if len(pane) and int(pane[-1]) >= PANE_LIMIT_MS:
        raise ValueError(f"a pane must start before {PANE_LIMIT_MS}")


def first_of_each(rows: pl.DataFrame, after: str | None, limit: int) -> pl.DataFrame:
    """The first `limit` rows of each pane after entity `after`, of a frame sorted by its keys."""
    if after is not None:
        rows = rows.filter(pl.col(ENTITY) > after)
    if rows.height <= limit:
        return rows
    return rows.filter(pl.int_range(pl.len()).over(PANE) < limit)


def _decode_keys(keys: Sequence[bytes]) -> tuple[_Array, pl.Series]:
    bounds, data = _ragged(keys)
    prefix = _heads(bounds, data, np.dtype(">u8")).astype("u8")
    lengths = np.full((len(keys), 2), _PANE_BYTES, "i8")
    lengths[:, 1] = np.diff(bounds) - _PANE_BYTES
    entity = _pieces(lengths.ravel(), data).gather_every(2, 1)
    return (prefix ^ _SIGN).view("i8"), _as(entity, pl.String())


def _column(index: int, name: str, dtype: pl.DataType) -> _Column:
    """The slots of a column of `dtype`; floats travel as bits, so every NaN survives."""
    field = f"c{index}"
    slots: tuple[tuple[str, str], ...]
    variable = False
    match dtype:
        case pl.Int32() | pl.Date():
            slots = ((field, ">i4"),)
        case pl.Int64():
            slots = ((field, ">i8"),)
        case pl.Datetime(time_unit="ms" | "us"):
            slots = ((field, ">i8"),)
        case pl.Int128():
            slots = ((f"{field}_high", ">i8"), (f"{field}_low", ">u8"))
        case pl.Float32():
            slots = ((field, ">u4"),)
        case pl.Float64():
            slots = ((field, ">u8"),)
        case pl.Boolean():
            slots = ((field, "u1"),)
        case pl.String() | pl.Binary():
            slots, variable = ((field, ">u4"),), True
        case _:
            raise ValueError(f"column '{name}': no byte layout for {dtype}")
    return _Column(name=name, dtype=dtype, slots=slots, variable=variable)


def _words(series: pl.Series) -> list[_Array]:
    """A fixed-width column as the numbers that go into its slots, 0 where null."""
    match series.dtype:
        case pl.Int128():
            whole = _fill(series, 0)
            word = pl.lit(_WORD, pl.Int128)
            parts = pl.select(
                high=(whole // word).cast(pl.Int64), low=(whole % word).cast(pl.UInt64)
            )
            return [parts["high"].to_numpy(), parts["low"].to_numpy()]
        case pl.Boolean():
            return [_fill(series.cast(pl.UInt8), 0).to_numpy()]
        case pl.Float32():
            return [_fill(series, 0.0).to_numpy().view("u4")]
        case pl.Float64():
            return [_fill(series, 0.0).to_numpy().view("u8")]
        case _:
            return [_fill(series.to_physical(), 0).to_numpy()]


def _number(words: list[_Array], dtype: pl.DataType) -> pl.Series:
    """A fixed-width column from the numbers in its slots."""
    native = [word.astype(word.dtype.newbyteorder("=")) for word in words]
    match dtype:
        case pl.Int128():
            high, low = (pl.Series(word).cast(pl.Int128) for word in native)
            return pl.select(high * pl.lit(_WORD, pl.Int128) + low).to_series()
        case pl.Boolean():
            if (native[0] > 1).any():
                raise ValueError("a Boolean slot is neither 0 nor 1")
            return pl.Series(native[0].view("?"))
        case pl.Float32():
            return pl.Series(native[0].view("f4"))
        case pl.Float64():
            return pl.Series(native[0].view("f8"))
        case _:
            return pl.Series(native[0]).cast(dtype)


def _fill(series: pl.Series, value: float | bytes) -> pl.Series:
    if not series.null_count():
        return series
    return pl.select(
        pl.when(series.is_not_null()).then(series).otherwise(pl.lit(value, series.dtype))
    ).to_series()


def _as(pieces: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Raises ValueError for bytes that are not UTF-8 where a String is wanted."""
    if dtype == pl.Binary():
        return pieces
    try:
        return pieces.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise ValueError("an entity or a string is not UTF-8") from None


def _cut(data: bytes, width_bytes: int) -> pl.Series:
    """`data` as binary values of one width."""
    bounds = np.arange(0, len(data) + 1, width_bytes, dtype="i8")
    return _binary(bounds, pa.py_buffer(data))


def _pieces(lengths: _Array, data: pa.Buffer) -> pl.Series:
    """`data` as binary values of these lengths."""
    bounds = np.zeros(len(lengths) + 1, "i8")
    np.cumsum(lengths, out=bounds[1:])
    return _binary(bounds, data)


def _binary(bounds: _Array, data: pa.Buffer) -> pl.Series:
    array = pa.Array.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), data]
    )
    return pl.Series(array, dtype=pl.Binary)


def _join(columns: list[pl.Series]) -> list[bytes]:
    """Row by row, the bytes of `columns` one after the other."""
    rows, count = len(columns[0]), len(columns)
    order = np.arange(rows * count).reshape(count, rows).T.ravel()
    array = pl.concat(columns).gather(order).to_arrow(compat_level=pl.CompatLevel.oldest())
    first = array.offset
    bounds = np.frombuffer(array.buffers()[1], "i8")[first : first + rows * count + 1 : count]
    joined = pa.Array.from_buffers(
        pa.large_binary(),
        rows,
        [None, pa.py_buffer(np.ascontiguousarray(bounds)), array.buffers()[2]],
    )
    packed: list[bytes] = joined.to_pylist()
    return packed


def _ragged(items: Sequence[bytes]) -> tuple[_Array, pa.Buffer]:
    """All items in one buffer, and their bounds in it."""
    try:
        array = pa.array(items, pa.large_binary())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise ValueError("keys and values must be bytes") from None
    if array.null_count:
        raise ValueError("keys and values must not be None")
    return np.frombuffer(array.buffers()[1], "i8")[: len(items) + 1], array.buffers()[2]


def _heads(bounds: _Array, data: pa.Buffer, dtype: np.dtype[Any]) -> _Array:
    """What stands at the start of each item. Raises ValueError if one is too short."""
    if (np.diff(bounds) < dtype.itemsize).any():
        raise ValueError(f"a key or value is shorter than {dtype.itemsize} bytes")
    # Every byte position seen as the start of a `dtype`: picking copies whole records.
    everywhere = np.ndarray(
        (int(bounds[-1]) - dtype.itemsize + 1,), dtype, buffer=data, strides=(1,)
    )
    return everywhere[bounds[:-1]]
