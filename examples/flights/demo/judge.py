"""The judge of one feature set: a process that works out what must come out, then compares.

For a keyed set it knows that before Kafka is even up. For a rekeyed set it reads the rekeyed
stream, whose order is the worker's to choose, and checks that the stream holds each flight once.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from examples.flights.consume import read_vectors
from examples.flights.demo.expectation import Expectation, RekeyedStream, expect_keyed
from examples.flights.demo.sent import Differences, Sent, check_late, sent_without_kafka
from examples.flights.demo.topics import EventReader, read_topic
from streams.definitions.load import load_files
from streams.errors import RewindowError
from tests.expected import EPOCH
from tests.reference import Row, compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from multiprocessing.connection import Connection
    from pathlib import Path

    from streams.definitions.model import FeatureSet

SAMPLES = 3
OWN_FIELDS = ("as_of", "rewindow_version", "rewindow_kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is to be judged. `definitions` are the files of the source and of the set."""

    definitions: tuple[Path, ...]
    feature_set: str
    source_partitions: int
    limit: int | None
    bad_copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where to look. A keyed set's `stream_topic` is the flights' topic."""

    client: Mapping[str, str]
    registry_url: str
    features_topic: str
    late_topic: str
    stream_topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found; `last_offsets` are those of the last event of each stream partition."""

    feature_set: str
    vectors: int
    late: int
    differences: Differences
    samples: list[Mapping[str, object]]
    last_offsets: Mapping[int, int] = field(default_factory=dict)


class Judge:
    """The process, seen from the one that started it."""

    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, case), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, where: Where) -> None:
        """Let it read the stream as far as it is written."""
        self._tell(where)

    def finish(self) -> None:
        """Tell it that all is written."""
        self._tell(None)

    def verdict(self) -> Verdict:
        """What it found; waits for it. Raises `RewindowError` if it failed."""
        try:
            found = self._connection.recv()
        except EOFError:
            raise RewindowError("a judge ended without a verdict: see its messages") from None
        if isinstance(found, str):
            raise RewindowError(found)
        return cast("Verdict", found)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _tell(self, what: Where | None) -> None:
        try:
            self._connection.send(what)
        except BrokenPipeError:
            self.verdict()


def _main(connection: Connection, case: Case) -> None:
    # Ctrl-C in a terminal reaches all processes: it is for the one that started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Millions of values are kept until the end, and none refers to itself.
    gc.disable()
    try:
        connection.send(_judge(connection, case))
    except (RewindowError, OSError, ValueError) as error:
        connection.send(f"judging {case.feature_set}: {error}")


def _judge(connection: Connection, case: Case) -> Verdict:
    loaded = load_files(case.definitions)
    definition = next(one for one in loaded.feature_sets if one.name == case.feature_set)
    source = loaded.sources[0]
    contents = sent_without_kafka(case.limit, case.bad_copies)
    keyed = set(source.key) <= set(definition.entity)
    if keyed:
        expectation = expect_keyed(definition, source, contents)
        where = connection.recv()
        connection.recv()
    else:
        where = connection.recv()
        stream = RekeyedStream(
            definition,
            source,
            contents,
            where.stream_topic,
            client=where.client,
            registry_url=where.registry_url,
            source_partitions=case.source_partitions,
        )
        stream.follow()
        connection.recv()
        stream.follow()
        expectation = stream.expectation()
    return _compare(definition, contents, expectation, where)


def _compare(
    definition: FeatureSet, contents: Sent, expectation: Expectation, where: Where
) -> Verdict:
    differences = expectation.differences
    rows = _Rows(definition, len(expectation.vectors))
    for mismatch in compare(expectation.vectors, rows.read(where)):
        name, entity, as_of_ms = mismatch.key
        differences.add(f"{mismatch.what}: {name} {entity} as of {as_of_ms}: {mismatch.detail}")
    differences.add_all(rows.differences)
    late, wrong = check_late(
        definition.name,
        read_topic(where.client, where.late_topic),
        expectation.late,
        contents.events,
        EventReader(where.registry_url),
    )
    differences.add_all(wrong)
    return Verdict(
        feature_set=definition.name,
        vectors=rows.number,
        late=late,
        differences=differences,
        samples=rows.samples,
        last_offsets=expectation.last_offsets,
    )


class _Rows:
    """The feature topic as rows for the reference, some kept to be shown."""

    def __init__(self, definition: FeatureSet, expected: int) -> None:
        self._definition = definition
        self._sample_every = max(1, expected // SAMPLES)
        self.number = 0
        self.samples: list[Mapping[str, object]] = []
        self.differences = Differences()

    def read(self, where: Where) -> Iterator[Row]:
        """All vectors, as a plain Confluent consumer reads them."""
        servers = where.client["bootstrap.servers"]
        return self._rows(
            read_vectors(servers, where.registry_url, where.features_topic, client=where.client)
        )

    def _rows(self, found: Iterable[tuple[object, Mapping[str, object]]]) -> Iterator[Row]:
        names = self._definition.entity
        for key, value in found:
            if self.number % self._sample_every == self._sample_every // 2:
                self.samples.append(value)
            self.number += 1
            entity = tuple(value[name] for name in names)
            as_of = cast("datetime", value["as_of"])
            if key != (
                value[names[0]] if len(names) == 1 else dict(zip(names, entity, strict=True))
            ):
                self.differences.add(f"vector of {entity} as of {as_of} has the key {key!r}")
            features = {name: it for name, it in value.items() if name not in (*names, *OWN_FIELDS)}
            yield Row(
                feature_set=self._definition.name,
                entity=entity,
                as_of_ms=round((as_of - EPOCH).total_seconds() * 1_000),
                kind=str(value["rewindow_kind"]),
                values=features,
            )
