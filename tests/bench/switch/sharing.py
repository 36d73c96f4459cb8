"""One live version beside three: how much of the throughput is left, and how fast a replay is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.load import avro_values, make_load
from tests.bench.measure import Work, measure
from tests.bench.switch.app import INSTANCE, App
from tests.bench.switch.versions import DISJOINT, FIRST, SHARING
from tests.bench.systems import check_hourly, committed, produce

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.switch.versions import Features
    from tests.bench.systems import Bench

CASES: Mapping[str, Mapping[str, Features]] = {
    "one": {"1.0.0": FIRST},
    "shared": SHARING,
    "disjoint": DISJOINT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Events a second by case, and of a replay of the first case's topic into nothing."""

    events_per_s: Mapping[str, float]
    replay_per_s: float

    def ratio(self, case: str) -> float:
        """A case beside one version alone."""
        return self.events_per_s[case] / self.events_per_s["one"]

    @property
    def replay_ratio(self) -> float:
        """The replay beside the live run of one version."""
        return self.replay_per_s / self.events_per_s["one"]


def measure_throughput(bench: Bench, events: int) -> Throughput:
    """Run each case over the same events, and check its output. Raises RewindowError if wrong."""
    found = {}
    replay_per_s = 0.0
    for case, versions in CASES.items():
        app, found[case] = _run(bench, case, versions, events)
        if case == "one":
            bench.say("throughput: replaying the same events")
            replay_per_s = _replay(app, events)
    return Throughput(events_per_s=found, replay_per_s=replay_per_s)


def _run(
    bench: Bench, case: str, versions: Mapping[str, Features], events: int
) -> tuple[App, float]:
    app = App(bench, case)
    app.publish(versions)
    if len(versions) > 1:
        # All are live before the first event: what is measured is following, not warming.
        with app.worker() as worker:
            app.wait_ready(worker, versions)
            app.stop(worker)
    load = make_load(events)
    bench.say(f"throughput, {case}: producing {load.events:,} events")
    ends = produce(bench, app.topic, load, avro_values(load, app.schema_id))
    bench.say(f"throughput, {case}: running")
    measured = measure(
        Work(
            name=case,
            module="streams.cli.main",
            arguments=["worker", "--config", str(app.config), "--instance", INSTANCE],
            topic=app.topic,
            group=app.name,
            ends=ends,
            seconds=bench.seconds,
        ),
        committed(bench.kafka),
        app.directory,
    )
    check_hourly(bench.kafka, app.features_topic, load)
    return app, load.events / measured.seconds


def _replay(app: App, events: int) -> float:
    """Events a second of bringing back state from the log; its checkpoints are lost, too."""
    shutil.rmtree(app.state_dir)
    with app.worker() as worker:
        recoveries = app.recoveries(worker)
        app.stop(worker)
    begin_s = min(one.begin_s for one in recoveries)
    return events / (max(one.end_s for one in recoveries) - begin_s)
