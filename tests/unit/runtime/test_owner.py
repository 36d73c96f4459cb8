"""An owner from its claim to its end: batches, news, corrections beside them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest
from aiokafka.errors import ProducerFenced

from streams.control.records import Fenced, Ready
from streams.datapath import corrections
from streams.datapath.bundle_state import Flush
from streams.datapath.progress import Closed, Progress
from streams.errors import RefusedError
from streams.runtime import committing as committing_module
from streams.runtime import owner as owner_module
from streams.runtime import warming
from streams.runtime.context import Limits
from streams.runtime.correcting import Corrector
from streams.runtime.crashpoints import CrashPoints
from streams.runtime.flushing import Flushing
from streams.runtime.obedience import Obedience
from streams.runtime.offsets import Committed
from streams.runtime.owner import PartitionOwner
from streams.runtime.transport import Fetched
from streams.runtime.warming import Warming
from tests.small import feature, feature_set
from tests.unit.datapath.rig import FIELDS
from tests.unit.runtime.town import COUNT, LOG, ONE, SUM, TWO, V1, V2, ReadsWorld, Town, made, quiet

if TYPE_CHECKING:
    from pathlib import Path


Make = Callable[..., Town]

EACH = Limits(commit_every_s=0)
"""Every batch has a transaction of its own."""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return partial(made, tmp_path, monkeypatch, sets=(ONE,), log=LOG)


@dataclass
class Estate:
    """An owner of the town's partition, with orders that are the town's decisions."""

    town: Town
    committed: list[Sequence[Any]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)
    told: list[asyncio.Task[None]] = field(default_factory=list)
    stop: Any = None

    def __post_init__(self) -> None:
        self.held_at = self.town.decided.held_at
        self.checkpoints_asked = self.town.decided.checkpoints_asked
        self.route = self.town.decided.route

    @property
    def next_offset(self) -> int:
        return self.town.decided.next_offset

    def stream(self, _: str) -> Any:
        return self.town.stream

    def acks(self, acks: Sequence[Any]) -> Sequence[Any]:
        return acks

    async def reach(self, _: Progress) -> None: ...

    def tell(self, owner: PartitionOwner) -> None:
        self.told.append(asyncio.create_task(owner.obey()))

    async def commit(self, records: Sequence[Any], offset: tuple[Any, int, str], **_: Any) -> None:
        _tp, position, metadata = offset
        self.committed.append(list(records))
        self.positions.append(position)
        self.progress.append(Progress.decode(metadata))

    def reader(self, stream: Any, *_: Any, **__: Any) -> Any:
        self.readers.append(stream)
        return ReadsWorld(self.town)()

    def ready(self) -> list[str]:
        acks = [one for some in self.committed for one in some]
        return [one.version for one in acks if isinstance(one, Ready)]

    def fenced(self) -> list[Fenced]:
        return [one for some in self.committed for one in some if isinstance(one, Fenced)]

    def corrected(self) -> bool:
        """Whether the corrections of the second epoch are made."""
        return any(one.epoch == 2 and one.corrections for one in self.fenced())

    async def running(self, progress: Progress) -> tuple[PartitionOwner, asyncio.Task[None]]:
        async def stopped() -> None: ...

        owner = PartitionOwner(
            cast("Any", self.town),
            cast("Any", self),
            "clicks",
            0,
            claim=1,
            position=len(self.town.log),
            progress=progress,
            fresh=False,
            producer=cast("Any", SimpleNamespace(commit=self.commit, stop=stopped)),
            crash=CrashPoints({}),
        )
        return owner, asyncio.create_task(owner.run())


async def nothing_known(_: Any) -> dict[Any, Any]:
    return {}


@pytest.fixture
def estate(make: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Estate]:
    def made(*, limits: Limits = EACH, **given: Any) -> Estate:
        one = Estate(make(limits=limits, **given))
        monkeypatch.setattr(owner_module, "BatchReader", one.reader)
        monkeypatch.setattr(warming, "BatchReader", one.reader)
        monkeypatch.setattr(committing_module, "outgoing", lambda *_: [])
        monkeypatch.setattr(owner_module, "read_indexes", nothing_known)
        return one

    return made


CLOSED = Progress(closed={"a": Closed(through_ms=20, version=V1)})


async def test_an_owner_warms_beside_its_batches_and_stops(estate: Callable[..., Estate]) -> None:
    one = estate()
    owner, task = await one.running(Progress())
    await quiet()
    one.town.publish(TWO)
    one.town.decided.decide(f"{V1}!", V2)
    one.tell(owner)
    await quiet()
    assert one.ready() == [V2]
    await asyncio.wait_for(owner.stop(), 5)
    task.cancel()


async def test_an_owner_stops_while_a_version_is_warmed(estate: Callable[..., Estate]) -> None:
    one = estate()
    owner, task = await one.running(Progress())
    await quiet()
    one.town.publish(TWO)
    one.town.decided.decide(f"{V1}!", V2)
    one.town.gate.clear()
    one.tell(owner)
    await quiet()
    one.tell(owner)
    await asyncio.wait_for(owner.stop(), 5)
    await asyncio.wait_for(asyncio.gather(*one.told), 5)
    task.cancel()
    assert one.ready() == []


async def test_what_was_replayed_or_warmed_is_on_disk_with_the_next_batch(
    estate: Callable[..., Estate],
) -> None:
    one = estate(limits=replace(EACH, replay_again=1))
    town = one.town
    owner, task = await one.running(Progress())
    await quiet()
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    one.tell(owner)
    await quiet()
    assert one.ready() == [V2]
    for flushes in (1, 1):
        at = len(town.log)
        town.log.append(("ann", 30 + at, 1))
        await owner.take(Fetched(claim=1, position=at, records=town._records([at])))
        await quiet()
        assert town.stats.flushes == flushes
        assert owner._flushing is not None
        await owner._flushing.finish()
    assert owner._pipeline is not None
    on_disk = {
        state.store.meta and state.store.meta.next_offset for state in owner._pipeline.bundles
    }
    assert on_disk == {len(town.log) - 1}
    await owner.stop()
    task.cancel()


async def test_a_version_that_idleness_makes_whole_is_ready(
    estate: Callable[..., Estate],
) -> None:
    log = [("ann", 1, 1), ("ann", 8, 1), ("ann", 22, 1)]
    one = estate(log=log, log_start=1, timestamps={1: 8})
    one.town.publish(feature_set(feature("n", window_ms=30), name="a", version=V2))
    owner, task = await one.running(replace(CLOSED, start=1))
    await quiet()
    one.town.decided.decide(f"{V1}!", V2)
    one.tell(owner)
    await quiet()
    assert one.ready() == []
    await owner.idle(45)
    assert one.ready() == [V2]
    await owner.stop()
    task.cancel()


async def test_news_that_come_during_recovery_are_obeyed_with_the_newest_stream(
    estate: Callable[..., Estate],
) -> None:
    one = estate()
    one.town.gate.clear()
    owner, task = await one.running(Progress())
    await quiet()
    before = one.town.stream
    one.town.publish(TWO)
    one.town.stream = SimpleNamespace(**{**vars(before), "fields": {**FIELDS, "y": pl.Int64()}})
    one.town.decided.decide(f"{V1}!", V2)
    one.town.gate.set()
    await quiet()
    assert all(stream is one.town.stream for stream in one.readers[1:])
    await owner.stop()
    task.cancel()


async def test_records_are_read_by_the_newest_schema_though_no_type_has_changed(
    estate: Callable[..., Estate],
) -> None:
    one = estate()
    owner, task = await one.running(Progress())
    await quiet()
    before = one.town.stream
    published = SimpleNamespace(source=before.published.source, schema={"symbols": ["new"]})
    one.town.stream = SimpleNamespace(**{**vars(before), "published": published})
    one.town.decided.decide(f"{V1}!")
    one.tell(owner)
    await quiet()
    assert one.readers[-1] is one.town.stream
    await owner.stop()
    task.cancel()


async def test_a_claim_that_ends_while_a_told_owner_obeys_leaves_nothing_open(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate()
    town, joining = one.town, asyncio.Event()
    finish = Warming.finish

    async def late(one: Any, position: int) -> None:
        if not joining.is_set():
            joining.set()
            town.gate.clear()
            await town.gate.wait()
        await finish(one, position)

    monkeypatch.setattr(Warming, "finish", late)
    owner, task = await one.running(Progress())
    await quiet()
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    one.tell(owner)
    await asyncio.wait_for(joining.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(owner.close(), 5)
    town.gate.set()
    await asyncio.gather(*one.told, return_exceptions=True)
    town.read_up_to(3)
    await town.claim()
    await town.settle()
    assert town.failed() == []
    assert town.following() == {("a", V2)}
    await town.stop()


@pytest.mark.parametrize(("committed", "error"), [(3, RefusedError), (9, ProducerFenced)])
async def test_what_is_refused_in_a_claim_that_is_over_is_no_reason_to_stop(
    estate: Callable[..., Estate],
    monkeypatch: pytest.MonkeyPatch,
    committed: int,
    error: type[Exception],
) -> None:
    # A worker that was paused in its claim: meanwhile others went on, and took checkpoints.
    class Refuses:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        async def pipeline(self) -> Any:
            raise RefusedError("a checkpoint has applied what the group has not committed")

    known = {("clicks", 0): Committed(offset=committed, metadata="")}
    offsets = SimpleNamespace(committed=lambda *_, **__: known)
    monkeypatch.setattr(owner_module, "Recovery", Refuses)
    monkeypatch.setattr(Town, "offsets", offsets)
    _, task = await estate().running(Progress())
    with pytest.raises(error):
        await task


# -- corrections beside batches -------------------------------------------------------------------

ONCE = feature_set(COUNT, name="a", version=V1, retention_ms=1_000)
AGAIN = feature_set(COUNT, SUM, name="a", version=V2, retention_ms=1_000)
#   V1 closes 10; V2 takes over, and closes 20, 30 and 40, each with a vector or two
SAID = [("ann", 3, 1), ("ann", 12, 4), ("bob", 14, 2), ("ann", 22, 1), ("bob", 33, 1), ("x", 45, 1)]


async def correcting(one: Estate, monkeypatch: pytest.MonkeyPatch) -> tuple[PartitionOwner, Any]:
    """An owner at the end of the log, where V1 takes over again and corrects V2."""
    monkeypatch.setattr(corrections, "PAIRS_PER_STEP", 1)
    town = one.town
    town.log = [*SAID[:1]]
    owner, task = await one.running(Progress())
    await quiet()
    town.publish(AGAIN)
    town.decided.decide(f"{V1}!", V2)
    one.tell(owner)
    await quiet()
    await taken(one, owner, ("ann", 11, 0))
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    one.tell(owner)
    await quiet()
    await taken(one, owner, *SAID[1:])
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V1, epoch=2, corrects=V2)
    return owner, task


async def held_up(one: Estate, monkeypatch: pytest.MonkeyPatch) -> tuple[PartitionOwner, Any]:
    """The same, at the moment at which corrections may be made, and nobody makes them."""

    async def nothing_done(_: Any) -> None: ...

    owner, task = await correcting(one, monkeypatch)
    monkeypatch.setattr(Corrector, "make", nothing_done)
    one.tell(owner)
    await until(lambda: owner._pipeline and owner._pipeline.corrections_ready)
    return owner, task


async def taken(one: Estate, owner: PartitionOwner, *items: Any) -> None:
    await queued(one, owner, *items)
    await quiet()


async def queued(one: Estate, owner: PartitionOwner, *items: Any) -> None:
    at = len(one.town.log)
    one.town.log += items
    records = one.town._records(range(at, at + len(items)))
    await owner.take(Fetched(claim=1, position=at, records=records))


async def until(done: Callable[[], Any]) -> None:
    """Flushes are written by a thread."""
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.001)


async def test_batches_come_between_corrections(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,))
    owner, task = await correcting(one, monkeypatch)
    fence = owner.position
    one.tell(owner)
    for at in (46, 47):
        await queued(one, owner, ("ann", at, 1))
    await until(one.corrected)
    positions = [
        position
        for position, progress in zip(one.positions, one.progress, strict=True)
        if progress.correcting is not None
    ]
    assert positions[0] == fence
    assert positions[-1] > fence, "they go on after batches"
    made = [one.corrections for one in one.fenced() if one.epoch == 2]
    assert made[0] is None
    assert made[-1] == 4
    assert {one.offset for one in one.fenced() if one.epoch == 2} == {fence}
    await owner.stop()
    task.cancel()


async def test_batches_wait_for_corrections_once_memory_is_full(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,), limits=replace(EACH, flush_rows=2))
    owner, task = await held_up(one, monkeypatch)
    await taken(one, owner, *((who, 46, 1) for who in "abcd"))
    assert one.progress[-1].correcting is not None
    await taken(one, owner, ("a", 47, 1))
    assert one.progress[-1].correcting is None
    await owner.stop()
    task.cancel()


async def test_what_follows_the_fence_is_not_flushed_where_an_owner_stops_amid_corrections(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,))
    owner, task = await held_up(one, monkeypatch)
    fence = owner.position
    await taken(one, owner, ("ann", 46, 1))
    states = owner._pipeline.bundles if owner._pipeline else []
    assert {state.next_offset for state in states} == {fence + 1}
    await owner.stop()
    assert {state.stored_at for state in states} == {fence}
    task.cancel()


async def test_an_owner_to_whom_nothing_comes_is_caught_up_amid_corrections(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,))
    make_some = Corrector.make
    owner, task = await held_up(one, monkeypatch)
    await quiet()
    monkeypatch.setattr(Corrector, "make", make_some)
    assert owner.caught_up
    commit = one.commit
    seen: list[bool] = []

    async def slow(*given: Any, **more: Any) -> None:
        await asyncio.sleep(0.01)
        await commit(*given, **more)

    owner.producer.commit = slow  # type: ignore[method-assign]

    async def watch() -> None:
        # As `IdleWatcher` does, but without a pause: it looks now and then.
        while owner.progress.correcting is not None:
            seen.append(owner.caught_up)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    one.tell(owner)
    await until(one.corrected)
    await watching
    assert len(seen) > 1
    assert all(seen), "nothing is in hand that came from the stream"
    async with owner._turn:
        await queued(one, owner, ("ann", 46, 1))
        await quiet()
        assert not owner.caught_up
    await until(lambda: owner.caught_up)
    await owner.stop()
    task.cancel()


async def test_an_owner_stops_though_memory_is_full_amid_corrections(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,), limits=replace(EACH, flush_rows=2))
    owner, task = await held_up(one, monkeypatch)
    await taken(one, owner, *((who, 46, 1) for who in "abcd"))
    gate, commit = asyncio.Semaphore(0), one.commit

    async def gated(*given: Any, **more: Any) -> None:
        await gate.acquire()
        await commit(*given, **more)

    owner.producer.commit = gated  # type: ignore[method-assign]
    before = len(one.committed)
    await queued(one, owner, ("a", 47, 1))
    await quiet()
    stopping = asyncio.create_task(owner.stop())
    await quiet()
    for _ in range(20):
        gate.release()
    await asyncio.wait_for(stopping, 5)
    assert len(one.committed) - before == 1, "the step in hand, and no more"
    task.cancel()


async def test_corrections_are_made_whoever_settles_the_flush_at_the_fence(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,))
    owner, task = await correcting(one, monkeypatch)
    one.tell(owner)
    await until(lambda: owner._pipeline and owner._pipeline.correcting)
    while not (owner._flushing and owner._flushing.busy):
        await asyncio.sleep(0)
    # As where a version's bundles are dropped, at a batch.
    async with owner._turn:
        assert owner._flushing is not None
        await owner._flushing.finish()
        await owner._obey()
    await until(one.corrected)
    await owner.stop()
    task.cancel()


async def test_nothing_is_obeyed_between_the_reading_of_a_batch_and_its_application(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A version that joins there would take records that were not decoded for it.
    one = estate(sets=(ONCE,), limits=replace(EACH, flush_rows=2))
    owner, task = await held_up(one, monkeypatch)
    await taken(one, owner, *((who, 46, 1) for who in "abcd"))
    done: list[str] = []

    def noted(of: Any, name: str) -> None:
        before = getattr(of, name)

        def call(*given: Any, **more: Any) -> Any:
            done.append(name)
            return before(*given, **more)

        monkeypatch.setattr(of, name, call)

    noted(owner, "_read")
    noted(owner._obedience, "obey")
    noted(owner._pipeline, "steps")
    await taken(one, owner, ("a", 47, 1))
    assert one.progress[-1].correcting is None
    assert done[done.index("_read") + 1] == "steps"
    await owner.stop()
    task.cancel()


async def test_corrections_are_made_where_idleness_lets_a_fence_come_and_the_disk_is_there(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,))
    owner, task = await correcting(one, monkeypatch)
    assert owner._flushing is not None
    async with owner._turn:
        await owner._flushing.begin()
        await owner._flushing.finish()
    short = [True]  # what takes over is not whole until time has passed
    monkeypatch.setattr(Obedience, "_short", lambda *_: short[0])
    one.tell(owner)
    await quiet()
    assert owner.progress.epochs == {"a": 1}
    short.clear()
    short.append(False)
    await owner.idle(51)
    assert owner.progress.epochs == {"a": 2}
    assert owner._pipeline is not None
    assert owner._pipeline.corrections_ready
    await until(one.corrected)
    await owner.stop()
    task.cancel()


async def test_no_other_flush_begins_where_a_fence_waits_for_the_disk(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(sets=(ONCE,), limits=replace(EACH, flush_every_s=0))
    owner, task = await correcting(one, monkeypatch)
    may_write, write = threading.Event(), Flush.write
    monkeypatch.setattr(Flush, "write", lambda self: may_write.wait(30) and write(self))
    assert owner._flushing is not None
    async with owner._turn:
        await owner._flushing.begin()
    flushes = one.town.stats.flushes
    await taken(one, owner, ("x", 46, 1))
    assert owner.progress.epochs == {"a": 1}
    assert one.town.stats.flushes == flushes
    may_write.set()
    await until(one.corrected)
    assert owner.progress.epochs == {"a": 2}
    await owner.stop()
    task.cancel()


# -- batches that say nothing ---------------------------------------------------------------------

NOW_AND_THEN = Limits(commit_every_s=3_600)
END = len(LOG)


async def refuses(*_: Any, **__: Any) -> None:
    raise ProducerFenced


async def uncommitted(one: Estate) -> tuple[PartitionOwner, asyncio.Task[None]]:
    """An owner that has committed at `END` + 1, and lately; two batches since say nothing."""
    owner, task = await one.running(CLOSED)
    await quiet()
    for at in (31, 32, 33):
        await taken(one, owner, ("ann", at, 1))
    assert one.positions == [END + 1]
    assert owner._pipeline is not None
    assert owner._pipeline.position == END + 3
    assert not owner.caught_up
    return owner, task


async def test_batches_that_say_nothing_are_committed_with_the_next_one_that_does(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    monkeypatch.setattr(committing_module, "outgoing", lambda *_: ["a vector"])
    await taken(one, owner, ("ann", 34, 1))
    assert one.positions == [END + 1, END + 4]
    assert one.committed[-1] == ["a vector"]
    assert owner.caught_up
    await owner.stop()
    task.cancel()


async def test_what_says_nothing_waits_for_no_longer_than_it_may(
    estate: Callable[..., Estate],
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    one.town.now_s += 3_600
    await taken(one, owner, ("ann", 34, 1))
    assert one.positions == [END + 1, END + 4]
    await owner.stop()
    task.cancel()


async def test_what_says_nothing_is_committed_though_nothing_follows(
    estate: Callable[..., Estate],
) -> None:
    one = estate(limits=Limits(commit_every_s=0.05))
    owner, task = await uncommitted(one)
    await until(lambda: one.positions == [END + 1, END + 3])
    assert owner.caught_up
    await owner.stop()
    task.cancel()


@pytest.mark.parametrize("what", ["obey", "idle", "stop", "skip"])
async def test_nothing_without_a_batch_is_built_upon_what_is_not_committed(
    estate: Callable[..., Estate], what: str
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    match what:
        case "obey":
            await owner.obey()
        case "idle":
            await owner.idle(33)  # closes nothing, and so is no step
        case "skip":
            await owner.commit_position(END + 4)  # a transaction marker
        case _:
            await owner.stop()
    assert one.positions == [END + 1, END + 4 if what == "skip" else END + 3]
    assert one.progress[-1].watermark_ms == 33
    await owner.stop()
    task.cancel()


async def test_nothing_reaches_the_disk_before_it_is_committed(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(limits=replace(NOW_AND_THEN, flush_every_s=1_000))
    owner, task = await uncommitted(one)
    began, begin = [], Flushing.begin

    async def beginning(self: Flushing, *then: Any) -> None:
        began.append(one.positions[-1])
        await begin(self, *then)

    monkeypatch.setattr(Flushing, "begin", beginning)
    one.town.now_s += 1_000
    await taken(one, owner, ("ann", 34, 1))
    assert began == [END + 4]
    await owner.stop()
    task.cancel()


async def test_what_could_not_be_committed_is_not_built_upon(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)

    monkeypatch.setattr(owner.producer, "commit", refuses)
    with pytest.raises(ProducerFenced):
        await owner.obey()
    flushes = one.town.stats.flushes
    await owner.stop()
    assert one.town.stats.flushes == flushes
    assert one.positions == [END + 1]
    task.cancel()


@pytest.mark.parametrize("turns", range(4))
async def test_an_owner_that_is_cancelled_ends_though_a_batch_comes(
    estate: Callable[..., Estate], turns: int
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    await queued(one, owner, ("ann", 34, 1))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await quiet()
    assert task.done()
    await owner.close()


async def test_who_has_a_batch_in_hand_is_not_caught_up(estate: Callable[..., Estate]) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    await owner.obey()
    await queued(one, owner, ("ann", 34, 1))
    seen = []
    for _ in range(5):
        seen.append(owner.caught_up)
        await asyncio.sleep(0)
    assert not any(seen)
    await owner.stop()
    task.cancel()


async def test_what_is_decided_is_looked_at_though_the_end_of_every_batch_says_nothing(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    looked: list[int] = []
    steps: list[Any] = []
    obey = Obedience.obey

    async def counted(self: Obedience) -> None:
        looked.append(len(steps))
        await obey(self)

    def every_other(step: Any, *_: Any) -> list[str]:
        steps.append(step)
        return ["late"] if len(steps) % 2 else []

    monkeypatch.setattr(Obedience, "obey", counted)
    monkeypatch.setattr(committing_module, "outgoing", every_other)
    assert owner._recovery is not None
    floors = type(owner._recovery.replay.floors)
    monkeypatch.setattr(floors, "parts", lambda _, __, batch, ___: iter(batch.halves()))
    for _ in range(3):
        await taken(one, owner, ("ann", 34, 1), ("ann", 34, 1))
    assert looked == [2, 4, 6]
    await owner.stop()
    task.cancel()


async def test_what_is_committed_is_counted_once(
    estate: Callable[..., Estate], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = estate(limits=NOW_AND_THEN)
    owner, task = await uncommitted(one)
    stats = one.town.stats
    assert (stats.transactions, stats.events) == (1, 1)
    await owner.obey()
    assert (stats.transactions, stats.events) == (2, 3)

    monkeypatch.setattr(owner.producer, "commit", refuses)
    monkeypatch.setattr(committing_module, "outgoing", lambda *_: ["a vector"])
    await taken(one, owner, ("ann", 34, 1))
    assert isinstance(task.exception(), ProducerFenced)
    assert (stats.transactions, stats.events) == (2, 3)
    await owner.close()
