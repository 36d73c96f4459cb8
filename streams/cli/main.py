"""The command line `rewindow`: parse, call, print."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from streams.cli import (
    audit,
    cancel,
    diff,
    plan,
    publish,
    requests,
    schemas,
    snapshots,
    stack,
    status,
    tail,
    toggles,
    versions,
    worker,
)
from streams.cli.options import say, say_error
from streams.errors import RewindowError

INTERRUPTED_EXIT_CODE = 130


def build() -> typer.Typer:
    """The command line with all its commands; a module of commands is one line here."""
    app = typer.Typer(
        name="rewindow",
        help="A feature pipeline on Kafka that can change its mind.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="All commands take --bootstrap-servers, --registry-url, --app and --config, after "
        "their names; `rewindow COMMAND --help` tells more.\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage or invalid file, 3 refused by a "
        "rule, 4 Kafka or registry not reachable, 5 deadline passed, 130 interrupted.",
    )
    app.callback()(_common)
    stack.register(app)
    status.register(app)
    schemas.register(app)
    publish.register(app)
    plan.register(app)
    diff.register(app)
    worker.register(app)
    tail.register(app)
    versions.register(app)
    requests.register(app)
    toggles.register(app)
    cancel.register(app)
    audit.register(app)
    snapshots.register(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; wrong usage exits with 2, Ctrl-C with 130.

    What goes wrong is said on stderr, a line for each thing. So is a file or directory that the
    system does not let us use (1); other exceptions are mistakes of ours and come through.

    `arguments` stand for those of the process if given, without the program's name.
    """
    try:
        build()(args=arguments, prog_name="rewindow")
    except RewindowError as error:
        say_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:  # not about a file, so a mistake of ours: show all of it
            raise
        say_error(f"{error.filename}: {error.strerror}")
        sys.exit(RewindowError.exit_code)
    except KeyboardInterrupt:  # typer sees those that come while a command runs
        say("interrupted")
        sys.exit(INTERRUPTED_EXIT_CODE)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rewindow {version('rewindow')}")
        raise typer.Exit


def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            metavar="",
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """A feature pipeline on Kafka that can change its mind."""
