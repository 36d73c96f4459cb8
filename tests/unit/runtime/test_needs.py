"""What the gate is told of a cold version: which offsets it needs, and where the log begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streams.control.facts import Catalog, Target
from streams.control.facts import PublishedSet as CatalogSet
from streams.datapath.log_index import Entry, LogIndex
from streams.datapath.progress import Closed, Progress
from streams.definitions.exclusions import Exclude, OffsetRange
from streams.definitions.model import Function
from streams.definitions.plan import plan_versions
from streams.definitions.store import PublishedSet, PublishedSource, collect
from streams.errors import RewindowError
from streams.names import Names
from streams.runtime.control import needs
from streams.runtime.control.needs import Replayed
from streams.runtime.control.outside import exclude_reasons
from streams.runtime.control.published import Published
from streams.runtime.offsets import Committed
from streams.schema.types import field_types
from streams.state.manifest import BundleId, Manifest
from tests.small import feature, feature_set, schema, source

V1, V2, V3 = "1.0.0", "1.1.0", "1.2.0"
TOPIC = "clicks"
INDEX = LogIndex(tuple(Entry(offset=n, highest_ms=10 * n) for n in range(10, 100, 10)))
"""Event time is ten times the offset."""


@dataclass
class Kafka:
    """What Kafka says of the stream's two partitions."""

    starts: Mapping[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    closed: Mapping[int, int] = field(default_factory=lambda: {0: 500, 1: 500})
    timestamps: Mapping[int, int] = field(default_factory=dict)
    checkpoints: Callable[[BundleId], list[Manifest]] | None = None
    app_start: int = 0

    def context(self) -> Any:
        snapshots = self.checkpoints and SimpleNamespace(
            checkpoints=SimpleNamespace(all=self.checkpoints),
            bundle_id=lambda at, digest: BundleId(
                app="app", stream=at[0], partition=at[1], bundle=digest
            ),
        )
        offsets = SimpleNamespace(
            starts=lambda _: {(TOPIC, number): at for number, at in self.starts.items()},
            committed=self._committed,
            at_time=self._at_time,
        )
        return SimpleNamespace(names=Names(app="app"), offsets=offsets, snapshots=snapshots)

    def _committed(self, _: str, asked: list[tuple[str, int]], *, stable: bool) -> Any:
        assert not stable
        return {
            at: Committed(
                offset=95,
                metadata=Progress(
                    closed={"a": Closed(through_ms=self.closed[at[1]], version=V1)},
                    start=self.app_start,
                ).encode(),
            )
            for at in asked
            if at[1] in self.closed
        }

    def _at_time(self, asked: list[tuple[str, int]], time_ms: int) -> Any:
        if not self.timestamps:  # all records are young
            return {at: self.starts[at[1]] for at in asked}
        found = next((at for at, ms in sorted(self.timestamps.items()) if ms >= time_ms), 95)
        return dict.fromkeys(asked, found)


COUNT, SUM = feature("n", window_ms=20), feature("s", Function.SUM, "x", window_ms=20)
SETS = (
    feature_set(COUNT, name="a", version=V1),
    feature_set(SUM, name="a", version=V2),
    feature_set(COUNT, SUM, name="a", version=V3),
)
SOURCE, SCHEMA = source(max_ahead_ms=5), schema(x=["null", "long"])
FIELDS = field_types(SCHEMA)
PUBLISHED = Published(
    definitions=collect(
        [
            PublishedSource(
                source=SOURCE,
                schema=SCHEMA,
                schema_id=1,
                order=0,
            ),
            *(
                PublishedSet(
                    feature_set=one, digest="d", key_schema_id=2, value_schema_id=3, order=at
                )
                for at, one in enumerate(SETS, 1)
            ),
        ]
    ),
    catalog=Catalog(sets={"a": CatalogSet(stream=TOPIC, topic=TOPIC, partitions=2, versions=())}),
)


async def replays(
    kafka: Kafka, version: str = V2, *, ready: tuple[str, ...] = (V1,), **given: Any
) -> list[tuple[int | None, int]]:
    """(needed offset, log start) of each partition."""
    target = Target(
        feature_set="a",
        version=version,
        cold=True,
        ready=frozenset(("a", one) for one in ready),
        **given,
    )
    found = await Replayed(context=cast("Any", kafka.context()))(target, PUBLISHED)
    assert [one.partition for one in found] in ([0, 1], [])
    return [(one.needs_offset, one.log_start) for one in found]


@pytest.fixture(autouse=True)
def _index(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(_: Any) -> Mapping[tuple[str, int], LogIndex]:
        return {(TOPIC, 0): INDEX}

    monkeypatch.setattr(needs, "read_indexes", read)


async def test_a_partition_needs_its_log_from_where_the_next_window_begins() -> None:
    # C is 500, the next window is [490, 510); below offset 40 nothing is later than 400.
    # Nothing is known of the other partition.
    assert await replays(Kafka()) == [(40, 0), (0, 0)]
    assert await replays(Kafka(starts={0: 70, 1: 3}, app_start=3)) == [(40, 70), (3, 3)]


async def test_what_ready_versions_have_needs_nothing() -> None:
    assert await replays(Kafka(), V3, ready=(V1, V2)) == [(None, 0), (None, 0)]
    assert await replays(Kafka(), partitions=frozenset({0})) == [(None, 0), (0, 0)]
    live = Target(feature_set="a", version=V1, cold=False)
    assert await Replayed(context=cast("Any", None))(live, PUBLISHED) == ()


async def test_where_nothing_has_closed_nothing_is_needed() -> None:
    assert await replays(Kafka(closed={0: 500})) == [(40, 0), (None, 0)]


async def test_a_record_that_is_old_enough_says_that_the_log_suffices() -> None:
    old = {70: 400, 80: 484, 81: 485, 90: 600}
    assert (await replays(Kafka(starts={0: 70, 1: 0}, timestamps=old)))[0] == (81, 70)
    young = {70: 485, 90: 600}
    assert (await replays(Kafka(starts={0: 70, 1: 0}, timestamps=young)))[0] == (40, 70)


def manifest(of: BundleId, next_offset: int, floor_ms: int | None) -> Manifest:
    return Manifest(
        of=of,
        checkpoint="20260131T235959123Z-0a1b2c3d",
        created_ms=0,
        reason="",
        next_offset=next_offset,
        watermark_ms=None,
        source_watermarks={},
        floor_ms=floor_ms,
        files=(),
    )


async def test_a_checkpoint_stands_for_what_is_gone() -> None:
    gone = Kafka(starts={0: 70, 1: 0})
    gone.checkpoints = lambda of: [manifest(of, 75, 490), manifest(of, 90, 491)]
    assert (await replays(gone))[0] == (75, 70)
    gone.checkpoints = lambda of: [manifest(of, 75, None), manifest(of, 60, 480)]
    assert (await replays(gone))[0] == (75, 70)
    gone.checkpoints = lambda _: []
    assert (await replays(gone))[0] == (40, 70)

    def away(_: BundleId) -> list[Manifest]:
        raise RewindowError("the archive is away")

    gone.checkpoints = away
    assert (await replays(gone))[0] == (40, 70)


async def test_without_events_all_that_is_kept_is_read_again() -> None:
    exclude = Exclude(where="x > 1")
    assert await replays(Kafka(), V3, ready=(V1, V2, V3), exclude=exclude) == [(40, 0), (0, 0)]
    kept = feature_set(COUNT, name="a", version=V1, retention_ms=200)
    one = PublishedSet(feature_set=kept, digest="d", key_schema_id=2, value_schema_id=3, order=1)
    definitions = replace(PUBLISHED.definitions, sets={"a": (one,)})
    target = Target(feature_set="a", version=V1, cold=True, exclude=exclude)
    asked = Replayed(context=cast("Any", Kafka().context()))
    found = await asked(target, replace(PUBLISHED, definitions=definitions))
    # Retained from 280 on; below offset 20 nothing is later than 200.
    assert [one.needs_offset for one in found] == [20, 0]


async def test_a_condition_that_can_not_be_read_needs_nothing() -> None:
    exclude = Exclude(where="nowhere > 1")
    assert await replays(Kafka(), V1, exclude=exclude) == [(None, 0), (None, 0)]
    target = Target(feature_set="a", version=V1, cold=True, exclude=exclude)
    (why,) = exclude_reasons(target, PUBLISHED.definitions)
    assert "nowhere" in why
    fine = replace(target, exclude=Exclude(where="x > 1"))
    assert exclude_reasons(fine, PUBLISHED.definitions) == ()


@pytest.mark.parametrize(
    ("exclude", "wanted"),
    [
        (Exclude(offsets=(OffsetRange(partition=0, start=80, end=99),)), [75, 90]),
        (Exclude(offsets=(OffsetRange(partition=0, start=74, end=99),)), [40, 90]),
        (Exclude(where="x > 1"), [40, 0]),
    ],
)
async def test_one_with_the_events_stands_for_it_too_where_ranges_say_how_far(
    exclude: Exclude, wanted: list[int]
) -> None:
    (plain,) = plan_versions([SETS[0]], SOURCE, FIELDS)
    kafka = Kafka(starts={0: 70, 1: 70})
    kafka.checkpoints = lambda of: [
        manifest(of, at, 480) for at in (75, 90) if of.bundle == plain.bundles[0].digest
    ]
    found = await replays(kafka, V1, exclude=exclude)
    assert [needed for needed, _ in found] == wanted


async def test_all_that_is_prepared_with_a_version_is_needed() -> None:
    """1.0.0 is pinned, with longer windows: an exclusion makes it anew, too."""
    pinned = feature_set(feature("n", window_ms=300), name="a", version=V1)
    sets = tuple(
        PublishedSet(feature_set=one, digest="d", key_schema_id=2, value_schema_id=3, order=at)
        for at, one in enumerate((pinned, SETS[1]), 1)
    )
    definitions = replace(PUBLISHED.definitions, sets={"a": sets})
    target = Target(
        feature_set="a",
        version=V2,
        cold=True,
        ready=frozenset({("a", V1), ("a", V2)}),
        exclude=Exclude(where="x > 1"),
        prepared=(V2, V1),
    )
    asked = Replayed(context=cast("Any", Kafka().context()))
    found = await asked(target, replace(PUBLISHED, definitions=definitions))
    # C is 500: its next window begins at 210, and below offset 20 nothing is later than 200.
    assert found[0].needs_offset is not None
    assert found[0].needs_offset <= 20
