"""Named moments at which a test may kill the worker.

`REWINDOW_CRASH_AT=name` or `name:count` ends the process with SIGKILL the first, or count-th,
time that it gets there. Unset, it costs one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "REWINDOW_CRASH_AT"

POINTS = (
    "in_batch",
    "in_transaction",
    "before_flush",
    "in_flush",
    "in_claim",
    "in_closing",
    "in_recovery",
)


class CrashPoints:
    """Counts down to the crash that was asked for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name, _, count = environ.get(VARIABLE, "").partition(":")
        self._name = name
        self._left = int(count or 1)

    def reach(self, name: str) -> None:
        """Say that the worker is at `name`."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
