"""`rewindow status`: whether the Kafka and registry that commands use answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from streams import devstack
from streams.cli.options import CommonOptions, Json, print_json, say, takes_options
from streams.config import DEFAULT_BOOTSTRAP_SERVERS, DEFAULT_REGISTRY_URL
from streams.devstack import Addresses, Health
from streams.errors import UnreachableError
from streams.kafka import Admin
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from streams.settings import Settings

USUAL = Addresses(bootstrap_servers=DEFAULT_BOOTSTRAP_SERVERS, registry_url=DEFAULT_REGISTRY_URL)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(status)


@takes_options
def status(common: CommonOptions, json: Json = False) -> None:
    """Show whether Kafka and the registry answer, and where they are.

    Asks those that other commands use. Where nobody names any, these are the local ones, of
    `rewindow up`. Exits with 0 if both answer, else with 4.
    """
    servers, problems = _servers(common)
    if json:
        print_json({"servers": [server.model_dump() for server in servers]})
    else:
        Console().print(_table(servers))
        for server in servers:
            if server.log:
                say(f"log of {server.name}: {server.log}")
    if problems:
        raise UnreachableError("\n".join(problems))


def _servers(common: CommonOptions) -> tuple[list[Health], list[str]]:
    """Kafka and the registry, and what to say of those that don't answer."""
    settings = common.settings()
    kafka, registry = devstack.status()
    problems = []
    running = devstack.running()
    used = Addresses(
        bootstrap_servers=settings.bootstrap_servers, registry_url=str(settings.registry["url"])
    )
    given = common.bootstrap_servers or common.registry_url
    # Nobody can tell usual addresses that were named from those that nobody named.
    if given or used != (running or USUAL):
        if running is None or used.bootstrap_servers != running.bootstrap_servers:
            kafka, why = _asked("Kafka", used.bootstrap_servers, lambda: _ask_kafka(settings))
            problems += why
        if running is None or used.registry_url != running.registry_url:
            registry, why = _asked("registry", used.registry_url, lambda: _ask_registry(settings))
            problems += why
    local = [one.name for one in (kafka, registry) if one.log and not one.answers]
    if local:
        problems.append(
            f"no answer from {' and '.join(local)}: `rewindow up` starts the local ones"
        )
    return [kafka, registry], problems


def _asked(name: str, address: str, ask: Callable[[], None]) -> tuple[Health, list[str]]:
    """Whether a server that is not the local one answers, and why not."""
    why = []
    try:
        ask()
    except UnreachableError as error:
        why = [str(error)]
    return Health(name=name, answers=not why, address=address), why


def _ask_kafka(settings: Settings) -> None:
    Admin(settings).partitions()


def _ask_registry(settings: Settings) -> None:
    with Registry.from_settings(settings.registry_options()) as registry:
        registry.ping()


def _table(servers: list[Health]) -> Table:
    table = Table("server", "version", "state", "address", "pid", box=None, pad_edge=False)
    for server in servers:
        state = "[green]up" if server.answers else "[yellow]silent" if server.pid else "[red]down"
        table.add_row(
            server.name,
            server.version or "-",
            state,
            server.address or "-",
            str(server.pid or "-"),
        )
    for column in table.columns:
        column.overflow = "fold"
    return table
