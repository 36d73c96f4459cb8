"""The state half of a claim over a log in memory: floors of what begins late, and verdicts.

Sets count events in windows of 10 ms, closed as soon as the watermark is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest

from streams.datapath.batch import Batch, Marker
from streams.datapath.progress import Progress
from streams.datapath.records import OneRecord, Record, Records, columns
from streams.definitions.model import Function
from streams.errors import UnreachableError
from streams.names import Names
from streams.runtime import recovery, verdicts
from streams.runtime.crashpoints import CrashPoints
from streams.runtime.recovery import Recovery
from streams.state.bundle import Resources
from tests.small import feature, feature_set, source
from tests.unit.datapath.rig import FIELDS, Click, batch, planned

if TYPE_CHECKING:
    from pathlib import Path

    from streams.datapath.pipeline import Pipeline
    from streams.definitions.model import FeatureSet

A = feature_set(name="a")
B = feature_set(feature("s", Function.SUM, "x"), name="b")
MAX_AHEAD_MS = 5
UNKNOWN = "unknown_schema_id"


def marker(p: int, watermark_ms: int | None) -> Marker:
    return Marker(offset=-1, source_partition=p, watermark_ms=watermark_ms)


@dataclass
class World:
    """A stream partition, its state on disk, the DLQ, and what has come out.

    Item n of `log` is at offset n; `timestamps` are those of records that have one.
    """

    directory: Path
    sets: Sequence[FeatureSet] = (A,)
    sources: int = 0
    log: list[Click | Marker] = field(default_factory=list)
    log_start: int = 0
    timestamps: dict[int, int] = field(default_factory=dict)
    position: int = 0
    committed: bool = False
    progress: Progress = field(default_factory=Progress)
    dead: list[int] = field(default_factory=list)
    dlq_read_from: list[int] = field(default_factory=list)
    unreachable: bool = False
    at_once: int = 2
    now_s: float = 0.0
    vectors: list[tuple[str, int, str, int]] = field(default_factory=list)
    recovery: Recovery | None = None
    pipeline: Pipeline | None = None

    def read_up_to(self, position: int) -> None:
        """This much was read by somebody whose state is not here."""
        self.position, self.committed = position, True

    async def claim(self) -> World:
        """Another claim; what was in memory is lost, what was flushed is not."""
        await self.stop(flush=False)
        if not self.committed:
            self.position = self.log_start
            self.progress = Progress(start=self.log_start)
        self.recovery = Recovery(
            cast("Any", self),
            cast("Any", self._stream()),
            0,
            position=self.position,
            progress=self.progress,
            fresh=not self.committed,
            read=self._read,
            run=self.run,
            crash=CrashPoints({}),
        )
        self.pipeline = await self.recovery.pipeline()
        self.committed = True
        self._commit(self.pipeline.resume())
        return self

    async def stop(self, *, flush: bool = True) -> None:
        if self.recovery is not None and self.pipeline is not None:
            if flush:
                self.pipeline.flush()
            self.recovery.close()
            self.recovery = self.pipeline = None

    async def take(self, *items: Click | Marker) -> None:
        """Items at the end of the log, as one batch."""
        assert self.recovery is not None
        assert self.pipeline is not None
        first = len(self.log)
        self.log += items
        records = self._records(range(first, len(self.log)))
        made = await self._read(records, first)
        for part in self.recovery.floors.parts(records, made, self.pipeline):
            self._commit(self.pipeline.steps(part))

    def _commit(self, steps: Any) -> None:
        for step in steps:
            self.position, self.progress = step.position, step.progress
            for name, frame in step.vectors.items():
                rows = frame.select("as_of", "@entity", frame.columns[-1]).rows()
                self.vectors += [(name, *row) for row in sorted(rows)]

    def of(self, name: str) -> list[tuple[int, str]]:
        """As-of time and entity of a set's vectors."""
        return [(as_of, who) for one, as_of, who, _ in self.vectors if one == name]

    def floors(self) -> list[int | None]:
        assert self.pipeline is not None
        return [path.bundle.floor_ms for path in self.pipeline.paths]

    # -- what a context has ---------------------------------------------------------------------

    names = Names(app="app")
    settings = SimpleNamespace(app="app")
    resources = Resources()
    definitions_offset = 0
    stats = SimpleNamespace(replayed=0)
    limits = SimpleNamespace(pairs_per_step=1_000, flush_rows=1)

    @property
    def state_dir(self) -> Path:
        return self.directory

    @property
    def clock(self) -> Any:
        return SimpleNamespace(monotonic_s=lambda: self.now_s)

    @property
    def offsets(self) -> Any:
        return SimpleNamespace(starts=self._starts, ends=self._ends)

    def _starts(self, at: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return {one: 0 if one[0] == self.names.dlq_topic else self.log_start for one in at}

    def _ends(self, at: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if self.unreachable:
            raise UnreachableError("away")
        dead, log = len(self.dead), len(self.log)
        return {one: dead if one[0] == self.names.dlq_topic else log for one in at}

    async def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def _stream(self) -> Any:
        return SimpleNamespace(
            name="clicks",
            topic="clicks",
            fields=FIELDS,
            source_partitions=self.sources,
            rekeyed=self.sources > 0,
            published=SimpleNamespace(source=source(max_ahead_ms=MAX_AHEAD_MS)),
            plans=tuple(planned(one) for one in self.sets),
        )

    # -- what is read ---------------------------------------------------------------------------

    def _records(self, offsets: Sequence[int]) -> Records:
        return columns([[self._record(offset) for offset in offsets]])

    def _record(self, offset: int) -> OneRecord:
        stamp = self.timestamps.get(offset, -1)
        return OneRecord(offset=offset, timestamp=stamp, key=None, value=b"", headers=())

    async def _read(self, records: Sequence[Record], first_offset: int) -> Batch:
        made = [batch(one.offset, [self.log[one.offset]]) for one in records]
        if not made:
            return batch(first_offset, [])
        return Batch(
            first_offset=first_offset,
            next_offset=made[-1].next_offset,
            offsets=[one.offsets[0] for one in made],
            events=pl.concat([one.events for one in made]),
            markers=tuple(m for one in made for m in one.markers),
        )

    async def read_log(
        self, _: Any, topic: str, __: int, start: int, end: int
    ) -> AsyncIterator[Records]:
        if topic == self.names.dlq_topic:
            self.dlq_read_from.append(start)
            for offset in self.dead[start:end]:
                yield columns([[_dead(offset)]])
            return
        assert start >= self.log_start
        for at in range(start, end, self.at_once):
            yield self._records(range(at, min(end, at + self.at_once)))


def _dead(offset: int) -> OneRecord:
    said = {"error": UNKNOWN, "stream": "clicks", "topic": "clicks", "partition": 0}
    headers = [(f"rewindow.{name}", str(value).encode()) for name, value in said.items()]
    headers.append(("rewindow.offset", b"%d" % offset))
    return OneRecord(offset=0, timestamp=0, key=None, value=None, headers=headers)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def made(**given: Any) -> World:
        world = World(tmp_path, **given)
        monkeypatch.setattr(recovery, "read_log", world.read_log)
        monkeypatch.setattr(verdicts, "read_log", world.read_log)
        return world

    return made


# -- a source as it is --------------------------------------------------------------------------


async def test_a_log_from_its_beginning_has_no_floor(make: Callable[..., World]) -> None:
    world = await make(timestamps={0: 3}).claim()
    await world.take(("ann", 3, 1), ("ann", 12, 1))
    assert world.floors() == [None]
    assert world.of("a") == [(10, "ann")]


async def test_the_first_timestamp_tells_from_when_on_panes_are_whole(
    make: Callable[..., World],
) -> None:
    world = make(log=[("ann", 1, 1), ("ann", 2, 1)], log_start=2, timestamps={1: 2, 2: 7})
    await world.claim()
    await world.take(("ann", 6, 1), ("ann", 13, 1), ("ann", 22, 1), ("ann", 31, 1))
    assert world.floors() == [7 + MAX_AHEAD_MS]
    assert world.of("a") == [(30, "ann")]  # [12, …) is whole, so is [20, 30)


async def test_where_the_producer_sets_no_timestamp_event_time_stands_for_it(
    make: Callable[..., World],
) -> None:
    world = make(log=[("ann", 1, 1)], log_start=1, timestamps={2: 500})
    await world.claim()
    await world.take(("ann", 7, 1), ("ann", 8, 1), ("ann", 31, 1))
    assert world.floors() == [7 + MAX_AHEAD_MS]


async def test_a_floor_is_waited_for_over_a_stop_without_records(
    make: Callable[..., World],
) -> None:
    world = make(log=[("ann", 1, 1)], log_start=1, timestamps={1: 7})
    for _ in range(3):
        await world.claim()
        await world.stop()
    await world.claim()
    assert world.floors() == [None]
    await world.take(("ann", 7, 1))
    assert world.floors() == [7 + MAX_AHEAD_MS]
    await world.stop()
    await world.claim()
    await world.take(("ann", 60, 1))
    assert world.floors()[0] is not None
    assert (20, "ann") not in world.of("a")


# -- a rekeyed stream that was trimmed ------------------------------------------------------------

TRIMMED: list[Click | Marker] = [
    ("ann", 3, 1),
    marker(0, 3),
    ("bob", 24, 1),
    ("ann", 12, 1),
    marker(1, 24),
    # The log begins here: of [20, 30) it lacks an event.
    ("bob", 27, 1),
    marker(0, 12),
    marker(1, 27),
]
"""Source partition 1 is ahead of 0."""


async def test_a_trimmed_stream_tells_its_floor_by_the_first_markers(
    make: Callable[..., World],
) -> None:
    world = make(sources=2, log=list(TRIMMED), log_start=5)
    world.read_up_to(len(TRIMMED))
    await world.claim()
    assert world.floors() == [28]
    await world.take(("ann", 33, 1), marker(0, 33), ("bob", 44, 1), marker(1, 44))
    await world.take(marker(0, 44))
    assert world.of("a") == [(40, "ann")]


async def test_a_whole_stream_has_no_floor(make: Callable[..., World]) -> None:
    world = make(sources=2, log=list(TRIMMED))
    world.read_up_to(len(TRIMMED))
    await world.claim()
    assert world.floors() == [None]


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_marker_that_is_yet_to_come_is_waited_for(
    make: Callable[..., World], flushed: bool
) -> None:
    world = make(sources=2, log=TRIMMED[:7], log_start=5)
    world.read_up_to(7)
    await world.claim()
    assert world.floors() == [13]
    await world.stop(flush=flushed)
    await world.claim()
    await world.take(("bob", 29, 1))
    # One batch, cut at the marker that says something.
    await world.take(("bob", 31, 1), marker(1, 31), ("ann", 41, 1), marker(0, 41))
    assert world.floors() == [32]
    await world.take(marker(1, 60), ("ann", 60, 1), marker(0, 60))
    assert world.of("a") == [(50, "ann"), (60, "ann")]


async def test_what_another_set_knows_of_the_trimmed_part_bounds_it(
    make: Callable[..., World],
) -> None:
    world = make(sources=2, log=TRIMMED[:5])
    world.read_up_to(5)
    await world.claim()
    await world.stop()
    # Set b is added when only the marker of source partition 0 can still be read.
    world.log += [("ann", 14, 1), marker(0, 14)]
    world.read_up_to(len(world.log))
    world.log_start = 5
    world.sets = (A, B)
    await world.claim()
    assert world.floors()[1] == 25
    await world.take(("bob", 26, 1), marker(1, 26))
    assert world.floors()[1] == 27
    assert (world.floors()[0] or 0) < 0


# -- verdicts -------------------------------------------------------------------------------------


async def test_a_replay_reads_of_the_dlq_what_came_after_its_flush(
    make: Callable[..., World],
) -> None:
    world = await make(timestamps={0: 3}).claim()
    world.dead = [0, 1, 2]
    await world.take(("ann", 3, 1))
    await world.stop()
    await world.claim()
    await world.take(("bob", 4, 1), ("bob", 5, 1))
    world.dead.append(2)
    await world.claim()
    assert world.dlq_read_from == [3]
    await world.take(("ann", 12, 1))
    assert world.vectors == [("a", 10, "ann", 1), ("a", 10, "bob", 1)]


async def test_a_flush_within_a_replay_remembers_what_the_replay_read_from(
    make: Callable[..., World],
) -> None:
    world = await make(at_once=1).claim()
    await world.take(("ann", 3, 1))
    world.dead = [9]
    await world.stop()
    await world.claim()
    await world.take(("bob", 4, 1), ("bob", 5, 1))
    world.dead.append(2)
    await world.claim()  # flushes after each record
    await world.claim()
    assert world.dlq_read_from == [1, 1]
    await world.take(("ann", 12, 1))
    assert world.vectors == [("a", 10, "ann", 1), ("a", 10, "bob", 1)]


async def test_the_end_of_the_dlq_is_asked_for_now_and_then(make: Callable[..., World]) -> None:
    world = await make().claim()
    dead = verdicts.DeadLettersSince(cast("Any", world), 1)
    world.dead = [7] * 5
    assert dead.notes() == {"dlq": "1"}
    dead.replayed()
    assert dead.notes() == {"dlq": "5"}
    world.dead = [7] * 6
    assert dead.notes() == {"dlq": "5"}
    world.now_s = verdicts.ASK_EVERY_S
    world.unreachable = True
    assert dead.notes() == {"dlq": "5"}
    world.now_s = 2 * verdicts.ASK_EVERY_S
    world.unreachable = False
    assert dead.notes() == {"dlq": "6"}
