"""An app of the benchmark's own: its topic, its versions, its worker, and what it decided."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.config import load_settings
from streams.control.codec import decode_control
from streams.control.set_record import SetRecord
from streams.errors import RewindowError
from tests.bench.load import PARTITIONS, SCHEMA
from tests.bench.switch.noting import Recovered, read_notes
from tests.bench.switch.versions import Features, write_source, write_versions
from tests.bench.systems import Bench, committed, project, rewindow
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streams.names import Names

INSTANCE = "one"
SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedSpec(WorkerSpec):
    """A worker that notes when it commits, see noting.py."""

    notes: Path

    def command(self) -> list[str]:
        """As of the command line, with a file for notes."""
        noting = [sys.executable, "-m", "tests.bench.switch.noting", str(self.notes)]
        return [*noting, *WorkerSpec.command(self)[1:]]


class App:
    """One app over a topic of its own, with one set."""

    def __init__(self, bench: Bench, what: str) -> None:
        self.bench = bench
        self.name = f"{bench.prefix}{what}"
        self.topic = f"{self.name}_measurements"
        self.feature_set = f"{self.name}_hourly"
        self.directory = bench.directory / what
        self.directory.mkdir()
        self.state_dir = self.directory / "state"
        self.notes = self.directory / "notes"
        self.config = project(bench, self.name, self.directory)
        bench.kafka.create_topic(self.topic, partitions=PARTITIONS)
        self.schema_id = bench.kafka.register(f"{self.topic}-value", SCHEMA)

    @property
    def names(self) -> Names:
        return load_settings(self.config).names

    @property
    def features_topic(self) -> str:
        return self.names.features_topic(self.feature_set)

    def publish(self, versions: Mapping[str, Features], *, retention: str = "24h") -> None:
        """Publish versions of the set; the first of them serves."""
        files = [
            write_source(self.directory, self.topic),
            *write_versions(self.directory, self.feature_set, versions, retention=retention),
        ]
        rewindow(["publish", "--config", str(self.config), *map(str, files)])

    def worker(self, **environ: str) -> WorkerProcess:
        """A worker that notes when it commits; to be used as a context manager."""
        spec = NotedSpec(
            app=self.name,
            addresses=self.bench.kafka.addresses,
            state_dir=self.state_dir,
            instance=INSTANCE,
            notes=self.notes,
        )
        self.notes.unlink(missing_ok=True)
        # The command line sees to it before polars is imported, which noting.py does at once.
        environ = {"POLARS_MAX_THREADS": "1", **environ}
        return WorkerProcess(spec, self.directory / "logs", **environ)

    def recoveries(self, worker: WorkerProcess) -> list[Recovered]:
        """How all partitions came to their positions; waits until they have."""
        worker.until(
            lambda: len(read_notes(self.notes).recoveries) >= PARTITIONS,
            "where it was",
            seconds=SECONDS,
        )
        return read_notes(self.notes).recoveries

    def wait_for(self, worker: WorkerProcess, ends: Mapping[int, int]) -> None:
        """Until all these offsets are committed."""
        asked = committed(self.bench.kafka)

        def there() -> bool:
            found = asked(self.name, self.topic)
            return all(found.get(partition, 0) >= end for partition, end in ends.items())

        worker.until(there, f"at the ends {ends}", seconds=SECONDS)

    def wait_ready(self, worker: WorkerProcess, versions: Mapping[str, Features]) -> None:
        """Until all these versions are live and ready on every partition."""
        worker.until(lambda: self.ready() >= set(versions), "ready", seconds=SECONDS)

    def stop(self, worker: WorkerProcess) -> None:
        """Stop the worker in good order. Raises RewindowError if it does not."""
        if worker.stop() != 0:
            raise RewindowError(f"the worker did not stop well:\n{worker.messages}")

    def ready(self) -> set[str]:
        """The versions that are live and ready by the newest decision."""
        found: set[str] = set()
        for record in self.bench.kafka.consume_all(self.names.control_topic):
            assert record.value is not None
            body = decode_control(record.value).body
            if isinstance(body, SetRecord):
                found = {one.version for one in body.live if one.ready}
        return found
