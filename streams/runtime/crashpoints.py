"""Named moments at which a test may kill the worker, or make it fail.

`REWINDOW_CRASH_AT=name` or `name:count` ends the process with SIGKILL the first, or count-th,
time that it gets there; `REWINDOW_FAIL_AT` raises an error there instead, once. Unset, they
cost one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CRASH_VARIABLE = "REWINDOW_CRASH_AT"
FAIL_VARIABLE = "REWINDOW_FAIL_AT"

POINTS = (
    "in_claim",  # fenced, positions read, no state opened yet
    "in_recovery",  # between two batches of a replay
    "in_batch",  # decoded, nothing applied
    "in_transaction",  # all records and the offset sent, not committed
    "after_commit",  # committed, and not known here yet
    "in_closing",  # between two transactions of a closing that is larger than one
    "before_flush",  # committed, nothing of it on disk
    "in_flush",  # a bundle's new rows are in a file that is not part of it yet
)


class InjectedError(Exception):
    """The failure that a test asked for."""


class CrashPoints:
    """Counts down to the crash or the failure that was asked for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises `ValueError` for a point that does not exist."""
        self._crash_at, self._crash_left = _asked(environ, CRASH_VARIABLE)
        self._fail_at, self._fail_left = _asked(environ, FAIL_VARIABLE)

    def reach(self, name: str) -> None:
        """Say that the worker is at `name`."""
        if name == self._crash_at:
            self._crash_left -= 1
            if self._crash_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if name == self._fail_at:
            self._fail_left -= 1
            if self._fail_left == 0:
                raise InjectedError(f"asked for at {name}")


def _asked(environ: Mapping[str, str], variable: str) -> tuple[str, int]:
    name, _, count = environ.get(variable, "").partition(":")
    if name and name not in POINTS:
        raise ValueError(f"{variable}: {name} is none of {', '.join(POINTS)}")
    return name, int(count or 1)
