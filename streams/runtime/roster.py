"""Which versions a partition's owner has to have: at its claim, and as decisions come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.control.records import LiveVersion, SetRecord
    from streams.datapath.progress import Progress
    from streams.runtime.streams import Stream

Name = tuple[str, str]
"""Set and version."""


class Decided(Protocol):
    """What the control topic says; see `streams.runtime.control.routes.Routes`."""

    @property
    def next_offset(self) -> int: ...

    def route(self, feature_set: str) -> SetRecord | None: ...

    def serving_at(self, feature_set: str, epoch: int) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """`serving` maps each set to the version that goes on where the last claim ended;
    `following` are those that have to be at the same position."""

    serving: Mapping[str, str]
    following: tuple[Name, ...]


def roster(stream: Stream, progress: Progress, decided: Decided) -> Roster:
    """What a claim has to bring to the committed position.

    That is the version of the epoch that is committed; the one that closed C, which is needed
    until the other has closed something; and the newest decision's: what serves by it, and what
    was ready, so that others may count on it. Versions that are not ready are warmed later.
    """
    serving: dict[str, str] = {}
    following: list[Name] = []
    for name in stream.sets:
        epoch = progress.epochs.get(name, 0)
        serving[name] = decided.serving_at(name, epoch) or stream.first(name)
        closed = progress.closed.get(name)
        route = decided.route(name)
        wanted = [
            *([] if closed is None else [closed.version]),
            *([] if route is None else [route.serving]),
            *(one.version for one in live(stream, decided, name) if one.ready),
        ]
        others = dict.fromkeys(one for one in wanted if one != serving[name])
        following += [(name, version) for version in others]
    return Roster(serving=serving, following=tuple(following))


def live(stream: Stream, decided: Decided, feature_set: str) -> tuple[LiveVersion, ...]:
    """The live versions of a set, those that are known here; none before the first decision."""
    route = decided.route(feature_set)
    if route is None:
        return ()
    known = stream.sets[feature_set]
    return tuple(one for one in route.live if one.version in known)
