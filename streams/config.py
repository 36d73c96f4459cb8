"""Settings from the command line, REWINDOW_* variables and rewindow.toml.

What is named first there wins. Where nobody names a Kafka or a registry, the stack of
`rewindow up` is used if it runs, else the usual local addresses.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from streams.config_file import ConfigFile, masked, parse
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.settings import Secret

DEFAULT_CONFIG = "rewindow.toml"
DEFAULT_BOOTSTRAP_SERVERS = "127.0.0.1:9092"
DEFAULT_REGISTRY_URL = "http://127.0.0.1:8081"
KAFKA_VARIABLE = "REWINDOW_KAFKA_"

_APP = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")


def load_settings(
    config: Path | None = None,
    *,
    bootstrap_servers: str | None = None,
    registry_url: str | None = None,
    app: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings for a command. `config` is a file; without it, rewindow.toml if it is here.

    Raises InvalidInputError for a file or variable that is wrong, one line for each thing.
    """
    file = _find(config)
    document = ConfigFile(file, parse(file) if file else {}, environ)
    kafka = document.options("kafka")
    registry = document.options("registry")
    for name in sorted(environ):
        if name.startswith(KAFKA_VARIABLE):
            key = name.removeprefix(KAFKA_VARIABLE).lower().replace("_", ".")
            kafka[key] = masked(key, environ[name])
    servers = bootstrap_servers or environ.get("REWINDOW_BOOTSTRAP_SERVERS")
    if servers:
        kafka["bootstrap.servers"] = servers
    url = registry_url or environ.get("REWINDOW_REGISTRY_URL")
    if url:
        registry["url"] = url
    name = app or environ.get("REWINDOW_APP") or document.app()
    if not _APP.match(name):
        document.refuse(
            "app", f"{name!r} is no app name: lower-case letters, digits, _ and -, a letter first"
        )
    topics = document.topics()
    state_dir = document.state_dir(name)
    snapshots = document.snapshots(state_dir)
    versions = document.versions()
    document.check()
    _add_defaults(kafka, registry)
    return Settings(
        app=name,
        kafka=kafka,
        registry=registry,
        topics=topics,
        state_dir=state_dir,
        versions=versions,
        snapshots=snapshots,
    )


def _find(config: Path | None) -> Path | None:
    if config is not None:
        return config
    here = Path(DEFAULT_CONFIG)
    return here if here.is_file() else None


def _add_defaults(kafka: dict[str, str | Secret], registry: dict[str, str | Secret]) -> None:
    """Addresses nobody gave: those of the running local stack, else the usual ones."""
    if "bootstrap.servers" in kafka and "url" in registry:
        return
    # Imported here: the stack brings in downloaders that other commands have no use for.
    from streams import devstack

    addresses = devstack.running()
    kafka.setdefault(
        "bootstrap.servers",
        addresses.bootstrap_servers if addresses else DEFAULT_BOOTSTRAP_SERVERS,
    )
    registry.setdefault("url", addresses.registry_url if addresses else DEFAULT_REGISTRY_URL)
