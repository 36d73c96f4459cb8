"""What must come out of versions that take over from each other, and what did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from examples.flights.consume import read_vectors
from examples.flights.data import FIELDS
from examples.flights.demo.rollback.corrupting import CLEANED
from examples.flights.demo.sent import Differences
from tests.expected import EPOCH
from tests.integration.pipeline_check import Cut, take_over
from tests.reference import Reference, Row, Vector, VectorKey, compare

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from examples.flights.demo.sent import Sent
    from examples.flights.demo.site import Site
    from streams.definitions.model import FeatureSet, Source

CORRECTION = "correction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The vectors that must come, the version each is of, and how full windows were at the cuts."""

    vectors: Mapping[VectorKey, Vector]
    version: Mapping[VectorKey, str]
    open_windows: Sequence[int]
    """For each cut, in order: as-of times that had events and were not closed, over all
    partitions."""
    corrections: Mapping[VectorKey, Sequence[Vector]] = field(default_factory=dict)
    """What must be said again, in its order."""
    repairing: Collection[str] = ()
    """The versions that say it."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The feature topic beside the reference model; corrections are counted apart."""

    vectors: int = 0
    corrections: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    by_version: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    """Vectors that are not what their correction must be, by version: there was something to
    correct."""
    differences: Differences = field(default_factory=Differences)

    def blame(self, what: str, detail: str) -> None:
        """Count a difference; `what` as in `tests.reference.Mismatch`."""
        match what:
            case "missing":
                self.lost += 1
            case "duplicate":
                self.duplicated += 1
            case _:
                self.wrong += 1
        self.differences.add(f"{what}: {detail}")


def expect(
    versions: Sequence[FeatureSet], source: Source, contents: Sent, cuts: Sequence[Cut]
) -> Expected:
    """What the flights' topic must give if these `cuts` were made, in this order.

    The first of `versions` serves until the first cut. Those that leave events out are versions of
    their own here, and speak as the one that they are made of.
    """
    vectors: dict[VectorKey, Vector] = {}
    version: dict[VectorKey, str] = {}
    corrections: dict[VectorKey, Sequence[Vector]] = {}
    open_windows = [0] * len(cuts)
    for partition, events in contents.by_partition.items():
        reference = Reference(versions, FIELDS, max_ahead_ms=source.max_ahead_ms)
        serving, begin = versions[0].version, 0
        for number, cut in enumerate(cuts):
            end = begin
            while end < len(events) and events[end].offset < cut.offsets[partition]:
                end += 1
            reference.feed_all(events[begin:end])
            begin = end
            for key in reference.vectors:
                version.setdefault(key, serving)
            open_windows[number] += take_over(reference, cut, versions)
            serving = _spoken(cut)
        reference.feed_all(events[begin:])
        for key in reference.vectors:
            version.setdefault(key, serving)
        vectors |= reference.vectors
        corrections |= reference.corrections
    return Expected(
        vectors=vectors,
        version=version,
        open_windows=open_windows,
        corrections=corrections,
        repairing={_spoken(cut) for cut in cuts if cut.repair},
    )


def _spoken(cut: Cut) -> str:
    """The version that vectors say they are of."""
    return cut.version.removesuffix(CLEANED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A vector as it was read, and the version that it says it is of."""

    row: Row
    version: str


def read_found(versions: Sequence[FeatureSet], place: Site) -> Iterator[Found]:
    """The feature topic as a `read_committed` consumer reads it, each vector with the features
    of its version."""
    known = {one.version: one for one in versions}
    name = versions[0].name
    vectors = read_vectors(
        place.client["bootstrap.servers"],
        place.addresses.registry_url,
        place.names.features_topic(name),
        client=place.client,
    )
    for _, value in vectors:
        version = str(value["rewindow_version"])
        definition = known[version]
        as_of = cast("datetime", value["as_of"])
        row = Row(
            feature_set=name,
            entity=tuple(value[field] for field in definition.entity),
            as_of_ms=round((as_of - EPOCH).total_seconds() * 1_000),
            kind=str(value["rewindow_kind"]),
            values={one.name: value[one.name] for one in definition.features},
        )
        yield Found(row=row, version=version)


def judge(expected: Expected, versions: Sequence[FeatureSet], found: Iterable[Found]) -> Verdict:
    """Compare what was read with what was expected."""
    verdict = Verdict(by_version=Counter({f"{one.name}@{one.version}": 0 for one in versions}))
    rows = []
    for one in found:
        rows.append(one.row)
        if one.row.kind == CORRECTION:
            verdict.corrections += 1
            if one.version not in expected.repairing:
                verdict.blame("wrong", f"{_name(one.row.key)} is a correction of {one.version}")
            continue
        verdict.vectors += 1
        verdict.by_version[f"{one.row.feature_set}@{one.version}"] += 1
        verdict.changed[one.version] += _is_changed(one.row, expected.corrections)
        served = expected.version.get(one.row.key)
        if served is not None and served != one.version:
            verdict.blame("wrong", f"{_name(one.row.key)} is of {one.version}; {served} served")
    for mismatch in compare(expected.vectors, rows, expected.corrections):
        verdict.blame(mismatch.what, f"{_name(mismatch.key)}: {mismatch.detail}")
    return verdict


def _is_changed(row: Row, corrections: Mapping[VectorKey, Sequence[Vector]]) -> bool:
    """Whether what was said is to be corrected by something else."""
    due = corrections.get(row.key)
    return bool(due and compare({row.key: replace(due[-1], kind=row.kind)}, [row]))


def _name(key: VectorKey) -> str:
    feature_set, entity, as_of_ms = key
    return f"{feature_set} {entity} as of {as_of_ms}"
