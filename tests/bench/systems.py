"""The systems that are compared: each produces its events, runs, and is checked."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from confluent_kafka import Producer

from streams.cli.main import main as run_command
from streams.errors import RewindowError
from tests.bench import faust_app
from tests.bench.load import (
    HOUR_MS,
    HOURS,
    LATENESS_MS,
    PARTITIONS,
    SCHEMA,
    START_MS,
    Load,
    avro_values,
    expected,
    json_values,
    make_load,
    sensor_name,
)
from tests.bench.measure import Measured, Work, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.integration.kafka_tools import KafkaTools

TOLERANCE = 1e-9
WRONG_SHOWN = 5
POLL_S = 0.05
QUEUED_EVENTS = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a benchmark runs: its Kafka and registry, a directory, and names of its own.

    Each system may take `seconds`; `say` tells whoever waits.
    """

    kafka: KafkaTools
    directory: Path
    prefix: str
    seconds: float
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured of a system, after its output was found right."""

    guarantee: str
    events: int
    measured: Measured

    def as_json(self) -> dict[str, Any]:
        """The figures; times in seconds, memory in MiB."""
        it = self.measured
        return {
            "events_per_s": round(self.events / it.seconds, 1),
            "events_per_cpu_s": round(self.events / it.cpu_s, 1),
            "peak_rss_mb": round(it.peak_rss_mb, 1),
            "guarantee": self.guarantee,
            "events": self.events,
            "seconds": round(it.seconds, 3),
            "start_s": round(it.start_s, 3),
        }


# -- rewindow -------------------------------------------------------------------------------------


def run_rewindow(bench: Bench, events: int) -> Result:
    """Five statistics of an hour for each sensor, exactly once, by one worker process."""
    load = make_load(events)
    topic, app = f"{bench.prefix}_measurements", bench.prefix
    feature_set = f"{bench.prefix}_hourly"
    bench.say(f"rewindow: producing {load.events:,} events as Avro")
    bench.kafka.create_topic(topic, partitions=PARTITIONS)
    schema_id = bench.kafka.register(f"{topic}-value", SCHEMA)
    ends = produce(bench, topic, load, avro_values(load, schema_id))
    config = project(bench, app, bench.directory)
    files = _definitions(bench, topic, feature_set)
    rewindow(["publish", "--config", str(config), *map(str, files)])
    bench.say("rewindow: running")
    measured = measure(
        Work(
            name="rewindow",
            module="streams.cli.main",
            arguments=["worker", "--config", str(config)],
            topic=topic,
            group=app,
            ends=ends,
            seconds=bench.seconds,
        ),
        committed(bench.kafka),
        bench.directory,
    )
    bench.say("rewindow: checking the vectors")
    first_ms = check_hourly(bench.kafka, f"features.{feature_set}", load)
    bench.say(f"rewindow: first vector {first_ms - measured.started_ms} ms after its start")
    return Result(guarantee="exactly-once", events=load.events, measured=measured)


def project(bench: Bench, app: str, directory: Path) -> Path:
    """The configuration of an app that keeps its state in `directory`."""
    config = directory / "rewindow.toml"
    addresses = bench.kafka.addresses
    config.write_text(
        f'app = "{app}"\n'
        f'[kafka]\n"bootstrap.servers" = "{addresses.bootstrap_servers}"\n'
        f'[registry]\nurl = "{addresses.registry_url}"\n'
        f'[state]\ndir = "{directory / "state"}"\n'
    )
    return config


def _definitions(bench: Bench, topic: str, feature_set: str) -> list[Path]:
    documents = {
        "source": {
            "kind": "source",
            "name": "measurements",
            "topic": topic,
            "schema": f"{topic}-value",
            "event_time": "at",
            "key": ["sensor"],
        },
        "feature_set": {
            "kind": "feature_set",
            "name": feature_set,
            "version": "1.0.0",
            "source": "measurements",
            "entity": ["sensor"],
            "every": "1h",
            "allowed_lateness": f"{LATENESS_MS}ms",
            "features": {
                "n": {"count": "*", "window": "1h"},
                "total": {"sum": "value", "window": "1h"},
                "middle": {"mean": "value", "window": "1h"},
                "least": {"min": "value", "window": "1h"},
                "most": {"max": "value", "window": "1h"},
            },
        },
    }
    files = []
    for name, document in documents.items():
        file = bench.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        files.append(file)
    return files


def rewindow(arguments: Sequence[str]) -> None:
    """Run a command of ours; what it prints goes to stderr, where progress goes."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        run_command(list(arguments))
    except SystemExit as ended:
        if ended.code:
            raise RewindowError(f"rewindow {arguments[0]} ended with {ended.code}") from None
    finally:
        sys.stdout = stdout


def check_hourly(kafka: KafkaTools, topic: str, load: Load) -> int:
    """Each row of each hour is there once and right; time of the first one, in ms.

    Raises RewindowError if not.
    """
    right = expected(load)
    wrong = []
    seen = set()
    records = kafka.consume_all(topic)
    for record in records:
        assert record.key is not None
        assert record.value is not None
        sensor, vector = kafka.decode(record.key), kafka.decode(record.value)
        hour = (round(vector["as_of"].timestamp() * 1000) - START_MS) // HOUR_MS - 1
        number = int(sensor.rpartition("-")[2])
        known = sensor == sensor_name(number) == vector["sensor"] and 0 <= hour < HOURS
        new = (number, hour) not in seen
        seen.add((number, hour))
        if not (known and new and _right(vector, right, number, hour)):
            wrong.append(vector)
    missing = load.sensors * HOURS - len(seen)
    if wrong or missing:
        raise RewindowError(
            f"rewindow: {len(wrong)} vectors wrong, doubled or unexpected and {missing} missing "
            f"of {load.sensors * HOURS}; the first wrong ones: {wrong[:WRONG_SHOWN]}"
        )
    return min(record.timestamp_ms for record in records)


def _right(vector: Mapping[str, Any], right: Any, sensor: int, hour: int) -> bool:
    count, total = int(right.count[sensor, hour]), float(right.total[sensor, hour])
    return (
        vector["rewindow_kind"] == "final"
        and vector["n"] == count
        and _near(vector["total"], total)
        and _near(vector["middle"], total / count)
        and vector["least"] == right.least[sensor, hour]
        and vector["most"] == right.most[sensor, hour]
    )


def _near(value: float, right: float) -> bool:
    return abs(value - right) <= TOLERANCE * max(1.0, abs(right))


# -- Faust ----------------------------------------------------------------------------------------


def run_faust(bench: Bench, events: int) -> Result:
    """A plain Faust tumbling table that only counts, at least once."""
    load = make_load(events)
    topic, app = f"{bench.prefix}_json", f"{bench.prefix}-faust"
    bench.say(f"faust: producing {load.events:,} events as JSON")
    bench.kafka.create_topic(topic, partitions=PARTITIONS)
    ends = produce(bench, topic, load, json_values(load))
    servers = bench.kafka.addresses.bootstrap_servers
    bench.say("faust: running")
    measured = measure(
        Work(
            name="faust",
            module="tests.bench.faust_app",
            arguments=[servers, app, topic, str(bench.directory / "faust"), str(PARTITIONS)],
            topic=topic,
            group=app,
            ends=ends,
            seconds=bench.seconds,
        ),
        committed(bench.kafka),
        bench.directory,
    )
    bench.say("faust: checking its table")
    _check_table(bench.kafka, faust_app.changelog(app), load)
    return Result(guarantee="at-least-once", events=load.events, measured=measured)


def _check_table(kafka: KafkaTools, topic: str, load: Load) -> None:
    """The last value of each row in the changelog is its count. Raises RewindowError if not."""
    table: dict[tuple[int, int], int] = {}
    for record in kafka.consume_all(topic):
        assert record.key is not None
        assert record.value is not None
        sensor, (start_s, _) = json.loads(record.key)
        hour = (round(start_s * 1000) - START_MS) // HOUR_MS
        table[int(sensor.rpartition("-")[2]), hour] = json.loads(record.value)
    count = expected(load).count
    right = {
        (sensor, hour): int(count[sensor, hour])
        for sensor in range(load.sensors)
        for hour in range(HOURS)
    }
    right |= {(sensor, HOURS): 1 for sensor in range(PARTITIONS)}
    if table != right:
        wrong = [key for key in right.keys() | table.keys() if table.get(key) != right.get(key)]
        raise RewindowError(f"faust: {len(wrong)} of {len(right)} counts are wrong")


# -- both -----------------------------------------------------------------------------------------


def produce(
    bench: Bench, topic: str, load: Load, values: Iterable[Sequence[bytes]]
) -> dict[int, int]:
    """Produce the events, record timestamp = event time; the end of each partition."""
    failed = []
    producer = Producer(
        {
            "bootstrap.servers": bench.kafka.addresses.bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 2 * QUEUED_EVENTS,
            "on_delivery": lambda error, _: failed.append(error) if error else None,
        }
    )
    keys, at = load.keys, 0
    for run in values:
        while len(producer) > QUEUED_EVENTS:
            producer.poll(POLL_S)
        part = slice(at, at + len(run))
        at += len(run)
        for value, sensor, partition, at_ms in zip(
            run,
            load.sensor[part].tolist(),
            load.partition[part].tolist(),
            load.at_ms[part].tolist(),
            strict=True,
        ):
            producer.produce(topic, value, keys[sensor], partition, timestamp=at_ms)
        producer.poll(0)
    if producer.flush(bench.seconds) or failed:
        raise RewindowError(f"events were not produced: {failed[:1]}")
    ends = [int((load.partition == partition).sum()) for partition in range(PARTITIONS)]
    return dict(enumerate(ends))


def committed(kafka: KafkaTools) -> Callable[[str, str], Mapping[int, int]]:
    """Looks up committed offsets by group and topic."""

    def found(group: str, topic: str) -> Mapping[int, int]:
        return {partition: at for partition, (at, _) in kafka.committed(group, topic).items()}

    return found
