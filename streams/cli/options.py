"""Options that every command takes, and how commands speak: messages to stderr, data to stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

BootstrapServers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT,…",
        help="Kafka to use. Default: the configuration, else the stack of `rewindow up`.",
        show_default=False,
    ),
]
RegistryUrl = Annotated[
    str | None,
    typer.Option(
        "--registry-url",
        metavar="URL",
        help="Schema registry to use, base address of its Confluent-compatible API.",
        show_default=False,
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="NAME",
        help="App to work on: its name begins all its topics, groups and transactional ids.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration file. Default: rewindow.toml in this directory, if there is one.",
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON on stdout, for programs."),
]


def say(message: str) -> None:
    """Tell the user something, on stderr."""
    Console(stderr=True, highlight=False).print(escape(message), soft_wrap=True)


def say_error(message: str) -> None:
    """Tell the user what went wrong and what to do about it, on stderr."""
    Console(stderr=True, highlight=False).print(
        f"[bold red]error:[/] {escape(message)}", soft_wrap=True
    )


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, on one line if nobody looks at it."""
    import json

    indent = 2 if Console().is_terminal else None
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))
