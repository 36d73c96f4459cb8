"""Which offsets a replay has to skip: those set aside for an id that was unknown then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streams.datapath.records import OneRecord, Records, columns
from streams.names import Names
from streams.runtime import verdicts
from streams.runtime.context import Context
from streams.runtime.streams import Stream

STREAM = cast("Stream", SimpleNamespace(name="clicks", topic="clicks"))


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A record of the DLQ."""

    offset: int
    error: str = "unknown_schema_id"
    topic: str = "clicks"
    partition: int = 3
    stream: str = "clicks"

    @property
    def record(self) -> OneRecord:
        given = {name: getattr(self, name) for name in ("offset", "error", "topic", "partition")}
        given["stream"] = self.stream
        headers = [(f"rewindow.{name}", str(value).encode()) for name, value in given.items()]
        return OneRecord(offset=0, timestamp=0, key=None, value=None, headers=headers)


@dataclass
class FakeContext:
    """A context whose DLQ holds what it is given."""

    copies: list[Copy] = field(default_factory=list)
    names: Names = field(default_factory=lambda: Names(app="app"))

    @property
    def offsets(self) -> Any:
        return SimpleNamespace(
            starts=lambda at: dict.fromkeys(at, 0), ends=lambda at: dict.fromkeys(at, 1)
        )

    async def run(self, work: Any) -> Any:
        return work()


async def skipped(monkeypatch: pytest.MonkeyPatch, *copies: Copy) -> frozenset[int]:
    async def read_log(context: FakeContext, *_: Any) -> AsyncIterator[Records]:
        for copy in context.copies:
            yield columns([[copy.record]])

    monkeypatch.setattr(verdicts, "read_log", read_log)
    context = cast("Context", FakeContext(copies=list(copies)))
    return await verdicts.unknown_back_then(context, STREAM, 3, 10, 20)


async def test_offsets_within_the_replay_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [Copy(offset=offset) for offset in (9, 10, 19, 20)]
    assert await skipped(monkeypatch, *copies) == {10, 19}


async def test_other_verdicts_topics_partitions_and_streams_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not await skipped(
        monkeypatch,
        Copy(offset=12, error="tombstone"),
        Copy(offset=13, topic="other"),
        Copy(offset=14, partition=2),
        # The rekeying stage may have met the id before it was registered, and we after it.
        Copy(offset=15, stream="clicks.by.place"),
    )


async def test_a_replay_of_nothing_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "read_log", None)
    context = cast("Context", FakeContext())
    assert await verdicts.unknown_back_then(context, STREAM, 3, 10, 10) == frozenset()
