"""What an archive holds of one app, as people look at it: by checkpoint id, and by size."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.state.manifest import BundleId, Manifest, Unreadable, made_ms
from streams.state.verify import Damage, damage, listed, missing, unreadable, untouched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.state.checkpoint import Checkpoints, Pin
    from streams.state.objects import Stored

VERSIONS_NOTE = "versions"
"""The manifest's note that names the versions which read the bundle, with blanks between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All bundles' checkpoints of one id.

    `damages` is what a look at names, sizes and times finds; `touched` are files that somebody
    may have written to, which `verify` would have to read.
    """

    checkpoint: str
    found: tuple[Manifest | Unreadable, ...]
    pins: Mapping[BundleId, tuple[Pin, ...]]
    damages: tuple[Damage, ...]
    touched: tuple[Damage, ...]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        return tuple(one for one in self.found if isinstance(one, Manifest))

    @property
    def state(self) -> str:
        """`whole`, `touched` or `damaged`."""
        return "damaged" if self.damages else "touched" if self.touched else "whole"

    @property
    def created_ms(self) -> int:
        """When the first of it was stored; of one that can't be read, when it was begun."""
        return min((one.created_ms for one in self.manifests), default=made_ms(self.checkpoint))

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.reason for one in self.manifests))

    @property
    def size_bytes(self) -> int:
        """Of its files; what others share is counted, too."""
        return sum(one.size_bytes for one in self.manifests)

    @property
    def kept(self) -> tuple[Pin, ...]:
        """Its pins, each once."""
        names = {pin.name: pin for pins in self.pins.values() for pin in pins}
        return tuple(names[name] for name in sorted(names))

    def offsets(self) -> dict[str, dict[int, int]]:
        """By stream and partition the lowest next offset."""
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for one in sorted(self.manifests, key=lambda one: one.of):
            known = found[one.of.stream]
            at = known.get(one.of.partition, one.next_offset)
            known[one.of.partition] = min(at, one.next_offset)
        return dict(found)


def overviews(checkpoints: Checkpoints, only: str | None = None) -> list[Overview]:
    """Every checkpoint, or that of one id, oldest first; reads manifests and lists the rest."""
    by_id: dict[str, list[Manifest | Unreadable]] = defaultdict(list)
    for one in checkpoints.all():
        if only in (None, one.checkpoint):
            by_id[one.checkpoint].append(one)
    there: dict[BundleId, dict[str, Stored]] = {}
    for some in by_id.values():
        for one in some:
            if one.of not in there:
                there[one.of] = listed(checkpoints.archive, one.of)
    pins = checkpoints.pins()
    return [
        Overview(
            checkpoint=checkpoint,
            found=tuple(some),
            pins={
                one.of: tuple(pins[one.of, checkpoint])
                for one in some
                if (one.of, checkpoint) in pins
            },
            damages=tuple(found for one in some for found in _damages(one, there[one.of])),
            touched=tuple(found for one in some for found in _touched(one, there[one.of])),
        )
        for checkpoint, some in sorted(by_id.items())
    ]


def versions_of(found: Iterable[Manifest | Unreadable]) -> dict[str, set[str]]:
    """By version (`set@version`) the digests of its bundles, as the manifests note them."""
    versions: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if isinstance(one, Manifest):
            for version in one.notes.get(VERSIONS_NOTE, "").split():
                versions[version].add(one.of.bundle)
    return dict(versions)


def _damages(one: Manifest | Unreadable, there: Mapping[str, Stored]) -> list[Damage]:
    return [unreadable(one)] if isinstance(one, Unreadable) else missing(one, there)


def _touched(one: Manifest | Unreadable, there: Mapping[str, Stored]) -> list[Damage]:
    if isinstance(one, Unreadable):
        return []
    return [
        damage(one, file, f"somebody may have written to it: {file.key}")
        for file in one.files
        if file.stamp is not None and file.key in there and not untouched(file, there)
    ]
