"""Bad events are left out of a set after they have been counted, on real servers."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from streams.definitions.store import read_definitions
from tests.integration.load import SCHEMA, Load
from tests.integration.pipeline_check import TUMBLING, ends
from tests.integration.shell import Shell
from tests.integration.test_switch import Rig, cut_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from streams.definitions.model import FeatureSet
    from tests.integration.kafka_tools import KafkaTools, Outgoing

KEPT = TUMBLING.replace("every: 30s", "every: 30s\nretention: 1h")
EXCLUDE = {
    "where": "quantity = 9 OR amount > 400",
    "offsets": [{"partition": 1, "from": 100, "to": 400}, {"partition": 2, "from": 0, "to": 1}],
}
EXCLUDED = (
    "COALESCE(quantity = 9 OR amount > 400, 0) OR (at_partition = 1 AND at_offset BETWEEN 100 "
    "AND 399) OR (at_partition = 2 AND at_offset = 0)"
)
"""The same for the reference."""


@pytest.fixture
def rig(kafka: KafkaTools, tmp_path: Path, prefix: str) -> Rig:
    """An app on the shared stack."""
    return Rig(kafka, tmp_path, prefix)


def cleaned(rig: Rig, excluded: str = EXCLUDED) -> FeatureSet:
    """The first version without the events, as the reference knows it."""
    first = read_definitions(rig.check.settings).first(rig.feature_set)
    assert first is not None
    return replace(first.feature_set, version="1.0.0~", where=f"NOT ({excluded})")


def test_bad_events_are_left_out_and_what_was_said_with_them_is_corrected(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    schema_id = rig.check.prepare(KEPT)
    events = Load(seed=5, events=6_000, entities=200, schema_id=schema_id, step_ms=40)
    records = events.records()
    rig.produce(islice(records, 4_000))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with what has bad events in it")
        left_out = rig.ask(exclude=EXCLUDE, reason="a broken till")
        worker.until(lambda: left_out("completed"), "done with leaving them out")
        rig.produce(islice(records, 1_000))
        worker.until(rig.finished, "done with more events")
        worker.kill()
    shutil.rmtree(rig.directory / "state")
    with rig.worker() as worker:
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    cut = replace(cut_of(rig, left_out("completed")), version="1.0.0~", repair=True)
    verdict = rig.check.verdict([cut], [cleaned(rig)])
    assert verdict.clean, verdict
    topic = rig.check.settings.names.features_topic(rig.feature_set)
    said = [rig.kafka.decode(it.value) for it in rig.kafka.consume_all(topic) if it.value]
    kinds = Counter(it["rewindow_kind"] for it in said)
    reply = left_out("completed")
    assert reply is not None
    assert kinds["correction"] == reply["corrections"] > 0
    assert {it["rewindow_version"] for it in said} == {"1.0.0"}

    fields = [one for one in SCHEMA["fields"] if one["name"] != "quantity"]
    rig.kafka.register(f"{rig.check.topic}-value", {**SCHEMA, "fields": fields})
    later = rig.directory / "later.yaml"
    text = KEPT.replace("1.0.0", "2.0.0").replace("window: 30s", "window: 1m")
    later.write_text(text.format(prefix=rig.prefix))
    refused = Shell(rig.check, capsys).run("publish", str(later))
    assert refused.exit_code == 3
    assert "leaves out (quantity = 9 OR amount > 400)" in refused.stderr


@pytest.mark.parametrize("condition", [True, False])
def test_what_came_before_the_first_bad_event_comes_from_a_checkpoint(
    rig: Rig, condition: bool
) -> None:
    schema_id = rig.check.prepare(KEPT)
    events = Load(seed=6, events=6_000, entities=200, schema_id=schema_id, step_ms=40)
    records = events.records()
    rig.produce(islice(records, 3_000))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with good events")
        taken = rig.ask(action="snapshot", reason="before the till breaks")
        worker.until(lambda: taken("completed"), "done with a checkpoint")
        before = ends(rig.produced)
        rig.produce(islice(records, 500))
        bad = {partition: ends(rig.produced)[partition] for partition in before}
        rig.produce(broken(events, islice(records, 200)))
        worker.until(rig.finished, "done with what has bad events in it")
        spoiled = ends(rig.produced)
        ranges = [{"partition": p, "from": bad[p], "to": spoiled[p]} for p in bad]
        exclude = {"where": "quantity = 77"} if condition else {"offsets": ranges}
        left_out = rig.ask(exclude=exclude, reason="a broken till")
        worker.until(lambda: left_out("completed"), "done with leaving them out")
        worker.until(lambda: worker.stats.get("restored") == 4, "begun with the checkpoint")
        replayed = worker.stats["replayed"]
        worker.kill()
    assert replayed <= sum(spoiled.values()) - sum(before.values())
    with rig.worker() as worker:
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    found = " OR ".join(
        f"(at_partition = {p} AND at_offset BETWEEN {bad[p]} AND {spoiled[p] - 1})" for p in bad
    )
    cut = replace(cut_of(rig, left_out("completed")), version="1.0.0~", repair=True)
    excluded = "COALESCE(quantity = 77, 0)" if condition else found
    verdict = rig.check.verdict([cut], [cleaned(rig, excluded)])
    assert verdict.clean, verdict
    reply = left_out("completed")
    assert reply is not None
    assert reply["corrections"] > 0


def broken(events: Load, records: Iterable[Outgoing]) -> Iterator[Outgoing]:
    """An event that must not be there after each of these."""
    for record in records:
        yield record
        customer = (record.key or b"").decode()
        at = record.timestamp_ms
        assert at is not None
        yield events.event(customer, record.partition or 0, at, timestamp_ms=at, quantity=77)
