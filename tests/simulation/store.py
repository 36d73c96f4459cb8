"""Panes on a disk that may lose what was not flushed: stands for RocksDB bundles.

A bundle is a directory, as the product expects it to be, with one file that names what was
flushed last: rows and meta together, which never change. So what moves, copies or deletes
directories does that to state, too, and a checkpoint is a copy of that file.
"""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Self

import polars as pl

from streams.errors import RefusedError, RewindowError
from streams.state.memory import MemoryStore
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from streams.state.rows import RowLayout
    from streams.state.store import Meta

FILE = "CURRENT"
"""As in RocksDB's directories: without it there is nothing."""


class Disk:
    """What was flushed anywhere, by number; the files hold the numbers."""

    def __init__(self) -> None:
        self.flushed: dict[int, tuple[pl.DataFrame, Meta]] = {}
        self.open: dict[str, Process] = {}
        """Who has the directory of a bundle open."""
        self._numbers = itertools.count(1)

    def keep(self, rows: pl.DataFrame, meta: Meta) -> int:
        number = next(self._numbers)
        self.flushed[number] = (rows, meta)
        return number


class Bundle(MemoryStore):
    """Stands for `streams.state.bundle.Bundle`."""

    __slots__ = ("_before_ingest", "_disk", "_path", "_process")

    def __init__(
        self, disk: Disk, path: Path, layout: RowLayout, before_ingest: Callable[[], None]
    ) -> None:
        super().__init__(layout)
        self._disk = disk
        self._path = path
        self._before_ingest = before_ingest
        self._process = Process.current()

    @classmethod
    def open(
        cls,
        path: Path,
        layout: RowLayout,
        *,
        identity: Mapping[str, str],
        resources: object,
        formerly: Mapping[str, str] | None = None,
        before_ingest: Callable[[], None] = lambda: None,
    ) -> Self:
        """As that of a bundle, of which one process may have the LOCK."""
        del identity, resources, formerly
        process = Process.current()
        process.live()
        disk: Disk = process.host.disk
        holder = disk.open.get(str(path))
        if holder is not None and not holder.dead:
            raise RefusedError(f"the state in {path} is open already")
        if not path.is_dir():
            if process.host.faults.disk_fails(path.name):
                raise RewindowError(f"the state directory {path} can't be written: asked for")
            path.mkdir(parents=True)
        disk.open[str(path)] = process
        made = cls(disk, path, layout, before_ingest)
        held = path / FILE
        if held.exists():
            rows, made._meta = disk.flushed[int(held.read_text())]
            names = layout.empty().columns
            if rows.columns != names:  # rows hold values in their order, and no names
                process.host.faults.did("restored by another name")
                rows = rows.rename(dict(zip(rows.columns, names, strict=True)))
            made._rows = rows
        return made

    def write(self, rows: pl.DataFrame, meta: Meta) -> None:
        """Aside: a process that ends has written nothing."""
        self._process.live()
        super().write(rows, meta)

    def ingest(self) -> None:
        """All of it or nothing, whenever the process ends."""
        self._process.live()
        self._before_ingest()
        super().ingest()
        self.keep()

    def keep(self) -> None:
        """What there is now is what the process finds when it comes back."""
        assert self._meta is not None
        (self._path / FILE).write_text(str(self._disk.keep(self._rows, self._meta)))

    def checkpoint(self, path: Path) -> Meta:
        """As that of a bundle."""
        self._process.live()
        if self._meta is None:
            raise ValueError(f"nothing was flushed to {self._path} yet")
        path.mkdir()
        shutil.copy(self._path / FILE, path / FILE)
        return self._disk.flushed[int((path / FILE).read_text())][1]

    def close(self) -> None:
        self._disk.open.pop(str(self._path), None)
