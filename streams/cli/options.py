"""Options that every command takes, and how commands speak: messages to stderr, data to stdout."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from streams.config import load_settings
from streams.settings import Settings


def flag(*names: str, help: str) -> Any:
    """An option without a value. (Typer alone shows `<bool>` beside it, as if it took one.)"""
    return typer.Option(*names, help=help, metavar="")


Json = Annotated[bool, flag("--json", help="Print JSON on stdout, for programs.")]


class Options:
    """Options that several commands take: a dataclass of them, which `takes_options` expands."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions(Options):
    """The options that every command takes, as given."""

    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…",
            help="Kafka to use. Default: the configuration, else the stack of `rewindow up`.",
            show_default=False,
        ),
    ] = None
    registry_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Schema registry to use, base address of its Confluent-compatible API. "
            "Default: as for Kafka.",
            show_default=False,
        ),
    ] = None
    app: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="App to work on: definitions, groups, transactional ids and state go by its "
            "name. Default: the configuration, else `rewindow`.",
            show_default=False,
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Configuration file. Default: rewindow.toml in this directory, if there is one.",
            show_default=False,
        ),
    ] = None

    def settings(self) -> Settings:
        """The settings that these options, variables and the configuration file come to.

        Raises InvalidInputError for a file or variable that is wrong.
        """
        return load_settings(
            self.config,
            bootstrap_servers=self.bootstrap_servers,
            registry_url=self.registry_url,
            app=self.app,
        )


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the fields of its `Options` parameters as options, after its own.

    Typer reads a command's options from its signature; that of the result has those fields
    in the place of such parameters, those of the first one last.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    fields = {
        name: inspect.signature(one.annotation, eval_str=True).parameters
        for name, one in parameters.items()
        if isinstance(one.annotation, type) and issubclass(one.annotation, Options)
    }

    @wraps(command)
    def with_options(**given: Any) -> None:
        for name, those in fields.items():
            found = {field: given.pop(field) for field in those if field in given}
            given[name] = parameters[name].annotation(**found)
        command(**given)

    own = [one for name, one in parameters.items() if name not in fields]
    added = [one for those in reversed(fields.values()) for one in those.values()]
    signature = inspect.Signature([*own, *added])
    with_options.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks there
    return with_options


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
