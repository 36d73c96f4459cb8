"""Checkpoints of workers on real servers: disks that are lost, and archives that are damaged.

Whatever happens, what has come out in the end is what the reference model asks for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from streams.runtime.crashpoints import CRASH_VARIABLE
from tests.checkpoint_world import flip, s3_server
from tests.integration.kafka_tools import KafkaTools, Outgoing
from tests.integration.load import Load
from tests.integration.pipeline_check import PipelineCheck, ends
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

KILLED = -9


class Rig:
    """An app whose worker takes a checkpoint each second."""

    def __init__(self, kafka: KafkaTools, directory: Path, prefix: str) -> None:
        self.kafka = kafka
        self.check = PipelineCheck(kafka, directory, prefix)
        self.directory = directory
        self.archive = directory / "archive"
        self.produced: list[Outgoing] = []
        self.extra: tuple[str, ...] = ()
        self.environ = {
            "REWINDOW_SNAPSHOTS_URL": self.archive.as_uri(),
            "REWINDOW_SNAPSHOTS_EVERY": "1s",
        }

    def worker(self, **environ: str) -> WorkerProcess:
        spec = WorkerSpec(
            app=self.check.app,
            addresses=self.kafka.addresses,
            state_dir=self.directory / "state",
            limits={"flush_every_s": 0.2},
            environ=self.environ,
            extra=self.extra,
        )
        return WorkerProcess(spec, self.directory / "logs", **environ)

    def produce(self, records: Iterable[Outgoing]) -> None:
        found = list(records)
        self.kafka.produce(self.check.topic, found)
        self.produced += found

    def finished(self) -> bool:
        """Whether all that was produced is committed."""
        return self.check.has_reached(ends(self.produced))

    def command(self, *words: str) -> Any:
        """What `rewindow snapshots …` says to programs."""
        addresses = self.kafka.addresses
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "rewindow"), "snapshots", *words, "--json"),
                *("--app", self.check.app, *self.extra),
                *("--bootstrap-servers", addresses.bootstrap_servers),
                *("--registry-url", addresses.registry_url),
            ],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def manifests(self) -> dict[str, list[Path]]:
        """Those of each bundle, oldest first."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.archive.glob(f"{self.check.app}/manifests/**/*.json")):
            found.setdefault(str(path.parent), []).append(path)
        return found

    def covered(self, offsets: dict[int, int], at_least: int = 1) -> bool:
        """Whether each bundle has so many checkpoints, the last one at its partition's offset."""
        stored = [
            [json.loads(path.read_bytes()) for path in paths] for paths in self.manifests().values()
        ]
        return len(stored) == 2 * len(offsets) and all(
            len(some) >= at_least and some[-1]["next_offset"] >= offsets[some[-1]["partition"]]
            for some in stored
        )

    def lose_the_disk(self) -> None:
        shutil.rmtree(self.directory / "state")

    def judge(self) -> None:
        """All that must have come out has, once, and nothing else."""
        verdict = self.check.verdict()
        assert verdict.clean, verdict
        assert verdict.events == len(self.produced)
        assert verdict.vectors > 0


def keys(manifest: Path) -> list[str]:
    """Where its files are in the archive."""
    return [file["key"] for file in json.loads(manifest.read_bytes())["files"]]


@pytest.fixture
def rig(kafka: KafkaTools, tmp_path: Path, prefix: str) -> Rig:
    """An app on the shared stack."""
    return Rig(kafka, tmp_path, prefix)


def test_an_empty_disk_starts_from_the_newest_and_one_that_is_damaged_from_the_one_before(
    rig: Rig,
) -> None:
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=21, events=9_000, entities=300, partitions=2, schema_id=schema_id)
    records = events.records()
    for part in range(2):
        rig.produce(islice(records, 1_500))
        with rig.worker() as worker:
            worker.until(rig.finished, "done with what there is")
            at = ends(rig.produced)
            worker.until(partial(rig.covered, at, part + 1), "checkpoints of it are stored")
            rig.produce(islice(records, 500))
            worker.kill()
        rig.lose_the_disk()
    # The newest of each bundle is spoiled: of a file of its own one bit, or its manifest's end.
    newest = []
    for number, (*older, path) in enumerate(rig.manifests().values()):
        newest.append(path)
        if number % 2:
            path.write_bytes(path.read_bytes()[:-20])
        else:
            shared = {key for one in older for key in keys(one)}
            flip(rig.archive / max(key for key in keys(path) if key not in shared))
    rig.produce(records)
    rig.produce(events.closing())
    with rig.worker() as worker:
        worker.until(rig.finished, "done with all events")
        restored = lambda: worker.stats.get("restored") == len(newest)  # noqa: E731
        worker.until(restored, "restored from checkpoints")
        for path in newest:
            assert path.stem in worker.messages
        assert worker.stop() == 0, worker.messages
    rig.judge()


def test_state_in_a_bucket_outlives_a_kill_in_the_middle_of_an_upload_and_a_lost_disk(
    rig: Rig,
) -> None:
    schema_id = rig.check.prepare(partitions=2)
    events = Load(seed=22, events=6_000, entities=200, partitions=2, schema_id=schema_id)
    records = events.records()
    config = rig.directory / "rewindow.toml"
    rig.extra = ("--config", str(config))
    rig.environ = {"REWINDOW_SNAPSHOTS_EVERY": "1s", "BUCKET_SECRET": "secret"}
    with s3_server() as endpoint:
        config.write_text(
            f'[snapshots]\nurl = "s3://bucket/prod"\nendpoint = "{endpoint}"\n'
            'region = "us-east-1"\nallow_http = true\naccess_key_id = "key"\n'
            'secret_access_key = "${BUCKET_SECRET}"\n'
        )
        rig.produce(islice(records, 2_000))
        with rig.worker(**{CRASH_VARIABLE: "archive_manifest:3"}) as worker:
            assert worker.wait() == KILLED, worker.messages
        with rig.worker() as worker:
            worker.until(rig.finished, "done with what there is")
            taken = rig.command("take", "--reason", "before the test goes on")["checkpoint"]
            worker.kill()
        rig.lose_the_disk()
        rig.produce(records)
        rig.produce(events.closing())
        with rig.worker() as worker:
            worker.until(rig.finished, "done with all events")
            worker.until(lambda: worker.stats.get("restored") == 4, "restored from checkpoints")
            assert worker.stats["replayed"] <= 2_000
            assert worker.stop() == 0, worker.messages
        found = {one["checkpoint"]: one for one in rig.command("list")["checkpoints"]}
        assert [pin["reason"] for pin in found[taken]["kept"]] == ["before the test goes on"] * 2
        assert found[taken]["state"] == "whole"
        assert len(found[taken]["bundles"]) == 4
        assert rig.command("verify", taken)["whole"]
    rig.judge()
