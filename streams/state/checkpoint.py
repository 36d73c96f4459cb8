"""Checkpoints of one app: taking them, finding them, keeping them.

docs/checkpoints.md has the whole picture. No two uploads of one bundle may run at the same
time (a bundle has a single owner); everything else may run beside everything else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from streams.durations import DAY_MS
from streams.errors import RefusedError, RewindowError
from streams.state.manifest import (
    BundleId,
    File,
    Manifest,
    Unreadable,
    check_id,
    condemned_ms,
    made_ms,
    new_id,
    read_manifest,
    split_key,
    upload_of,
)
from streams.state.objects import CHUNK_BYTES
from streams.state.verify import Damage, changed, listed, missing, unreadable, untouched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from streams.clock import Clock
    from streams.state.bundle import Bundle
    from streams.state.objects import Advance, Archive, Stored
    from streams.state.store import Meta

Progress: TypeAlias = "Callable[[int, int], None]"
"""Told the bytes done and all bytes, in the thread that works; what it raises ends the work."""

_Inode: TypeAlias = tuple[int, int, int, int]
"""Device, number, modification time in ns, bytes: nobody wrote to it since it was the same."""

TAKE_STEPS = ("hash", "look", "object", "pin", "manifest", "tidy")
"""What an upload announces before it does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Files of a bundle as of `meta`, at `path`, and nobody else's. `upload` names their keys."""

    of: BundleId
    path: Path
    meta: Meta
    upload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the taker knows of a checkpoint beyond its files.

    `checkpoint` is the id, where it is one of several; without it there is a new one. With
    `pin` (a name, such as a request's id) it is kept from the start.
    """

    reason: str
    checkpoint: str | None = None
    pin: str | None = None
    schema_ids: tuple[int, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What keeps a checkpoint: while one of its pins exists, prune leaves it."""

    name: str
    reason: str
    at_ms: int


class Checkpoints:
    """The checkpoints of `app` in an archive.

    `limit_ms` is how long an object without a manifest is taken for an upload's under way:
    an upload must be done in half of it. `step` is told each step before it is done.
    """

    __slots__ = ("_hashes", "_seen", "_token", "app", "archive", "clock", "limit_ms", "step")

    def __init__(
        self,
        archive: Archive,
        app: str,
        *,
        clock: Clock,
        limit_ms: int = DAY_MS,
        token: Callable[[], str] = lambda: secrets.token_hex(4),
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.archive = archive
        self.app = app
        self.clock = clock
        self.limit_ms = limit_ms
        self.step = step
        self._token = token
        self._hashes: dict[BundleId, dict[_Inode, str]] = {}
        self._seen: dict[str, dict[Stored, Manifest | Unreadable]] = {}
        """The manifests that were last found below a prefix."""

    def new_id(self) -> str:
        return new_id(self.clock.now_ms(), self._token())

    def set_aside(self, bundle: Bundle, of: BundleId, staging: Path) -> Aside:
        """Make hard links of what the last flush left, in `staging`, for `upload` to take.

        `staging` must be on the bundle's disk; what a crash leaves there is for `discard`.
        Not while a flush is taken in; takes milliseconds. Raises ValueError if
        nothing was flushed yet, RewindowError if the disk refuses.
        """
        upload = self.new_id()
        path = staging / upload
        try:
            staging.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RewindowError(
                f"{staging} can't be made: {error}. See to the state directory's rights and space"
            ) from None
        return Aside(of=of, path=path, meta=bundle.checkpoint(path), upload=upload)

    def upload(self, aside: Aside, facts: Facts, progress: Progress = lambda *_: None) -> Manifest:
        """Make a checkpoint of what was set aside, which is gone afterwards in any case.

        1. Hash the files that the last upload had not. 2. Look what is there already.
        3. Store the other files. 4. Pin. 5. Store the manifest: before it there is no
        checkpoint, after it there is one.

        Blocks; the GIL is released while bytes are read, hashed and sent. Raises what the
        archive raises, RewindowError if it took longer than half of `limit_ms`,
        InvalidInputError for an id that is none.
        """
        checkpoint = facts.checkpoint or aside.upload
        check_id(checkpoint)
        try:
            self.step("hash")
            files = self._hashed(aside)

            self.step("look")
            there = self._reusable(aside.of)
            todo = {f.sha256: f for f in files if (f.sha256, f.size_bytes) not in there}
            meter = _Meter(progress, sum(file.size_bytes for file in todo.values()))

            for file in todo.values():
                self.step("object")
                stamp = self.archive.put_file(file.key, aside.path / file.name, meter.advance)
                there[file.sha256, file.size_bytes] = replace(file, stamp=stamp)
            if self.clock.now_ms() - made_ms(aside.upload) > self.limit_ms // 2:
                raise RewindowError(
                    f"the checkpoint of {aside.of} took longer than half of"
                    f" {self.limit_ms} ms: another one will be taken. Is the way to"
                    f" {self.archive.url} too slow?"
                )
            if facts.pin is not None:
                self.step("pin")
                self._pin(aside.of, checkpoint, facts.pin, facts.reason)

            self.step("manifest")
            held = [there[file.sha256, file.size_bytes] for file in files]
            pairs = zip(files, held, strict=True)
            made = Manifest(
                of=aside.of,
                checkpoint=checkpoint,
                created_ms=self.clock.now_ms(),
                reason=facts.reason,
                next_offset=aside.meta.next_offset,
                watermark_ms=aside.meta.watermark_ms,
                source_watermarks=dict(aside.meta.source_watermarks),
                floor_ms=aside.meta.floor_ms,
                files=tuple(replace(f, key=h.key, stamp=h.stamp) for f, h in pairs),
                schema_ids=facts.schema_ids,
                notes=dict(facts.notes),
            )
            self.archive.put(aside.of.manifest(checkpoint), made.to_bytes())
            self.step("tidy")
            return made
        finally:
            shutil.rmtree(aside.path, ignore_errors=True)

    async def upload_in_background(
        self, aside: Aside, facts: Facts, progress: Progress = lambda *_: None
    ) -> Manifest:
        """`upload` in a thread, so that the event loop goes on.

        Cancelled, it stops the upload at its next piece, and waits for that. `progress` is
        called in the thread.
        """
        stopped = threading.Event()

        def go_on(done_bytes: int, all_bytes: int) -> None:
            if stopped.is_set():
                raise RewindowError(f"the checkpoint of {aside.of} was given up")
            progress(done_bytes, all_bytes)

        work = asyncio.ensure_future(asyncio.to_thread(self.upload, aside, facts, go_on))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait([work])
            raise

    def all(self, of: BundleId | None = None) -> list[Manifest | Unreadable]:
        """Every manifest of the app, or of one bundle: by bundle, oldest first.

        What nobody has written to since the last time is not read again.
        """
        prefix = f"{self.app}/manifests" if of is None else of.manifests()
        seen, found = self._seen.get(prefix, {}), {}
        for stored in self.archive.list(prefix):
            split = split_key(stored.key)
            if split is not None and len(split[1]) == 1:
                one = seen.get(stored) or self.read(split[0], split[1][0].removesuffix(".json"))
                if one is not None:
                    found[stored] = one
        self._seen[prefix] = {stored: one for stored, one in found.items() if stored.stamp}
        return sorted(found.values(), key=lambda one: (one.of, one.checkpoint))

    def read(self, of: BundleId, checkpoint: str) -> Manifest | Unreadable | None:
        """One manifest; None if there is none."""
        data = self.archive.get(of.manifest(checkpoint))
        return None if data is None else read_manifest(of, checkpoint, data)

    def show(self, checkpoint: str) -> list[Manifest | Unreadable]:
        """The manifests of all bundles that were taken under this id."""
        return [one for one in self.all() if one.checkpoint == checkpoint]

    def verify(
        self, found: Manifest | Unreadable, advance: Advance = lambda _: None
    ) -> list[Damage]:
        """Read all of a checkpoint; empty if it is whole."""
        if isinstance(found, Unreadable):
            return [unreadable(found)]
        damages = missing(found, listed(self.archive, found.of))
        gone = {one.subject for one in damages}
        for file in found.files:
            if file.name not in gone:
                damages += changed(self.archive, found, file, advance)
        return damages

    def pins(self, of: BundleId | None = None) -> dict[tuple[BundleId, str], list[Pin]]:
        """The pins of the app, or of one bundle, by bundle and checkpoint."""
        prefix = f"{self.app}/pins" if of is None else f"{self.app}/pins/{of}"
        found: dict[tuple[BundleId, str], list[Pin]] = {}
        for stored in self.archive.list(prefix):
            split = split_key(stored.key)
            if split is not None and len(split[1]) == 2:
                checkpoint, name = split[1]
                pin = _read_pin(name.removesuffix(".json"), self.archive.get(stored.key))
                found.setdefault((split[0], checkpoint), []).append(pin)
        return found

    def keep(
        self, checkpoint: str, pin: str, reason: str, *, only: BundleId | None = None
    ) -> list[BundleId]:
        """Pin every bundle's checkpoint of this id; again is no error. Returns the bundles.

        With `only`, that of one bundle. Raises RefusedError if there is none, or one is just
        being removed: nothing is pinned then.
        """
        bundles = [one.of for one in self.show(checkpoint)] if only is None else [only]
        fresh = [
            of.pin(checkpoint, pin)
            for of in bundles
            if self.archive.get(of.pin(checkpoint, pin)) is None
        ]
        for of in bundles:
            self._pin(of, checkpoint, pin, reason)
        # A prune condemns first and looks for pins then: one of the two sees the other.
        if not bundles or any(self._going(of, checkpoint) for of in bundles):
            self.archive.delete(fresh)
            raise RefusedError(
                f"there is no checkpoint {checkpoint}, or it is just being removed: see"
                " rewindow snapshots list"
            )
        return bundles

    def release(self, checkpoint: str, pin: str | None = None) -> int:
        """Remove this pin, or all, from every bundle's checkpoint of this id; how many."""
        keys = [
            of.pin(checkpoint, one.name)
            for (of, pinned), pins in self.pins().items()
            for one in pins
            if pinned == checkpoint and pin in (None, one.name)
        ]
        self.archive.delete(keys)
        return len(keys)

    def _hashed(self, aside: Aside) -> list[File]:
        """The files set aside, with the keys that they will have if they are stored.

        SST files are links to the same bytes each time, so they are read only once.
        """
        known, seen = self._hashes.get(aside.of, {}), {}
        files = []
        for path in sorted(aside.path.iterdir()):
            state = path.stat()
            inode = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
            sha256 = seen[inode] = known.get(inode) or _digest_of(path)
            key = aside.of.object(aside.upload, sha256)
            files.append(
                File(name=path.name, size_bytes=state.st_size, sha256=sha256, key=key, stamp=None)
            )
        self._hashes[aside.of] = seen
        return files

    def _going(self, of: BundleId, checkpoint: str) -> bool:
        """Whether a prune removes this checkpoint right now, or has."""
        since_ms = self.clock.now_ms() - self.limit_ms // 4
        condemned = self.archive.list(of.condemned(checkpoint))
        if any(condemned_ms(stored.key) >= since_ms for stored in condemned):
            return True
        return self.archive.get(of.manifest(checkpoint)) is None

    def _pin(self, of: BundleId, checkpoint: str, pin: str, reason: str) -> None:
        document = {"reason": reason, "at_ms": self.clock.now_ms()}
        self.archive.put(of.pin(checkpoint, pin), json.dumps(document).encode())

    def _reusable(self, of: BundleId) -> dict[tuple[str, int], File]:
        """Files that need not be stored again, by hash and size.

        Those of the newest whole checkpoint, which no prune removes, and those that an
        upload which never ended left lately, which no prune removes yet. Nobody has checked
        the latter, so they have no stamp.
        """
        there = listed(self.archive, of)
        readable = [one for one in self.all(of) if isinstance(one, Manifest)]
        stamped = [f for one in readable for f in one.files if f.stamp is not None]
        spoiled = {file.key for file in stamped if not untouched(file, there)}
        since_ms = self.clock.now_ms() - self.limit_ms // 4
        found: dict[tuple[str, int], File] = {}
        for key, stored in there.items():
            upload = upload_of(key)
            if upload is not None and made_ms(upload) > since_ms and key not in spoiled:
                sha256 = key.rpartition("/")[2]
                found[sha256, stored.size_bytes] = File(
                    name="", size_bytes=stored.size_bytes, sha256=sha256, key=key, stamp=None
                )
        newest = next((one for one in reversed(readable) if not missing(one, there)), None)
        for file in newest.files if newest is not None else ():
            if file.key not in spoiled:
                found[file.sha256, file.size_bytes] = file
        return found


def discard(staging: Path) -> None:
    """Remove what a crash left of checkpoints set aside; nobody may be using `staging`."""
    shutil.rmtree(staging, ignore_errors=True)


def newest_first(found: Iterable[Manifest | Unreadable]) -> list[Manifest]:
    """Those that can be read, the farthest along the stream first."""
    readable = [one for one in found if isinstance(one, Manifest)]
    return sorted(readable, key=lambda one: (one.next_offset, one.checkpoint), reverse=True)


class _Meter:
    """Adds up what is done."""

    __slots__ = ("_all_bytes", "_done_bytes", "_progress")

    def __init__(self, progress: Progress, all_bytes: int) -> None:
        self._progress = progress
        self._all_bytes = all_bytes
        self._done_bytes = 0
        self._progress(0, all_bytes)

    def advance(self, more_bytes: int) -> None:
        self._done_bytes += more_bytes
        self._progress(self._done_bytes, self._all_bytes)


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_pin(name: str, data: bytes | None) -> Pin:
    """A pin keeps its checkpoint whatever is in it."""
    try:
        document = json.loads(data or b"")
        return Pin(name=name, reason=str(document["reason"]), at_ms=int(document["at_ms"]))
    except (KeyError, TypeError, ValueError):
        return Pin(name=name, reason="(can't be read)", at_ms=0)
