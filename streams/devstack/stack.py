"""A Kafka broker and a schema registry of one's own, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from streams.devstack import broker, registry
from streams.devstack.packages import cache_dir, servers
from streams.devstack.process import HOST, Guard, ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


KAFKA_DIRECTORY: Final = "kafka"
REGISTRY_DIRECTORY: Final = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where clients find a stack, in the form in which they are configured."""

    bootstrap_servers: str
    registry_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPorts:
    """Ports of a stack, all on 127.0.0.1."""

    kafka: int
    controller: int
    registry: int

    @classmethod
    def free(cls) -> StackPorts:
        """Three ports that nothing listens on now."""
        return cls(kafka=free_port(), controller=free_port(), registry=free_port())

    @property
    def addresses(self) -> Addresses:
        return Addresses(
            bootstrap_servers=f"{HOST}:{self.kafka}", registry_url=registry.url(self.registry)
        )


class DevStack:
    """Real Kafka and registry, both keeping all they write below `directory`.

    A directory that held a stack before is taken on with its topics, offsets and schemas. As a
    context manager the stack runs inside the block and never outlives this process. With
    `outlive` it does: for `up`, which starts it and leaves.

    Both servers are downloaded into the per-user cache when they are used for the first time.
    """

    def __init__(
        self, directory: Path, *, ports: StackPorts | None = None, outlive: bool = False
    ) -> None:
        self.directory = directory.absolute()
        self.ports = ports or StackPorts.free()
        self._outlive = outlive
        self._guard: Guard | None = None
        self._kafka: ServerProcess | None = None
        self._registry: ServerProcess | None = None

    @classmethod
    @contextlib.contextmanager
    def temporary(cls) -> Iterator[DevStack]:
        """A stack in a directory of its own that is removed in the end."""
        with (
            tempfile.TemporaryDirectory(prefix="rewindow-") as directory,
            cls(Path(directory)) as stack,
        ):
            yield stack

    @property
    def addresses(self) -> Addresses:
        return self.ports.addresses

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's address, `host:port`."""
        return self.addresses.bootstrap_servers

    @property
    def registry_url(self) -> str:
        """Base address of the registry's Confluent-compatible API."""
        return self.addresses.registry_url

    @property
    def kafka(self) -> ServerProcess:
        """The broker's process: its `pid` and its log."""
        assert self._kafka is not None, "the stack was not started"
        return self._kafka

    @property
    def registry(self) -> ServerProcess:
        """The registry's process: its `pid` and its log."""
        assert self._registry is not None, "the stack was not started"
        return self._registry

    def start(self) -> None:
        """Start both servers and wait until both answer; on failure none is left running.

        Raises:
            UnreachableError: A download failed.
            RewindowError: A server can't start; the message shows the end of its log.
            DeadlinePassedError: A server does not answer.
        """
        kafka_files, registry_files = servers(cache_dir())
        ports = broker.BrokerPorts(client=self.ports.kafka, controller=self.ports.controller)
        kafka = broker.prepare(kafka_files, self.directory / KAFKA_DIRECTORY, ports)
        schemas = registry.prepare(
            registry_files, self.directory / REGISTRY_DIRECTORY, self.ports.registry
        )
        self._guard = None if self._outlive else Guard()
        self._kafka = ServerProcess(kafka, self._guard)
        self._registry = ServerProcess(schemas, self._guard)
        try:
            # Both at once, as each takes seconds.
            self._kafka.start()
            self._registry.start()
            self._wait_for_kafka()
            self._wait_for_registry()
            registry.set_compatibility(self.registry_url)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both servers in good order. Harmless if they are not running."""
        for server in (self._registry, self._kafka):
            if server is not None:
                server.stop()
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop_kafka(self) -> None:
        """Stop the broker in good order."""
        self.kafka.stop()

    def kill_kafka(self) -> None:
        """End the broker as kill -9 does."""
        self.kafka.kill()

    def start_kafka(self) -> None:
        """Start the broker again, on the same port and data, and wait until it answers."""
        self.kafka.start()
        self._wait_for_kafka()

    def stop_registry(self) -> None:
        """Stop the registry in good order."""
        self.registry.stop()

    def start_registry(self) -> None:
        """Start the registry again, on the same port and data, and wait until it answers."""
        self.registry.start()
        self._wait_for_registry()

    def _wait_for_kafka(self) -> None:
        health = broker.BrokerHealth(self.bootstrap_servers)
        self.kafka.wait_for(health.answers, seconds=broker.START_S)

    def _wait_for_registry(self) -> None:
        self.registry.wait_for(
            lambda: registry.answers(self.registry_url), seconds=registry.START_S
        )
