"""A bundle's files back from a checkpoint, on a disk that has none."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.errors import RefusedError, RewindowError
from streams.state.checkpoint import Checkpoints, newest_first
from streams.state.directory import sync
from streams.state.manifest import Unreadable
from streams.state.verify import (
    Damage,
    changed,
    damage,
    listed,
    missing,
    unreadable,
    untouched,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streams.state.manifest import BundleId, File, Manifest
    from streams.state.objects import Advance, Stored

RESTORE_STEPS = ("aside", "file", "rename", "done")
"""What a restore announces before it does it."""

_CURRENT = "CURRENT"
"""Without this file RocksDB sees no database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The checkpoint to use, and what is damaged of those that would have been better.

    Manifests that can't be read don't say where on the stream they belong, so they are
    always named. No manifest: there is no whole checkpoint so far back.
    """

    manifest: Manifest | None
    damages: tuple[Damage, ...]


def newest_whole(
    checkpoints: Checkpoints,
    of: BundleId,
    *,
    at_or_below: int | None = None,
    only: str | None = None,
) -> Found:
    """The whole checkpoint of a bundle with the highest `next_offset` up to `at_or_below`.

    With `only`, that checkpoint or none. Whole is what has all its files, of the right size,
    and nobody wrote to them since; files that somebody did write to are read and compared.
    """
    candidates, damages = _candidates(checkpoints, of, at_or_below, only)
    there = listed(checkpoints.archive, of)
    for manifest in candidates:
        found = _damages(checkpoints, manifest, there)
        if not found:
            return Found(manifest=manifest, damages=tuple(damages))
        damages += found
    return Found(manifest=None, damages=tuple(damages))


def restore_newest(
    checkpoints: Checkpoints,
    of: BundleId,
    target: Path,
    *,
    at_or_below: int | None = None,
    only: str | None = None,
    floor_at_most_ms: int | None = None,
    advance: Advance = lambda _: None,
) -> Found:
    """As `newest_whole`, and with its files at `target` (see `restore`), if there is one.

    With `floor_at_most_ms` one whose panes are whole from then on, or earlier.
    """
    candidates, damages = _candidates(checkpoints, of, at_or_below, only)
    for manifest in candidates:
        floor_ms = manifest.floor_ms
        if floor_at_most_ms is not None and floor_ms is not None and floor_ms > floor_at_most_ms:
            continue
        found = restore(checkpoints, manifest, target, advance)
        if not found:
            return Found(manifest=manifest, damages=tuple(damages))
        damages += found
    return Found(manifest=None, damages=tuple(damages))


def restore(
    checkpoints: Checkpoints,
    manifest: Manifest,
    target: Path,
    advance: Advance = lambda _: None,
) -> list[Damage]:
    """Put the files of a checkpoint at `target`, which opens as a bundle then; or what is wrong.

    1. Begin anew beside it. 2. Link or fetch each file, `CURRENT` last, and compare what
    was fetched. 3. Rename. Before 3 `target` is as it was, after it whole and on the disk.

    `target` must be empty or not exist, else RefusedError. SST files in a directory on the
    same disk are linked, and read only if somebody wrote to them since they were stored:
    time does not grow with rows. RocksDB finds what else a disk does to them when it reads
    them. Raises what the archive raises, RewindowError if the disk refuses.
    """
    aside = target.with_name(f".{target.name}.restoring")
    there = listed(checkpoints.archive, manifest.of)
    damages = missing(manifest, there)
    if damages:
        return damages
    try:
        if target.exists() and any(target.iterdir()):
            raise RefusedError(f"{target} is not empty: there is state in it already")
        checkpoints.step("aside")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for file in sorted(manifest.files, key=lambda file: file.name == _CURRENT):
            checkpoints.step("file")
            damages += _put_back(checkpoints, manifest, file, aside / file.name, there, advance)
        if not damages:
            sync(aside)
            checkpoints.step("rename")
            aside.replace(target)
            sync(target.parent)
            checkpoints.step("done")
    except OSError as error:
        raise RewindowError(
            f"checkpoint {manifest.checkpoint} can't be restored to {target}: {error}. See to"
            " the disk (space, rights) and try again"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return damages


def _put_back(
    checkpoints: Checkpoints,
    manifest: Manifest,
    file: File,
    path: Path,
    there: Mapping[str, Stored],
    advance: Advance,
) -> list[Damage]:
    archive = checkpoints.archive
    if file.immutable and archive.link(file.key, path):
        if untouched(file, there):
            advance(file.size_bytes)
            return []
        return changed(archive, manifest, file, advance)
    digest = hashlib.sha256()
    with path.open("wb") as target:
        for chunk in archive.chunks(file.key, file.size_bytes):
            target.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
    if digest.hexdigest() != file.sha256:
        return [damage(manifest, file, f"its bytes were changed: {file.key}")]
    sync(path)
    return []


def _candidates(
    checkpoints: Checkpoints, of: BundleId, at_or_below: int | None, only: str | None
) -> tuple[list[Manifest], list[Damage]]:
    """Checkpoints to try, best first, and the manifests that can't be read."""
    every = [one for one in checkpoints.all(of) if only in (None, one.checkpoint)]
    fitting = [
        one for one in newest_first(every) if at_or_below is None or one.next_offset <= at_or_below
    ]
    return fitting, [unreadable(one) for one in every if isinstance(one, Unreadable)]


def _damages(
    checkpoints: Checkpoints, manifest: Manifest, there: Mapping[str, Stored]
) -> list[Damage]:
    found = missing(manifest, there)
    if found:
        return found
    return [
        one
        for file in manifest.files
        if not untouched(file, there)
        for one in changed(checkpoints.archive, manifest, file, lambda _: None)
    ]
