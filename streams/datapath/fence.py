"""The fence of an epoch: from a position on other versions speak, or other features are off.

Who serves takes over what is closed. A pin begins at what the watermark closes, and not before
what is closed for the set: panes from there on are kept for every live version.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streams.datapath.corrections import planned
from streams.datapath.feature_set import SetPath
from streams.datapath.step import Fenced, Step

if TYPE_CHECKING:
    from streams.control.set_record import Held
    from streams.datapath.progress import Progress
    from streams.datapath.standing import Standing
    from streams.datapath.versions import Versions


def in_the_way(progress: Progress, feature_set: str, held: Held) -> bool:
    """Whether corrections that are pending are of the same set, or would be two at a time."""
    pending = progress.correcting
    if pending is None:
        return False
    return pending.feature_set == feature_set or held.corrects is not None


def fence(
    at: Standing,
    versions: Versions,
    feature_set: str,
    held: Held,
    *,
    epoch: int,
    control_offset: int,
) -> tuple[Step, list[SetPath]]:
    """The step that commits the fence at the position, and the paths that may have to close:
    who serves, and new pins.

    Corrections that have to be made are pending from then on. Raises `LookupError` for a version
    that does not follow, and ValueError while a closing is pending, or corrections `in_the_way`.
    """
    progress = at.progress
    if progress.cursor is not None or progress.owing:
        raise ValueError(f"no fence of {feature_set} while a closing is pending")
    if in_the_way(progress, feature_set, held):
        raise ValueError(f"no fence of {feature_set} while corrections are pending")
    version = held.speaker
    path = versions.path(feature_set)
    closed = at.progress.closed.get(feature_set)
    closed_ms = None if closed is None else closed.through_ms
    took_over = dict(progress.took_over)
    withdrawn = None
    if path.view.name != version:
        if held.corrects == path.view.name:
            withdrawn = path.live
        # Where only other events are left out, it is the same version that goes on.
        if closed_ms is not None and path.view.version != held.serving:
            took_over[feature_set] = closed_ms
        path = SetPath(versions.follower(feature_set, version), closed_ms=closed_ms)
        versions.serve(path)
    # Where its floor is above C it begins there, and has no predecessor.
    progress = progress.closed_further(feature_set, path.closed_ms, version)
    before = [one.outlet for one in versions.paths]
    new = versions.obey(feature_set, held, {})
    correcting = None if withdrawn is None else planned(withdrawn, path, at)
    after = [one.outlet for one in versions.paths]
    progress = progress.without([one for one in before if one not in after])
    for one in new:
        if at.watermark_ms is not None:
            one.begin(at.watermark_ms, closed_ms)
        progress = progress.closed_further(one.outlet, one.closed_ms, one.view.name)
    at.note(
        replace(
            progress,
            epochs={**progress.epochs, feature_set: epoch},
            control_offset=max(progress.control_offset, control_offset),
            took_over=took_over,
            correcting=correcting or progress.correcting,
        )
    )
    ack = Fenced(
        feature_set=feature_set,
        version=held.serving,
        epoch=epoch,
        offset=at.position,
        closed_through_ms=closed_ms,
        corrections=0 if correcting is None else None,
    )
    return Step(position=at.position, progress=at.progress, acks=(ack,)), [path, *new]
