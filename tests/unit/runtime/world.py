"""One stream partition over a log in memory, with its state on disk: for tests of claims."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from streams.control.set_record import Held
from streams.datapath.batch import Batch, Marker
from streams.datapath.progress import Progress
from streams.datapath.records import OneRecord, Record, Records, columns
from streams.errors import UnreachableError
from streams.names import Names
from streams.runtime.context import Limits
from streams.runtime.crashpoints import CrashPoints
from streams.runtime.recovery import Recovery
from streams.runtime.roster import Roster
from streams.schema.decode import BadRecord
from streams.state.bundle import Resources
from tests.small import feature_set, source
from tests.unit.datapath.rig import FIELDS, Click, batch, planned

if TYPE_CHECKING:
    from pathlib import Path

    from streams.datapath.pipeline import Pipeline
    from streams.definitions.model import FeatureSet

A = feature_set(name="a")
MAX_AHEAD_MS = 5


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
            roster=Roster(
                held={it.name: Held(serving=it.version) for it in self.sets}, following=()
            ),
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
            self.recovery.replay.close()
            self.recovery = self.pipeline = None

    async def take(self, *items: Click | Marker) -> None:
        """Items at the end of the log, as one batch."""
        self.log += items
        await self.read_on(len(items))

    async def read_on(self, count: int) -> None:
        """The next items of the log, as one batch."""
        assert self.recovery is not None
        assert self.pipeline is not None
        first = self.position
        records = self._records(range(first, first + count))
        made = await self._read(records, first)
        for part in self.recovery.replay.floors.parts(records, made, self.pipeline):
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
        return [path.live.floor_ms for path in self.pipeline.paths]

    # -- what a context has ---------------------------------------------------------------------

    names = Names(app="app")
    settings = SimpleNamespace(app="app")
    resources = Resources()
    definitions_offset = 0
    snapshots: Any = None
    stats = SimpleNamespace(replayed=0, restored=0)
    limits = Limits(pairs_per_step=1_000, flush_rows=1)

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
            version=lambda name, _: SimpleNamespace(
                plan=next(planned(one) for one in self.sets if one.name == name)
            ),
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
    said = {
        "error": BadRecord.UNKNOWN_SCHEMA_ID,
        "stream": "clicks",
        "topic": "clicks",
        "partition": 0,
    }
    headers = [(f"rewindow.{name}", str(value).encode()) for name, value in said.items()]
    headers.append(("rewindow.offset", b"%d" % offset))
    return OneRecord(offset=0, timestamp=0, key=None, value=None, headers=headers)
