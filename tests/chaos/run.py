"""Kills a worker with -9 under load, restarts it, and judges all that came out.

    python -m tests.chaos.run --kills 20 --seed 7 --json
    python -m tests.chaos.run --rollbacks 30 --kills 15 --seed 11 --json

The seed gives the load, the plan of kills and the requests. With `--rollbacks` so many requests
are sent meanwhile, to activate versions and to take them back. Exits with 0 if nothing is lost,
duplicated or wrong, every place in the plan had its kill, and the audit chain is whole; with 1
otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from streams.clock import SystemClock
from streams.control.audit import verify
from streams.control.codec import decode_audit, decode_control
from streams.devstack import Addresses, DevStack
from streams.runtime.crashpoints import CRASH_VARIABLE
from tests.chaos.operating import FINAL, Operating
from tests.chaos.plan import PLACES, RANDOM, Kill, plan
from tests.integration.kafka_tools import KafkaTools
from tests.integration.load import Load
from tests.integration.pipeline_check import HOPPING, TUMBLING, PipelineCheck, Verdict, ends
from tests.integration.worker_process import WorkerProcess, WorkerSpec
from tests.servers import INTERRUPTED_EXIT_CODE, end_in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.kafka_tools import Outgoing

EVENTS_PER_KILL = 12_000
LAST_EVENTS = 30_000
BURST = 400
BURST_EVERY_S = 0.15
PLACE_PATIENCE_S = 30.0
RECOVERY_POLL_S = 0.1

ACCEPTED = 0.8
"""This share of the requests must be accepted, or the run shows little."""

REQUESTS_UNTIL = 0.5
"""The last request is sent when this share of the events is done: about when the last kill is."""

LATER = {
    "1.1.0": TUMBLING.replace("1.0.0", "1.1.0") + '  n_90s: {{count: "*", window: 90s}}\n',
    "2.0.0": TUMBLING.replace("1.0.0", "2.0.0")
    .replace("every: 30s", "every: 1m")
    .replace("30s}}", "1m}}"),
}
"""Later versions of the tumbling set: a longer window, and a coarser interval."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What is printed."""

    seed: int
    kills: int = 0
    kills_by_place: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    events: int = 0
    vectors: int = 0
    late: int = 0
    dead_letters: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    recovery_median_s: float | None = None
    recovery_max_s: float | None = None
    seconds: float = 0.0
    requests: int = 0
    accepted: int = 0
    open_windows_at_cut: int = 0
    vectors_by_version: dict[str, int] = field(default_factory=dict)
    audit_records: int = 0
    problems: list[str] = field(default_factory=list)

    def take(self, verdict: Verdict) -> None:
        self.events, self.vectors = verdict.events, verdict.vectors
        self.late, self.dead_letters = verdict.late, verdict.dead_letters
        self.lost, self.duplicated = verdict.lost, verdict.duplicated
        self.wrong = verdict.wrong
        self.open_windows_at_cut = verdict.open_windows_at_cut
        self.vectors_by_version = dict(sorted(verdict.by_version.items()))
        self.problems += verdict.first


class Producing(threading.Thread):
    """Produces a load in small bursts, until told to hurry."""

    def __init__(self, kafka: KafkaTools, topic: str, load: Load) -> None:
        super().__init__(name="producing", daemon=True)
        self._kafka = kafka
        self._topic = topic
        self._load = load
        self._hurry = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            records = self._load.records()
            while burst := list(islice(records, 50_000 if self._hurry.is_set() else BURST)):
                self._kafka.produce(self._topic, burst)
                self._hurry.wait(BURST_EVERY_S)
            self._kafka.produce(self._topic, self._load.closing())
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Produce the rest at once, and wait for it."""
        self._hurry.set()
        self.join()
        if self.error is not None:
            raise self.error


class Chaos:
    """One run against one Kafka."""

    def __init__(
        self, addresses: Addresses, directory: Path, kills: int, seed: int, rollbacks: int
    ) -> None:
        self._clock = SystemClock()
        self._directory = directory
        self._plan = plan(kills, seed)
        self._seed = seed
        self._kafka = KafkaTools(addresses)
        # Not of the seed: several runs share a Kafka.
        self._check = PipelineCheck(self._kafka, directory, f"chaos{os.urandom(4).hex()}")
        self._spec = WorkerSpec(
            app=self._check.app, addresses=addresses, state_dir=directory / "state"
        )
        self._recoveries_s: list[float] = []
        self._rollbacks = rollbacks
        self.report = Report(seed=seed)

    def run(self) -> Report:
        started_s = self._clock.monotonic_s()
        schema_id = self._check.prepare()
        events = EVENTS_PER_KILL * len(self._plan) + LAST_EVENTS
        operating = self._operate(events)
        load = Load(seed=self._seed, events=events, schema_id=schema_id)
        producing = Producing(self._kafka, self._check.topic, load)
        producing.start()
        done: Counter[str] = Counter()
        for number, kill in enumerate(self._plan, start=1):
            place = self._life(kill)
            done[place] += 1
            say(f"{number}/{len(self._plan)}: killed, {place.replace('_', ' ')}")
        self._last_life(producing, load, operating)
        say("comparing with the reference model")
        report = self.report
        report.take(self._check.verdict(operating.cuts if operating else ()))
        if operating is not None:
            self._judge_control(operating)
        report.kills = done.total()
        wanted = {kill.place for kill in self._plan} | set(PLACES) | {RANDOM}
        report.kills_by_place = {place: done[place] for place in sorted(wanted)}
        if self._recoveries_s:
            report.recovery_median_s = round(statistics.median(self._recoveries_s), 2)
            report.recovery_max_s = round(max(self._recoveries_s), 2)
        report.seconds = round(self._clock.monotonic_s() - started_s, 1)
        return report

    def _operate(self, events: int) -> Operating | None:
        """Publish later versions of the tumbling set, and begin to ask for them.

        The requests are spread over the `events`, so that each version closes windows.
        """
        if not self._rollbacks:
            return None
        self._check.publish(TUMBLING, HOPPING, *LATER.values())
        names = self._check.settings.names
        operating = Operating(
            self._kafka,
            requests_topic=names.rollback_topic,
            replies_topic=names.replies_topic,
            feature_set=f"{self._check.app}_tumbling",
            versions=("1.0.0", *LATER),
            requests=self._rollbacks,
            due=lambda number: (
                sum(self._check.committed().values()) * self._rollbacks
                >= REQUESTS_UNTIL * number * events
            ),
            seed=self._seed,
        )
        operating.start()
        return operating

    def _judge_control(self, operating: Operating) -> None:
        """Each request has one outcome, and the audit chain is whole."""
        report = self.report
        report.requests, report.accepted = len(operating.asked), operating.accepted
        for asked in operating.asked.values():
            outcomes = {state for state in asked.states if state in FINAL}
            if len(outcomes) != 1:
                report.problems.append(f"{asked.request}: {asked.states}")
        names = self._check.settings.names
        control = [
            decode_control(record.value)
            for record in self._kafka.consume_all(names.control_topic)
            if record.value is not None
        ]
        audit = [
            decode_audit(record.value)
            for record in self._kafka.consume_all(names.audit_topic)
            if record.value is not None
        ]
        report.audit_records = len(audit)
        findings = verify(audit, [record.stamp.audit for record in control])
        report.problems += [f"audit: {finding}" for finding in findings]

    def _life(self, kill: Kill) -> str:
        """One worker from its start to its kill; where it was killed."""
        asked = {} if kill.place == RANDOM else {CRASH_VARIABLE: f"{kill.place}:{kill.count}"}
        with WorkerProcess(self._spec, self._directory / "logs", **asked) as worker:
            self.report.restarts += 1
            seconds = PLACE_PATIENCE_S if asked else kill.after_s
            self._watch_recovery(worker, seconds)
            rest_s = worker.started_s + seconds - self._clock.monotonic_s()
            while rest_s > 0 and worker.process.poll() is None:
                worker.pause(rest_s)
                rest_s = worker.started_s + seconds - self._clock.monotonic_s()
            ended = worker.process.poll()
            if ended is None:
                worker.kill()
                return RANDOM
            assert ended == -9, f"the worker ended with {ended}:\n{worker.messages}"
        return kill.place

    def _watch_recovery(self, worker: WorkerProcess, seconds: float) -> None:
        """Note how long after its start a worker committed, if it came to that."""
        before = self._check.committed()
        deadline_s = worker.started_s + seconds
        while worker.process.poll() is None and self._clock.monotonic_s() < deadline_s:
            if self._check.committed() != before:
                self._recoveries_s.append(self._clock.monotonic_s() - worker.started_s)
                return
            worker.pause(RECOVERY_POLL_S)

    def _last_life(self, producing: Producing, load: Load, operating: Operating | None) -> None:
        """Let a worker do all that is left, and stop it cleanly."""
        goal = ends(_everything(load))
        with WorkerProcess(self._spec, self._directory / "logs") as worker:
            self.report.restarts += 1
            self._watch_recovery(worker, PLACE_PATIENCE_S)
            if operating is not None:
                worker.until(
                    lambda: not operating.is_alive(), "done with all requests", seconds=600
                )
                if operating.error is not None:
                    raise operating.error
            producing.finish()
            worker.until(lambda: self._check.has_reached(goal), "done with all events")
            code = worker.stop()
            if code != 0:
                self.report.problems.append(f"a clean stop ended with {code}: {worker.messages}")


def _everything(load: Load) -> Iterator[Outgoing]:
    yield from load.records()
    yield from load.closing()


def failed(report: Report) -> bool:
    """Whether the run shows anything that must not be."""
    unseen = len(PLACES) <= report.kills and any(
        report.kills_by_place.get(place, 0) == 0 for place in PLACES
    )
    unserved = report.requests > 0 and (
        report.accepted < ACCEPTED * report.requests
        or not report.open_windows_at_cut
        or not all(report.vectors_by_version.values())
    )
    wrong = report.lost or report.duplicated or report.wrong
    return bool(wrong or report.problems or unseen or unserved)


@contextlib.contextmanager
def servers(bootstrap_servers: str | None, registry_url: str | None) -> Iterator[Addresses]:
    """The servers that were given, or a stack of our own for as long as it is needed."""
    if bootstrap_servers and registry_url:
        yield Addresses(bootstrap_servers=bootstrap_servers, registry_url=registry_url)
        return
    say("starting Kafka and a schema registry")
    with DevStack.temporary() as stack:
        yield stack.addresses


def say(text: str) -> None:
    """Tell people, apart from the report."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a worker under load, and compare.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rollbacks", type=int, default=0, help="requests sent meanwhile")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--bootstrap-servers", default=os.environ.get("REWINDOW_BOOTSTRAP_SERVERS"))
    parser.add_argument("--registry-url", default=os.environ.get("REWINDOW_REGISTRY_URL"))
    given = parser.parse_args()
    if bool(given.bootstrap_servers) != bool(given.registry_url):
        parser.error("give both --bootstrap-servers and --registry-url, or none")
    with (
        servers(given.bootstrap_servers, given.registry_url) as addresses,
        tempfile.TemporaryDirectory(prefix="rewindow-chaos-") as directory,
    ):
        report = Chaos(addresses, Path(directory), given.kills, given.seed, given.rollbacks).run()
    shown = asdict(report)
    if given.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            print(f"{name.replace('_', ' ')}: {value}")
    return 1 if failed(report) else 0


if __name__ == "__main__":
    end_in_order()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted: all is stopped")
        sys.exit(INTERRUPTED_EXIT_CODE)
