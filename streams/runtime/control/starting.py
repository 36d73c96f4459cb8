"""Whether what a request prepares can start from the checkpoint that it names: for the gate.

Every bundle that is to be brought to the stream has to be in it, in every partition that does not
have it yet: as its own, or as that of the same bundle before events were left out (see
formers.py). For a target that is live all of its bundles have to be there, so that a mistyped id
is found.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from streams.errors import RewindowError
from streams.runtime.formers import origins
from streams.state.restore import newest_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.control.records import Replay
    from streams.definitions.plan import Bundle, Plan
    from streams.runtime.snapshots import Snapshots
    from streams.state.manifest import Manifest


@dataclass(slots=True, kw_only=True)
class Found:
    """By partition the manifests that bundles start from, what is missing, and what is there and
    of no use."""

    manifests: dict[int, list[Manifest]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    def replayed(self, one: Replay) -> Replay:
        """What is left to be replayed: what follows the earliest of the partition's."""
        offsets = [manifest.next_offset for manifest in self.manifests.get(one.partition, ())]
        return replace(one, needs_offset=min(offsets)) if offsets else one


async def find_named(
    snapshots: Snapshots | None,
    checkpoint: str,
    plan: Plan,
    bundles: Sequence[Bundle],
    partitions: Sequence[int],
) -> Found:
    """What there is of a checkpoint for these bundles of the plan's stream."""
    found = Found()
    if snapshots is None:
        return found

    def look() -> None:
        for number in partitions:
            for bundle in bundles:
                _look(snapshots, checkpoint, plan, bundle, number, found)

    try:
        await asyncio.to_thread(look)
    except RewindowError as error:
        found.missing = [f"it can't be looked at ({error})"]
    return found


def _look(
    snapshots: Snapshots,
    checkpoint: str,
    plan: Plan,
    bundle: Bundle,
    number: int,
    found: Found,
) -> None:
    where = f"{plan.stream}[{number}]"
    damages, late = [], []
    for digest, limit in origins(bundle, number, rekeyed=plan.rekeyed, surely=False):
        of = snapshots.bundle_id((plan.stream, number), digest)
        known = newest_whole(snapshots.checkpoints, of, only=checkpoint)
        damages += [str(one) for one in known.damages]
        if known.manifest is None:
            continue
        if known.manifest.next_offset <= limit:
            found.manifests.setdefault(number, []).append(known.manifest)
            return
        late.append(
            f"in {where} it is at offset {known.manifest.next_offset}, after the first event that "
            f"is left out, at offset {limit}"
        )
    if late:
        found.unusable += late
    else:
        found.missing.append(
            f"it has no whole state of what {plan.view.feature_set}@{plan.view.version} needs of "
            f"{where}{''.join(f'; {one}' for one in damages)}"
        )
