"""The stack of this user that goes on running: `rewindow up`, `down` and `status`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from streams.devstack import registry
from streams.devstack.broker import BrokerHealth
from streams.devstack.packages import KAFKA_VERSION, REGISTRY_VERSION, exclusive_lock
from streams.devstack.process import (
    end_detached,
    free_port,
    pid_file,
    port_is_free,
    running_pid,
    server_log,
)
from streams.devstack.stack import (
    KAFKA_DIRECTORY,
    REGISTRY_DIRECTORY,
    Addresses,
    DevStack,
    StackPorts,
)
from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

USUAL_KAFKA_PORT: Final = 9092
USUAL_REGISTRY_PORT: Final = 8081

_STATE_FILE: Final = "stack.json"
_COMMAND_LOCK: Final = "command.lock"
_STATUS_S: Final = 5.0


class _State(BaseModel):
    """What `stack.json` says. It stays after `down`, so that ports stay the same."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kafka_port: int
    controller_port: int
    registry_port: int
    kafka_version: str
    registry_version: str

    @property
    def ports(self) -> StackPorts:
        return StackPorts(
            kafka=self.kafka_port, controller=self.controller_port, registry=self.registry_port
        )


class Health(BaseModel):
    """What `rewindow status` tells about one server; what is unknown is `None`."""

    model_config = ConfigDict(frozen=True)

    name: str
    answers: bool
    address: str | None
    version: str | None = None
    pid: int | None = None
    log: str | None = None


def stack_dir() -> Path:
    """Where the user's stack keeps data, logs and state (`XDG_STATE_HOME` or its default)."""
    configured = os.environ.get("XDG_STATE_HOME", "")
    base = Path(configured) if configured else Path.home() / ".local" / "state"
    return base / "rewindow" / "stack"


def running() -> Addresses | None:
    """Addresses of the user's stack, or `None` if it is not up. Asks nothing over the network."""
    directory = stack_dir()
    state = _read(directory)
    if state is None or None in _pids(directory):
        return None
    return state.ports.addresses


def up(*, kafka_port: int | None = None, registry_port: int | None = None) -> Addresses:
    """Start the user's stack if it is not up, and wait until both servers answer.

    Ports are those asked for, else those of the last time, else the usual ones, else free ones.

    Raises:
        InvalidInputError: A port that was asked for is taken, or the stack is up on another.
        UnreachableError: A download failed.
        RewindowError: A server can't start.
        DeadlinePassedError: A server does not answer.
    """
    directory = stack_dir()
    directory.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(directory / _COMMAND_LOCK):
        state = _read(directory)
        if state is not None and all(health.answers for health in status()):
            _refuse_other_ports(state, kafka_port, registry_port)
            return state.ports.addresses
        _end(directory)
        ports = _choose_ports(state, kafka_port, registry_port)
        # Before the servers, so that whoever finds them running knows where.
        _write(directory, ports)
        DevStack(directory, ports=ports, outlive=True).start()
        return ports.addresses


def down(*, delete: bool = False) -> bool:
    """Stop the user's stack; false if it was not up. `delete` also removes all its data."""
    directory = stack_dir()
    if not directory.exists():
        return False
    with exclusive_lock(directory / _COMMAND_LOCK):
        was_up = _end(directory)
        if delete:
            shutil.rmtree(directory)
    return was_up


def status(
    *, bootstrap_servers: str | None = None, registry_url: str | None = None
) -> tuple[Health, Health]:
    """Health of a broker and of a registry: those at the given addresses, else the user's."""
    directory = stack_dir()
    state = _read(directory)
    addresses = state.ports.addresses if state is not None else None
    if bootstrap_servers is not None:
        kafka = _foreign("Kafka", bootstrap_servers, answers=_kafka_answers)
    else:
        kafka = _ours(
            "Apache Kafka",
            version=state.kafka_version if state is not None else KAFKA_VERSION,
            address=addresses.bootstrap_servers if addresses is not None else None,
            answers=_kafka_answers,
            directory=directory / KAFKA_DIRECTORY,
        )
    if registry_url is not None:
        return kafka, _foreign("registry", registry_url, answers=_registry_answers)
    return kafka, _ours(
        "Apicurio Registry",
        version=state.registry_version if state is not None else REGISTRY_VERSION,
        address=addresses.registry_url if addresses is not None else None,
        answers=_registry_answers,
        directory=directory / REGISTRY_DIRECTORY,
    )


def _kafka_answers(address: str) -> bool:
    return BrokerHealth(address).answers(seconds=_STATUS_S)


def _registry_answers(address: str) -> bool:
    return registry.answers(address, seconds=_STATUS_S)


def _foreign(name: str, address: str, *, answers: Callable[[str], bool]) -> Health:
    return Health(name=name, answers=answers(address), address=address)


def _ours(
    name: str,
    *,
    version: str,
    address: str | None,
    answers: Callable[[str], bool],
    directory: Path,
) -> Health:
    pid = running_pid(pid_file(directory))
    found = address if pid is not None else None
    return Health(
        name=name,
        version=version,
        answers=found is not None and answers(found),
        pid=pid,
        address=found,
        log=str(server_log(directory)),
    )


def _end(directory: Path) -> bool:
    """Stop what runs in `directory`, the registry first; whether anything did."""
    registry_ended = end_detached(pid_file(directory / REGISTRY_DIRECTORY))
    return end_detached(pid_file(directory / KAFKA_DIRECTORY)) or registry_ended


def _pids(directory: Path) -> tuple[int | None, int | None]:
    return (
        running_pid(pid_file(directory / KAFKA_DIRECTORY)),
        running_pid(pid_file(directory / REGISTRY_DIRECTORY)),
    )


def _refuse_other_ports(state: _State, kafka_port: int | None, registry_port: int | None) -> None:
    for asked, port in ((kafka_port, state.kafka_port), (registry_port, state.registry_port)):
        if asked not in (None, port):
            raise InvalidInputError(
                f"The stack is up already, on port {port} and not {asked}: run `rewindow down` "
                f"first."
            )


def _choose_ports(
    last: _State | None, kafka_port: int | None, registry_port: int | None
) -> StackPorts:
    for asked in (kafka_port, registry_port):
        if asked is not None and not port_is_free(asked):
            raise InvalidInputError(
                f"Port {asked} is taken: name another one, or none to have a free one chosen."
            )
    if last is None:
        return StackPorts(
            kafka=kafka_port or free_port(USUAL_KAFKA_PORT),
            controller=free_port(),
            registry=registry_port or free_port(USUAL_REGISTRY_PORT),
        )
    return StackPorts(
        kafka=kafka_port or free_port(last.kafka_port),
        controller=free_port(last.controller_port),
        registry=registry_port or free_port(last.registry_port),
    )


def _read(directory: Path) -> _State | None:
    try:
        return _State.model_validate_json((directory / _STATE_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        # Written by another version: `down` finds the servers without it, `up` writes it anew.
        return None


def _write(directory: Path, ports: StackPorts) -> None:
    state = _State(
        kafka_port=ports.kafka,
        controller_port=ports.controller,
        registry_port=ports.registry,
        kafka_version=KAFKA_VERSION,
        registry_version=REGISTRY_VERSION,
    )
    whole = directory / f"{_STATE_FILE}.new"
    whole.write_text(state.model_dump_json(indent=2) + "\n")
    whole.replace(directory / _STATE_FILE)
