"""The rekeying stage on a real broker."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition

from streams.datapath.batch import Marker
from streams.definitions.model import StartAt
from streams.errors import RefusedError, UnreachableError
from streams.kafka import aiokafka_config
from streams.runtime import rekey_cursor
from streams.runtime.producer import PartitionProducer
from streams.runtime.rekey_output import entity_hash
from streams.runtime.rekey_start import find_start
from streams.schema.registry import Registry
from tests.integration.kafka_tools import Incoming, Outgoing
from tests.integration.rekey_rig import Rig, events, markers, without_offset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.integration.kafka_tools import KafkaTools

UNKNOWN_ID = 987_654_321
NEVER_MS = 3_600_000


@pytest.fixture
def make_rig(kafka: KafkaTools, prefix: str, tmp_path: Path) -> Callable[..., Rig]:
    def make(**options: Any) -> Rig:
        options.setdefault("idle_after_ms", NEVER_MS)
        return Rig(kafka, prefix, tmp_path, **options)

    return make


def _origins(records: Sequence[Incoming]) -> list[tuple[int, int]]:
    return sorted((event.origin.partition, event.origin.offset) for event in events(records))


async def test_each_event_is_there_once_and_whole(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=3)
    rides = [
        rig.ride(
            n % 3,
            n,
            f"d{n % 7}",
            note=f"n{n}",
            key=None if n % 2 else b"%d" % n,
            timestamp_ms=1_000 + n,
            headers={"trace": b"%d" % n, "rewindow.origin": b"forged"},
        )
        for n in range(300)
    ]
    await rig.produce(*rides)
    async with rig.stage():
        await rig.caught_up(300)
    found = events(await rig.everything())
    assert len(found) == 300
    by_origin = {(event.origin.partition, event.origin.offset): event for event in found}
    for n, ride in enumerate(rides):
        event = by_origin[n % 3, n // 3]
        assert event.key == b"d%d" % (n % 7)
        assert event.partition == entity_hash(event.key) % 2
        assert (event.origin.key, event.origin.value) == (ride.key, ride.value)
        assert event.origin.timestamp == 1_000 + n
        assert event.origin.headers == [("trace", b"%d" % n)]
    assert not rig.failures


async def test_markers_follow_the_events_when_a_set_could_close(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(source_partitions=1)
    async with rig.stage():
        for total, at in enumerate((700, 1_499, 1_500, 1_400, 2_600), 1):
            await rig.produce(rig.ride(0, at, "d"))
            await rig.caught_up(total)
    found = await rig.everything()
    for partition in range(2):
        assert [marker.watermark_ms for marker in markers(found, partition)] == [700, 1_500, 2_600]
    own = entity_hash(b"d") % 2
    order = [record.key for record in found if record.partition == own]
    assert order == [b"d", None, b"d", b"d", None, b"d", b"d", None]


async def test_bad_records_are_set_aside(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=1)
    good = rig.ride(0, 100, "d")
    bad = {
        "tombstone": Outgoing(value=None, key=b"k", partition=0),
        "wrong_magic_byte": Outgoing(value=b"{}", partition=0, headers={"trace": b"1"}),
        "truncated": Outgoing(value=b"\x00\x00", partition=0),
        "unknown_schema_id": Outgoing(
            value=b"\x00" + UNKNOWN_ID.to_bytes(4, "big") + b"x", partition=0
        ),
        "undecodable": Outgoing(value=(good.value or b"")[:-1], partition=0),
        "missing_entity": rig.ride(0, 5_000, None),
        "event_time_ahead": rig.ride(0, NEVER_MS + 1_001, "d", timestamp_ms=1_000),
    }
    await rig.produce(*bad.values(), good)
    async with rig.stage():
        dead = await rig.dead(len(bad))
        found = await rig.caught_up(1)
    assert [letter.headers["rewindow.error"].decode() for letter in dead] == list(bad)
    for offset, (letter, record) in enumerate(zip(dead, bad.values(), strict=True)):
        assert (letter.key, letter.value) == (record.key, record.value)
        assert letter.headers["rewindow.topic"] == rig.source.topic.encode()
        assert letter.headers["rewindow.partition"] == b"0"
        assert letter.headers["rewindow.offset"] == b"%d" % offset
        assert letter.headers["rewindow.stream"] == b"rides.by.driver"
    assert dead[1].headers["trace"] == b"1"
    # The event without an entity moves the watermark, the others don't.
    assert {marker.watermark_ms for marker in markers(found)} == {5_000}


async def test_an_unreachable_registry_is_waited_for(
    make_rig: Callable[..., Rig], stack: Any
) -> None:
    rig = make_rig(source_partitions=1)
    await rig.produce(rig.ride(0, 100, "d"))
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Away(Registry):
        away = True

        def schema_by_id(self, schema_id: int) -> dict[str, Any] | None:
            loop.call_soon_threadsafe(asked.set)
            if self.away:
                raise UnreachableError("away")
            return super().schema_by_id(schema_id)

    registry = Away(stack.registry_url)
    async with rig.stage(registry=registry):
        await asked.wait()
        registry.away = False
        await rig.caught_up(1)
    assert not rig.failures
    assert await asyncio.to_thread(rig.kafka.consume_all, rig.settings.names.dlq_topic) == []


async def test_a_stage_stops_while_the_registry_is_away(
    make_rig: Callable[..., Rig], stack: Any
) -> None:
    rig = make_rig(source_partitions=1)
    await rig.produce(rig.ride(0, 100, "d"))
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Away(Registry):
        def schema_by_id(self, schema_id: int) -> dict[str, Any] | None:  # noqa: ARG002
            loop.call_soon_threadsafe(asked.set)
            raise UnreachableError("away")

    async with rig.stage(registry=Away(stack.registry_url)):
        await asked.wait()
    async with rig.stage():
        await rig.caught_up(1)


async def test_a_clean_stop_leaves_the_group_and_hands_over(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(source_partitions=4)
    async with rig.stage("one"):
        await rig.produce(*(rig.ride(n % 4, n, "d") for n in range(40)))
        await rig.caught_up(40)
        assert await rig.members() == 1
        async with rig.stage("two") as two:
            while not two.cursors:
                await asyncio.sleep(0)
                await rig.members()
            assert await rig.members() == 2
            await rig.produce(*(rig.ride(n % 4, n, "d") for n in range(40)))
            await rig.caught_up(80)
        assert await rig.members() == 1
        await rig.produce(*(rig.ride(n % 4, n, "d") for n in range(40)))
        await rig.caught_up(120)
    assert await rig.members() == 0
    assert _origins(await rig.everything()) == [(p, o) for p in range(4) for o in range(30)]


async def test_a_fenced_cursor_claims_anew(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekey_cursor, "SESSION_TIMEOUT_S", 0.1)
    rig = make_rig(source_partitions=1)
    async with rig.stage():
        await rig.produce(rig.ride(0, 1, "d"))
        await rig.caught_up(1)
        names = rig.settings.names
        other = PartitionProducer(
            aiokafka_config(rig.settings),
            names.rekey_transactional_id(rig.stream.name, 0),
            rig.group,
        )
        await other.start()
        await rig.produce(rig.ride(0, 2, "d"))
        await rig.caught_up(2)
        await other.stop()
    assert _origins(await rig.everything()) == [(0, 0), (0, 1)]
    assert not rig.failures


async def test_errors_in_a_batch_lose_and_double_nothing(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(source_partitions=2)
    real = PartitionProducer.commit
    calls = 0

    def lost() -> None:
        raise ConnectionError("all sent, not committed")

    async def commit(self: PartitionProducer, outgoing: Any, offset: Any) -> None:
        nonlocal calls
        calls += 1
        match calls % 4:
            case 1:
                raise ConnectionError("nothing sent")
            case 2:
                self._on_sent = lost
        await real(self, outgoing, offset)
        if calls % 4 == 3:
            raise ConnectionError("committed, but nobody heard")

    async with rig.stage():
        monkeypatch.setattr(PartitionProducer, "commit", commit)
        for n in range(8):
            await rig.produce(*(rig.ride(p, n, f"d{p}") for p in range(2)))
            await rig.caught_up(2 * n + 2)
    assert calls > 8
    assert _origins(await rig.everything()) == [(p, o) for p in range(2) for o in range(8)]
    assert not rig.failures


async def test_nothing_is_stepped_over_while_what_failed_is_claimed_anew(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The consumer has fetched beyond the record until it is sought back to it.
    rig = make_rig(source_partitions=1)
    commit = PartitionProducer.commit
    claiming, go_on = threading.Event(), threading.Event()

    async def failing(self: PartitionProducer, outgoing: Any, offset: Any) -> None:
        if outgoing and not claiming.is_set():
            raise ConnectionError("nothing sent")
        await commit(self, outgoing, offset)

    def waiting(*given: Any) -> Any:
        claiming.set()
        assert go_on.wait(60)
        return find_start(*given)

    async with rig.stage() as stage:
        async with asyncio.timeout(60):
            while not any(one.caught_up for one in stage.cursors):
                await asyncio.sleep(0.05)
        (cursor,) = stage.cursors
        monkeypatch.setattr(PartitionProducer, "commit", failing)
        monkeypatch.setattr(rekey_cursor, "find_start", waiting)
        await rig.produce(rig.ride(0, 1, "d"))
        try:
            assert await asyncio.to_thread(claiming.wait, 60)
            assert not cursor.caught_up
            await cursor.commit_position(1)
        finally:
            go_on.set()
        await rig.caught_up(1)
    assert _origins(await rig.everything()) == [(0, 0)]
    assert not rig.failures


async def test_a_record_that_the_stream_refuses_is_not_passed_over(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekey_cursor, "ATTEMPTS_AT_ONE_POSITION", 2)
    rig = make_rig(source_partitions=1, stream_config={"max_message_bytes": "1000"})
    await rig.produce(rig.ride(0, 1, "d", note="x" * 5_000))
    async with rig.stage():
        failure = await _failure(rig)
    assert "MessageSizeTooLarge" in str(failure)
    assert rig.kafka.committed(rig.group, rig.source.topic)[0][0] == 0
    assert await rig.everything() == []


async def test_idle_partitions_follow_those_that_move(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=3, idle_after_ms=400)
    await rig.produce(rig.ride(1, 50, "d"))

    def followed(found: Sequence[Incoming]) -> bool:
        highest = {m.source_partition: m.watermark_ms or 0 for m in markers(found, 0)}
        # Partition 2 never had a record.
        return all(highest.get(p, 0) > 1_000 for p in range(3))

    at = 1_001
    async with rig.stage():
        await rig.caught_up(1)
        moved: list[Incoming] = []
        while not followed(moved):
            at += 1
            await rig.produce(rig.ride(0, at, "d"))
            moved = await rig.caught_up(at - 1_000)
        committed = rig.kafka.committed(rig.group, rig.source.topic)
    assert committed[1][0] == 1
    assert committed[2][0] == 0
    assert not any(marker.silent for marker in markers(moved))


async def test_silence_is_told_by_all_and_taken_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=2, idle_after_ms=300, close_after_ms=400)
    await rig.produce(rig.ride(0, 700, "d"))

    def silent(found: Sequence[Incoming]) -> bool:
        newest = [{m.source_partition: m for m in markers(found, p)} for p in range(2)]
        return all(len(one) == 2 and all(m.silent for m in one.values()) for one in newest)

    async with rig.stage():
        await rig.until(silent)
        await rig.produce(rig.ride(0, 800, "d"))
        found = await rig.until(lambda f: len(events(f)) == 2 and silent(f))
    of_source = [without_offset(m) for m in markers(found, 0) if m.source_partition == 0]
    assert of_source[:4] == [
        Marker(offset=-1, source_partition=0, watermark_ms=700),
        Marker(offset=-1, source_partition=0, watermark_ms=700, silent=True),
        Marker(offset=-1, source_partition=0, watermark_ms=800),
        Marker(offset=-1, source_partition=0, watermark_ms=800, silent=True),
    ]


async def test_transaction_markers_at_the_end_hide_no_silence(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(source_partitions=1, close_after_ms=400)
    producer = Producer(
        {
            "bootstrap.servers": rig.settings.bootstrap_servers,
            "transactional.id": f"{rig.settings.app}-producer",
        }
    )
    ride = rig.ride(0, 700, "d")

    def write() -> None:
        producer.init_transactions(30)
        for commit in (True, False):
            producer.begin_transaction()
            producer.produce(rig.source.topic, value=ride.value, partition=0)
            producer.flush(30)
            if commit:
                producer.commit_transaction(30)
            else:
                producer.abort_transaction(30)

    await asyncio.to_thread(write)
    async with rig.stage():
        found = await rig.until(lambda f: any(m.silent for m in markers(f)))
        # An event, its commit, an aborted one and its abort.
        assert rig.kafka.committed(rig.group, rig.source.topic)[0][0] == 4
    assert len(events(found)) == 1


async def test_a_stream_that_begins_late_tells_from_when_it_is_whole(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(source_partitions=1, start=StartAt.LATEST, max_ahead_ms=60_000)
    await rig.produce(rig.ride(0, 5, "before", timestamp_ms=1_000))
    async with rig.stage():
        await asyncio.to_thread(_until_committed, rig)
        await rig.produce(rig.ride(0, 2_000, "d", timestamp_ms=3_000))
        await rig.caught_up(1)
    found = await rig.everything()
    assert [event.key for event in events(found)] == [b"d"]
    assert {marker.floor_ms for marker in markers(found)} == {63_000}


async def test_a_stream_from_a_trimmed_log_has_a_floor(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=1, max_ahead_ms=60_000)
    await rig.produce(*(rig.ride(0, n, "d", timestamp_ms=1_000 + n) for n in range(10)))
    cut = TopicPartition(rig.source.topic, 0, 4)
    rig.kafka.admin.delete_records([cut])[cut].result(30)
    async with rig.stage():
        found = await rig.caught_up(6)
    assert {marker.floor_ms for marker in markers(found)} == {61_004}


async def test_event_time_stands_for_a_timestamp_that_the_producer_does_not_set(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(source_partitions=1, max_ahead_ms=60_000)
    rides = [rig.ride(0, n, "d") for n in range(10)]
    await _produce_unstamped(rig, [ride.value or b"" for ride in rides])
    cut = TopicPartition(rig.source.topic, 0, 4)
    rig.kafka.admin.delete_records([cut])[cut].result(30)
    async with rig.stage():
        found = await rig.caught_up(6)
    assert {event.origin.timestamp for event in events(found)} == {-1}
    # The highest of the first batch: it may be any of them that told the first marker.
    floors = {marker.floor_ms for marker in markers(found)}
    assert floors <= {None, *range(60_004, 60_010)}
    assert floors != {None}


async def test_a_stream_from_the_beginning_has_none(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=1)
    await rig.produce(rig.ride(0, 5, "d"))
    async with rig.stage():
        found = await rig.caught_up(1)
    assert {marker.floor_ms for marker in markers(found)} == {None}


async def test_lost_offsets_are_refused(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source_partitions=1)
    await rig.produce(rig.ride(0, 5, "d"))
    async with rig.stage():
        await rig.caught_up(1)
    rig.kafka.admin.delete_consumer_groups([rig.group])[rig.group].result(30)
    async with rig.stage():
        failure = await _failure(rig)
    assert isinstance(failure, RefusedError)
    assert "no committed offsets" in str(failure)
    assert len(events(await rig.everything())) == 1


async def test_events_deleted_before_they_were_read_are_refused(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(source_partitions=1)
    await rig.produce(rig.ride(0, 5, "d"))
    async with rig.stage():
        await rig.caught_up(1)
    await rig.produce(*(rig.ride(0, n, "d") for n in range(5)))
    cut = TopicPartition(rig.source.topic, 0, 4)
    rig.kafka.admin.delete_records([cut])[cut].result(30)
    async with rig.stage():
        failure = await _failure(rig)
    assert isinstance(failure, RefusedError)
    assert "at offset 1" in str(failure)
    assert "begins at offset 4" in str(failure)

    # What the message says to do helps.
    reset = ConsumerGroupTopicPartitions(rig.group, [TopicPartition(rig.source.topic, 0, 4)])
    rig.kafka.admin.alter_consumer_group_offsets([reset])[rig.group].result(30)
    async with rig.stage():
        found = await rig.caught_up(3)
    assert _origins(found) == [(0, 0), (0, 4), (0, 5)]
    assert any(marker.floor_ms is not None for marker in markers(found))


async def _produce_unstamped(rig: Rig, values: Sequence[bytes]) -> None:
    """Values in a batch whose records say that they have no timestamp."""
    producer = AIOKafkaProducer(**aiokafka_config(rig.settings))
    await producer.start()
    batch = producer.create_batch()
    for value in values:
        batch.append(key=None, value=value, timestamp=-1)
    await (await producer.send_batch(batch, rig.source.topic, partition=0))
    await producer.stop()


async def _failure(rig: Rig) -> BaseException:
    while not rig.failures:
        await rig.members()
    return rig.failures[0]


def _until_committed(rig: Rig) -> None:
    while not rig.kafka.committed(rig.group, rig.source.topic):
        pass
