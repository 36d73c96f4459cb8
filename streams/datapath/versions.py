"""The live versions in one stream partition: those that speak, and those that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.datapath.closing import Windows
from streams.datapath.feature_set import SetPath
from streams.datapath.stand_ins import Off
from streams.names import outlet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.control.set_record import Held
    from streams.datapath.bundle_state import BundleState
    from streams.datapath.live_view import LiveView
    from streams.datapath.progress import Closed, Progress
    from streams.definitions.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The version that closed C, which another one has taken over without closing anything."""

    live: LiveView
    closed_ms: int


class Versions:
    """One path for each set, the version that serves, and one for each pin. Followers are the
    live versions that don't serve.

    Versions share the states of bundles that they have in common. Where nobody serves, as while
    a version is brought to the stream, nothing is known of what is closed.
    """

    def __init__(self, paths: Sequence[SetPath], followers: Sequence[LiveView]) -> None:
        self.paths = _in_order(paths)
        self.followers = tuple(followers)
        self.expected: tuple[Plan, ...] = ()
        """Live versions that are not here yet, and count on what is."""
        self._needed: dict[str, frozenset[str]] = {}
        """By set, what the versions go by that speak or stand in for a feature."""

    @property
    def live(self) -> list[LiveView]:
        """All of them."""
        return [*(path.live for path in self.paths if not path.pinned), *self.followers]

    @property
    def bundles(self) -> list[BundleState]:
        """Their bundles, each once."""
        return list({id(bundle): bundle for one in self.live for bundle in one.bundles}.values())

    @property
    def needed(self) -> set[tuple[str, str]]:
        """The versions that speak or stand in for a feature, by set and version."""
        return {(name, one) for name, versions in self._needed.items() for one in versions}

    def path(self, outlet: str) -> SetPath:
        """The path of a set or of a pin. Raises `LookupError` for one that is not there."""
        for path in self.paths:
            if path.outlet == outlet:
                return path
        raise LookupError(f"no version of {outlet} serves")

    def follower(self, feature_set: str, version: str) -> LiveView:
        """Raises `LookupError` for a version that does not follow."""
        for one in self.followers:
            if one.name == (feature_set, version):
                return one
        raise LookupError(f"{feature_set}@{version} does not follow the stream")

    def predecessor(self, path: SetPath, progress: Progress) -> Predecessor | None:
        """Who closed C if that is not the version that serves; there is one until it closes.

        None, too, if the version's own floor lies so that it says nothing about what is next.
        Raises `LookupError` if that version does not follow the stream.
        """
        closed = progress.closed.get(path.outlet)
        if closed is None or closed.version == path.view.name:
            return None
        if path.closed_ms is not None and path.closed_ms > closed.through_ms:
            return None
        live = self.follower(path.view.feature_set, closed.version)
        return Predecessor(live=live, closed_ms=closed.through_ms)

    def add(self, path: SetPath) -> None:
        """The path of a set that had none; its version was a follower."""
        self.paths = _in_order([*self.paths, path])
        self.followers = tuple(one for one in self.followers if one is not path.live)

    def serve(self, path: SetPath) -> None:
        """A follower takes its set's path; whose it was follows."""
        before = self.path(path.view.feature_set)
        self.paths = tuple(path if one is before else one for one in self.paths)
        self.followers = (
            *(one for one in self.followers if one is not path.live),
            before.live,
        )

    def obey(self, feature_set: str, held: Held, closed: Mapping[str, Closed]) -> list[SetPath]:
        """Pin and switch off what an epoch says; the paths of new pins.

        A pin goes on from its C in `closed`, if it has one, and from where it is where other
        events are left out than before. Raises `LookupError` if a version that this takes does
        not follow.
        """
        here = {one.name: one for one in self.live}

        def found(version: str) -> LiveView:
            name = held.name(version)
            try:
                return here[feature_set, name]
            except KeyError:
                raise LookupError(f"{feature_set}@{name} does not follow the stream") from None

        known = {path.outlet: path for path in self.paths}
        new, others = [], []
        for pin in held.pinned:
            name, live = outlet(feature_set, pin.version), found(pin.version)
            before = known.get(name)
            if before is None:
                c = closed.get(name)
                c_ms = None if c is None else c.through_ms
                new.append(SetPath(live, closed_ms=c_ms, pinned=True))
            elif before.live is live:
                others.append(before)
            else:
                others.append(SetPath(live, closed_ms=before.closed_ms, pinned=True))
        kept = [
            path for path in self.paths if not path.pinned or path.view.feature_set != feature_set
        ]
        self.paths = _in_order([*kept, *others, *new])
        for path in self.paths:
            if path.view.feature_set == feature_set:
                off = held.off(path.view.version)
                path.off = Off(
                    path.view,
                    {name: None if it is None else found(it) for name, it in off.items()},
                )
        self._needed[feature_set] = frozenset(held.needed)
        return new

    def follow(self, live: LiveView, position: int) -> None:
        """One more; raises ValueError if its bundles are not those that others feed."""
        known = {state.bundle.digest: state for state in self.bundles}
        for state in live.bundles:
            if known.get(state.bundle.digest, state) is not state:
                raise ValueError(f"bundle {state.bundle.digest} is fed already, in another state")
            if state.next_offset != position:
                raise ValueError(
                    f"bundle {state.bundle.digest} is at {state.next_offset}, not at {position}"
                )
        self.followers = (*self.followers, live)

    def leave(self, feature_set: str, version: str) -> list[BundleState]:
        """One less; the bundles that none of the others needs.

        Raises ValueError for one that is pinned or stands in for a feature.
        """
        if version in self._needed.get(feature_set, ()):
            raise ValueError(f"{feature_set}@{version} is pinned or stands in for a feature")
        gone = self.follower(feature_set, version)
        self.followers = tuple(one for one in self.followers if one is not gone)
        kept = self.bundles
        return [bundle for bundle in gone.bundles if bundle not in kept]

    def wanted_floor_ms(self, bundle: BundleState) -> int | None:
        """The lowest among those that need the bundle; None while one can't tell."""
        digest = bundle.bundle.digest
        counting_on_it = [
            *(one.windows for one in self.live if bundle in one.bundles),
            *(
                Windows(view=one.view)
                for one in self.expected
                if any(digest == it.digest for it in one.bundles)
            ),
        ]
        floors = []
        for one in counting_on_it:
            closed = [
                path.closed_ms
                for path in self.paths
                if path.view.feature_set == one.view.feature_set
            ]
            known = [closed_ms for closed_ms in closed if closed_ms is not None]
            if not known or len(known) < len(closed):
                return None
            floors.append(one.kept_from_ms(min(known)))
        return min(floors, default=None)


def _in_order(paths: Sequence[SetPath]) -> tuple[SetPath, ...]:
    """The order in which they close."""
    return tuple(sorted(paths, key=lambda path: path.outlet))
