"""The worker's part of the demo: from its start until all that may close is closed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from examples.flights.data import PARTITIONS
from examples.flights.demo.commits import Commits, Place
from examples.flights.demo.judge import Where
from examples.flights.demo.worker import Worker
from streams.names import stream_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from examples.flights.demo.judge import Judge
    from examples.flights.demo.report import Screen
    from examples.flights.demo.sent import Sent
    from examples.flights.demo.site import Site
    from streams.definitions.model import FeatureSet, Source

POLL_S = 0.1
DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the worker has to do: the contents of the flights' topic, for these sets."""

    place: Site
    source: Source
    sets: Sequence[FeatureSet]
    contents: Sent

    def keyed(self, one: FeatureSet) -> bool:
        """Whether the flights' topic serves this set as it is."""
        return set(self.source.key) <= set(one.entity)

    def where(self, one: FeatureSet) -> Where:
        """Where the judge of a set has to look."""
        names = self.place.names
        stream = names.stream_topic(self.source.name, one.entity)
        return Where(
            client=self.place.client,
            registry_url=self.place.addresses.registry_url,
            features_topic=names.features_topic(one.name),
            late_topic=names.late_topic,
            stream_topic=self.place.flights_topic if self.keyed(one) else stream,
        )

    @property
    def groups(self) -> list[str]:
        """Consumer groups of the worker: that of the sets, and one for each rekeyed stream."""
        names = self.place.names
        streams = [
            stream_name(self.source.name, it.entity) for it in self.sets if not self.keyed(it)
        ]
        return [names.worker_group, *(names.rekey_group(stream) for stream in streams)]

    @property
    def source_ends(self) -> dict[Place, int]:
        """Offsets that each group has to commit of the flights' topic."""
        return {
            (group, self.place.flights_topic, partition): end
            for group in self.groups
            for partition, end in self.contents.ends.items()
        }

    def ends(self, feature_set: str, last_offsets: Mapping[int, int]) -> dict[Place, int]:
        """Offsets to commit of a set's stream, given its last events."""
        one = next(one for one in self.sets if one.name == feature_set)
        group, topic = self.place.names.worker_group, self.where(one).stream_topic
        return {(group, topic, partition): at + 1 for partition, at in last_offsets.items()}

    def final_ms(self, one: FeatureSet) -> int:
        """What silence closes last: the first T after the last event of the source."""
        return self.contents.highest_event_time_ms // one.every_ms * one.every_ms + one.every_ms

    def closed(self, latest: Mapping[str, Any]) -> bool:
        """Whether by its own words the worker has closed all, in every partition."""
        through = {
            (name, one["partition"]): c
            for one in latest["partitions"]
            for name, c in one["closed_through_ms"].items()
        }
        return all(
            through.get((one.name, partition)) == self.final_ms(one)
            for one in self.sets
            for partition in range(PARTITIONS)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """How it went; `unfinished` says what was not done in time, if anything."""

    commits: Commits
    peak_rss_bytes: int
    unfinished: str | None


def work(task: Task, judges: Mapping[str, Judge], screen: Screen) -> Worked:
    """Run a worker until it has closed all, and stop it.

    Judges read along once all events are in, so that they don't slow the worker down.

    Raises `RewindowError` if the worker ends by itself or does not stop well.
    """
    total = len(task.contents.events) * len(task.sets)
    unfinished = None
    with Commits(task.place.client, task.groups) as commits, Worker(task.place.config) as worker:
        deadline_s = time.monotonic() + DEADLINE_S
        with screen.phase("working", "Features", total=total) as so_far:
            while _events(worker) < total or not commits.reached(task.source_ends):
                if time.monotonic() > deadline_s:
                    unfinished = "the worker did not catch up in time"
                    break
                so_far(_events(worker))
                time.sleep(POLL_S)
        for one in task.sets:
            judges[one.name].begin(task.where(one))
        with screen.phase("closing", "Closing, as the source is silent"):
            while not task.closed(worker.latest or {"partitions": ()}):
                if time.monotonic() > deadline_s:
                    unfinished = unfinished or "the worker did not close all in time"
                    break
                time.sleep(POLL_S)
        worker.stop()
    return Worked(commits=commits, peak_rss_bytes=worker.peak_rss_bytes, unfinished=unfinished)


def _events(worker: Worker) -> int:
    latest = worker.latest
    return 0 if latest is None else latest["events"]
