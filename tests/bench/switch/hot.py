"""Switches under load: how long they take, and how long the data path pauses meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.clock import SystemClock
from streams.errors import RewindowError
from tests.bench.load import HOURS, PARTITIONS, SENSORS, avro_values, expected, make_load
from tests.bench.switch.app import App
from tests.bench.switch.asking import Asking
from tests.bench.switch.gaps import Span, longest_gap_ms, quantile
from tests.bench.switch.noting import read_notes
from tests.bench.switch.steady import ROUNDS_PER_HOUR, Steady, expected_of
from tests.bench.switch.vectors import check_vectors
from tests.bench.switch.versions import SHARING
from tests.bench.systems import produce

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.switch.asking import Switched
    from tests.bench.systems import Bench
    from tests.integration.worker_process import WorkerProcess

VERSIONS = ("1.0.0", "1.1.0")
RETENTION = "96h"
"""All rows stay on disk."""

CHECKPOINTS_EVERY = "10s"
"""Far more often than anybody would have them, so that some are taken."""

SETTLED = 6 * ROUNDS_PER_HOUR
"""Rounds after which the load is steady."""

APART = ROUNDS_PER_HOUR + 2
"""Rounds between two switches, and a few more each time: each version is to close an hour, and
switches are to meet flushes, which come every few seconds, anywhere."""
MORE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """What was measured over one size of state; times in ms.

    `switch_gap_ms` is the longest time in which a partition did not go on while versions were
    switched, `checkpoint_gap_ms` that while checkpoints were taken, and `quiet_gap_ms` that over
    about as long a time without either.
    """

    switches: Sequence[Switched]
    checkpoints: int
    switch_gap_ms: float
    checkpoint_gap_ms: float
    quiet_gap_ms: float

    def at(self, q: float) -> float:
        """A quantile of the time from a request's send to the last partition's ack."""
        return quantile([one.acked_ms for one in self.switches], q)


def switch_under_load(
    bench: Bench, *, rows: int, switches: int, rounds_per_s: float
) -> tuple[App, Hot]:
    """Fill the state with `rows` rows, then switch back and forth under a steady load.

    The worker has stopped in the end, and its state is on disk. Raises RewindowError if a
    vector is wrong, missing or there twice.
    """
    sensors = max(PARTITIONS, rows // HOURS)
    app = App(bench, f"hot{rows}")
    versions = {version: SHARING[version] for version in VERSIONS}
    app.publish(versions, retention=RETENTION)
    load = make_load(sensors * HOURS, sensors=sensors)
    bench.say(f"hot switch, {sensors * HOURS:,} rows: producing an event for each")
    # The last hour is closed by the load that follows.
    before = load.unclosed
    ends = produce(bench, app.topic, before, avro_values(before, app.schema_id))
    active = min(SENSORS, sensors)
    clock = SystemClock()
    with app.worker(REWINDOW_SNAPSHOTS_EVERY=CHECKPOINTS_EVERY) as worker:
        app.wait_ready(worker, versions)
        app.wait_for(worker, ends)
        bench.say(f"hot switch, {sensors * HOURS:,} rows: {switches} switches under load")
        with Steady(app, sensors=active, rounds_per_s=rounds_per_s) as steady, Asking(app) as ask:
            # What the load before has left is none of it: a large flush, and an `empty` for each
            # sensor that measures no more.
            _wait_rounds(worker, steady, SETTLED)
            app.wait_for(worker, _sum(ends, steady.events(SETTLED)))
            began_s = clock.monotonic_s()
            done = []
            for number in range(switches):
                done.append(ask.activate(VERSIONS[(number + 1) % 2]))
                _wait_rounds(worker, steady, APART + number % MORE)
            quiet_s = clock.monotonic_s()
            worker.pause(quiet_s - began_s)
            ended_s = clock.monotonic_s()
        bench.say(f"hot switch, {sensors * HOURS:,} rows: checking the vectors")
        app.wait_for(worker, _sum(ends, steady.all_events))
        app.stop(worker)
    served = check_vectors(app, expected(load), expected_of(steady.rounds, active))
    if not all(served[version] for version in VERSIONS):
        raise RewindowError(f"not all versions have served: {served}")
    notes = read_notes(app.notes)
    progress = [one for one in notes.progress if one.topic == app.topic]
    switched: list[Span] = [(one.sent_s, one.completed_s) for one in done]
    taken = [one for one in notes.checkpoints if began_s < one[0] and one[1] < ended_s]
    return app, Hot(
        switches=done,
        checkpoints=len(taken),
        switch_gap_ms=longest_gap_ms(progress, switched),
        checkpoint_gap_ms=longest_gap_ms(progress, taken),
        quiet_gap_ms=longest_gap_ms(progress, [(quiet_s, ended_s)], apart_from=taken),
    )


def _sum(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {partition: at + other[partition] for partition, at in one.items()}


def _wait_rounds(worker: WorkerProcess, steady: Steady, more: int) -> None:
    goal = steady.rounds + more
    worker.until(lambda: steady.rounds >= goal, f"{more} rounds later")
