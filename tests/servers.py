"""The Kafka and the registry that is tested and measured on: those that the environment names, or
some of our own."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from streams.devstack import Addresses, DevStack
from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOTSTRAP_SERVERS = "REWINDOW_BOOTSTRAP_SERVERS"
REGISTRY_URL = "REWINDOW_REGISTRY_URL"

INTERRUPTED_EXIT_CODE = 130
"""That of a shell for a program ended by Ctrl-C."""


def given_servers() -> Addresses | None:
    """What the environment names. Raises InvalidInputError if that is one of the two."""
    servers, registry = os.environ.get(BOOTSTRAP_SERVERS), os.environ.get(REGISTRY_URL)
    if servers and registry:
        return Addresses(bootstrap_servers=servers, registry_url=registry)
    if servers or registry:
        raise InvalidInputError(f"set both {BOOTSTRAP_SERVERS} and {REGISTRY_URL}, or none")
    return None


@contextlib.contextmanager
def some_servers() -> Iterator[Addresses]:
    """Those that are given, or a stack of our own for as long as it is used."""
    if given := given_servers():
        yield given
        return
    with DevStack.temporary() as own:
        yield own.addresses


def end_in_order() -> None:
    """From here on SIGTERM is a KeyboardInterrupt, too: what was started is stopped, and nothing is
    left of it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
