"""Versions that are not live: brought back by replay alone, or refused with the reason."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition

from streams.schema.registry import Registry
from tests.integration.load import Load
from tests.integration.pipeline_check import HOPPING, TUMBLING, ends
from tests.integration.shell import Shell
from tests.integration.test_switch import Rig, cut_of
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from pathlib import Path

    from streams.settings import Settings
    from tests.integration.kafka_tools import KafkaTools

V1, V2, V3, V4 = "1.0.0", "1.1.0", "1.2.0", "2.0.0"
OTHER = TUMBLING.replace(V1, V2).replace("features:", 'where: "quantity < 6"\nfeatures:')
"""Shares nothing with the first one."""
STEP_MS = 80


class Cold(Rig):
    """An app of which only the serving version is kept; its user."""

    def __init__(
        self, kafka: KafkaTools, directory: Path, prefix: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        super().__init__(kafka, directory, prefix)
        self.run = Shell(self, capsys).run

    @property
    def settings(self) -> Settings:
        return self.check.settings

    def on(self, disk: str, **environ: str) -> WorkerProcess:
        """A worker whose state is on that disk; under the same name, wherever it runs."""
        spec = WorkerSpec(
            app=self.check.app,
            addresses=self.kafka.addresses,
            state_dir=self.directory / disk,
            limits={"records_per_fetch": 300},
            environ={"REWINDOW_VERSIONS_KEEP": "0", "REWINDOW_SNAPSHOTS_URL": "none"},
        )
        return WorkerProcess(spec, self.directory / "logs", **environ)

    def versions(self, name: str | None = None) -> list[tuple[str, str]]:
        """Each version of a set and its state."""
        ran = self.run("versions", name or self.feature_set, "--json")
        return [(row["version"], row["state"]) for row in ran.json()["versions"]]

    def ready_of(self, version: str) -> int:
        """How many partitions have a version ready."""
        rows = self.run("versions", self.feature_set, "--json").json()["versions"]
        return next(int(row["partitions_ready"]) for row in rows if row["version"] == version)

    def ready(self, name: str) -> int:
        """How many partitions have a set's first version ready."""
        rows = self.run("versions", name, "--json").json()["versions"]
        return int(rows[0]["partitions_ready"])

    def decided(self) -> list[tuple[str, str, int | None]]:
        """Version, state and epoch of each; versions may get ready meanwhile."""
        rows = self.run("versions", self.feature_set, "--json").json()["versions"]
        return [(row["version"], row["state"], row["epoch"]) for row in rows]

    def is_cold(self, version: str) -> bool:
        return (version, "published") in self.versions()

    def set_level(self, level: str) -> None:
        """The compatibility level of the vectors, as an operator sets it."""
        with Registry.from_settings(self.settings.registry_options()) as registry:
            registry.set_compatibility(f"features.{self.feature_set}-value", level)


@pytest.fixture
def rig(kafka: KafkaTools, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> Cold:
    return Cold(kafka, tmp_path, prefix, capsys)


def test_a_cold_version_comes_back_by_replay_alone_whoever_is_killed(rig: Cold) -> None:
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=5, events=9_000, entities=60, schema_id=schema_id, step_ms=STEP_MS)
    records = events.records()
    asked = []
    with rig.on("first") as worker:
        for number in range(3):
            rig.produce(islice(records, 1_000))
            worker.until(rig.finished, f"done with part {number}")
        rig.check.publish(TUMBLING, OTHER)
        asked.append(rig.ask(action="activate", target=V2))
        worker.until(lambda: asked[0]("completed"), "switched to 1.1.0")
        worker.until(lambda: rig.is_cold(V1), "rid of 1.0.0")
        rig.produce(islice(records, 2_000))
        worker.until(rig.finished, "done with what 1.1.0 serves")
        asked.append(rig.ask(target=V1, reason="it leaves too much out"))
        worker.until(lambda: asked[1]("completed"), "back at 1.0.0")
        worker.until(lambda: rig.is_cold(V2), "rid of 1.1.0")
        rig.produce(islice(records, 2_000))
        worker.until(rig.finished, "done with what 1.0.0 serves")
        assert worker.stop() == 0, worker.messages
    plan = (asked[1]("completed") or {})["plan"]
    assert plan["how"] == "cold"
    assert all(one["needs_offset"] > one["log_start"] for one in plan["replays"])
    # All partitions are ready, and the switch is not decided.
    with rig.on("first", REWINDOW_CRASH_AT="before_decision:2") as worker:
        asked.append(rig.ask(action="activate", target=V2))
        assert worker.wait() == -9
    assert asked[2]("preparing")
    assert not asked[2]("completed")
    with rig.on("empty") as worker:
        worker.until(lambda: asked[2]("completed"), "switched to 1.1.0 again")
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    verdict = rig.check.verdict([cut_of(rig, one("completed")) for one in asked])
    assert verdict.clean, verdict
    assert [count > 0 for count in verdict.by_version.values()] == [True, True]


def test_a_cold_version_starts_from_the_checkpoint_that_is_named(rig: Cold) -> None:
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=8, events=8_000, entities=60, schema_id=schema_id, step_ms=STEP_MS)
    records = events.records()
    archive = {"REWINDOW_SNAPSHOTS_URL": (rig.directory / "archive").as_uri()}
    with rig.on("first", **archive) as worker:
        rig.produce(islice(records, 3_000))
        worker.until(rig.finished, "done with the first events")
        taken = rig.ask(action="snapshot", reason="a state that is known to be good")
        worker.until(lambda: taken("completed"), "done with a checkpoint")
        named = (taken("completed") or {})["checkpoint"]
        good = ends(rig.produced)
        rig.produce(islice(records, 1_000))
        worker.until(rig.finished, "done with more events")
        rig.check.publish(TUMBLING, OTHER)
        asked = [rig.ask(action="activate", target=V2)]
        # The switch stores a newer checkpoint of 1.0.0.
        worker.until(lambda: asked[0]("completed"), "switched to 1.1.0")
        worker.until(lambda: rig.is_cold(V1), "rid of 1.0.0")
        rig.produce(islice(records, 1_000))
        worker.until(rig.finished, "done with what 1.1.0 serves")
        unknown = named[:-1] + ("0" if named[-1] != "0" else "1")
        refused = rig.run("rollback", rig.feature_set, "--reason", "x", "--checkpoint", unknown)
        assert refused.exit_code == 3
        assert f"checkpoint {unknown}: it has no whole state of what" in refused.stderr
        before = worker.stats.get("restored", 0)
        arguments = ("--checkpoint", named, "--reason", "it leaves too much out", "--json")
        back = rig.run("rollback", rig.feature_set, *arguments)
        assert back.exit_code == 0, back.stderr
        worker.until(lambda: worker.stats.get("restored") == before + 4, "restored")
        # What is live needs nothing of it.
        rig.check.publish(TUMBLING, OTHER, TUMBLING.replace(V1, V3).replace("5s", "6s"))
        worker.until(lambda: (V3, "live") in rig.versions(), "live at once")
        worker.until(lambda: rig.ready_of(V3) == 4, "ready on every partition")
        asked.append(rig.ask(action="activate", target=V3, checkpoint=named))
        worker.until(lambda: asked[1]("completed"), "switched to 1.2.0")
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    reply = back.json()
    assert (reply["checkpoint"], reply["plan"]["checkpoint"], reply["reasons"]) == (
        named,
        named,
        [],
    )
    assert {it["partition"]: it["needs_offset"] for it in reply["plan"]["replays"]} == good
    hot = asked[1]("completed") or {}
    assert [reason["code"] for reason in hot["reasons"]] == ["nothing_restored"]
    assert hot["checkpoint"] != named
    cuts = [cut_of(rig, one) for one in (asked[0]("completed"), reply, hot)]
    verdict = rig.check.verdict(cuts)
    assert verdict.clean, verdict


def test_what_can_not_be_gone_back_to_is_rejected_and_nothing_changes(rig: Cold) -> None:
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=6, events=1_000, entities=60, schema_id=schema_id, step_ms=STEP_MS)
    with rig.on("first") as worker:
        rig.produce(events.records())
        worker.until(rig.finished, "done with the events")
        rig.check.publish(TUMBLING, OTHER)
        for version in (V2, V1):
            done = rig.run("activate", f"{rig.feature_set}@{version}", "--json")
            assert done.exit_code == 0, done.stderr
        retired = OTHER.replace(V2, V3).replace("< 6", "< 7")
        rig.check.publish(TUMBLING, retired)
        assert rig.run("retire", f"{rig.feature_set}@{V3}").exit_code == 0
        rig.set_level("NONE")
        # With a filter of its own: what it stores must not stand in for what 1.1.0 needs.
        text = OTHER.replace(V2, V4).replace("< 6", "< 8")
        text = text.replace("sum: quantity", "max: customer")
        rig.check.publish(TUMBLING, text)
        rig.set_level("FULL_TRANSITIVE")
        worker.until(lambda: rig.is_cold(V2), "rid of 1.1.0")
        last = TopicPartition(rig.check.topic, 2, ends(rig.produced)[2] - 1)
        rig.kafka.admin.delete_records([last])[last].result(10)
        before = rig.decided()
        for to, code, words in (
            ("9.9.9", "unknown_version", "there is no version 9.9.9"),
            (V3, "retired_version", f"{V3} is retired"),
            (V1, "already_serving", f"{V1} serves already"),
            (V4, "schema_refused", "field 'total' changes from"),
            (V2, "source_gone", f"and the topic begins at {last.offset}"),
        ):
            _is_rejected(rig, code, words, "--to", to)
        _is_rejected(rig, "if_serving_differs", f"{V1} serves", "--if-serving", V2)
        assert rig.decided() == before
        assert worker.stop() == 0, worker.messages


def test_a_set_that_is_published_while_a_worker_runs_is_served(rig: Cold) -> None:
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=7, events=2_000, entities=60, schema_id=schema_id, step_ms=STEP_MS)
    records = events.records()
    name = rig.feature_set.replace("tumbling", "hopping")
    topic = rig.settings.names.features_topic(name)
    with rig.on("first") as worker:
        rig.produce(islice(records, 1_000))
        worker.until(rig.finished, "done with the first events")
        rig.check.publish(TUMBLING, HOPPING)
        worker.until(lambda: (V1, "serving") in rig.versions(name), "decided upon")
        worker.until(lambda: rig.ready(name) == 4, "ready on every partition")
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    vectors = [rig.kafka.decode(it.value or b"") for it in rig.kafka.consume_all(topic)]
    assert {it["rewindow_version"] for it in vectors} == {V1}
    # Windows of three minutes were open when it began, and are whole.
    assert max(it["n_3m"] for it in vectors) > max(it["n_1m"] for it in vectors)


def _is_rejected(rig: Cold, code: str, words: str, *arguments: str) -> None:
    """On the terminal, on the reply topic, and in the audit trail."""
    ran = rig.run("rollback", rig.feature_set, *arguments, "--reason", "a try", "--json")
    assert (ran.exit_code, words in ran.stderr) == (3, True), ran.stderr
    answer = ran.json()
    replies = [
        reply
        for record in rig.kafka.consume_all(rig.settings.names.replies_topic)
        if (reply := rig.kafka.decode(record.value or b""))["request_id"] == answer["request_id"]
    ]
    shown = rig.run("audit", "show", "--json").stdout.splitlines()
    audited = [
        record
        for line in shown
        if (record := json.loads(line))["request_id"] == answer["request_id"]
    ]
    for told in (replies, audited):
        (one,) = told
        assert one.get("state", one.get("event")) == "rejected"
        found: list[dict[str, Any]] = one["reasons"]
        assert code in [reason["code"] for reason in found], found
        assert any(words in reason["message"] for reason in found), found
