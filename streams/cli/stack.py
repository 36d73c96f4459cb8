"""`rewindow up`, `down` and `status`: the local Kafka and schema registry."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams import devstack
from streams.cli.options import BootstrapServers, Json, RegistryUrl, print_json, say
from streams.errors import UnreachableError

KafkaPort = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65_535,
        help="Port for Kafka on 127.0.0.1. Default: the one of the last time, 9092, or a free one.",
        show_default=False,
    ),
]
RegistryPort = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65_535,
        help="Port for the registry. Default: the one of the last time, 8081, or a free one.",
        show_default=False,
    ),
]
Delete = Annotated[
    bool, typer.Option("--delete", help="Also delete its topics, offsets, schemas and logs.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    kafka_port: KafkaPort = None, registry_port: RegistryPort = None, json: Json = False
) -> None:
    """Start Apache Kafka and a schema registry on this machine.

    Needs neither Docker nor Java: both are downloaded once (about 200 MB) into the user's
    cache. They go on running until `rewindow down` and keep their data over it. The other
    commands find them by themselves. Does nothing if they are up.
    """
    addresses = devstack.up(kafka_port=kafka_port, registry_port=registry_port)
    if json:
        print_json(
            {
                "bootstrap_servers": addresses.bootstrap_servers,
                "registry_url": addresses.registry_url,
            }
        )
        return
    say(f"Apache Kafka {devstack.KAFKA_VERSION} is up at {addresses.bootstrap_servers}")
    say(f"Apicurio Registry {devstack.REGISTRY_VERSION} is up at {addresses.registry_url}")


def down(delete: Delete = False, json: Json = False) -> None:
    """Stop the local Kafka and registry.

    Topics, offsets and schemas are kept for the next `rewindow up`, unless --delete is given.
    Workers' state directories are not deleted: do that too, since it belongs to those topics.
    """
    was_up = devstack.down(delete=delete)
    if json:
        print_json({"was_up": was_up, "deleted": delete})
        return
    say("Kafka and the registry are stopped." if was_up else "Kafka and the registry were not up.")


def status(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    json: Json = False,
) -> None:
    """Show whether the local Kafka and registry are up, where, and where they log.

    With an address, whether that server answers instead of the local one. Exits with 0 if both
    answer, else with 4.
    """
    servers = devstack.status(bootstrap_servers=bootstrap_servers, registry_url=registry_url)
    if json:
        print_json({"servers": [server.model_dump() for server in servers]})
    else:
        Console().print(_table(servers))
        for server in servers:
            if server.log:
                say(f"log of {server.name}: {server.log}")
    if not all(server.answers for server in servers):
        down = " and ".join(server.name for server in servers if not server.answers)
        raise UnreachableError(f"no answer from {down}: `rewindow up` starts the local ones")


def _table(servers: tuple[devstack.Health, ...]) -> Table:
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
