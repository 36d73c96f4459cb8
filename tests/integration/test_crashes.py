"""Workers that are killed, frozen, cut off and fed with the unexpected, on real servers.

Whatever happens, what has come out in the end is what the reference model asks for.
"""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from streams.devstack import DevStack
from streams.runtime.crashpoints import CRASH_VARIABLE, FAIL_VARIABLE, FREEZE_VARIABLE
from tests.integration import load
from tests.integration.kafka_tools import Incoming, KafkaTools, Outgoing
from tests.integration.load import CLOSING_GAP_MS, START_MS, Load
from tests.integration.pipeline_check import HOPPING, TUMBLING, PipelineCheck, ends
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KILLED = -9
REFUSED = 3
INVALID = 2
DAY_MS = 86_400_000


class Rig:
    """An app, its source topic with what was produced so far, and workers for it."""

    def __init__(self, kafka: KafkaTools, directory: Path, prefix: str) -> None:
        self.kafka = kafka
        self.check = PipelineCheck(kafka, directory, prefix)
        self.directory = directory
        self.produced: list[Outgoing] = []

    def spec(self, instance: str = "one", **limits: float) -> WorkerSpec:
        return WorkerSpec(
            app=self.check.app,
            addresses=self.kafka.addresses,
            state_dir=self.directory / "state",
            instance=instance,
            limits=limits,
        )

    def worker(self, spec: WorkerSpec | None = None, **environ: str) -> WorkerProcess:
        return WorkerProcess(spec or self.spec(), self.directory / "logs", **environ)

    def produce(self, records: Iterable[Outgoing]) -> None:
        found = list(records)
        self.kafka.produce(self.check.topic, found)
        self.produced += found

    def finished(self) -> bool:
        """Whether all that was produced is committed."""
        return self.check.has_reached(ends(self.produced))

    def finish(self, worker: WorkerProcess) -> None:
        """Let a worker do what is left, and stop it cleanly."""
        worker.until(self.finished, "done with all events")
        assert worker.stop() == 0, worker.messages

    def judge(self, *, sent_again: bool = False) -> None:
        """All that must have come out has, once, and nothing else.

        The log says what must. It holds what was produced, each record once; with `sent_again`
        some may be there twice, since a broker that was killed could not tell the producer that it
        had them.
        """
        verdict = self.check.verdict()
        assert verdict.clean, verdict
        if sent_again:
            written = Counter(map(_sent, self.kafka.consume_all(self.check.topic)))
            produced = Counter(map(_sent, self.produced))
            assert written.total() == verdict.events
            assert produced <= written
            assert written.keys() == produced.keys()
        else:
            assert verdict.events == len(self.produced)
        assert verdict.vectors > 0


def _sent(record: Outgoing | Incoming) -> tuple[int | None, bytes | None, bytes | None]:
    return record.partition, record.key, record.value


@pytest.fixture
def rig(kafka: KafkaTools, tmp_path: Path, prefix: str) -> Rig:
    """An app on the shared stack."""
    return Rig(kafka, tmp_path, prefix)


@pytest.fixture(scope="module")
def frail_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """A stack to stop, kill and start again; whoever does leaves it running."""
    with DevStack(tmp_path_factory.mktemp("frail")) as own:
        yield own


@pytest.fixture
def frail_rig(frail_stack: DevStack, tmp_path: Path, prefix: str) -> Rig:
    """An app on the stack that may be taken away."""
    return Rig(KafkaTools(frail_stack.addresses), tmp_path, prefix)


class Trickle(threading.Thread):
    """Produces in small bursts while a test does something else."""

    def __init__(self, rig: Rig, records: Iterable[Outgoing], burst: int = 200) -> None:
        super().__init__(daemon=True)
        self._rig = rig
        self._records = iter(records)
        self._burst = burst
        self._hurry = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            while burst := list(islice(self._records, self._burst)):
                self._rig.produce(burst)
                self._hurry.wait(0.05)
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        self._hurry.set()
        self.join()
        if self._error is not None:
            raise self._error


# -- kill -9 ----------------------------------------------------------------------------------

FLUSHING = {"flush_every_s": 0.0}
FLUSHING_NEVER = {"flush_every_s": 1e9}
LIVES = (
    ("in_batch:5", FLUSHING),
    ("in_transaction:6", FLUSHING),
    ("before_flush:3", FLUSHING),
    # Leaves more than one partition with something to replay to the next.
    ("after_commit:8", FLUSHING_NEVER),
    ("in_recovery:2", {"flush_rows": 1}),
    ("in_flush:3", FLUSHING),
    ("in_claim:2", FLUSHING),
    ("in_closing:3", FLUSHING),
)


def test_killed_at_every_named_point_one_after_the_other(rig: Rig) -> None:
    schema_id = rig.check.prepare()
    events = Load(seed=1, events=16_000, entities=1_200, schema_id=schema_id)
    records = events.records()
    for point, flushing in LIVES:
        rig.produce(islice(records, 1_800))
        # Closings in many transactions.
        spec = rig.spec(pairs_per_step=200, records_per_fetch=300, **flushing)
        with rig.worker(spec, **{CRASH_VARIABLE: point}) as worker:
            worker.until(partial(_has_ended, worker), f"killed at {point}")
            assert worker.process.returncode == KILLED, f"{point}: {worker.messages}"
    rig.produce(records)
    rig.produce(events.closing())
    with rig.worker() as worker:
        rig.finish(worker)
    rig.judge()


@pytest.mark.parametrize("point", ["in_batch:5", "after_commit:4"])
def test_an_error_with_further_batches_queued_leads_to_a_new_claim(rig: Rig, point: str) -> None:
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=2, events=8_000, entities=300, partitions=2, schema_id=schema_id)
    rig.produce(events.records())
    rig.produce(events.closing())
    with rig.worker(rig.spec(records_per_fetch=200), **{FAIL_VARIABLE: point}) as worker:
        worker.until(rig.finished, "done with all events")
        worker.until(lambda: worker.stats.get("claims", 0) > 1, "claimed again")
        assert worker.stop() == 0, worker.messages
    rig.judge()


# -- more than one worker ---------------------------------------------------------------------


def test_a_frozen_worker_that_wakes_up_after_another_took_over_does_no_harm(rig: Rig) -> None:
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=3, events=9_000, entities=300, partitions=2, schema_id=schema_id)
    records = events.records()
    rig.produce(islice(records, 3_000))
    spec = rig.spec(records_per_fetch=300)
    with rig.worker(spec, **{FREEZE_VARIABLE: "in_transaction:5"}) as zombie:
        zombie.until(lambda: _is_stopped(zombie), "frozen")
        rig.produce(islice(records, 3_000))
        with rig.worker(rig.spec("two")) as heir:
            heir.until(rig.finished, "done with what the zombie left")
            zombie.thaw()
            rig.produce(records)
            rig.produce(events.closing())
            heir.until(rig.finished, "done with all events")
            assert zombie.process.poll() is None, zombie.messages
            assert zombie.stop() == 0, zombie.messages
            rig.finish(heir)
    rig.judge()


def test_a_second_worker_joins_under_load_and_leaves_again(rig: Rig) -> None:
    schema_id = rig.check.prepare()
    events = Load(seed=4, events=12_000, entities=500, schema_id=schema_id)
    trickle = Trickle(rig, events.records())
    trickle.start()
    with rig.worker(rig.spec(flush_every_s=0.5)) as first:
        first.until(lambda: first.stats.get("vectors", 0) > 0, "at work")
        with rig.worker(rig.spec("two", flush_every_s=0.5)) as second:
            second.until(lambda: len(second.stats.get("partitions", ())) == 2, "joined")
            second.until(lambda: second.stats["vectors"] > 0, "at work")
            assert second.stop() == 0, second.messages
        first.until(lambda: len(first.stats["partitions"]) == 4, "alone again")
        trickle.finish()
        rig.produce(events.closing())
        rig.finish(first)
    rig.judge()


# -- servers that go away ---------------------------------------------------------------------


def test_a_broker_that_is_stopped_and_killed_under_load(
    frail_rig: Rig, frail_stack: DevStack
) -> None:
    rig = frail_rig
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=5, events=8_000, entities=300, partitions=2, schema_id=schema_id)
    trickle = Trickle(rig, events.records(), burst=100)
    trickle.start()
    with rig.worker(rig.spec(records_per_fetch=500)) as worker:
        worker.until(lambda: worker.stats.get("vectors", 0) > 0, "at work")
        before = worker.stats["transactions"]
        frail_stack.stop_kafka()
        frail_stack.start_kafka()
        worker.until(lambda: worker.stats["transactions"] > before + 10, "at work again")
        frail_stack.kill_kafka()
        frail_stack.start_kafka()
        trickle.finish()
        rig.produce(events.closing())
        rig.finish(worker)
    rig.judge(sent_again=True)


def test_a_worker_ends_though_the_broker_is_away(frail_rig: Rig, frail_stack: DevStack) -> None:
    rig = frail_rig
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=8, events=8_000, entities=300, partitions=2, schema_id=schema_id)
    rig.produce(events.records())
    with rig.worker(rig.spec(records_per_fetch=200)) as first:
        first.until(lambda: first.stats.get("vectors", 0) > 0, "at work")
        frail_stack.kill_kafka()
        try:
            assert first.stop() in (0, 1)
        finally:
            frail_stack.start_kafka()
        assert "Traceback" not in first.messages
    with rig.worker() as second:
        rig.produce(events.closing())
        rig.finish(second)
    rig.judge()


def test_a_registry_that_is_away_stalls_a_partition_and_kills_no_record(
    frail_rig: Rig, frail_stack: DevStack
) -> None:
    rig = frail_rig
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=6, events=2_000, entities=100, partitions=2, schema_id=schema_id)
    newer = {**load.SCHEMA, "fields": [*load.SCHEMA["fields"], WITH_DEFAULT]}
    newer_id = rig.kafka.register(f"{rig.check.topic}-value", newer)
    rig.produce(record for record in events.records() if record.value is not None)
    with rig.worker() as worker:
        worker.until(rig.finished, "done with the events before")
        frail_stack.stop_registry()
        try:
            at = events.end_ms
            event = {"customer": "c0", "amount": 2.5, "quantity": 1, "at": at, "color": "red"}
            value = load.encode(newer_id, event, newer)
            rig.produce([Outgoing(value=value, key=b"c0", partition=0, timestamp_ms=at)])
            rig.produce(events.closing())
            worker.until(
                lambda: rig.check.has_reached({1: ends(rig.produced)[1]}), "going on elsewhere"
            )
            assert not rig.check.has_reached({0: ends(rig.produced)[0] - 1})
        finally:
            frail_stack.start_registry()
        rig.finish(worker)
    rig.judge()


WITH_DEFAULT = {"name": "color", "type": "string", "default": "none"}


# -- large closings ---------------------------------------------------------------------------


def test_a_gap_of_three_days_over_fifty_thousand_entities(rig: Rig) -> None:
    schema_id = rig.check.prepare(partitions=2)
    events = Load(
        seed=7, events=52_000, entities=50_000, partitions=2, step_ms=2, schema_id=schema_id
    )
    everyone = (
        events.event(f"c{n}", n % 2, START_MS + 2 * n, timestamp_ms=START_MS + 2 * n)
        for n in range(events.entities)
    )
    rig.produce(everyone)
    after = START_MS + 3 * DAY_MS
    rig.produce(events.event(f"c{p}", p, after, timestamp_ms=after) for p in (0, 1))
    end = after + CLOSING_GAP_MS
    rig.produce(events.event(f"c{p}", p, end, timestamp_ms=end) for p in (0, 1))
    with rig.worker(rig.spec(pairs_per_step=10_000)) as worker:
        worker.until(rig.finished, "done with all events")
        worker.until(lambda: worker.stats.get("transactions", 0) > 10, "told of the transactions")
        assert _peak_rss_bytes(worker) < 1 << 30
        assert worker.stop() == 0, worker.messages
    rig.judge()


# -- offsets and logs that are not what they were ---------------------------------------------


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_committed_offsets_that_were_deleted_are_refused(rig: Rig, start: str) -> None:
    schema_id = rig.check.prepare(partitions=1, start=start)
    events = Load(seed=8, events=500, entities=20, partitions=1, schema_id=schema_id)
    with rig.worker() as worker:
        worker.until(rig.check.committed, "there")
        rig.produce(events.records())
        rig.finish(worker)
    group = rig.check.settings.names.worker_group
    rig.kafka.admin.delete_consumer_groups([group])[group].result()
    for _ in range(2):  # the refusal itself must not change the verdict
        with rig.worker() as worker:
            assert worker.wait() == REFUSED, worker.messages
            assert "committed offsets were deleted" in _words(worker)
            assert "Traceback" not in worker.messages
    assert not rig.check.committed()


def test_a_log_trimmed_beyond_the_committed_position_is_refused(rig: Rig) -> None:
    schema_id = rig.check.prepare(partitions=1)
    events = Load(seed=9, events=900, entities=20, partitions=1, schema_id=schema_id)
    records = events.records()
    rig.produce(islice(records, 500))
    with rig.worker() as worker:
        rig.finish(worker)
    rig.produce(records)
    _trim(rig, 700)
    with rig.worker() as worker:
        assert worker.wait() == REFUSED, worker.messages
        said = _words(worker)
    assert "500" in said
    assert "700" in said
    assert "Traceback" not in said


def test_a_log_trimmed_under_a_worker_that_lags_is_refused(rig: Rig) -> None:
    schema_id = rig.check.prepare(partitions=1)
    events = Load(seed=10, events=900, entities=20, partitions=1, schema_id=schema_id)
    records = events.records()
    rig.produce(islice(records, 500))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with the first events")
        worker.freeze()
        rig.produce(records)
        _trim(rig, 900)
        rig.produce(events.closing())
        worker.thaw()
        # What had been fetched before may still be applied; it ends all the same.
        assert worker.wait() == REFUSED, worker.messages
        said = _words(worker)
    assert "900" in said
    assert "Traceback" not in said


def test_a_topic_made_again_is_refused(rig: Rig) -> None:
    schema_id = rig.check.prepare(partitions=1)
    events = Load(seed=11, events=300, entities=20, partitions=1, schema_id=schema_id)
    rig.produce(events.records())
    with rig.worker() as worker:
        rig.finish(worker)
    topic = rig.check.topic
    rig.kafka.admin.delete_topics([topic])[topic].result()
    rig.kafka.create_topic(topic, partitions=1)
    with rig.worker() as worker:
        assert worker.wait() == REFUSED, worker.messages
        assert "deleted (maybe with the topic)" in _words(worker)


def test_an_empty_topic_is_waited_on(rig: Rig) -> None:
    rig.check.prepare()
    with rig.worker() as worker:
        worker.until(lambda: len(rig.check.committed()) == 4, "there")
        assert worker.stop() == 0, worker.messages
    verdict = rig.check.verdict()
    assert verdict.clean, verdict
    assert verdict.vectors == 0


# -- state directories ------------------------------------------------------------------------


def test_the_state_of_another_app_is_refused(rig: Rig, prefix: str, tmp_path: Path) -> None:
    schema_id = rig.check.prepare(partitions=1)
    events = Load(seed=12, events=300, entities=20, partitions=1, schema_id=schema_id)
    rig.produce(events.records())
    with rig.worker() as worker:
        rig.finish(worker)
    other = tmp_path / "other"
    other.mkdir()
    # The same source and features under another set's name: the same bundles.
    text = TUMBLING.replace("{prefix}_tumbling", f"{prefix}_other")
    app = f"{prefix}b"
    PipelineCheck(rig.kafka, other, prefix, app=app).publish(text)
    spec = WorkerSpec(
        app=app, addresses=rig.kafka.addresses, state_dir=rig.directory / "state", instance="one"
    )
    with rig.worker(spec) as worker:
        assert worker.wait() == REFUSED, worker.messages
        assert "is the state of app" in _words(worker)


def test_a_state_directory_that_cannot_be_written_is_refused(rig: Rig) -> None:
    rig.check.prepare(HOPPING, partitions=1)
    # Nobody, root included, makes directories there.
    with rig.worker(REWINDOW_STATE_DIR="/proc/rewindow") as worker:
        assert worker.wait() == INVALID, worker.messages
        assert "state directory" in _words(worker)


def _trim(rig: Rig, offset: int) -> None:
    at = TopicPartition(rig.check.topic, 0, offset)
    for future in rig.kafka.admin.delete_records([at]).values():
        future.result()


def _words(worker: WorkerProcess) -> str:
    """Its messages on one line, as the width of a terminal breaks them anywhere."""
    return " ".join(worker.messages.split())


def _has_ended(worker: WorkerProcess) -> bool:
    return worker.process.poll() is not None


def _is_stopped(worker: WorkerProcess) -> bool:
    stat = Path(f"/proc/{worker.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def _peak_rss_bytes(worker: WorkerProcess) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
