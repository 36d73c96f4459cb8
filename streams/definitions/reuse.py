"""What a version can use of what its set's live versions store, and what it has to have replayed.

An accumulator is there if a live version has the bundle that the plan takes it from: bundles
come and go whole. Whether the panes that are kept go back far enough for a longer window is
not decided here: that depends on how far each partition has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from streams.durations import format_duration
from streams.state.rows import RowLayout

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from streams.definitions.plan import Accumulator, Bundle, FeatureView, Plan, View


class Takes(StrEnum):
    """What it takes until a feature can be computed, the least first."""

    SHARED = "shared"
    """Nothing: a live version keeps all that it needs."""

    PANES = "panes"
    """Panes that are kept, put together otherwise: a longer window, another interval."""

    REPLAY = "replay"
    """Something that no live version stores: the stream is read again."""


_ORDER = tuple(Takes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulatorUse:
    """One accumulator, and the live versions that store it already."""

    accumulator: Accumulator
    stored_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureUse:
    """What one feature takes; `why` says it in words, `shared_with` are live versions."""

    feature: FeatureView
    takes: Takes
    why: str
    shared_with: tuple[str, ...]
    accumulators: tuple[AccumulatorUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """What a version takes. `replayed` are its bundles that no live version has.

    `kept_ms` is how far before C the panes of the bundles that it shares are kept once it is
    live, `kept_before_ms` how far they are now; 0 where it shares none. `users` maps a shared
    bundle's digest to the live versions that have it.
    """

    features: tuple[FeatureUse, ...]
    replayed: tuple[Bundle, ...]
    users: dict[str, tuple[str, ...]]
    kept_ms: int
    kept_before_ms: int

    @property
    def takes(self) -> Takes:
        """What the feature takes that takes most."""
        return max((one.takes for one in self.features), key=_ORDER.index)

    @property
    def row_bytes(self) -> int:
        """What one more pane of one entity takes at least, beside its key and before
        compression; 0 if nothing is added. Texts and sketches come on top."""
        return sum(RowLayout(bundle.columns).least_bytes for bundle in self.replayed)


def reuse(plan: Plan, earlier: Sequence[Plan], live: Collection[str]) -> Reuse:
    """What the version of `plan` takes, where those in `live` of the `earlier` ones are live.

    `earlier` are the plans of versions that were published before it, in that order.
    """
    version = plan.view.version
    others = [one for one in earlier if one.view.version in live and one.view.version != version]
    users = {
        bundle.digest: tuple(
            one.view.version for one in others if bundle.digest in {b.digest for b in one.bundles}
        )
        for bundle in plan.bundles
    }
    stored = {
        accumulator.name: users[bundle.digest]
        for bundle in plan.bundles
        for accumulator in bundle.accumulators
    }
    views = {one.view.version: one.view for one in others}
    sharing = [views[name] for name in dict.fromkeys(one for has in users.values() for one in has)]
    before = max((view.longest_window_ms + view.retention_ms for view in sharing), default=0)
    own = plan.view.longest_window_ms + plan.view.retention_ms if sharing else 0
    return Reuse(
        features=tuple(_feature(one, plan.view, stored, views) for one in plan.view.features),
        replayed=tuple(bundle for bundle in plan.bundles if not users[bundle.digest]),
        users={digest: has for digest, has in users.items() if has},
        kept_ms=max(own, before),
        kept_before_ms=before,
    )


def _feature(
    feature: FeatureView, view: View, stored: dict[str, tuple[str, ...]], views: dict[str, View]
) -> FeatureUse:
    uses = tuple(
        AccumulatorUse(accumulator=one, stored_by=stored.get(one.name, ()))
        for one in feature.accumulators
    )
    everywhere = [name for name in views if all(name in use.stored_by for use in uses)]
    somewhere = [name for name in views if any(name in use.stored_by for use in uses)]
    missing = [use.accumulator for use in uses if not use.stored_by]
    if missing:
        kinds = ", ".join(dict.fromkeys(str(one.kind) for one in missing))
        takes, why = Takes.REPLAY, f"no live version stores its {kinds}{_why_not(view, views)}"
    else:
        why = _otherwise(feature, view, [views[name] for name in somewhere])
        takes = Takes.PANES if why else Takes.SHARED
    return FeatureUse(
        feature=feature,
        takes=takes,
        why=why,
        shared_with=tuple(everywhere or somewhere),
        accumulators=uses,
    )


def _why_not(view: View, views: dict[str, View]) -> str:
    """Why nothing could be shared at all, where the interval is the reason."""
    sizes = {one.pane_ms for one in views.values()}
    if sizes and all(view.every_ms % size for size in sizes):
        finest = format_duration(min(sizes))
        return f": an interval of {format_duration(view.every_ms)} is no multiple of {finest} panes"
    return ""


def _otherwise(feature: FeatureView, view: View, sharing: Sequence[View]) -> str:
    """How the feature uses panes in a way that no live version does; empty if one does."""
    if any(
        one.every_ms == view.every_ms and feature.window_ms <= one.longest_window_ms
        for one in sharing
    ):
        return ""
    reasons = []
    if not any(one.every_ms == view.every_ms for one in sharing):
        pane, every = format_duration(view.pane_ms), format_duration(view.every_ms)
        reasons.append(f"its interval of {every} is put together from {pane} panes")
    longest = max(one.longest_window_ms for one in sharing)
    if feature.window_ms > longest:
        window = format_duration(feature.window_ms)
        reasons.append(
            f"a window of {window}, and the longest so far is {format_duration(longest)}"
        )
    return "; ".join(reasons)
