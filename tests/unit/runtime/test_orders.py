"""What owners are told, and when: decisions and the definitions that they speak of."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.control.set_record import LiveVersion, SetRecord
from streams.control.state import ControlState
from streams.datapath.progress import Progress
from streams.errors import RewindowError, UnreachableError
from streams.runtime import orders
from streams.runtime.orders import Orders

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Topics:
    """The control topic as routes that follow it, and the definitions topic as a book of it."""

    next_offset: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    """Streams, and the topics that they wait for."""
    there: list[str] = field(default_factory=list)
    """Streams that waited."""
    state: ControlState = field(default_factory=ControlState)
    definitions_end: int = 0
    definitions_offset: int = 0
    reads: int = 0
    error: Exception | None = None
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.reading.set()

    def decide(self, serving: str, *, epoch: int = 0, definitions_offset: int = 0) -> None:
        self.state.sets["a"] = SetRecord(
            feature_set="a",
            serving=serving,
            epoch=epoch,
            live=(LiveVersion(version=serving),),
            definitions_offset=definitions_offset,
        )
        self.next_offset += 1
        news, self.news = self.news, asyncio.Event()
        news.set()

    async def changed(self, seen: int) -> int:
        while self.next_offset <= seen:
            await self.news.wait()
        return self.next_offset

    async def reach(self, offset: int) -> None:
        while self.next_offset < offset:
            await self.changed(self.next_offset)

    def read(self, _: Any, *, at_least_offset: int) -> Any:
        self.reads += 1
        if self.error is not None:
            raise self.error
        assert self.definitions_end >= at_least_offset
        return SimpleNamespace(next_offset=self.definitions_end)

    def exclude(self, exclusions: Any) -> None:
        self.left_out = exclusions

    definitions = None

    @property
    def streams(self) -> list[str]:
        return ["old", *self.there]

    def found(self, topics: Any) -> None:
        self.there += [one for one, topic in self.waiting.items() if topic in topics]
        self.waiting = {one: it for one, it in self.waiting.items() if it not in topics}

    def take(self, definitions: Any) -> None:
        self.definitions_offset = max(self.definitions_offset, definitions.next_offset)


class Obeys:
    """An owner that counts how often it was told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told = 0
        self._error = error

    async def obey(self) -> None:
        self.told += 1
        if self._error is not None:
            raise self._error


@dataclass
class Office:
    topics: Topics
    orders: Orders
    owner: Obeys
    failures: list[BaseException]
    broken: list[tuple[Any, Exception]]


async def quiet() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def until(met: Callable[[], bool]) -> None:
    """Wait for what comes after a pause."""
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.001)


@pytest.fixture
async def office(monkeypatch: pytest.MonkeyPatch) -> Any:
    topics = Topics()
    failures: list[BaseException] = []
    broken: list[tuple[Any, Exception]] = []

    async def to_thread(work: Any) -> Any:
        await topics.reading.wait()
        return work()

    monkeypatch.setattr(orders, "read_definitions", topics.read)
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    monkeypatch.setattr(orders, "PAUSE_S", 0.02)
    monkeypatch.setattr(orders, "TOPICS_EVERY_S", 0.02)
    monkeypatch.setattr(orders, "prepare_topics", lambda *_: ["topic"])
    made = Orders(
        cast("Any", None),
        cast("Any", topics),
        cast("Any", topics),
        {},
        on_failure=failures.append,
    )
    owner = Obeys()
    made.connect(lambda: [owner], lambda one, error: broken.append((one, error)))
    await made.start()
    yield Office(topics, made, owner, failures, broken)
    topics.reading.set()
    await made.stop()


async def test_owners_are_told_of_each_decision(office: Office) -> None:
    for epoch in (0, 1):
        office.topics.decide("1.0.0", epoch=epoch)
        await quiet()
    route = office.orders.route("a")
    assert route is not None
    assert route.epoch == 1
    assert (office.orders.next_offset, office.owner.told, office.topics.reads) == (2, 2, 0)


async def test_a_decision_counts_from_when_its_definitions_are_known(office: Office) -> None:
    office.topics.reading.clear()
    office.topics.definitions_end = 7
    office.topics.decide("1.1.0", epoch=1, definitions_offset=5)
    await quiet()
    assert (office.orders.route("a"), office.orders.next_offset) == (None, 0)
    office.topics.reading.set()
    await quiet()
    assert office.orders.next_offset == 1
    assert office.topics.definitions_offset == 7
    assert office.owner.told == 1


async def test_definitions_that_came_before_the_decision_are_not_read_again(
    office: Office,
) -> None:
    office.topics.definitions_offset = 9
    office.topics.decide("1.1.0", definitions_offset=5)
    await quiet()
    assert (office.owner.told, office.topics.reads) == (1, 0)


async def test_what_is_decided_while_definitions_are_read_counts_after_them(
    office: Office,
) -> None:
    office.topics.reading.clear()
    office.topics.definitions_end = 9
    office.topics.decide("1.1.0", epoch=1, definitions_offset=5)
    await quiet()
    office.topics.decide("1.2.0", epoch=2, definitions_offset=9)
    office.topics.reading.set()
    await quiet()
    route = office.orders.route("a")
    assert route is not None
    assert (route.epoch, office.orders.next_offset) == (2, 2)


async def test_a_claim_waits_for_what_is_committed(office: Office) -> None:
    office.topics.definitions_end = 4
    reaching = asyncio.create_task(
        office.orders.reach(Progress(control_offset=1, definitions_offset=3))
    )
    await quiet()
    assert not reaching.done()
    office.topics.decide("1.1.0")
    await asyncio.wait_for(reaching, 5)
    assert office.topics.definitions_offset == 4
    assert office.orders.next_offset == 1


async def test_a_claim_without_news_reads_definitions_that_it_does_not_know(
    office: Office,
) -> None:
    office.topics.definitions_end = 4
    await office.orders.reach(Progress(definitions_offset=3))
    await office.orders.reach(Progress(definitions_offset=3))
    assert office.topics.reads == 1


async def test_definitions_that_are_out_of_reach_are_read_again(office: Office) -> None:
    office.topics.error = UnreachableError("away")
    office.topics.definitions_end = 5
    office.topics.decide("1.1.0", definitions_offset=5)
    await quiet()
    assert (office.owner.told, office.failures) == (0, [])
    office.topics.error = None
    await until(lambda: office.owner.told == 1)


async def test_owners_are_told_of_what_a_claim_has_read_meanwhile(office: Office) -> None:
    """The definitions were out of reach when the news came, and there for the claim."""
    office.topics.error = UnreachableError("away")
    office.topics.definitions_end = 5
    office.topics.decide("1.1.0", definitions_offset=5)
    await quiet()
    office.topics.error = None
    await office.orders.reach(Progress(control_offset=1))
    await until(lambda: office.owner.told == 1)


async def test_definitions_that_are_gone_end_the_worker(office: Office) -> None:
    office.topics.error = RewindowError("cut short")
    office.topics.decide("1.1.0", definitions_offset=5)
    await quiet()
    assert office.failures == [office.topics.error]
    assert office.owner.told == 0


async def test_who_could_not_obey_is_named(office: Office) -> None:
    error = LookupError("does not follow")
    broken = Obeys(error)
    office.orders.connect(
        lambda: [broken, office.owner], lambda one, why: office.broken.append((one, why))
    )
    office.topics.decide("1.1.0")
    await quiet()
    assert office.broken == [(broken, error)]
    assert office.owner.told == 1


async def test_nobody_is_told_after_the_end(office: Office) -> None:
    office.orders.tell(office.owner)
    await office.orders.stop()
    office.topics.decide("1.1.0")
    await quiet()
    assert office.owner.told == 0


async def test_a_stream_that_could_not_be_added_is_added_without_news(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found at a look for topics, when all had been told of the last decision."""
    added: list[Any] = []
    looks = 0

    def look(*_: Any) -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise UnreachableError("away")
        return ["topic"]

    async def add(streams: Any) -> None:
        added.append(list(streams))
        if added.count(["old", "new"]) == 1:
            raise UnreachableError("away")

    monkeypatch.setattr(orders, "prepare_topics", look)
    office.orders.connect(tuple, lambda *_: None, add)
    office.topics.waiting = {"new": "topic"}
    office.topics.decide("1.0.0")
    await until(lambda: added.count(["old", "new"]) == 2)
    assert office.failures == []


async def test_owners_are_told_while_a_stream_is_added(office: Office) -> None:
    """Joining a group takes as long as it takes, and may fail again and again."""
    joining = asyncio.Event()

    async def add(_: Any) -> None:
        await joining.wait()

    office.orders.connect(lambda: [office.owner], lambda *_: None, add)
    for epoch in (0, 1):
        office.topics.decide("1.0.0", epoch=epoch)
        await quiet()
    assert (office.orders.next_offset, office.owner.told) == (2, 2)


async def test_a_stream_that_only_a_claim_has_read_of_is_added(office: Office) -> None:
    added: list[Any] = []

    async def add(streams: Any) -> None:
        added.append(list(streams))

    office.orders.connect(tuple, lambda *_: None, add)
    office.topics.definitions_end = 4
    office.topics.waiting = {"new": "topic"}
    await office.orders.reach(Progress(definitions_offset=3))
    await until(lambda: ["old", "new"] in added)


async def test_a_stream_that_can_never_be_added_ends_the_worker(office: Office) -> None:
    error = RewindowError("not to be mended")

    async def add(_: Any) -> None:
        raise error

    office.orders.connect(tuple, lambda *_: None, add)
    office.topics.decide("1.0.0")
    await quiet()
    assert office.failures == [error]
