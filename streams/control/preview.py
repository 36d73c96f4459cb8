"""What would happen if a version were published, worked out from facts; nothing is done.

It would become live: owners bring what it needs to the stream, beside their batches. What that
is depends on what live versions store (`definitions.reuse`), how long depends on how far each
partition has come and on what its log and its panes still hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streams.control.routes import activated, default_route, settled
from streams.definitions.reuse import Reuse, reuse
from streams.windowing.panes import ceil_to, floor_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streams.control.routes import Rules
    from streams.control.set_record import SetRecord
    from streams.definitions.plan import Plan, View


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """How far one stream partition has come, and what its log holds.

    The log is there from `log_start` on and was read up to `position`; a replay from nothing
    begins at `begin`, and panes that it makes are whole from `begin_floor_ms` on: all of them
    if it is None. `closed_ms` is C of the set, None before the first. `floors_ms` tells the
    same of the bundles of live versions, by version, as these were when they got ready.
    """

    topic: str
    partition: int
    log_start: int
    begin: int
    position: int
    needs_offset: int | None = None
    begin_floor_ms: int | None = None
    closed_ms: int | None = None
    floors_ms: Mapping[str, int | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCost:
    """Offsets of one partition that are read again: from `start` up to and without `end`.

    `needs_offset` is as in `PartitionFacts`.
    """

    topic: str
    partition: int
    start: int
    end: int
    log_start: int
    needs_offset: int | None = None

    @property
    def gone(self) -> bool:
        """Whether the log no longer holds what is needed."""
        return self.needs_offset is not None and self.needs_offset < self.log_start

    @property
    def records(self) -> int:
        """How many at most: offsets that transaction markers take count, too."""
        return max(0, self.end - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a version would take and change.

    `whole_from_ms` is the first as-of time whose windows lie wholly in what is kept or read
    again, in every partition; None where nothing is closed yet, so that all of them do.
    `ready_after_ms` is the C that partitions have to come to before it is ready, None if they
    are there. The last two name versions that stop being live: once it is published, and once
    it is activated besides.
    """

    feature_set: str
    version: str
    reuse: Reuse
    partitions: int
    replays: tuple[ReplayCost, ...]
    whole_from_ms: int | None
    ready_after_ms: int | None
    serves: bool
    waits_for: tuple[str, ...]
    live_after: tuple[str, ...]
    stops_being_live: tuple[str, ...]
    stops_when_activated: tuple[str, ...]

    @property
    def records_to_replay(self) -> int:
        return sum(one.records for one in self.replays)


def preview(
    plans: Sequence[Plan],
    version: str,
    route: SetRecord | None,
    rules: Rules,
    partitions: Sequence[PartitionFacts],
) -> Preview:
    """What publishing `version` would come to.

    `plans` are those of all versions of the set in order of publication, `version` among them;
    `route` is what is decided about the set, `rules.published` the versions before.
    """
    at = next(i for i, one in enumerate(plans) if one.view.version == version)
    plan, earlier = plans[at], plans[:at]
    name = plan.view.feature_set
    known = [one for one in rules.published if one != version]
    serves = not known
    after_rules = replace(rules, published=(*known, version))
    after = settled(route or default_route(name, after_rules), after_rules)
    before = None if serves else _before(route, name, replace(rules, published=known))
    others = {} if before is None else {it.version: it for it in before.live}
    others.pop(version, None)
    used = reuse(plan, earlier, others.keys())
    then = after if serves else activated(after, version, after_rules)
    live_after = tuple(one.version for one in after.live)
    still = {one.version for one in then.live}
    views = {one.view.version: one.view for one in earlier}
    wholes = [_whole_from(plan.view, used, views, one) for one in partitions]
    firsts = [_first(plan.view, one) for one in partitions]
    late = [
        whole
        for whole, first in zip(wholes, firsts, strict=True)
        if whole is not None and first is not None and whole > first
    ]
    return Preview(
        feature_set=name,
        version=version,
        reuse=used,
        partitions=len(partitions),
        replays=_replays(partitions) if used.replayed else (),
        whole_from_ms=max((one for one in wholes if one is not None), default=None),
        ready_after_ms=max(late) - plan.view.every_ms if late else None,
        serves=serves,
        waits_for=tuple(
            one
            for one in others
            if not others[one].ready and any(one in has for has in used.users.values())
        ),
        live_after=live_after,
        stops_being_live=tuple(one for one in others if one not in live_after),
        stops_when_activated=tuple(one for one in live_after if one not in still),
    )


def _before(route: SetRecord | None, name: str, rules: Rules) -> SetRecord:
    """What is decided, with what is about to become live."""
    return settled(route or default_route(name, rules), rules)


def _replays(partitions: Iterable[PartitionFacts]) -> tuple[ReplayCost, ...]:
    return tuple(
        ReplayCost(
            topic=one.topic,
            partition=one.partition,
            start=one.begin,
            end=one.position,
            log_start=one.log_start,
            needs_offset=one.needs_offset,
        )
        for one in partitions
    )


def _first(view: View, partition: PartitionFacts) -> int | None:
    """The next as-of time of the view; None where nothing is closed yet."""
    if partition.closed_ms is None:
        return None
    return floor_to(partition.closed_ms, view.every_ms) + view.every_ms


def _whole_from(
    view: View, used: Reuse, views: Mapping[str, View], partition: PartitionFacts
) -> int | None:
    """The first as-of time from the next one on whose longest window lies in whole panes."""
    first = _first(view, partition)
    if first is None:
        return None
    floors = [_shared_floor(has, views, partition) for has in used.users.values()]
    if used.replayed:
        floors.append(partition.begin_floor_ms)
    needs = [
        ceil_to(floor + view.longest_window_ms, view.every_ms)
        for floor in floors
        if floor is not None
    ]
    return max((first, *needs))


def _shared_floor(
    users: Sequence[str], views: Mapping[str, View], partition: PartitionFacts
) -> int | None:
    """From when on a bundle's panes are whole: since it was begun, and as long as they are kept.

    A version knows the highest floor of its bundles, so the lowest of its users' counts.
    """
    known = [(partition.floors_ms or {}).get(one) for one in users]
    floors = [] if None in known else [min(one for one in known if one is not None)]
    if partition.closed_ms is not None:
        kept = max(views[one].longest_window_ms + views[one].retention_ms for one in users)
        floors.append(floor_to(partition.closed_ms - kept, views[users[0]].pane_ms))
    return max(floors, default=None)
