"""Vectors of two versions, side by side: do they agree where both were computed?

Works on frames of vectors: one row for each, with the entity as text, `as_of` in ms, the version,
the kind, and the features that both versions have. Counts and values are compared as they are,
floating numbers to 1e-9 relative, lists as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENTITY, AS_OF, VERSION, KIND = "@entity", "@as_of", "@version", "@kind"
RELATIVE = 1e-9
EXAMPLES = 3
CHUNK_ROWS = 8_192
_OTHER = "@b"

Cell = tuple[int, int]
"""Partition and as-of time in ms: an entity's vectors lie in one partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One vector pair where a feature differs."""

    entity: str
    as_of_ms: int
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAgreement:
    """One feature over all pairs; `max_difference` is None where it is no number."""

    name: str
    compared: int
    equal: int
    max_difference: float | None
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """All pairs: vectors of both versions for one entity and as-of time.

    `kinds` counts them by the kinds of their vectors, such as `final/update`: an update tells
    how things were before its as-of time closed. `only_a` and `only_b` have no counterpart.
    """

    pairs: int
    only_a: int
    only_b: int
    first_as_of_ms: int | None
    last_as_of_ms: int | None
    kinds: Mapping[str, int]
    features: tuple[FeatureAgreement, ...]


@dataclass(slots=True)
class Counted:
    """How many vectors each version has in each cell."""

    cells: dict[Cell, list[int]] = field(default_factory=dict)

    def add(self, cell: Cell, *, is_b: bool) -> None:
        self.cells.setdefault(cell, [0, 0])[is_b] += 1

    def common(self) -> list[Cell]:
        """Cells in which both versions have vectors, the newest as-of times first."""
        both = [cell for cell, (a, b) in self.cells.items() if a and b]
        return sorted(both, key=lambda cell: (-cell[1], cell[0]))

    def chosen(self, limit: int) -> set[Cell]:
        """Common cells with at most `limit` vectors together; too large ones are passed over."""
        found: set[Cell] = set()
        room = limit
        for cell in self.common():
            size = sum(self.cells[cell])
            if size <= room:
                found.add(cell)
                room -= size
        return found


class Vectors:
    """Vectors as frames, taken in one by one."""

    def __init__(self, features: Sequence[str]) -> None:
        self._features = tuple(features)
        self._rows: list[dict[str, Any]] = []
        self._frames: list[pl.DataFrame] = []

    def add(
        self, *, entity: str, as_of_ms: int, version: str, kind: str, values: Mapping[str, Any]
    ) -> None:
        """The next vector; of several with one identity the last one counts."""
        row = {name: _plain(values.get(name)) for name in self._features}
        self._rows.append({ENTITY: entity, AS_OF: as_of_ms, VERSION: version, KIND: kind, **row})
        if len(self._rows) == CHUNK_ROWS:
            self._pack()

    def frame(self) -> pl.DataFrame:
        """All of them, in the order in which they came."""
        self._pack()
        if not self._frames:
            return pl.DataFrame(schema=[ENTITY, AS_OF, VERSION, KIND, *self._features])
        return pl.concat(self._frames, how="diagonal_relaxed")

    def _pack(self) -> None:
        if self._rows:
            self._frames.append(pl.DataFrame(self._rows, infer_schema_length=None))
            self._rows = []


def compare(vectors: pl.DataFrame, a: str, b: str, features: Sequence[str]) -> Agreement:
    """Compare versions `a` and `b` in `vectors`."""
    newest = vectors.unique([VERSION, ENTITY, AS_OF], keep="last", maintain_order=True)
    of_a = newest.filter(pl.col(VERSION) == a)
    of_b = newest.filter(pl.col(VERSION) == b)
    pairs = of_a.join(of_b, on=[ENTITY, AS_OF], how="inner", suffix=_OTHER)
    kinds = pairs.group_by(KIND, KIND + _OTHER).len().sort(KIND, KIND + _OTHER)
    return Agreement(
        pairs=pairs.height,
        only_a=of_a.height - pairs.height,
        only_b=of_b.height - pairs.height,
        first_as_of_ms=None if pairs.is_empty() else pairs[AS_OF].min(),  # type: ignore[arg-type]  # ms
        last_as_of_ms=None if pairs.is_empty() else pairs[AS_OF].max(),  # type: ignore[arg-type]  # ms
        kinds={f"{one}/{other}": count for one, other, count in kinds.iter_rows()},
        features=tuple(_features(pairs, features)),
    )


def _features(pairs: pl.DataFrame, features: Sequence[str]) -> Iterator[FeatureAgreement]:
    for name in features:
        left, right = _of_one_type(pairs[name], pairs[name + _OTHER])
        numbers = _numeric(left.dtype) and _numeric(right.dtype)
        difference = _difference(left, right) if numbers else None
        equal = _equal(left, right, difference)
        found = pairs.select(ENTITY, AS_OF, a=left, b=right).with_columns(
            by=pl.lit(0.0) if difference is None else difference
        )
        wrong = found.filter(~equal).sort(
            "by", descending=True, nulls_last=True, maintain_order=True
        )
        largest = None if difference is None else difference.max()
        yield FeatureAgreement(
            name=name,
            compared=pairs.height,
            equal=pairs.height - wrong.height,
            max_difference=float(largest) if isinstance(largest, int | float) else None,
            examples=tuple(
                Example(entity=entity, as_of_ms=as_of_ms, a=of_a, b=of_b)
                for entity, as_of_ms, of_a, of_b, _ in wrong.head(EXAMPLES).iter_rows()
            ),
        )


def _of_one_type(left: pl.Series, right: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Numbers as they are, others as text where their types differ."""
    if left.dtype == pl.Null:
        return left.cast(right.dtype), right
    if right.dtype == pl.Null:
        return left, right.cast(left.dtype)
    if left.dtype == right.dtype or (_numeric(left.dtype) and _numeric(right.dtype)):
        return left, right
    return left.cast(pl.String), right.cast(pl.String)


def _numeric(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype == pl.Null


def _difference(left: pl.Series, right: pl.Series) -> pl.Series:
    """How far numbers are apart; null where one is null."""
    return (left.cast(pl.Float64) - right.cast(pl.Float64)).abs()


def _equal(left: pl.Series, right: pl.Series, difference: pl.Series | None) -> pl.Series:
    same = left.eq_missing(right)
    if difference is None or not (left.dtype.is_float() or right.dtype.is_float()):
        return same
    larger = pl.DataFrame({"l": left.cast(pl.Float64).abs(), "r": right.cast(pl.Float64).abs()})
    near = difference <= RELATIVE * larger.max_horizontal()
    return same | near.fill_null(value=False)


def _plain(value: Any) -> Any:
    """What a column can hold: lists and records as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
