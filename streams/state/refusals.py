"""What a user is told of a bundle that can't be opened or read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from streams.errors import InvalidInputError, RefusedError, RewindowError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def refuse_others(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise RefusedError where the identity `found` in a directory is not the one wanted."""
    if found == wanted:
        return
    names = sorted(found.keys() | wanted.keys())
    differing = [name for name in names if found.get(name) != wanted.get(name)]
    whose = ", ".join(f"{name} {found.get(name)!r}" for name in differing)
    asked = ", ".join(f"{name} {wanted.get(name)!r}" for name in differing)
    raise RefusedError(
        f"{path} is the state of app {found.get('app')!r}: it holds {whose}, wanted is {asked}."
        " Set [state].dir to another directory"
    )


def refuse_to_open(path: Path, error: Exception) -> NoReturn:
    """Raise what RocksDB's refusal to open the bundle in `path` means to the user."""
    text = str(error)
    if "lock hold by current process" in text or "While lock file" in text:
        raise RefusedError(
            f"another worker uses this directory: {path}. Stop it, or give this one another"
            " [state].dir"
        ) from None
    if any(reason in text for reason in ("Permission denied", "Read-only", "os error")):
        raise InvalidInputError(
            f"the state directory {path} can't be used: {text}. Set [state].dir to a directory"
            " that this user may write"
        ) from None
    if any(reason in text for reason in ("No space left", "Too many open files")):
        raise RewindowError(f"the state in {path} can't be opened: {text}") from None
    raise damaged(path, error) from None


def damaged(path: Path, reason: object) -> RewindowError:
    """The error for files that can't be trusted."""
    told = " ".join(str(reason).split()).rstrip(".")
    return RewindowError(
        f"the state in {path} is damaged: {told}. Delete that directory and start the worker"
        " again: Kafka is the log, the state is rebuilt from it"
    )
