"""Versions that take over and are taken back while windows are half full, on real servers."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.kafka_tools import KafkaTools, Outgoing
from tests.integration.load import Load
from tests.integration.pipeline_check import TUMBLING, Cut, PipelineCheck, ends
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

NEXT = TUMBLING.replace("1.0.0", "1.1.0")
VERSIONS = {
    "a longer window, no lateness": NEXT.replace("allowed_lateness: 5s", "allowed_lateness: 0s")
    + '  n_90s: {{count: "*", window: 90s}}\n',
    "a coarser interval, more lateness": NEXT.replace("every: 30s", "every: 1m")
    .replace("30s}}", "1m}}")
    .replace("allowed_lateness: 5s", "allowed_lateness: 10s"),
    "a finer interval, another filter": NEXT.replace("every: 30s", "every: 10s").replace(
        "features:", 'where: "quantity > 4"\nfeatures:'
    ),
}


class Rig:
    """An app with one set, its source topic, and a plain Kafka client that sends requests."""

    def __init__(self, kafka: KafkaTools, directory: Path, prefix: str) -> None:
        self.kafka = kafka
        self.check = PipelineCheck(kafka, directory, prefix)
        self.directory = directory
        self.prefix = prefix
        self.feature_set = f"{prefix}_tumbling"
        self.produced: list[Outgoing] = []

    def worker(self, instance: str = "one", **environ: str) -> WorkerProcess:
        spec = WorkerSpec(
            app=self.check.app,
            addresses=self.kafka.addresses,
            state_dir=self.directory / "state",
            instance=instance,
            limits={"records_per_fetch": 300},
        )
        return WorkerProcess(spec, self.directory / "logs", **environ)

    def produce(self, records: Iterable[Outgoing]) -> None:
        found = list(records)
        self.kafka.produce(self.check.topic, found)
        self.produced += found

    def finished(self) -> bool:
        return self.check.has_reached(ends(self.produced))

    def ask(self, **fields: Any) -> Callable[[str], dict[str, Any] | None]:
        """Send a request; what is returned finds its reply in a given state."""
        request_id = uuid.uuid4().hex
        value = json.dumps({"request_id": request_id, "feature_set": self.feature_set, **fields})
        topic = self.check.settings.names.rollback_topic
        self.kafka.produce(topic, [Outgoing(value=value.encode(), partition=0)])

        def reply(state: str) -> dict[str, Any] | None:
            """Raises AssertionError once the request has ended in another state."""
            for record in self.kafka.consume_all(self.check.settings.names.replies_topic):
                assert record.value is not None
                said: dict[str, Any] = self.kafka.decode(record.value)
                if said["request_id"] != request_id:
                    continue
                if said["state"] == state:
                    return said
                assert said["state"] not in ("rejected", "failed"), said
            return None

        return reply


@pytest.fixture
def rig(kafka: KafkaTools, tmp_path: Path, prefix: str) -> Rig:
    """An app on the shared stack."""
    return Rig(kafka, tmp_path, prefix)


def cut_of(rig: Rig, reply: dict[str, Any] | None, *, repair: bool = False) -> Cut:
    """Where a switch has taken place, as its reply says."""
    assert reply is not None
    offsets = {int(partition): offset for partition, offset in reply["cut"].items()}
    return Cut(feature_set=rig.feature_set, version=reply["target"], offsets=offsets, repair=repair)


@pytest.mark.parametrize("later", VERSIONS)
def test_a_version_takes_over_and_is_taken_back_under_load(rig: Rig, later: str) -> None:
    repair = "filter" in later
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=21, events=12_000, entities=300, schema_id=schema_id)
    records = events.records()
    rig.produce(islice(records, 3_000))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with the first events")
        rig.check.publish(TUMBLING, VERSIONS[later])
        activated = rig.ask(action="activate", target="1.1.0")
        rig.produce(islice(records, 3_000))
        worker.until(lambda: activated("completed"), "switched to 1.1.0")
        rig.produce(islice(records, 3_000))
        worker.until(rig.finished, "done with what 1.1.0 serves")
        withdrawn = rig.ask(reason="it counts too much", repair=repair)
        worker.until(lambda: withdrawn("completed"), "back at 1.0.0")
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    back = withdrawn("completed")
    cuts = [cut_of(rig, activated("completed")), cut_of(rig, back, repair=repair)]
    for reply in (activated("completed"), back):
        assert reply is not None
        assert reply["reasons"] == []
        stored = list((rig.directory / "state" / "snapshots").rglob(f"{reply['checkpoint']}.json"))
        assert {json.loads(path.read_bytes())["partition"] for path in stored} == {0, 1, 2, 3}
    verdict = rig.check.verdict(cuts)
    assert verdict.clean, verdict
    topic = rig.check.settings.names.features_topic(rig.feature_set)
    served = Counter(it.headers["rewindow.version"] for it in rig.kafka.consume_all(topic))
    assert min(served[b"1.0.0"], served[b"1.1.0"]) > 0
    kinds = Counter(it.headers["rewindow.kind"] for it in rig.kafka.consume_all(topic))
    assert back is not None
    assert kinds[b"correction"] == (back["corrections"] or 0)
    assert bool(kinds[b"correction"]) == repair
