"""From a definition to what is stored and what is computed: a bundle and a view.

A bundle is the accumulators of one stream that are kept together; its digest names its
directory on disk, so its shape never changes. A view says how a version's features come out
of accumulators; a version owns no state. Two features that need the same accumulator share
it: a mean is a sum and a count that other features may use as well.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from streams.definitions.digest import digest
from streams.definitions.expressions import check_expression, check_filter
from streams.definitions.validate import output_dtype
from streams.names import stream_name
from streams.windowing.accumulators import KINDS, Columnar, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.definitions.model import Emit, Feature, FeatureSet, Function, Source

BUNDLE_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulator(Columnar):
    """One accumulator over the events that pass `where`, of the values of `expression`."""

    expression: str | None
    where: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Accumulators stored together. A row exists for each (pane, entity) with an event.

    Which events those are is the set's own filter `where`, common to all accumulators.
    """

    stream: str
    entity: Mapping[str, pl.DataType]
    pane_ms: int
    where: str | None
    accumulators: tuple[Accumulator, ...]
    digest: str

    @property
    def columns(self) -> list[tuple[str, pl.DataType]]:
        """Accumulator columns in storage order."""
        return [column for a in self.accumulators for column in a.columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """How one feature comes out of its accumulators; `dtype` is its output type."""

    name: str
    function: Function
    window_ms: int
    accumulators: tuple[Accumulator, ...]
    dtype: pl.DataType
    q: float | None
    k: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a version computes, and when."""

    feature_set: str
    version: str
    digest: str
    entity: Mapping[str, pl.DataType]
    every_ms: int
    allowed_lateness_ms: int
    retention_ms: int
    longest_window_ms: int
    emit: Emit
    features: tuple[FeatureView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker runs for one version on one stream."""

    source: Source
    stream: str
    rekeyed: bool
    bundle: Bundle
    view: View


def needs_rekeying(source: Source, entity: tuple[str, ...]) -> bool:
    """Whether events of one entity may lie in several partitions of the source.

    They don't where the source's key fields are a subset of the entity's.
    """
    return not source.key or not set(source.key) <= set(entity)


def plan(feature_set: FeatureSet, source: Source, fields: Mapping[str, pl.DataType]) -> Plan:
    """Plan one version whose definition was checked against the event's `fields`.

    Raises `InvalidInputError` where an expression does not fit the fields.
    """
    rekeyed = needs_rekeying(source, feature_set.entity)
    stream = stream_name(source.name, feature_set.entity) if rekeyed else source.name
    entity = {name: fields[name] for name in feature_set.entity}
    if feature_set.where is not None:
        check_filter(feature_set.where, fields)
    known: dict[str, Accumulator] = {}
    views = tuple(
        _feature_view(feature, stream, feature_set, fields, known)
        for feature in sorted(feature_set.features, key=lambda feature: feature.name)
    )
    accumulators = tuple(known[name] for name in sorted(known))
    identity = [
        BUNDLE_FORMAT,
        stream,
        [[name, str(dtype)] for name, dtype in entity.items()],
        feature_set.every_ms,
        feature_set.where,
        [a.name for a in accumulators],
    ]
    bundle = Bundle(
        stream=stream,
        entity=entity,
        pane_ms=feature_set.every_ms,
        where=feature_set.where,
        accumulators=accumulators,
        digest=_sha256(identity),
    )
    view = View(
        feature_set=feature_set.name,
        version=feature_set.version,
        digest=digest(feature_set, source),
        entity=entity,
        every_ms=feature_set.every_ms,
        allowed_lateness_ms=feature_set.allowed_lateness_ms,
        retention_ms=feature_set.retention_ms,
        longest_window_ms=feature_set.longest_window_ms,
        emit=feature_set.emit,
        features=views,
    )
    return Plan(source=source, stream=stream, rekeyed=rekeyed, bundle=bundle, view=view)


def _feature_view(
    feature: Feature,
    stream: str,
    feature_set: FeatureSet,
    fields: Mapping[str, pl.DataType],
    known: dict[str, Accumulator],
) -> FeatureView:
    if feature.where is not None:
        check_filter(feature.where, fields)
    dtype: pl.DataType = pl.Int64()
    if feature.expression is not None:
        dtype = check_expression(feature.expression, fields).dtype
    used = []
    for kind in KINDS[feature.function]:
        kept = pl.Int64() if kind is Kind.COUNT else dtype
        identity = [
            stream,
            feature_set.where,
            feature.where,
            feature.expression,
            feature_set.every_ms,
            kind,
            str(kept),
        ]
        name = f"{kind}.{_sha256(identity)[:16]}"
        accumulator = Accumulator(
            name=name,
            kind=kind,
            dtype=kept,
            expression=feature.expression,
            where=feature.where,
        )
        used.append(known.setdefault(name, accumulator))
    return FeatureView(
        name=feature.name,
        function=feature.function,
        window_ms=feature.window_ms,
        accumulators=tuple(used),
        dtype=output_dtype(feature.function, dtype),
        q=feature.q,
        k=feature.k,
    )


def _sha256(identity: object) -> str:
    text = json.dumps(identity, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
