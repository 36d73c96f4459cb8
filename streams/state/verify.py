"""Whether a checkpoint is whole: what is missing, cut off or changed, by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.state.manifest import BundleId, File, Manifest, Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.state.objects import Advance, Archive, Stored

MANIFEST = "manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong with one file of a checkpoint, or with its manifest (`subject`)."""

    of: BundleId
    checkpoint: str
    subject: str
    problem: str

    def __str__(self) -> str:
        return f"checkpoint {self.checkpoint} of {self.of}: {self.subject}: {self.problem}"


def damage(manifest: Manifest, file: File, problem: str) -> Damage:
    """That of a file."""
    return Damage(
        of=manifest.of, checkpoint=manifest.checkpoint, subject=file.name, problem=problem
    )


def unreadable(found: Unreadable) -> Damage:
    """That of a manifest which can't be read."""
    return Damage(of=found.of, checkpoint=found.checkpoint, subject=MANIFEST, problem=found.problem)


def listed(archive: Archive, of: BundleId) -> dict[str, Stored]:
    """What is stored of a bundle, by key."""
    return {stored.key: stored for stored in archive.list(of.objects())}


def missing(manifest: Manifest, there: Mapping[str, Stored]) -> list[Damage]:
    """What a listing tells: files that are not there, and files of another size."""
    found = []
    for file in manifest.files:
        stored = there.get(file.key)
        if stored is None:
            found.append(damage(manifest, file, f"missing: no object {file.key}"))
        elif stored.size_bytes != file.size_bytes:
            told = f"{stored.size_bytes} bytes instead of {file.size_bytes}: {file.key}"
            found.append(damage(manifest, file, told))
    return found


def untouched(file: File, there: Mapping[str, Stored]) -> bool:
    """Whether nobody wrote to the object since it was known to hold the file's bytes."""
    stored = there.get(file.key)
    return (
        stored is not None
        and file.stamp is not None
        and (stored.size_bytes, stored.stamp) == (file.size_bytes, file.stamp)
    )


def changed(archive: Archive, manifest: Manifest, file: File, advance: Advance) -> list[Damage]:
    """Read a file of the right size in the archive: damaged if its bytes are others."""
    digest = hashlib.sha256()
    for chunk in archive.chunks(file.key, file.size_bytes):
        digest.update(chunk)
        advance(len(chunk))
    if digest.hexdigest() == file.sha256:
        return []
    return [damage(manifest, file, f"its bytes were changed: {file.key}")]
