"""What checkpoints want from the place where they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

CHUNK_BYTES = 1 << 20
"""Read or written at a time where files are copied: bounds memory, and how long one call takes."""

Advance: TypeAlias = "Callable[[int], None]"
"""Told how many bytes more are done; what it raises ends the work."""


def ignore(_: int) -> None:
    """An `Advance` for those who don't want to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One object. As long as its `stamp` is the same, nobody wrote to it."""

    key: str
    size_bytes: int
    stamp: str | None


class Archive(Protocol):
    """Objects under keys (`a/b/c`). An object is there whole or not at all.

    All methods block and may be called from several threads. They raise UnreachableError
    where trying again later may help, InvalidInputError where a setting is wrong (no such
    bucket, wrong credentials, no rights), RewindowError for what else goes wrong.
    """

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store a small object, in place of what had that key."""
        ...

    def put_file(self, key: str, path: Path, advance: Advance = ignore) -> str | None:
        """Store the file at `path`, which nobody writes to any more; returns its stamp.

        It may become a hard link to that file. Memory does not grow with the file's size.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes of a small object; None if there is none."""
        ...

    def chunks(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """The first `size_bytes` of an object in pieces; fewer, or none, if there are no more."""
        ...

    def link(self, key: str, path: Path) -> bool:
        """Make `path` a hard link to the object; False where that can't be done."""
        ...

    def list(self, prefix: str) -> list[Stored]:
        """All objects with keys below `prefix` (whole parts of a key), sorted by key."""
        ...

    def delete(self, keys: Collection[str]) -> None:
        """Remove objects; those that don't exist are no error."""
        ...

    def sweep(self, before_ms: int) -> int:
        """Remove what writes left unfinished before `before_ms`; returns the bytes freed."""
        ...
