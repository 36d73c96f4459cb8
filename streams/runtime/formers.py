"""A bundle that leaves events out, from a checkpoint of what it was before.

Up to the first event that an exclusion leaves out a bundle holds the same with it and without
it. So where a bundle with exclusions has nothing, it begins with the newest checkpoint below that
event of the same bundle without the last of them, or the last two, and so on.

Where that event lies is known beforehand of offsets in a source that is read as it is. For a
condition, and in a rekeyed stream, the stream is looked through from where a replay would begin:
nothing is aggregated there, and no further than to the newest checkpoint. What lies before that,
and can't be seen, is older than the floor that the replay would have; the files get it, too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streams.definitions.exclusions import NEVER
from streams.definitions.plan import formers
from streams.state.manifest import Manifest
from streams.state.verify import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.definitions.plan import Bundle
    from streams.runtime.replay import Replay
    from streams.runtime.reviving import Need, Start
    from streams.runtime.snapshots import Partition, Snapshots

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """A checkpoint of what a bundle was with the first `exclusions` of those that it has.

    Once it is the bundle's own its floor has to be `floor_ms` at least.
    """

    manifest: Manifest
    exclusions: int
    floor_ms: int | None = None


async def usable_formers(
    snapshots: Snapshots,
    replay: Replay,
    partition: Partition,
    bundle: Bundle,
    *,
    start: Start,
    need: Need | None,
    at_least: int,
    at_or_below: int,
    only: str | None = None,
) -> list[Former]:
    """The checkpoints that can become `bundle`'s, the best first.

    With `only`, that one alone, however far back its panes go. Without any the bundle would be
    replayed from `start`. Raises what the archive raises, and as a replay does.
    """
    found = await asyncio.to_thread(known_formers, snapshots, partition, bundle)
    near = [
        one
        for one in found
        if at_least <= one.manifest.next_offset <= at_or_below
        if one.manifest.checkpoint == only or (only is None and reaches(one.manifest, start, need))
    ]
    if not near:
        return []
    exclusions = bundle.exclusions[min(one.exclusions for one in near) :]
    floor_ms = None
    if not replay.rekeyed and all(one.where is None for one in exclusions):
        clean = [one.first_offset(partition[1]) for one in exclusions]
    elif start.gap:
        return []
    else:
        end = max(one.manifest.next_offset for one in near)
        clean = await replay.clean_below(exclusions, start.offset, end)
        floor_ms = start.floor_ms
    before = len(bundle.exclusions) - len(exclusions)
    return [
        replace(one, floor_ms=floor_ms)
        for one in near
        if one.manifest.next_offset <= min(clean[one.exclusions - before :])
    ]


def origins(
    bundle: Bundle, partition: int, *, rekeyed: bool, surely: bool = True
) -> Iterator[tuple[str, int]]:
    """Digests of the bundles with whose checkpoints this one may begin, each up to an offset.

    Of those that leave out less only ranges tell that without a look at the stream. The others
    are left out, or have no limit where it does not have to be sure.
    """
    limit = NEVER
    yield bundle.digest, limit
    for former, without in zip(formers(bundle), reversed(bundle.exclusions), strict=True):
        if not rekeyed and without.where is None:
            limit = min(limit, without.first_offset(partition))
        elif surely:
            return
        yield former.digest, limit


def known_formers(snapshots: Snapshots, partition: Partition, bundle: Bundle) -> list[Former]:
    """All checkpoints of what a bundle was, the farthest along the stream first. Blocking."""
    found = []
    for former in formers(bundle):
        for one in snapshots.checkpoints.all(snapshots.bundle_id(partition, former.digest)):
            if isinstance(one, Manifest):
                found.append(Former(manifest=one, exclusions=len(former.exclusions)))
            else:
                log.warning("not used: %s", unreadable(one))
    return sorted(found, key=lambda one: (one.manifest.next_offset, one.exclusions), reverse=True)


def reaches(manifest: Manifest, start: Start, need: Need | None) -> bool:
    """Whether a checkpoint's panes go back as far as is wanted, or as a replay would make them."""
    if manifest.floor_ms is None:
        return True
    if need is None:
        return False
    if start.gap:
        return manifest.floor_ms <= need.needed_ms
    floors = [need.wanted_ms] if start.floor_ms is None else [need.wanted_ms, start.floor_ms]
    return manifest.floor_ms <= max(floors)
