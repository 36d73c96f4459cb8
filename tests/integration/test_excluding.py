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
from tests.integration.pipeline_check import TUMBLING
from tests.integration.shell import Shell
from tests.integration.test_switch import Rig, cut_of

if TYPE_CHECKING:
    from pathlib import Path

    from streams.definitions.model import FeatureSet
    from tests.integration.kafka_tools import KafkaTools

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


def cleaned(rig: Rig) -> FeatureSet:
    """The first version without the events, as the reference knows it."""
    first = read_definitions(rig.check.settings).first(rig.feature_set)
    assert first is not None
    return replace(first.feature_set, version="1.0.0~", where=f"NOT ({EXCLUDED})")


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
