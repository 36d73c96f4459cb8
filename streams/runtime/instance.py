"""Which instance of the app this process is: a name that outlives it, and its state directory.

The name is the static member id in the consumer groups, so a worker that comes back under it
takes its partitions back at once. Without a name given, the first free slot of this machine's
state directory is taken; a file lock frees it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from streams.errors import InvalidInputError, RefusedError
from streams.names import SNAPSHOTS_DIR

if TYPE_CHECKING:
    from pathlib import Path

SLOTS = 64
_LOCK = "instance.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A held instance; keep it as long as the process works under that name."""

    name: str
    state_dir: Path
    lock: IO[str]

    def release(self) -> None:
        """Let another process have the name."""
        self.lock.close()


def hold_instance(state_dir: Path, name: str | None) -> Instance:
    """Take `name`, or the first free slot. Raises `RefusedError` if it is taken."""
    if name == SNAPSHOTS_DIR:
        raise InvalidInputError(f"--instance {name!r} is taken: checkpoints are kept there")
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(state_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        if name is not None:
            held = _hold(state_dir, name)
            if held is None:
                raise RefusedError(
                    f"another worker runs as instance {name}: stop it, or give this one another "
                    "--instance"
                )
            return held
        host = socket.gethostname() or "worker"
        for slot in range(SLOTS):
            held = _hold(state_dir, f"{host}-{slot}")
            if held is not None:
                return held
    except OSError as error:
        raise InvalidInputError(
            f"the state directory {state_dir} can't be used ({error.strerror}): set [state].dir "
            "or REWINDOW_STATE_DIR to a directory that this user may write"
        ) from None
    raise RefusedError(f"{SLOTS} workers run in {state_dir}: give this one an --instance")


def in_use(directory: Path) -> Path | None:
    """The instance's directory that a running process holds: this one, or one in it."""
    for lock in (directory / _LOCK, *directory.glob(f"*/{_LOCK}")):
        if not lock.is_file():
            continue
        with lock.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.parent
    return None


def _hold(state_dir: Path, name: str) -> Instance | None:
    directory = state_dir / name
    directory.mkdir(exist_ok=True)
    lock = (directory / _LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return Instance(name=name, state_dir=directory, lock=lock)
