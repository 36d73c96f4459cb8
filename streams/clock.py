"""The only place that reads the real clock.

Nothing on the data path takes a time from here: results depend on the log alone. The
clock decides when to flush, when a partition counts as idle, and what a log line says.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings: one that never jumps, and the time of day."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the epoch in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
