"""Bundles back from checkpoints, where a disk has none, or too old a one.

A checkpoint is brought together in the staging directory, opened there, and compared with its
manifest; only then it takes its place. What is damaged is named in the log, and the one before
is used. Without any, or with the archive away, the stream is replayed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from streams.errors import RefusedError, RewindowError
from streams.runtime.formers import usable_formers
from streams.state.bundle import Bundle
from streams.state.checkpoint import discard
from streams.state.manifest import Manifest, Unreadable
from streams.state.restore import restore_newest
from streams.state.rows import RowLayout
from streams.state.verify import unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streams.definitions.plan import Bundle as BundlePlan
    from streams.runtime.replay import Replay
    from streams.runtime.reviving import Need, Start
    from streams.runtime.snapshots import Partition, Snapshots
    from streams.state.bundle import Resources
    from streams.state.manifest import BundleId
    from streams.state.store import Meta

FAR = 1_000_000
"""So many offsets behind what is committed, a checkpoint is looked for although there is state."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Files of a bundle at `path`, closed and whole, for whoever moves them to their place."""

    path: Path
    manifest: Manifest


async def fetch(
    snapshots: Snapshots,
    of: BundleId,
    bundle: BundlePlan,
    resources: Resources,
    *,
    at_or_below: int,
    at_least: int = 0,
    only: str | None = None,
    becomes: BundleId | None = None,
    floor_ms: int | None = None,
    floor_at_most_ms: int | None = None,
) -> Restored | None:
    """The newest whole checkpoint of `of` with `at_least <= next_offset <= at_or_below`.

    With `only`, that one or none; with `floor_at_most_ms` one whose panes go back so far. `bundle`
    says what is in it; with `becomes` it is that bundle's from now on, which has the same
    accumulators, and its floor is `floor_ms` at least. None if there is none; what is damaged is
    named in the log. Raises what the archive raises. Cancelled, it stops at its next piece, and
    waits for that.
    """
    stopped = threading.Event()

    def go_on(_: int) -> None:
        if stopped.is_set():
            raise RewindowError(f"restoring {of} was given up")

    def work() -> Restored | None:
        below = at_or_below
        while _has_one(snapshots, of, at_least, below):
            target = snapshots.staging / f"restore-{secrets.token_hex(8)}"
            found = restore_newest(
                snapshots.checkpoints,
                of,
                target,
                at_or_below=below,
                only=only,
                floor_at_most_ms=floor_at_most_ms,
                advance=go_on,
            )
            for damage in found.damages:
                log.warning("not used, the one before is: %s", damage)
            manifest = found.manifest
            if manifest is None:
                return None
            if manifest.next_offset < at_least:
                discard(target)
                return None
            problem = _differs(target, bundle, of, becomes, floor_ms, manifest, resources)
            if not problem:
                return Restored(path=target, manifest=manifest)
            discard(target)
            log.warning("not used: checkpoint %s of %s: %s", manifest.checkpoint, of, problem)
            below = manifest.next_offset - 1
        return None

    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([doing])
        raise


async def restore_lacking(
    snapshots: Snapshots | None,
    replay: Replay,
    partition: Partition,
    resources: Resources,
    *,
    start: Start,
    needs: Mapping[str, Need],
    log_start: int,
    position: int,
    fresh: bool = False,
) -> int:
    """Put checkpoints in the place of bundles that have nothing, or too little; how many.

    Too little is what the stream can't be replayed from, for which it has to hold `log_start`,
    what is more than `FAR` behind `position`, or panes that don't go back as far as `needs` says
    of a bundle's digest. Without a checkpoint a bundle that has nothing is replayed from `start`,
    to hold what it needs; all that there is where that is not known. So a checkpoint that lacks
    some of that is taken only where the stream lacks it, too. With `fresh` nothing is committed
    yet, and nothing is restored. Raises RefusedError where a checkpoint lies beyond what is
    committed.
    """
    if snapshots is None:
        return 0
    restored = 0
    for state in list(replay.states.values()):
        meta, need = state.store.meta, needs.get(state.bundle.digest)
        too_short = need is not None and need.lacks(state.floor_ms)
        useless = meta is None or meta.next_offset < log_start
        far = meta is not None and position - meta.next_offset >= FAR
        if not (useless or far or too_short):
            continue
        of = snapshots.bundle_id(partition, state.bundle.digest)
        try:
            if meta is None:
                await asyncio.to_thread(_refuse_beyond, snapshots, of, 0 if fresh else position)
            if fresh:
                continue
            at_least = max(log_start, 0 if meta is None or too_short else meta.next_offset + 1)
            find = partial(
                fetch,
                snapshots,
                of,
                state.bundle,
                resources,
                at_or_below=position,
                at_least=at_least,
            )
            found = await find(floor_at_most_ms=None if need is None else need.needed_ms)
            if found is None and need is not None and useless and start.gap:
                found = await find()
            if found is None and meta is None and state.bundle.exclusions:
                found = await _fetch_former(
                    snapshots,
                    replay,
                    partition,
                    state.bundle,
                    resources,
                    start=start,
                    need=need,
                    at_least=log_start,
                    at_or_below=position,
                )
        except RefusedError:
            raise
        except RewindowError as error:
            log.warning("%s/%d goes on without checkpoints: %s", *partition, error)
            continue
        if found is not None:
            await _put(replay, state.bundle, found, start, of)
            restored += 1
    return restored


async def restore_named(
    snapshots: Snapshots | None,
    replay: Replay,
    partition: Partition,
    resources: Resources,
    checkpoint: str,
    *,
    start: Start,
    position: int,
) -> int:
    """Put this checkpoint in the place of all bundles, whatever they have; how many.

    Raises RefusedError where one of them can't start from it, and what the archive raises.
    """
    states = list(replay.states.values())
    for state in states:
        bundle = state.bundle
        if snapshots is None:
            raise RefusedError(f"checkpoint {checkpoint} is not to be had: [snapshots].url is none")
        of = snapshots.bundle_id(partition, bundle.digest)
        found = await fetch(
            snapshots, of, bundle, resources, at_or_below=position, only=checkpoint
        ) or await _fetch_former(
            snapshots,
            replay,
            partition,
            bundle,
            resources,
            start=start,
            need=None,
            at_least=0,
            at_or_below=position,
            only=checkpoint,
        )
        if found is None:
            after = " from before the first event that is left out" if bundle.exclusions else ""
            raise RefusedError(f"checkpoint {checkpoint} has no whole state of {of}{after}")
        await _put(replay, bundle, found, start, of)
    return len(states)


async def _put(
    replay: Replay, bundle: BundlePlan, found: Restored, start: Start, of: BundleId
) -> None:
    await replay.exchange(bundle, found.path, start.offset)
    manifest = found.manifest
    log.info(
        "%s restored from checkpoint %s at offset %d%s",
        of,
        manifest.checkpoint,
        manifest.next_offset,
        "" if manifest.of == of else f", which was {manifest.of}'s",
    )


async def _fetch_former(
    snapshots: Snapshots,
    replay: Replay,
    partition: Partition,
    bundle: BundlePlan,
    resources: Resources,
    **limits: Any,
) -> Restored | None:
    """See formers.py."""
    for one in await usable_formers(snapshots, replay, partition, bundle, **limits):
        offset = one.manifest.next_offset
        found = await fetch(
            snapshots,
            one.manifest.of,
            bundle,
            resources,
            at_or_below=offset,
            only=one.manifest.checkpoint,
            becomes=snapshots.bundle_id(partition, bundle.digest),
            floor_ms=one.floor_ms,
        )
        if found is not None:
            return found
    return None


def _has_one(snapshots: Snapshots, of: BundleId, at_least: int, at_or_below: int) -> bool:
    """Whether any manifest is about these offsets; names those that can't be read, if not."""
    every = snapshots.checkpoints.all(of)
    readable = [one for one in every if isinstance(one, Manifest)]
    if any(at_least <= one.next_offset <= at_or_below for one in readable):
        return True
    for one in every:
        if isinstance(one, Unreadable):
            log.warning("not used: %s", unreadable(one))
    return False


def _differs(
    path: Path,
    bundle: BundlePlan,
    of: BundleId,
    becomes: BundleId | None,
    floor_ms: int | None,
    manifest: Manifest,
    resources: Resources,
) -> str:
    """What is wrong with files that were restored; empty if they are what the manifest says.

    Then they have the floor.
    """
    layout = RowLayout(bundle.columns)
    try:
        store = Bundle.open(
            path,
            layout,
            identity=(becomes or of).identity,
            formerly=None if becomes is None else of.identity,
            resources=resources,
        )
    except RewindowError as error:
        return str(error)
    try:
        meta = store.meta
        problem = _other_meta(meta, manifest)
        if not problem and meta is not None and floor_ms is not None:
            highest = floor_ms if meta.floor_ms is None else max(floor_ms, meta.floor_ms)
            store.flush(layout.empty(), replace(meta, floor_ms=highest))
        return problem
    finally:
        store.close()


def _other_meta(meta: Meta | None, manifest: Manifest) -> str:
    if meta is None:
        return "nothing was ever flushed to it"
    found = (meta.next_offset, meta.watermark_ms, dict(meta.source_watermarks), meta.floor_ms)
    wanted = (
        manifest.next_offset,
        manifest.watermark_ms,
        dict(manifest.source_watermarks),
        manifest.floor_ms,
    )
    return "" if found == wanted else f"it is at {found}, its manifest says {wanted}"


def _refuse_beyond(snapshots: Snapshots, of: BundleId, position: int) -> None:
    """Blocking. A checkpoint is taken at a committed position: beyond it, offsets were lost."""
    readable = [one for one in snapshots.checkpoints.all(of) if isinstance(one, Manifest)]
    highest = max(readable, key=lambda one: one.next_offset, default=None)
    if highest is not None and highest.next_offset > position:
        raise RefusedError(
            f"{of.stream}/{of.partition}: checkpoint {highest.checkpoint} in"
            f" {snapshots.checkpoints.archive.url} has applied offset {highest.next_offset}, but"
            f" the app's group is at {position}: its committed offsets were deleted (maybe with"
            " the topic), have expired or were set back. Bring them back with"
            " kafka-consumer-groups.sh --reset-offsets, or, to start over from where the group"
            f" is, delete what is there under {of.app}/ and the state directory, and run again"
        )
