"""One bundle on disk: rows and their meta in a RocksDB of their own, without a WAL.

A flush is one sorted SST file, written aside and then ingested: RocksDB takes it in whole
or not at all, and memtables stay empty. Keys::

    row        pane and entity, 8 bytes and more (see `rows`)
    meta       b"\\xff"      after all rows, so that the key range of a flush ends with
    identity   b"\\xff\\x00"   them and compaction leaves older panes alone

Only this module knows rocksdict. docs/state.md tells what survives which failure.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from itertools import islice
from typing import TYPE_CHECKING, NoReturn, cast

import polars as pl
import rocksdict

from streams.errors import InvalidInputError, RewindowError
from streams.state.refusals import damaged, refuse_others, refuse_to_open
from streams.state.rows import (
    ENTITY,
    PANE,
    PANE_LIMIT_MS,
    RowLayout,
    check_keys,
    encode_keys,
    key,
    pane_of_key,
    pane_prefix,
)
from streams.state.store import Meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_LOG = logging.getLogger(__name__)

_META_KEY = b"\xff"
_IDENTITY_KEY = b"\xff\x00"
_FIRST_PANE_MS = -(1 << 63)

_PENDING = "flush.sst"
"""The SST file being written; RocksDB ignores files that are not named by number."""

_CHUNK_ROWS = 32_768
"""Rows packed, written or read at a time: bounds memory, and how long the GIL is held."""

_SCAN_COSTS = 1 / 3
"""A row read by scanning, relative to one read by multi-get (measured)."""

_READAHEAD_BYTES = 2 << 20


class Resources:
    """Memory and files that all bundles of a process share.

    Blocks, indexes and filters of all bundles live in one cache of `cache_bytes`, their
    memtables (range deletes only) count against `write_buffer_bytes`. Each bundle keeps at
    most `open_files` SST files open.
    """

    __slots__ = ("_cache", "_open_files", "_write_buffers")

    def __init__(
        self,
        *,
        cache_bytes: int = 128 << 20,
        write_buffer_bytes: int = 16 << 20,
        open_files: int = 256,
    ) -> None:
        self._cache = rocksdict.Cache(cache_bytes)
        self._write_buffers = rocksdict.WriteBufferManager(write_buffer_bytes, False)
        self._open_files = open_files

    def options(self) -> rocksdict.Options:
        """RocksDB options of a bundle; every SST file is written with them too."""
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        table.set_bloom_filter(10, False)
        table.set_block_size(16 << 10)
        table.set_format_version(5)
        options = rocksdict.Options(raw_mode=True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self._write_buffers)
        options.set_write_buffer_size(1 << 20)
        options.set_max_open_files(self._open_files)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_target_file_size_base(8 << 20)
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)
        options.set_stats_dump_period_sec(0)
        options.set_stats_persist_period_sec(0)
        return options


class Bundle:
    """A pane store in a directory; one process at a time, and one flush."""

    __slots__ = (
        "_before_ingest",
        "_db",
        "_layout",
        "_meta",
        "_options",
        "_path",
        "_reclaiming",
        "_written",
    )

    def __init__(
        self,
        db: rocksdict.Rdict,
        path: Path,
        layout: RowLayout,
        options: rocksdict.Options,
        before_ingest: Callable[[], None],
    ) -> None:
        self._db: rocksdict.Rdict | None = db
        self._path = path
        self._layout = layout
        self._options = options
        self._before_ingest = before_ingest
        self._reclaiming: threading.Thread | None = None
        self._meta: Meta | None = None
        self._written: Meta | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        layout: RowLayout,
        *,
        identity: Mapping[str, str],
        resources: Resources,
        formerly: Mapping[str, str] | None = None,
        before_ingest: Callable[[], None] = lambda: None,
    ) -> Bundle:
        """Open the bundle in `path`, or make an empty one there.

        `identity` says whose state it is (`app`, `stream`, `partition`, …) and is written
        once. Files restored from another bundle's checkpoint become this one's if they are
        `formerly` that one's. `before_ingest` is called in each flush when its file is
        written and not part of the bundle yet. Raises InvalidInputError if the directory
        can't be written, RefusedError if it holds something else's state or another worker
        has it open, RewindowError if it is damaged.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            usable = os.access(path, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        if not usable:
            raise InvalidInputError(
                f"the state directory {path} can't be written: set [state].dir to a directory"
                " that this user may write"
            )
        options = resources.options()
        try:
            db = rocksdict.Rdict(str(path), options)
        except Exception as error:
            refuse_to_open(path, error)
        bundle = cls(db, path, layout, options, before_ingest)
        try:
            # Only who holds the LOCK may remove this: before, it may be somebody's flush.
            (path / _PENDING).unlink(missing_ok=True)
            bundle._settle(identity, formerly)
        except BaseException:
            bundle.close()
            raise
        return bundle

    @property
    def meta(self) -> Meta | None:
        return self._meta

    def scan(self, start_ms: int, end_ms: int, limit: int | None = None) -> pl.DataFrame:
        """See PaneStore. Raises RewindowError if the files are damaged."""
        first, end = _bound(start_ms), _bound(end_ms)
        if first >= end or self._meta is None:
            return self._layout.empty()
        frames = [self._decode(keys, values) for keys, values in self._pairs(first, end, limit)]
        return pl.concat(frames) if frames else self._layout.empty()

    def panes(self, start_ms: int, end_ms: int) -> list[int]:
        """See PaneStore; one seek for each. Raises RewindowError if the files are damaged."""
        first, end = _bound(start_ms), _bound(end_ms)
        found: list[int] = []
        if first >= end or self._meta is None:
            return found
        cursor = self._opened().iter()
        try:
            cursor.seek(first)
            while cursor.valid() and (at := cursor.key()) < end:
                found.append(pane_of_key(at))
                cursor.seek(_bound(found[-1] + 1))
            whole = cursor.valid()
            cursor.status()
        except Exception as error:
            self._fail("read", error)
        finally:
            del cursor
        if not whole:  # the meta row comes after all rows
            raise damaged(self._path, "rows are missing")
        return found

    def scan_each(self, panes: Sequence[int], after: str | None, limit: int) -> pl.DataFrame:
        """See PaneStore. Raises RewindowError if the files are damaged."""
        if self._meta is None:
            return self._layout.empty()
        frames = []
        keys: list[bytes] = []
        values: list[bytes] = []
        for pane in panes:
            # No entity lies between one and the same with a zero byte after it.
            first = pane_prefix(pane) if after is None else key(pane, after + "\0")
            for some, found in self._pairs(first, _bound(pane + 1), limit):
                keys += some
                values += found
            if len(keys) >= _CHUNK_ROWS:
                frames.append(self._decode(keys, values))
                keys, values = [], []
        return pl.concat([*frames, self._decode(keys, values)])

    def lookup(self, keys: pl.DataFrame) -> pl.DataFrame:
        """See PaneStore. Raises RewindowError if the files are damaged, ValueError for nulls."""
        if keys.is_empty() or self._meta is None:
            return self._layout.empty()
        keys = keys.select(PANE, ENTITY).unique().sort(PANE, ENTITY)
        start_ms, end_ms = keys[PANE][0], keys[PANE][-1] + 1
        if self._rows_at_most(start_ms, end_ms) * _SCAN_COSTS < keys.height:
            rows = self.scan(start_ms, end_ms)
            return rows.join(keys, on=[PANE, ENTITY], how="semi", maintain_order="left")
        frames = []
        for chunk in keys.iter_slices(_CHUNK_ROWS):
            wanted = encode_keys(chunk)
            found = self._get(wanted)
            pairs = [(k, v) for k, v in zip(wanted, found, strict=True) if v is not None]
            frames.append(self._decode([k for k, _ in pairs], [v for _, v in pairs]))
        return pl.concat(frames)

    def write(self, rows: pl.DataFrame, meta: Meta) -> None:
        """See PaneStore. Raises RewindowError if the disk refuses the file."""
        self._written = None
        rows = self._layout.conform(rows).sort(PANE, ENTITY)
        check_keys(rows)
        encoded = (self._layout.encode(chunk) for chunk in rows.iter_slices(_CHUNK_ROWS))
        pairs = (pair for keys, values in encoded for pair in zip(keys, values, strict=True))
        self._write(pairs, (_META_KEY, meta.to_bytes()))
        self._written = meta

    def ingest(self) -> None:
        """See PaneStore. Raises RewindowError if the disk refuses it, ValueError for nothing."""
        meta, self._written = self._written, None
        if meta is None:
            raise ValueError(f"nothing was written for {self._path}")
        self._before_ingest()
        self._take_in()
        self._meta = meta

    def flush(self, rows: pl.DataFrame, meta: Meta) -> None:
        """See PaneStore."""
        self.write(rows, meta)
        self.ingest()

    def drop_below(self, pane_ms: int) -> None:
        """See PaneStore. Returns at once; the space is given back in the background."""
        first, bound = _bound(_FIRST_PANE_MS), _bound(pane_ms)
        db = self._opened()
        if next(iter(db.keys(read_opt=_until(bound))), None) is None:
            return
        unlogged = rocksdict.WriteOptions()
        unlogged.disable_wal = True  # type: ignore[method-assign,assignment]  # a property
        try:
            db.delete_range(first, bound, unlogged)
            # Not for durability: a checkpoint stays hard links only while memtables are empty.
            db.flush(True)
        except Exception as error:
            self._fail("written", error)
        if self._reclaiming is None or not self._reclaiming.is_alive():
            self._reclaiming = threading.Thread(
                target=_compact, args=(db, first, bound), name=f"reclaim {self._path}"
            )
            self._reclaiming.start()

    def checkpoint(self, path: Path) -> Meta:
        """Make the directory `path`: the files of the last flush, which open as a bundle.

        SST files are hard links where `path` is on the bundle's disk, the few others copies:
        milliseconds, whatever the number of rows. Not while a flush is taken in;
        returns the meta that is in there. `path` must not exist, its parent must. Raises
        ValueError if nothing was flushed yet, RewindowError if the disk refuses the files.
        """
        if self._meta is None:
            raise ValueError(f"nothing was flushed to {self._path} yet")
        try:
            rocksdict.Checkpoint(self._opened()).create_checkpoint(str(path))
        except ValueError:
            raise
        except Exception as error:
            self._fail(f"copied to {path}", error)
        return self._meta

    def close(self) -> None:
        """See PaneStore. Stops a reclaim under way; the next drop takes it up again."""
        db, self._db = self._db, None
        if db is None:
            return
        if self._reclaiming is not None:
            if self._reclaiming.is_alive():
                db.cancel_all_background(True)
            self._reclaiming.join()
        try:
            db.close()
        except Exception as error:
            # Closing flushes memtables first, which a stopped RocksDB refuses and then closes
            # all the same; ours hold nothing that matters.
            if "Shutdown in progress" not in str(error):
                self._fail("closed", error)

    def _settle(self, identity: Mapping[str, str], formerly: Mapping[str, str] | None) -> None:
        """Check whose state this is, or write that down; read the meta."""
        stored, meta = self._get([_IDENTITY_KEY, _META_KEY])
        wanted = dict(identity)
        try:
            found = None if stored is None else json.loads(stored)
            if found is None and meta is not None:
                raise ValueError("it does not say whose it is")
            if found is None or (formerly is not None and found == dict(formerly)):
                text = json.dumps(wanted, sort_keys=True)
                self._write([], (_IDENTITY_KEY, text.encode()))
                self._take_in()
            else:
                refuse_others(self._path, found, wanted)
            self._meta = None if meta is None else Meta.from_bytes(meta)
        except ValueError as error:
            raise damaged(self._path, error) from None

    def _write(self, pairs: Iterable[tuple[bytes, bytes]], last: tuple[bytes, bytes]) -> None:
        """Write ascending `pairs` and `last` as one SST file."""
        try:
            writer = rocksdict.SstFileWriter(self._options)
            writer.open(str(self._path / _PENDING))
            for key, value in pairs:
                writer[key] = value
            writer[last[0]] = last[1]
            writer.finish()
        except ValueError:
            raise
        except Exception as error:
            self._fail("written", error)

    def _take_in(self) -> None:
        """Make the file that was written part of the bundle, atomically."""
        moving = rocksdict.IngestExternalFileOptions()
        moving.set_move_files(True)
        try:
            self._opened().ingest_external_file([str(self._path / _PENDING)], moving)
        except ValueError:
            raise
        except Exception as error:
            self._fail("written", error)

    def _pairs(
        self, first: bytes, end: bytes, limit: int | None = None
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys in [first, end) and their values, in chunks, as of one moment.

        With `limit`, only so many of them.
        """
        snapshot = self._opened().snapshot()
        # Two passes: rocksdict's pairs are tuples, which cost three times as much.
        keys = cast("Iterator[bytes]", snapshot.keys(from_key=first, read_opt=_until(end)))
        values = snapshot.values(from_key=first, read_opt=_until(end))
        left = sys.maxsize if limit is None else limit
        last = None
        try:
            while chunk := list(islice(keys, min(_CHUNK_ROWS, left))):
                found = list(islice(values, len(chunk)))
                if len(found) != len(chunk):
                    raise damaged(self._path, "fewer values than keys")
                last = chunk[-1]
                left -= len(chunk)
                yield chunk, found
            if left:
                self._check_end(snapshot, first, last, end)
        finally:
            # What is still alive at close keeps the LOCK; a traceback would keep it alive.
            del snapshot, keys, values

    def _check_end(
        self, snapshot: rocksdict.Snapshot, first: bytes, last: bytes | None, end: bytes
    ) -> None:
        """Raise if a pass over [first, end) that met `last` ended before `end`.

        rocksdict's iterators end in silence at a block that can't be read. The meta row comes
        after all rows, so there always is a next key, and a whole pass has it at `end` or later.
        """
        cursor = snapshot.iter()
        try:
            cursor.seek(first if last is None else last)
            if last is not None and cursor.valid():
                cursor.next()
            if cursor.valid() and cursor.key() >= end:
                return
            cursor.status()
        except Exception as error:
            self._fail("read", error)
        finally:
            del cursor, snapshot
        raise damaged(self._path, "rows are missing")

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        try:
            return cast("list[bytes | None]", self._opened().get(list(keys)))
        except Exception as error:
            self._fail("read", error)

    def _decode(self, keys: list[bytes], values: list[bytes]) -> pl.DataFrame:
        try:
            return self._layout.decode(keys, values)
        except ValueError as error:
            raise damaged(self._path, error) from None

    def _rows_at_most(self, start_ms: int, end_ms: int) -> int:
        """Rows in the SST files that touch these panes."""
        first, end = _bound(start_ms), _bound(end_ms)
        return sum(
            file["num_entries"]
            for file in self._opened().live_files()
            if file["start_key"] < end and file["end_key"] >= first
        )

    def _opened(self) -> rocksdict.Rdict:
        if self._db is None:
            raise ValueError(f"the bundle in {self._path} is closed")
        return self._db

    def _fail(self, verb: str, error: Exception) -> NoReturn:
        if "Corruption" in str(error):
            raise damaged(self._path, error) from None
        raise RewindowError(
            f"the state in {self._path} can't be {verb}: {error}. See to the disk (space,"
            " rights, limit of open files) and start the worker again: nothing is lost"
        ) from None


def _bound(pane_ms: int) -> bytes:
    """Where a pane's rows begin; never beyond the meta row, whatever the pane."""
    if pane_ms >= PANE_LIMIT_MS:
        return _META_KEY
    return pane_prefix(max(pane_ms, _FIRST_PANE_MS))


def _until(end: bytes) -> rocksdict.ReadOptions:
    """For one pass up to `end`, which leaves the shared cache to the lookups."""
    options = rocksdict.ReadOptions()
    options.set_iterate_upper_bound(end)
    options.set_readahead_size(_READAHEAD_BYTES)
    options.fill_cache(False)  # type: ignore[call-arg]  # the stub lacks the argument
    return options


def _compact(db: rocksdict.Rdict, first: bytes, end: bytes) -> None:
    """Rewrite the files that touch [first, end) without what was deleted."""
    options = rocksdict.CompactOptions()
    options.set_exclusive_manual_compaction(False)
    try:
        db.compact_range(first, end, options)
    except Exception as error:
        # Closing stops it; RocksDB's own compactions or the next drop do the rest.
        _LOG.debug("space not reclaimed yet: %s", error)
