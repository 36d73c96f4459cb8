"""From a definition to what is stored and what is computed: bundles and a view.

A bundle is the accumulators of one stream that are kept together; its digest names its
directory on disk, so its shape never changes. A view says how a version's features come out
of accumulators; a version owns no state. Two features that need the same accumulator share
it: a mean is a sum and a count that other features may use as well. Versions of a set share
as well: one is planned with what those published before it store, and has a bundle of its own
only for what none of them does. So plans are a fold over the order of publication, and nothing
about them has to be remembered.

Exclusions are part of every name, and of nothing else: not of the order in which accumulators are
stored. So the files of a bundle can become those of the same one with other exclusions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from streams.definitions.digest import digest
from streams.definitions.exclusions import Exclude
from streams.definitions.expressions import check_expression, check_filter
from streams.definitions.validate import output_dtype
from streams.names import stream_name, variant
from streams.windowing.accumulators import KINDS, Columnar, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.definitions.exclusions import Exclusion
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
    exclusions: tuple[Exclude, ...] = ()
    """Events that are left out besides."""

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
    """What a version computes, and when. Its panes are the interval or a divisor of it.

    `excluding` is the number of the latest exclusion that it is planned with, 0 for none.
    """

    feature_set: str
    version: str
    digest: str
    entity: Mapping[str, pl.DataType]
    pane_ms: int
    every_ms: int
    allowed_lateness_ms: int
    retention_ms: int
    longest_window_ms: int
    emit: Emit
    features: tuple[FeatureView, ...]
    excluding: int = 0

    @property
    def name(self) -> str:
        """What the version goes by where it is run."""
        return variant(self.version, self.excluding)

    @property
    def columns(self) -> list[tuple[str, pl.DataType]]:
        """The accumulator columns that the features are computed from, each once."""
        used = {a.name: a for feature in self.features for a in feature.accumulators}
        return [column for name in sorted(used) for column in used[name].columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker runs for one version on one stream.

    The bundles have panes and filter in common; each holds something that the view needs.
    """

    source: Source
    stream: str
    rekeyed: bool
    bundles: tuple[Bundle, ...]
    view: View


def needs_rekeying(source: Source, entity: tuple[str, ...]) -> bool:
    """Whether events of one entity may lie in several partitions of the source.

    They don't where the source's key fields are a subset of the entity's.
    """
    return not source.key or not set(source.key) <= set(entity)


def plan_versions(
    versions: Sequence[FeatureSet],
    source: Source,
    fields: Mapping[str, pl.DataType],
    exclusions: Sequence[Exclusion] = (),
) -> tuple[Plan, ...]:
    """The plans of all versions of a set, given in their order of publication.

    All of them leave out the events of all `exclusions`.
    """
    plans: list[Plan] = []
    for version in versions:
        plans.append(plan(version, source, fields, plans, exclusions))
    return tuple(plans)


def plan(
    feature_set: FeatureSet,
    source: Source,
    fields: Mapping[str, pl.DataType],
    earlier: Sequence[Plan] = (),
    exclusions: Sequence[Exclusion] = (),
) -> Plan:
    """Plan one version whose definition was checked against the event's `fields`.

    `earlier` are the plans of all versions of the set that were published before it, which leave
    out the same `exclusions`. Of the
    pane sizes that they have and that divide the interval, and of the interval itself, it is
    the one by which they store most of what is needed; the larger one of equals.

    Raises `InvalidInputError` where an expression does not fit the fields.
    """
    rekeyed = needs_rekeying(source, feature_set.entity)
    stream = stream_name(source.name, feature_set.entity) if rekeyed else source.name
    entity = {name: fields[name] for name in feature_set.entity}
    if feature_set.where is not None:
        check_filter(feature_set.where, fields)
    left_out = tuple(Exclude(where=one.where, offsets=one.offsets) for one in exclusions)
    for one in left_out:
        if one.where is not None:
            check_filter(one.where, fields)
    stored = {
        a.name: bundle for one in earlier for bundle in one.bundles for a in bundle.accumulators
    }
    every_ms = feature_set.every_ms
    sizes = {one.view.pane_ms for one in earlier if every_ms % one.view.pane_ms == 0}
    choices = [
        _Needed(stream, feature_set, fields, pane_ms, left_out)
        for pane_ms in sorted({*sizes, every_ms}, reverse=True)
    ]
    needed = max(choices, key=lambda one: len(stored.keys() & one.accumulators.keys()))
    bundles = {stored[name].digest: stored[name] for name in needed.accumulators if name in stored}
    missing = [a for name, a in needed.accumulators.items() if name not in stored]
    if missing:
        missing.sort(key=needed.plain_name)
        own = _bundle(stream, entity, needed.pane_ms, feature_set.where, missing, left_out)
        bundles[own.digest] = own
    view = View(
        feature_set=feature_set.name,
        version=feature_set.version,
        digest=digest(feature_set, source),
        entity=entity,
        pane_ms=needed.pane_ms,
        every_ms=every_ms,
        allowed_lateness_ms=feature_set.allowed_lateness_ms,
        retention_ms=feature_set.retention_ms,
        longest_window_ms=feature_set.longest_window_ms,
        emit=feature_set.emit,
        features=needed.features,
        excluding=max((one.number for one in exclusions), default=0),
    )
    in_order = tuple(bundles[name] for name in sorted(bundles))
    return Plan(source=source, stream=stream, rekeyed=rekeyed, bundles=in_order, view=view)


def formers(bundle: Bundle) -> tuple[Bundle, ...]:
    """What a bundle was before its exclusions: without the last, the last two, and so on."""
    return tuple(
        _bundle(
            bundle.stream,
            bundle.entity,
            bundle.pane_ms,
            bundle.where,
            [
                replace(a, name=_name(a, bundle.stream, bundle.where, bundle.pane_ms, left))
                for a in bundle.accumulators
            ],
            left,
        )
        for left in (bundle.exclusions[:n] for n in reversed(range(len(bundle.exclusions))))
    )


def _bundle(
    stream: str,
    entity: Mapping[str, pl.DataType],
    pane_ms: int,
    where: str | None,
    accumulators: Sequence[Accumulator],
    exclusions: tuple[Exclude, ...],
) -> Bundle:
    identity = [
        BUNDLE_FORMAT,
        stream,
        [[name, str(dtype)] for name, dtype in entity.items()],
        pane_ms,
        where,
        [a.name for a in accumulators],
        *_identity(exclusions),
    ]
    return Bundle(
        stream=stream,
        entity=entity,
        pane_ms=pane_ms,
        where=where,
        accumulators=tuple(accumulators),
        digest=_sha256(identity),
        exclusions=exclusions,
    )


def _identity(exclusions: Sequence[Exclude]) -> list[object]:
    """What exclusions add to a digest: nothing where there are none."""
    return [
        [one.where, [[it.partition, it.start, it.end] for it in one.offsets]] for one in exclusions
    ]


class _Needed:
    """What a version needs if its panes are of `pane_ms`: its features' accumulators, by name."""

    def __init__(
        self,
        stream: str,
        feature_set: FeatureSet,
        fields: Mapping[str, pl.DataType],
        pane_ms: int,
        exclusions: Sequence[Exclude],
    ) -> None:
        self.pane_ms = pane_ms
        self._exclusions = exclusions
        self.accumulators: dict[str, Accumulator] = {}
        self._stream = stream
        self._where = feature_set.where
        self._fields = fields
        self.features = tuple(
            self._feature(feature)
            for feature in sorted(feature_set.features, key=lambda feature: feature.name)
        )

    def _feature(self, feature: Feature) -> FeatureView:
        if feature.where is not None:
            check_filter(feature.where, self._fields)
        dtype: pl.DataType = pl.Int64()
        if feature.expression is not None:
            dtype = check_expression(feature.expression, self._fields).dtype
        return FeatureView(
            name=feature.name,
            function=feature.function,
            window_ms=feature.window_ms,
            accumulators=tuple(self._known(feature, k, dtype) for k in KINDS[feature.function]),
            dtype=output_dtype(feature.function, dtype),
            q=feature.q,
            k=feature.k,
        )

    def _known(self, feature: Feature, kind: Kind, dtype: pl.DataType) -> Accumulator:
        """The accumulator of one kind; the same one for all features that need it."""
        plain = Accumulator(
            name="",
            kind=kind,
            dtype=pl.Int64() if kind is Kind.COUNT else dtype,
            expression=feature.expression,
            where=feature.where,
        )
        made = replace(plain, name=self._name(plain, self._exclusions))
        return self.accumulators.setdefault(made.name, made)

    def plain_name(self, accumulator: Accumulator) -> str:
        """What it would go by without exclusions."""
        return self._name(accumulator, ())

    def _name(self, accumulator: Accumulator, exclusions: Sequence[Exclude]) -> str:
        return _name(accumulator, self._stream, self._where, self.pane_ms, exclusions)


def _name(
    accumulator: Accumulator,
    stream: str,
    where: str | None,
    pane_ms: int,
    exclusions: Sequence[Exclude],
) -> str:
    """What an accumulator goes by in a set with the filter `where`."""
    identity = [
        stream,
        where,
        accumulator.where,
        accumulator.expression,
        pane_ms,
        accumulator.kind,
        str(accumulator.dtype),
        *_identity(exclusions),
    ]
    return f"{accumulator.kind}.{_sha256(identity)[:16]}"


def _sha256(identity: object) -> str:
    text = json.dumps(identity, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
