"""What says that a checkpoint exists and what is in it, and where its parts are kept.

A checkpoint is *one bundle's*: a bundle's rows depend on the stream below its own
`next_offset` and on nothing else, so each can be brought to any offset from a checkpoint of
its own, and bundles come, go and take damage one by one. Several that were taken for the
same reason (the partitions of a stream at a fence, the bundles of a partition) share the
checkpoint's id. Keys in the archive, with `<bundle>` for `<stream>/<partition>/<digest>`::

    <app>/manifests/<bundle>/<checkpoint>.json      written last
    <app>/objects/<bundle>/<upload>/<sha256>        written once, by one upload
    <app>/pins/<bundle>/<checkpoint>/<pin>.json     each keeps the checkpoint
    <app>/condemned/<bundle>/<checkpoint>/<id>.json a prune is about to remove it
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_FORMAT = 1

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_ID = re.compile(r"(\d{8}T\d{6})(\d{3})Z-[0-9a-f]{8}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def new_id(now_ms: int, token: str) -> str:
    """Id of a checkpoint or an upload; ids sort by time. `token` is 8 hexadecimal digits."""
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    made = f"{moment:%Y%m%dT%H%M%S}{now_ms % 1000:03}Z-{token}"
    check_id(made)
    return made


def check_id(text: str) -> None:
    """Raises InvalidInputError for what `new_id` can't have made."""
    try:
        made_ms(text)
    except ValueError:
        raise InvalidInputError(
            f"{text!r} is no checkpoint id: they look like 20260131T235959123Z-0a1b2c3d"
        ) from None


def made_ms(made: str) -> int:
    """When an id was made, ms since the epoch. Raises ValueError for what is no id."""
    found = _ID.match(made)
    if not found:
        raise ValueError(f"not an id: {made!r}")
    moment = datetime.fromisoformat(f"{found[1]}Z")
    return int(moment.timestamp()) * 1000 + int(found[2])


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BundleId:
    """Whose state it is: a bundle (by its digest) of one stream partition of one app."""

    app: str
    stream: str
    partition: int
    bundle: str

    def __post_init__(self) -> None:
        for part in (self.app, self.stream, self.bundle):
            if not _PART.match(part):
                raise ValueError(f"{part!r} can't be part of a key")

    @property
    def identity(self) -> dict[str, str]:
        """The identity that the bundle on disk has."""
        return {
            "app": self.app,
            "stream": self.stream,
            "partition": str(self.partition),
            "bundle": self.bundle,
        }

    def __str__(self) -> str:
        return f"{self.stream}/{self.partition}/{self.bundle}"

    def manifests(self) -> str:
        return f"{self.app}/manifests/{self}"

    def manifest(self, checkpoint: str) -> str:
        return f"{self.manifests()}/{checkpoint}.json"

    def objects(self) -> str:
        return f"{self.app}/objects/{self}"

    def object(self, upload: str, sha256: str) -> str:
        return f"{self.objects()}/{upload}/{sha256}"

    def pins(self, checkpoint: str) -> str:
        return f"{self.app}/pins/{self}/{checkpoint}"

    def pin(self, checkpoint: str, pin: str) -> str:
        """Raises ValueError if `pin` can't be part of a key."""
        if not _PART.match(pin):
            raise ValueError(f"a pin's name has letters, digits, dots, _ and -, not {pin!r}")
        return f"{self.pins(checkpoint)}/{pin}.json"

    def condemned(self, checkpoint: str) -> str:
        return f"{self.app}/condemned/{self}/{checkpoint}"


def split_key(key: str) -> tuple[BundleId, list[str]] | None:
    """The bundle that an object of ours belongs to, and the rest of its key; None if not ours."""
    parts = key.split("/")
    if len(parts) < 6 or not parts[3].isdecimal():
        return None
    app, _, stream, partition, bundle, *rest = parts
    try:
        return _bundle_id(app, stream, partition, bundle), rest
    except ValueError:
        return None


@lru_cache(maxsize=10_000)
def _bundle_id(app: str, stream: str, partition: str, bundle: str) -> BundleId:
    """Of each bundle there are many keys."""
    return BundleId(app=app, stream=stream, partition=int(partition), bundle=bundle)


def upload_of(key: str) -> str | None:
    """The upload that wrote the object at `key`; None if no upload of ours did."""
    split = split_key(key)
    if split is None or len(split[1]) != 2:
        return None
    try:
        made_ms(split[1][0])
    except ValueError:
        return None
    return split[1][0]


def condemned_ms(key: str) -> int:
    """When a prune condemned a checkpoint, by the key that says so; 0 for other keys."""
    split = split_key(key)
    try:
        return 0 if split is None else made_ms(split[1][1].removesuffix(".json"))
    except (IndexError, ValueError):
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a bundle, and the object that holds it.

    `stamp` is the object's where it was known to hold these bytes; None if nobody looked.
    """

    name: str
    size_bytes: int
    sha256: str
    key: str
    stamp: str | None

    @property
    def immutable(self) -> bool:
        """Whether RocksDB never writes to it: then it may be shared by a hard link."""
        return self.name.endswith(".sst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One checkpoint. Offsets, watermarks and floor are those of the Meta in its files.

    `schema_ids` are those of the records that are in the rows, as far as they are known;
    `notes` are the caller's. `reason` is for people.
    """

    of: BundleId
    checkpoint: str
    created_ms: int
    reason: str
    next_offset: int
    watermark_ms: int | None
    source_watermarks: Mapping[int, int]
    floor_ms: int | None
    files: tuple[File, ...]
    schema_ids: tuple[int, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """Canonical JSON: keys sorted, no spaces, and its own digest in `sha256`."""
        document = {
            "format": MANIFEST_FORMAT,
            "checkpoint": self.checkpoint,
            **self.of.identity,
            "partition": self.of.partition,
            "created_ms": self.created_ms,
            "reason": self.reason,
            "next_offset": self.next_offset,
            "watermark_ms": self.watermark_ms,
            "source_watermarks": {str(p): ms for p, ms in self.source_watermarks.items()},
            "floor_ms": self.floor_ms,
            "schema_ids": list(self.schema_ids),
            "notes": dict(self.notes),
            "files": [
                {
                    "name": file.name,
                    "size_bytes": file.size_bytes,
                    "sha256": file.sha256,
                    "key": file.key,
                    "stamp": file.stamp,
                }
                for file in self.files
            ],
        }
        return _canonical({**document, "sha256": _digest(document)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A manifest that can't be used; `newer` if a later version of this program wrote it."""

    of: BundleId
    checkpoint: str
    problem: str
    newer: bool = False


def read_manifest(of: BundleId, checkpoint: str, data: bytes) -> Manifest | Unreadable:
    """The manifest in `data`, which is where that of `checkpoint` of bundle `of` belongs."""

    def refuse(problem: str, *, newer: bool = False) -> Unreadable:
        return Unreadable(of=of, checkpoint=checkpoint, problem=problem, newer=newer)

    try:
        document = json.loads(data)
    except ValueError:
        return refuse("cut off, or no JSON")
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        return refuse("no manifest")
    if document["format"] > MANIFEST_FORMAT:
        told = f"of format {document['format']}: a newer version of rewindow wrote it"
        return refuse(told, newer=True)
    digest = document.pop("sha256", None)
    if digest != _digest(document):
        return refuse("not what was written: its digest differs")
    try:
        manifest = _manifest(document)
    except (AttributeError, KeyError, TypeError, ValueError):
        return refuse("no manifest")
    if manifest.of != of or manifest.checkpoint != checkpoint:
        return refuse(f"that of {manifest.checkpoint} of {manifest.of.app}/{manifest.of}")
    return manifest


def _manifest(document: Mapping[str, Any]) -> Manifest:
    """Raises KeyError, TypeError or ValueError for what is no manifest of this format."""
    of = BundleId(
        app=document["app"],
        stream=document["stream"],
        partition=int(document["partition"]),
        bundle=document["bundle"],
    )
    manifest = Manifest(
        of=of,
        checkpoint=document["checkpoint"],
        created_ms=document["created_ms"],
        reason=document["reason"],
        next_offset=document["next_offset"],
        watermark_ms=document["watermark_ms"],
        source_watermarks={int(p): ms for p, ms in document["source_watermarks"].items()},
        floor_ms=document["floor_ms"],
        files=tuple(File(**file) for file in document["files"]),
        schema_ids=tuple(document["schema_ids"]),
        notes=document["notes"],
    )
    for file in manifest.files:
        # Names become paths, keys become requests: neither may lead elsewhere.
        if not _FILE.match(file.name) or not _SHA256.match(file.sha256):
            raise ValueError(f"not a file: {file}")
        upload = upload_of(file.key)
        if upload is None or file.key != of.object(upload, file.sha256):
            raise ValueError(f"not a file of {of}: {file}")
    return manifest


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(document)).hexdigest()
