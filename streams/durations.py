"""Durations as users write them, such as `10m`, and as milliseconds."""

from __future__ import annotations

import re

DAY_MS = 86_400_000
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
_DURATION = re.compile(r"(\d{1,15})(ms|s|m|h|d)\Z", re.ASCII)


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as `90s` or `1d`. Raises ValueError saying the form."""
    found = _DURATION.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no duration: a whole number and one of ms, s, m, h, d")
    return int(found[1]) * UNITS_MS[found[2]]


def format_duration(value_ms: int) -> str:
    """The shortest form that `parse_duration` reads back to `value_ms`."""
    for unit in ("d", "h", "m", "s"):
        if value_ms and value_ms % UNITS_MS[unit] == 0:
            return f"{value_ms // UNITS_MS[unit]}{unit}"
    return f"{value_ms}ms"
