"""`rewindow up` and `down`: the local Kafka and schema registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams import devstack
from streams.cli.options import (
    CommonOptions,
    Json,
    flag,
    print_json,
    say,
    takes_options,
)

if TYPE_CHECKING:
    from streams.settings import Settings

KafkaPort = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65_535,
        metavar="PORT",
        help="Port for Kafka on 127.0.0.1. Default: the one of the last time, 9092, or a free one.",
        show_default=False,
    ),
]
RegistryPort = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65_535,
        metavar="PORT",
        help="Port for the registry. Default: the one of the last time, 8081, or a free one.",
        show_default=False,
    ),
]
Delete = Annotated[
    bool, flag("--delete", help="Also delete its topics, offsets, schemas and logs.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(up)
    app.command()(down)


@takes_options
def up(
    common: CommonOptions,
    kafka_port: KafkaPort = None,
    registry_port: RegistryPort = None,
    json: Json = False,
) -> None:
    """Start Apache Kafka and a schema registry on this machine.

    Needs neither Docker nor Java: both are downloaded once (about 200 MB) into the user's
    cache. They go on running until `rewindow down` and keep their data over it. The other
    commands find them by themselves, unless options, variables or the configuration file name
    others; then this says so. Does nothing if they are up.
    """
    common.settings()  # what is wrong there is said before anything starts
    addresses = devstack.up(kafka_port=kafka_port, registry_port=registry_port)
    if json:
        print_json(
            {
                "bootstrap_servers": addresses.bootstrap_servers,
                "registry_url": addresses.registry_url,
            }
        )
    else:
        say(f"Apache Kafka {devstack.KAFKA_VERSION} is up at {addresses.bootstrap_servers}")
        say(f"Apicurio Registry {devstack.REGISTRY_VERSION} is up at {addresses.registry_url}")
    _say_what_else_is_named(common.settings(), addresses)


def _say_what_else_is_named(settings: Settings, addresses: devstack.Addresses) -> None:
    url = str(settings.registry["url"])
    others = []
    if settings.bootstrap_servers != addresses.bootstrap_servers:
        others.append(f"Kafka at {settings.bootstrap_servers}")
    if url != addresses.registry_url:
        others.append(f"the registry at {url}")
    if others:
        say(
            f"note: other commands use {' and '.join(others)}, as options, variables or the "
            "configuration file say"
        )


@takes_options
def down(common: CommonOptions, delete: Delete = False, json: Json = False) -> None:
    """Stop the local Kafka and registry.

    Those of `rewindow up`, also where the settings name others. Topics, offsets and schemas are
    kept for the next `rewindow up`, unless --delete is given. Workers' state is not deleted: do
    that too, since it belongs to those topics. With --delete, this says where the app's is.
    """
    settings = common.settings()
    was_up = devstack.down(delete=delete)
    if delete and settings.state_dir.exists():
        say(
            f"note: the state of app {settings.app} is still in {settings.state_dir}: delete it "
            "if it belongs to the topics that are gone"
        )
    if json:
        print_json({"was_up": was_up, "deleted": delete})
        return
    say("Kafka and the registry are stopped." if was_up else "Kafka and the registry were not up.")
