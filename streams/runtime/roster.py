"""Which versions a partition's owner has to have: at its claim, and as decisions come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streams.control.set_record import Held
from streams.names import set_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.control.records import RequestRecord
    from streams.control.set_record import LiveVersion, SetRecord
    from streams.datapath.progress import Progress
    from streams.runtime.streams import Stream

Name = tuple[str, str]
"""Set, and what a version goes by, see `streams.names.variant`."""


class Decided(Protocol):
    """What the control topic says; see `streams.runtime.control.routes.Routes`."""

    @property
    def next_offset(self) -> int: ...

    def route(self, feature_set: str) -> SetRecord | None: ...

    def held_at(self, feature_set: str, epoch: int) -> Held | None: ...

    def checkpoints_asked(self) -> Sequence[RequestRecord]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """`held` says what goes on, by set, where the last claim ended; `following` are those that
    have to be at the same position, besides the versions that serve; `expected` are other live
    versions, which are brought there later."""

    held: Mapping[str, Held]
    following: tuple[Name, ...]
    expected: tuple[Name, ...] = ()

    @property
    def serving(self) -> dict[str, str]:
        """By set, what the version goes by that serves."""
        return {name: held.speaker for name, held in self.held.items()}


def roster(stream: Stream, progress: Progress, decided: Decided) -> Roster:
    """What a claim has to bring to the committed position.

    That is what the epoch takes that is committed: who serves, pinned versions and stand-ins; the
    version that closed C, which is needed until the other has closed something; one whose vectors
    are being corrected; and the newest decision's: what it takes, and what was ready, so that
    others may count on it. Versions that are not ready are warmed later.
    """
    holds: dict[str, Held] = {}
    following: list[Name] = []
    expected: list[Name] = []
    for name in stream.sets:
        epoch = progress.epochs.get(name, 0)
        held = decided.held_at(name, epoch) or Held(serving=stream.first(name))
        holds[name] = held
        correcting = progress.correcting
        if correcting is not None and correcting.feature_set != name:
            correcting = None
        route = decided.route(name)
        wanted = [
            *(one.version for it, one in progress.closed.items() if set_of(it) == name),
            *([] if correcting is None else [correcting.version]),
            *held.needed,
            *([] if route is None else route.held.needed),
            *(one.name for one in live(stream, decided, name) if one.ready),
        ]
        others = dict.fromkeys(one for one in wanted if one != held.speaker)
        following += [(name, version) for version in others]
        here = {held.speaker, *others}
        expected += [
            (name, one.name) for one in live(stream, decided, name) if one.name not in here
        ]
    return Roster(held=holds, following=tuple(following), expected=tuple(expected))


def live(stream: Stream, decided: Decided, feature_set: str) -> tuple[LiveVersion, ...]:
    """The live versions of a set, those that are known here; none before the first decision."""
    route = decided.route(feature_set)
    if route is None:
        return ()
    known = stream.sets[feature_set]
    return tuple(one for one in route.live if one.name in known)
