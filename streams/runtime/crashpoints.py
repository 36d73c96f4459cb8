"""Named moments at which a test may kill the worker, or make it fail.

`REWINDOW_CRASH_AT=name` or `name:count` ends the process with SIGKILL the first, or count-th,
time that it gets there. `REWINDOW_FREEZE_AT` stops it there as SIGSTOP does, until somebody
lets it go on; `REWINDOW_FAIL_AT` raises an error there, once. Unset, they cost a comparison.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CRASH_VARIABLE = "REWINDOW_CRASH_AT"
FREEZE_VARIABLE = "REWINDOW_FREEZE_AT"
FAIL_VARIABLE = "REWINDOW_FAIL_AT"

POINTS = (
    "in_claim",  # fenced, positions read, no state opened yet
    "in_recovery",  # between two batches of a replay
    "in_batch",  # decoded, nothing applied
    "in_transaction",  # all records and the offset sent, not committed
    "after_commit",  # committed, and nothing done after it
    "in_closing",  # between two transactions of a closing that is larger than one
    "in_correcting",  # between two transactions of corrections
    "before_flush",  # committed, nothing of it on disk
    "in_flush",  # a bundle's new rows are in a file that is not part of it yet
    "in_take_over",  # a coordinator has fenced the one before, and read nothing yet
    "before_decision",  # made, nothing of it sent
    "in_decision",  # all of it sent, not committed
    "after_decision",  # committed, and not known here yet
)

ARCHIVE_POINTS = (
    "archive_object",  # of a checkpoint's files, one more is about to be stored
    "archive_manifest",  # all of its files are stored, its manifest is not
    "archive_file",  # of a checkpoint that is restored, one more file is about to come
)
"""In threads of their own, beside all others."""


class InjectedError(Exception):
    """The failure that a test asked for."""


class CrashPoints:
    """Counts down to what was asked for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises `ValueError` for a point that does not exist."""
        self._crash = _Countdown.asked(environ, CRASH_VARIABLE)
        self._freeze = _Countdown.asked(environ, FREEZE_VARIABLE)
        self._fail = _Countdown.asked(environ, FAIL_VARIABLE)

    def reach(self, name: str) -> None:
        """Say that the worker is at `name`."""
        if self._crash is not None and self._crash.over(name):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._freeze is not None and self._freeze.over(name):
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._fail is not None and self._fail.over(name):
            raise InjectedError(f"asked for at {name}")


class _Countdown:
    """Arrivals at one point that are left until it is time."""

    def __init__(self, name: str, left: int) -> None:
        self._name = name
        self._left = left

    @classmethod
    def asked(cls, environ: Mapping[str, str], variable: str) -> _Countdown | None:
        name, _, count = environ.get(variable, "").partition(":")
        if not name:
            return None
        known = (*POINTS, *ARCHIVE_POINTS)
        if name not in known:
            raise ValueError(f"{variable}: {name} is none of {', '.join(known)}")
        return cls(name, int(count or 1))

    def over(self, name: str) -> bool:
        if name != self._name:
            return False
        self._left -= 1
        return self._left == 0
