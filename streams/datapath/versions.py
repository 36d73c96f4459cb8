"""The live versions in one stream partition: those that serve, and those that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.datapath.bundle_state import BundleState
    from streams.datapath.feature_set import SetPath
    from streams.datapath.live_view import LiveView
    from streams.datapath.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The version that closed C, which another one has taken over without closing anything."""

    live: LiveView
    closed_ms: int


class Versions:
    """One path for each set: the version that serves. Followers are other live versions.

    Versions share the states of bundles that they have in common. Where nobody serves, as while
    a version is brought to the stream, nothing is known of what is closed.
    """

    def __init__(self, paths: Sequence[SetPath], followers: Sequence[LiveView]) -> None:
        self.paths = tuple(sorted(paths, key=lambda path: path.view.feature_set))
        self.followers = tuple(followers)

    @property
    def live(self) -> list[LiveView]:
        """All of them."""
        return [*(path.live for path in self.paths), *self.followers]

    @property
    def bundles(self) -> list[BundleState]:
        """Their bundles, each once."""
        return list({id(bundle): bundle for one in self.live for bundle in one.bundles}.values())

    def path(self, feature_set: str) -> SetPath:
        """Raises `LookupError` for a set that is not there."""
        for path in self.paths:
            if path.view.feature_set == feature_set:
                return path
        raise LookupError(f"no version of {feature_set} serves")

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
        closed = progress.closed.get(path.view.feature_set)
        if closed is None or closed.version == path.view.version:
            return None
        if path.closed_ms is not None and path.closed_ms > closed.through_ms:
            return None
        live = self.follower(path.view.feature_set, closed.version)
        return Predecessor(live=live, closed_ms=closed.through_ms)

    def serve(self, path: SetPath) -> None:
        """A follower takes its set's path; whose it was follows."""
        before = self.path(path.view.feature_set)
        self.paths = tuple(path if one is before else one for one in self.paths)
        self.followers = (
            *(one for one in self.followers if one is not path.live),
            before.live,
        )

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
        """One less; the bundles that none of the others needs."""
        gone = self.follower(feature_set, version)
        self.followers = tuple(one for one in self.followers if one is not gone)
        kept = self.bundles
        return [bundle for bundle in gone.bundles if bundle not in kept]

    def wanted_floor_ms(self, bundle: BundleState) -> int | None:
        """The lowest among those that need the bundle; None while one can't tell."""
        closed = {path.view.feature_set: path.closed_ms for path in self.paths}
        floors = []
        for one in self.live:
            if bundle in one.bundles:
                closed_ms = closed.get(one.view.feature_set)
                if closed_ms is None:
                    return None
                floors.append(one.wanted_floor_ms(closed_ms))
        return min(floors, default=None)
