"""A broker in memory, as far as the product can tell one: logs, transactions, groups.

Records of a transaction are in the log when they are sent, and can be read with
`read_committed` when it has ended, which puts a marker after them. Who starts a producer under
a transactional id fences the one before and aborts what that had open. Offsets that are sent
with a transaction hold from its end on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.errors import ProducerFenced

from streams.datapath.records import OneRecord

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from streams.datapath.records import Headers

TRANSACTION_TIMEOUT_S = 60.0

At = tuple[str, int]
"""Topic and partition."""


@dataclass(slots=True)
class Transaction:
    """One transaction; `ended` is None while it is open, else whether it was committed."""

    transactional_id: str
    begun_s: float
    ended: bool | None = None
    firsts: dict[At, int] = field(default_factory=dict)
    records: list[tuple[At, int]] = field(default_factory=list)
    offsets: list[tuple[str, At, int, str]] = field(default_factory=list)
    """Group, partition, position and metadata."""


@dataclass(slots=True)
class Entry:
    """A record, or a marker where `record` is None; without a transaction it is committed."""

    record: OneRecord | None
    transaction: Transaction | None = None


@dataclass(slots=True)
class Log:
    """One partition. An entry's place is its offset."""

    entries: list[Entry] = field(default_factory=list)
    open: list[Transaction] = field(default_factory=list)
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


@dataclass(slots=True)
class _Producer:
    epoch: int = 0
    open: Transaction | None = None


class Broker:
    """Everything there is is made when it is first named, and nothing is ever deleted."""

    def __init__(self, now_s: Callable[[], float], now_ms: Callable[[], int]) -> None:
        self.logs: dict[At, Log] = {}
        self.committed: list[Transaction] = []
        """Transactions in the order of their commits."""
        self.offsets: dict[tuple[str, At], tuple[int, str]] = {}
        self._now_s = now_s
        self._now_ms = now_ms
        self._producers: dict[str, _Producer] = {}

    def log(self, at: At) -> Log:
        found = self.logs.get(at)
        if found is None:
            found = self.logs[at] = Log()
        return found

    # -- writing --------------------------------------------------------------------------------

    def append(
        self,
        at: At,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        *,
        timestamp_ms: int | None = None,
        transaction: Transaction | None = None,
    ) -> int:
        """Add a record; returns its offset."""
        log = self.log(at)
        offset = len(log.entries)
        stamp = self._now_ms() if timestamp_ms is None else timestamp_ms
        record = OneRecord(
            offset=offset, timestamp=stamp, key=key, value=value, headers=tuple(headers)
        )
        log.entries.append(Entry(record, transaction))
        if transaction is not None:
            if at not in transaction.firsts:
                transaction.firsts[at] = offset
                log.open.append(transaction)
            transaction.records.append((at, offset))
        self._tell(log)
        return offset

    def init(self, transactional_id: str) -> int:
        """Fence whoever had this id; returns the epoch of the new one."""
        producer = self._producers.setdefault(transactional_id, _Producer())
        producer.epoch += 1
        self._abort(producer)
        return producer.epoch

    def transaction(self, transactional_id: str, epoch: int) -> Transaction:
        """The open transaction of a producer, begun if there is none.

        Raises `ProducerFenced` if another one was started since.
        """
        producer = self._current(transactional_id, epoch)
        if producer.open is None:
            producer.open = Transaction(transactional_id, self._now_s())
        return producer.open

    def commit(self, transactional_id: str, epoch: int) -> None:
        """End the open transaction, if there is one."""
        producer = self._current(transactional_id, epoch)
        made, producer.open = producer.open, None
        if made is None:
            return
        for group, at, position, metadata in made.offsets:
            self.offsets[group, at] = (position, metadata)
        self.committed.append(made)
        self._end(made, committed=True)

    def _current(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers.get(transactional_id)
        if producer is None:
            raise ProducerFenced
        held = producer.open
        if held is not None and self._now_s() - held.begun_s > TRANSACTION_TIMEOUT_S:
            producer.epoch += 1
            self._abort(producer)
        if producer.epoch != epoch:
            raise ProducerFenced
        return producer

    def _abort(self, producer: _Producer) -> None:
        made, producer.open = producer.open, None
        if made is not None:
            self._end(made, committed=False)

    def _end(self, made: Transaction, *, committed: bool) -> None:
        made.ended = committed
        for at in made.firsts:
            log = self.log(at)
            log.entries.append(Entry(None, made))
            log.open.remove(made)
            self._tell(log)

    # -- reading --------------------------------------------------------------------------------

    def end(self, at: At) -> int:
        """The high watermark."""
        return len(self.log(at).entries)

    def stable(self, at: At) -> int:
        """The last stable offset."""
        log = self.log(at)
        return min((one.firsts[at] for one in log.open), default=len(log.entries))

    def read(self, at: At, start: int, most: int) -> tuple[list[OneRecord], int]:
        """Committed records from an offset on, and where to go on after them."""
        entries, stable = self.log(at).entries, self.stable(at)
        found: list[OneRecord] = []
        while start < stable and len(found) < most:
            one = entries[start]
            start += 1
            if one.record is not None and (one.transaction is None or one.transaction.ended):
                found.append(one.record)
        return found, start

    def all(self, at: At) -> list[OneRecord]:
        """All committed records."""
        return self.read(at, 0, self.end(at))[0]

    def pending(self, group: str, at: At) -> bool:
        """Whether an open transaction is about to change a committed position."""
        return any(
            (group, at) == (one_group, one_at)
            for producer in self._producers.values()
            if producer.open is not None
            for one_group, one_at, _, _ in producer.open.offsets
        )

    def news(self, ats: Sequence[At], future: asyncio.Future[None]) -> None:
        """Complete a future when something changes in one of these logs."""
        for at in ats:
            self.log(at).waiting.append(future)

    def _tell(self, log: Log) -> None:
        while log.waiting:
            future = log.waiting.popleft()
            if not future.done():
                future.set_result(None)

    def history(self) -> Iterator[Transaction]:
        """Committed transactions, in order."""
        return iter(self.committed)
