"""Streams that are added to a worker that runs: what is tried again, and what is let go."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.errors import UnreachableError
from streams.names import Names
from streams.runtime.context import Limits
from streams.runtime.readers import Readers
from tests.small import source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

STREAM = SimpleNamespace(
    name="clicks~user",
    topic="app.clicks~user",
    rekeyed=True,
    partitions=1,
    source_partitions=1,
    published=SimpleNamespace(source=source()),
    entity={},
)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


class Agents(dict[str, Any]):
    """Those of the app, by stream."""

    def update_topic_index(self) -> None:
        pass


class Ownership:
    """The streams that are claimed."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def add(self, stream: Any) -> None:
        self.topics.append(stream.topic)


class Stage:
    """A service whose start waits."""

    label = "stage"

    def __init__(self) -> None:
        self.starting = asyncio.Event()
        self.may_start = asyncio.Event()
        self.stopped = False

    async def start(self) -> None:
        self.starting.set()
        await self.may_start.wait()

    async def maybe_start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True


def readers(bootstrap_servers: str = "") -> tuple[Readers, Ownership, list[BaseException]]:
    def agent(_: Any, *, name: str) -> Any:
        async def started() -> None:
            pass

        return lambda _: agents.setdefault(name, SimpleNamespace(maybe_start=started))

    agents, ownership = Agents(), Ownership()
    failures: list[BaseException] = []
    app = SimpleNamespace(agents=agents, agent=agent, topic=lambda *_, **__: None)
    context = SimpleNamespace(
        kafka_config={"bootstrap_servers": bootstrap_servers},
        names=Names(app="app"),
        instance="one",
        limits=Limits(),
    )
    made = Readers(
        cast("Any", app),
        cast("Any", context),
        cast("Any", ownership),
        on_failure=failures.append,
    )
    return made, ownership, failures


def away() -> AbstractContextManager[Any]:
    return pytest.raises(UnreachableError, match="could not be started")


async def test_a_stream_that_comes_while_kafka_is_away_is_added_later(nobody: str) -> None:
    made, ownership, failures = readers(nobody)
    await made.start()
    for _ in range(2):
        with away():
            await made.add([cast("Any", STREAM)])
    assert (ownership.topics, made.services, failures) == ([], [], [])


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_stage_that_starts_while_the_worker_stops_is_stopped(
    monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    made, ownership, _ = readers()
    stage = Stage()
    monkeypatch.setattr(made, "_beside", lambda _: stage)
    await made.start()
    adding = asyncio.create_task(made.add([cast("Any", STREAM)]))
    await stage.starting.wait()
    await made.stop()
    if cancelled:
        adding.cancel()
    else:
        stage.may_start.set()
    await asyncio.wait([adding])
    assert stage.stopped
    assert ownership.topics == []
