from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from streams import devstack
from streams.devstack.process import end_detached, pid_file, running_pid, wait_until
from tests.integration.kafka_tools import KafkaTools, Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.devstack import DevStack

SCHEMA = {
    "type": "record",
    "name": "Reading",
    "fields": [{"name": "sensor", "type": "string"}, {"name": "value", "type": "double"}],
}
READINGS = [{"sensor": "a", "value": 1.5}, {"sensor": "b", "value": -2.0}]


def test_avro_goes_through_kafka_and_registry(kafka: KafkaTools, prefix: str) -> None:
    topic = f"{prefix}.readings"
    kafka.create_topic(topic, partitions=2)
    schema_id = kafka.register(f"{topic}-value", SCHEMA)
    records = [
        Outgoing(value=kafka.encode(schema_id, reading), partition=partition, timestamp_ms=1)
        for partition, reading in enumerate(READINGS)
    ]
    kafka.produce(topic, records)
    found = kafka.consume(topic, lambda records: len(records) == len(READINGS))
    assert sorted(found, key=lambda it: it.partition) == sorted(
        kafka.consume_all(topic), key=lambda it: it.partition
    )
    values = {it.partition: kafka.decode(it.value or b"") for it in found}
    assert values == dict(enumerate(READINGS))
    assert {it.timestamp_ms for it in found} == {1}


def test_topics_are_not_created_by_looking(kafka: KafkaTools, prefix: str) -> None:
    with pytest.raises(AssertionError, match="UNKNOWN_TOPIC"):
        kafka.partitions(f"{prefix}.nothing")


def test_servers_come_back_on_their_ports_with_all_they_had(own_stack: DevStack) -> None:
    kafka = KafkaTools(own_stack.addresses)
    kafka.create_topic("kept")
    schema_id = kafka.register("kept-value", SCHEMA)

    def produce(text: str) -> None:
        kafka.produce("kept", [Outgoing(value=text.encode())])

    produce("before")
    own_stack.stop_kafka()
    own_stack.start_kafka()
    produce("after a stop")
    own_stack.kill_kafka()
    own_stack.start_kafka()
    produce("after a kill")
    own_stack.stop_registry()
    assert not devstack.status(registry_url=own_stack.registry_url)[1].answers
    own_stack.start_registry()

    assert [it.value for it in kafka.consume_all("kept")] == [
        b"before",
        b"after a stop",
        b"after a kill",
    ]
    assert kafka.register("kept-value", SCHEMA) == schema_id


def test_stack_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from streams.devstack import DevStack\n"
        f"with DevStack(Path({str(tmp_path)!r})):\n"
        "    print('up', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        files = [pid_file(tmp_path / name) for name in ("kafka", "registry")]
        assert all(running_pid(file) for file in files)
        # As `timeout` does: its whole process group, and it does not clean up.
        os.killpg(owner.pid, signal.SIGTERM)
    assert wait_until(lambda: not any(running_pid(file) for file in files), seconds=60)


class TestUpAndDown:
    @pytest.fixture(autouse=True)
    def _down_in_the_end(self, _own_user_state: None) -> Iterator[None]:
        yield
        devstack.down(delete=True)

    def rewindow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from streams.cli.main import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_up_status_down_and_up_again(self) -> None:
        first = self.rewindow("up", "--json")
        assert first.returncode == 0, first.stderr
        addresses = devstack.running()
        assert addresses is not None
        assert json.loads(first.stdout) == {
            "bootstrap_servers": addresses.bootstrap_servers,
            "registry_url": addresses.registry_url,
        }
        pids = [server.pid for server in devstack.status()]
        kafka = KafkaTools(addresses)
        kafka.create_topic("kept")
        schema_id = kafka.register("kept-value", SCHEMA)

        again = self.rewindow("up", "--json")
        assert again.stdout == first.stdout
        assert [server.pid for server in devstack.status()] == pids

        assert self.rewindow("status").returncode == 0
        assert self.rewindow("down").returncode == 0
        assert self.rewindow("status").returncode == 4
        assert devstack.running() is None

        assert self.rewindow("up", "--json").stdout == first.stdout
        assert kafka.partitions("kept") == [0]
        assert kafka.register("kept-value", SCHEMA) == schema_id

    def test_up_mends_a_half_of_the_stack_and_avoids_a_port_taken_meanwhile(self) -> None:
        first = devstack.up()
        assert end_detached(pid_file(devstack.stack_dir() / "kafka"))
        assert devstack.running() is None
        port = int(first.bootstrap_servers.split(":")[1])
        with closing(socket.create_server(("127.0.0.1", port))):
            second = devstack.up()
        assert second.bootstrap_servers != first.bootstrap_servers
        assert second.registry_url == first.registry_url
        assert all(server.answers for server in devstack.status())
