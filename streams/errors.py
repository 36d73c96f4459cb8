"""The kinds of error an operator can meet, chosen by how a caller reacts.

Each message says what to do; each kind has one exit code, the same everywhere.
"""

from __future__ import annotations

from typing import ClassVar


class RewindowError(Exception):
    """Something failed; the message says what and what to do about it."""

    exit_code: ClassVar[int] = 1


class InvalidInputError(RewindowError):
    """A file, a definition or an argument is wrong: mend it and run again."""

    exit_code = 2


class RefusedError(RewindowError):
    """A rule refused the change: nothing was changed, the message names the rule."""

    exit_code = 3


class UnreachableError(RewindowError):
    """Kafka or the registry can't be reached: the same command may work later."""

    exit_code = 4


class DeadlinePassedError(RewindowError):
    """The time allowed is over: the work may still complete on its own."""

    exit_code = 5


class NotStoppedError(RewindowError):
    """Something could not be stopped in order: tasks and threads of it go on, and the process has
    to end without waiting for them."""
