"""What a version that is not live has to read of its stream: for the gate.

A bundle that a ready version has exists, and needs nothing. For the others each partition needs
its log from where the next as-of time's window begins; see reviving.py. Where nothing is known
of that offset any more, the records' timestamps may say that the log's beginning is enough: no
event is later than its record's timestamp and `max_ahead`. Where the log is gone, a checkpoint
may stand for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from streams.control.facts import Target
from streams.control.records import Replay
from streams.datapath.log_index import LogIndex
from streams.definitions.exclusions import Exclusion
from streams.definitions.plan import plan_versions
from streams.errors import InvalidInputError, RewindowError, UnreachableError
from streams.runtime.committed import read_progress
from streams.runtime.formers import origins
from streams.runtime.log_index import read_indexes
from streams.runtime.reviving import Need, needed_offset
from streams.schema.types import field_types
from streams.state.manifest import Manifest

if TYPE_CHECKING:
    from streams.definitions.model import Source
    from streams.definitions.plan import Bundle, Plan
    from streams.definitions.store import Definitions
    from streams.runtime.context import Context
    from streams.runtime.control.published import Published
    from streams.runtime.snapshots import Partition

Replays = Callable[["Target", "Published"], Awaitable[tuple[Replay, ...]]]
"""What a target has to replay of each of its stream's partitions."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The replays of versions of one app. It is a `Replays`."""

    context: Context

    async def __call__(self, target: Target, published: Published) -> tuple[Replay, ...]:
        """Blocks nothing. Raises UnreachableError if Kafka can't be asked."""
        if not target.cold:
            return ()
        one = published.catalog.sets[target.feature_set]
        partitions = range(one.partitions)
        starts = await asyncio.to_thread(
            self.context.offsets.starts, [(one.topic, number) for number in partitions]
        )
        begins = {number: starts[one.topic, number] for number in partitions}
        try:
            needed = await self._needed(target, published, begins)
        except KafkaError as error:
            raise UnreachableError(f"reading what {target.version} needs: {error!r}") from error
        return tuple(
            Replay(
                topic=one.topic,
                partition=number,
                needs_offset=needed.get(number),
                log_start=begins[number],
            )
            for number in partitions
        )

    async def _needed(
        self, target: Target, published: Published, begins: Mapping[int, int]
    ) -> dict[int, int]:
        """The first offset that each partition needs; none for those that need nothing."""
        plans, bundles = await asyncio.to_thread(lacking, target, published.definitions)
        if not bundles:
            return {}
        plan, views = plans[0], [one.view for one in plans]
        one = published.catalog.sets[target.feature_set]
        names, offsets = self.context.names, self.context.offsets
        asked = [(one.topic, number) for number in begins if number not in target.partitions]
        # Also while a transaction is open, which is nearly always: an older C needs more.
        committed = await asyncio.to_thread(
            lambda: offsets.committed(names.worker_group, asked, stable=False)
        )
        indexes = await read_indexes(self.context)
        found = {}
        for at, position in committed.items():
            progress = await read_progress(self.context, position.metadata)
            need = Need.of_views(views, progress)
            if need is None:
                continue
            if target.exclude is not None:  # all that is kept is built anew, and corrected
                need = replace(need, needed_ms=need.wanted_ms)
            number = at[1]
            known = indexes.get((one.stream, number), LogIndex())
            offset = needed_offset(known, need, app_start=progress.start, position=position.offset)
            if offset < begins[number] and not plan.rekeyed:
                offset = await self._by_timestamp(at, need, plan.source, offset, begins[number])
            if offset < begins[number]:
                digests = [list(origins(it, number, rekeyed=plan.rekeyed)) for it in bundles]
                offset = await self._by_checkpoint((one.stream, number), digests, need, offset)
            found[number] = offset
        return found

    async def _by_timestamp(
        self, at: tuple[str, int], need: Need, source: Source, offset: int, log_start: int
    ) -> int:
        """The offset, or a later one if the log holds a record that is too old for the need."""
        time_ms = max(0, need.needed_ms - source.max_ahead_ms)
        first = await asyncio.to_thread(self.context.offsets.at_time, [at], time_ms)
        return first[at] if first[at] > log_start else offset

    async def _by_checkpoint(
        self,
        partition: Partition,
        bundles: Sequence[Sequence[tuple[str, int]]],
        need: Need,
        offset: int,
    ) -> int:
        """The offset, or a later one from which a checkpoint of each bundle goes on."""
        snapshots = self.context.snapshots
        if snapshots is None:
            return offset

        def newest(digests: Sequence[tuple[str, int]]) -> int:
            usable = [
                it.next_offset
                for digest, limit in digests
                for it in snapshots.checkpoints.all(snapshots.bundle_id(partition, digest))
                if isinstance(it, Manifest)
                if it.next_offset <= limit and reaches_back(it, need)
            ]
            return max(usable, default=offset)

        try:
            return await asyncio.to_thread(lambda: min(map(newest, bundles)))
        except RewindowError as error:
            log.warning("judging without checkpoints: %s", error)
            return offset


def reaches_back(checkpoint: Manifest, need: Need) -> bool:
    """Whether panes are whole in a checkpoint from where they are needed on."""
    return checkpoint.floor_ms is None or checkpoint.floor_ms <= need.needed_ms


def lacking(target: Target, definitions: Definitions) -> tuple[list[Plan], list[Bundle]]:
    """The plans of what is prepared, the target's first, and those of their bundles that no ready
    version has."""
    plans = {
        (name, version): plan
        for name in {target.feature_set, *(name for name, _ in target.ready)}
        for version, plan in _plans(name, definitions, target.left_out.get(name, ()))
    }
    there = {bundle.digest for name in target.ready for bundle in plans[name].bundles}
    wanted = {version: plans[target.feature_set, version] for version in target.prepared}
    wanted[target.version] = plan = plans[target.feature_set, target.version]
    if target.exclude is not None:
        name, exclude = target.feature_set, target.exclude
        before = target.left_out.get(name, ())
        number = 1 + max((one.number for one in before), default=0)
        news = Exclusion(number=number, where=exclude.where, offsets=exclude.offsets)
        try:
            cleaned = dict(_plans(name, definitions, (*before, news)))
        except InvalidInputError:
            return [plan], []  # the gate says why
        wanted = {version: cleaned[version] for version in wanted}
    bundles = {bundle.digest: bundle for one in wanted.values() for bundle in one.bundles}
    found = [wanted.pop(target.version), *wanted.values()]
    return found, [one for one in bundles.values() if one.digest not in there]


def _plans(
    name: str, definitions: Definitions, exclusions: Sequence[Exclusion]
) -> list[tuple[str, Plan]]:
    versions = definitions.sets[name]
    published = definitions.sources[versions[0].feature_set.source]
    plans = plan_versions(
        [one.feature_set for one in versions],
        published.source,
        field_types(published.schema),
        exclusions,
    )
    return [(one.feature_set.version, plan) for one, plan in zip(versions, plans, strict=True)]
