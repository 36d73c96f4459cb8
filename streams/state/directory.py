"""An archive in a directory: files written aside, made durable, then renamed.

Where the files to store are on the same disk they become hard links, and so do files
taken out: both take the same time however large they are.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from streams.errors import InvalidInputError, RewindowError, UnreachableError
from streams.state.objects import CHUNK_BYTES, Stored, ignore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from streams.clock import Clock
    from streams.state.objects import Advance

_INCOMING = ".incoming"
_ATTEMPTS = 100
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES}
_SETTINGS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}
_ABSENT_FOR_NOW = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN}


class DirectoryArchive:
    """See Archive. `root` is made when the first object is stored."""

    __slots__ = ("_clock", "_root")

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def put(self, key: str, data: bytes) -> None:
        with self._told(), self._incoming() as aside:
            aside.write_bytes(data)
            self._place(aside, key)

    def put_file(self, key: str, path: Path, advance: Advance = ignore) -> str | None:
        with self._told(), self._incoming() as aside:
            if not _linked(path, aside):
                with path.open("rb") as source, aside.open("wb") as target:
                    while chunk := source.read(CHUNK_BYTES):
                        target.write(chunk)
                        advance(len(chunk))
            else:
                advance(path.stat().st_size)
            self._place(aside, key)
            return _stamp(self._path(key).stat())

    def get(self, key: str) -> bytes | None:
        with self._told():
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                return None

    def chunks(self, key: str, size_bytes: int) -> Iterator[bytes]:
        with self._told():
            try:
                source = self._path(key).open("rb")
            except FileNotFoundError:
                return
            with source:
                while chunk := source.read(min(CHUNK_BYTES, size_bytes)):
                    size_bytes -= len(chunk)
                    yield chunk

    def link(self, key: str, path: Path) -> bool:
        with self._told():
            try:
                return _linked(self._path(key), path)
            except FileNotFoundError:
                return False

    def list(self, prefix: str) -> list[Stored]:
        found = []
        with self._told():
            top = os.fspath(self._path(prefix))
            for folder, folders, names in os.walk(top, onerror=_unless_absent):
                if _INCOMING in folders:
                    folders.remove(_INCOMING)
                # There are many: no Path for each.
                inside = prefix + folder.removeprefix(top).replace(os.sep, "/")
                for name in names:
                    with suppress(FileNotFoundError):
                        state = os.stat(f"{folder}{os.sep}{name}")  # noqa: PTH116
                        key = f"{inside}/{name}"
                        found.append(Stored(key=key, size_bytes=state.st_size, stamp=_stamp(state)))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, keys: Collection[str]) -> None:
        with self._told():
            for key in keys:
                path = self._path(key)
                path.unlink(missing_ok=True)
                for folder in path.parents:
                    if folder == self._root:
                        break
                    try:
                        folder.rmdir()
                    except OSError:
                        break

    def sweep(self, before_ms: int) -> int:
        freed_bytes = 0
        with self._told(), suppress(FileNotFoundError):
            for entry in os.scandir(self._root / _INCOMING):
                with suppress(FileNotFoundError):
                    # Not the file's time: a hard link has that of the file it was made from.
                    made_ms = int(entry.name.partition("-")[0], 16)
                    if made_ms < before_ms:
                        state = entry.stat()
                        freed_bytes += state.st_size if state.st_nlink == 1 else 0
                        os.unlink(entry.path)  # noqa: PTH108
        return freed_bytes

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..", _INCOMING) for part in parts):
            raise ValueError(f"not a key: {key!r}")
        return self._root.joinpath(*parts)

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A name of its own for a file being written; nothing is left there afterwards."""
        folder = self._root / _INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._clock.now_ms():x}-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            # Also after the rename: between two links of one file it does nothing.
            path.unlink(missing_ok=True)

    def _place(self, aside: Path, key: str) -> None:
        path = self._path(key)
        sync(aside)
        for left in reversed(range(_ATTEMPTS)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.replace(path)
                break
            except FileNotFoundError:
                # A deletion beside this took the empty directory away.
                if not left:
                    raise
        sync(path.parent)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the operating system refuses, in the operator's words."""
        try:
            yield
        except OSError as error:
            raise _refusal(self.url, error) from None


def sync(path: Path) -> None:
    """Make a file's bytes, or a directory's entries, survive a power failure."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _linked(path: Path, to: Path) -> bool:
    try:
        to.hardlink_to(path)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _stamp(state: os.stat_result) -> str:
    return str(state.st_mtime_ns)


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _refusal(url: str, error: OSError) -> RewindowError:
    text = f"the archive {url} can't be used: {error}"
    if error.errno in _SETTINGS:
        return InvalidInputError(
            f"{text}. Set [snapshots].url to a directory that this user may write"
        )
    if error.errno in _ABSENT_FOR_NOW:
        return UnreachableError(f"{text}. See to the disk or its mount and try again")
    return RewindowError(f"{text}. See to the disk (space, rights) and try again")
