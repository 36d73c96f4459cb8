"""What may go from an archive goes: old checkpoints, and files that belong to none.

Safe beside uploads, restores of the newest checkpoints, and other prunes, without locks:

- An object is written once, under a name that holds its upload's id, and never again: so
  what was seen to be left over can't meanwhile have become somebody's.
- An upload counts on nothing but what it stores itself, the files of the bundle's newest
  whole checkpoint, and files stored within the last quarter of `limit_ms`; it gives up after
  half of `limit_ms`. A prune removes nothing of the newest whole checkpoints, and no file
  that is younger than `limit_ms`. The quarter between is for clocks that differ.
- Who keeps a checkpoint pins it and then looks whether it is condemned; a prune condemns
  it and then looks whether it is pinned. One of them sees the other.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.state.manifest import (
    BundleId,
    Manifest,
    Unreadable,
    condemned_ms,
    made_ms,
    split_key,
    upload_of,
)
from streams.state.verify import listed, missing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from streams.state.checkpoint import Checkpoints
    from streams.state.objects import Stored

PRUNE_STEPS = ("condemn", "manifest", "objects")
"""What a prune announces before it does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What one prune did.

    `removed` are bundles and checkpoint ids, `orphans` the number of files removed, `held`
    the bundles of which no file was removed because a manifest there can't be read.
    """

    removed: tuple[tuple[BundleId, str], ...]
    orphans: int
    freed_bytes: int
    held: tuple[BundleId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes of one bundle in the archive.

    `newest_bytes`: its newest checkpoint; `stored_bytes`: all that is stored, of which
    `orphan_bytes` belong to no checkpoint; `checkpoints`: how many there are.
    """

    newest_bytes: int
    stored_bytes: int
    orphan_bytes: int
    checkpoints: int


def prune(
    checkpoints: Checkpoints,
    *,
    keep: int,
    unused: Collection[str] = frozenset(),
    only: BundleId | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove what is neither among the newest `keep` whole checkpoints of its bundle nor pinned.

    Of bundles in `unused` (digests), which no version needs and nobody uploads, nothing but
    pinned checkpoints stays. With `only`, one bundle is looked at. With `dry_run` nothing
    is removed, and only told. A crash at any moment leaves whole checkpoints, and files that the
    next prune removes. Raises ValueError for
    `keep` below 1, and what the archive raises.
    """
    if keep < 1:
        raise ValueError("at least one checkpoint of each bundle stays")
    results = [
        _prune_bundle(checkpoints, of, 0 if of.bundle in unused else keep, dry_run)
        for of in ([only] if only is not None else _bundles(checkpoints))
    ]
    before_ms = checkpoints.clock.now_ms() - checkpoints.limit_ms
    swept_bytes = 0 if dry_run else checkpoints.archive.sweep(before_ms)
    return Pruned(
        removed=tuple(one for result in results for one in result.removed),
        orphans=sum(result.orphans for result in results),
        freed_bytes=swept_bytes + sum(result.freed_bytes for result in results),
        held=tuple(of for result in results for of in result.held),
    )


def sizes(checkpoints: Checkpoints) -> dict[BundleId, Size]:
    """What the app's checkpoints take in the archive, by bundle."""
    found: dict[BundleId, Size] = {}
    manifests: defaultdict[BundleId, list[Manifest | Unreadable]] = defaultdict(list)
    for one in checkpoints.all():
        manifests[one.of].append(one)
    for of in _bundles(checkpoints):
        there = listed(checkpoints.archive, of)
        readable = [one for one in manifests[of] if isinstance(one, Manifest)]
        used = {file.key for one in readable for file in one.files}
        found[of] = Size(
            newest_bytes=readable[-1].size_bytes if readable else 0,
            stored_bytes=sum(stored.size_bytes for stored in there.values()),
            orphan_bytes=sum(s.size_bytes for key, s in there.items() if key not in used),
            checkpoints=len(manifests[of]),
        )
    return found


def sizes_of_versions(
    sizes: Mapping[BundleId, Size], bundles: Mapping[str, Collection[str]]
) -> dict[str, tuple[int, int]]:
    """Of each version, by the digests of its `bundles`: bytes stored, and those it alone needs."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    for version, digests in bundles.items():
        for digest in digests:
            users[digest].add(version)
    found = {}
    for version in bundles:
        mine = [
            (users[of.bundle], size) for of, size in sizes.items() if version in users[of.bundle]
        ]
        alone = sum(size.stored_bytes for who, size in mine if who == {version})
        found[version] = (sum(size.stored_bytes for _, size in mine), alone)
    return found


def _bundles(checkpoints: Checkpoints) -> list[BundleId]:
    """Every bundle that anything is stored of."""
    app = checkpoints.app
    found = set()
    for kind in ("manifests", "objects", "pins", "condemned"):
        for stored in checkpoints.archive.list(f"{app}/{kind}"):
            split = split_key(stored.key)
            if split is not None:
                found.add(split[0])
    return sorted(found)


def _prune_bundle(checkpoints: Checkpoints, of: BundleId, keep: int, dry_run: bool) -> Pruned:
    archive = checkpoints.archive
    # Files first: what is stored from here on is not looked at.
    there = listed(archive, of)
    every = checkpoints.all(of)
    staying = _staying(every, there, keep)
    removed = []
    for one in every:
        if one.checkpoint not in staying and _remove(checkpoints, one, dry_run):
            removed.append((of, one.checkpoint))
    gone = {checkpoint for _, checkpoint in removed}
    left = [one for one in every if one.checkpoint not in gone]
    if not dry_run:
        archive.delete(_leftovers(checkpoints, of))
    if any(isinstance(one, Unreadable) for one in left):
        return Pruned(removed=tuple(removed), orphans=0, freed_bytes=0, held=(of,))
    used = {file.key for one in left if isinstance(one, Manifest) for file in one.files}
    before_ms = checkpoints.clock.now_ms() - checkpoints.limit_ms
    orphans = [there[key] for key in there if key not in used and _older(key, before_ms)]
    if orphans and not dry_run:
        checkpoints.step("objects")
        archive.delete([stored.key for stored in orphans])
    return Pruned(
        removed=tuple(removed),
        orphans=len(orphans),
        freed_bytes=sum(stored.size_bytes for stored in orphans),
        held=(),
    )


def _staying(
    every: Iterable[Manifest | Unreadable], there: Mapping[str, Stored], keep: int
) -> set[str]:
    """The newest until `keep` whole ones are among them; a damaged one displaces nobody.

    What a later version of this program wrote always stays.
    """
    staying: set[str] = set()
    whole = 0
    for one in sorted(every, key=lambda one: one.checkpoint, reverse=True):
        newer = isinstance(one, Unreadable) and one.newer
        if whole < keep or newer:
            staying.add(one.checkpoint)
            whole += isinstance(one, Manifest) and not missing(one, there)
    return staying


def _remove(checkpoints: Checkpoints, one: Manifest | Unreadable, dry_run: bool) -> bool:
    """Condemn a checkpoint and remove its manifest; False if it is pinned."""
    archive = checkpoints.archive
    pins = one.of.pins(one.checkpoint)
    if archive.list(pins):
        return False
    if dry_run:
        return True
    # A name of its own: no prune takes back what another has condemned.
    condemned = f"{one.of.condemned(one.checkpoint)}/{checkpoints.new_id()}.json"
    checkpoints.step("condemn")
    archive.put(condemned, b"{}")
    pinned = bool(archive.list(pins))
    if not pinned:
        checkpoints.step("manifest")
        archive.delete([one.of.manifest(one.checkpoint)])
    archive.delete([condemned])
    return not pinned


def _leftovers(checkpoints: Checkpoints, of: BundleId) -> list[str]:
    """Keys that a crash left: sentences never carried out, pins of what never came to be."""
    archive, now_ms = checkpoints.archive, checkpoints.clock.now_ms()
    condemned = [
        stored.key
        for stored in archive.list(f"{of.app}/condemned/{of}")
        if condemned_ms(stored.key) < now_ms - checkpoints.limit_ms // 4
    ]
    pins = [
        of.pin(checkpoint, pin.name)
        for (_, checkpoint), pins in checkpoints.pins(of).items()
        for pin in pins
        if pin.at_ms < now_ms - checkpoints.limit_ms
        and archive.get(of.manifest(checkpoint)) is None
    ]
    return condemned + pins


def _older(key: str, before_ms: int) -> bool:
    """Whether an upload that never ended left this too long ago to be one under way."""
    upload = upload_of(key)
    return upload is not None and made_ms(upload) < before_ms
