"""What is wrong in a definition, and where the user wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to mend. `path` leads to it through the YAML's keys, outermost first."""

    path: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a definition was written: its file, and the line of each of its keys."""

    file: str
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def line(self, path: tuple[str, ...]) -> int | None:
        """Line of `path`, or of the nearest key around it; None where lines are unknown."""
        for length in range(len(path), -1, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return None

    def describe(self, problem: Problem) -> str:
        """`file:line: field: message`, for people and their editors."""
        line = self.line(problem.path)
        place = self.file if line is None else f"{self.file}:{line}"
        return f"{place}: {problem}"
