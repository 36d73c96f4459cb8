"""What partition owners have acknowledged: for each partition the newest word counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.control.machine import FINAL
from streams.control.records import Ack, Checkpointed, Failed, Fenced, Ready
from streams.control.set_record import LiveVersion

if TYPE_CHECKING:
    from streams.control.state import ControlState

Attempt = tuple[str, str, int]
"""Set, version and generation."""


class Acks:
    """Acks in any order, each any number of times; `position` is where reading goes on."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._prepared: dict[Attempt, dict[int, tuple[int, Ready | Failed]]] = {}
        self._fenced: dict[str, dict[int, tuple[int, Fenced]]] = {}
        self._stored: dict[str, dict[int, tuple[int, Checkpointed]]] = {}

    def add(self, offset: int, ack: Ack) -> None:
        """Take in the ack at `offset` of the acks topic."""
        self.position = max(self.position, offset + 1)
        if isinstance(ack, Fenced):
            fences = self._fenced.setdefault(ack.feature_set, {})
            known = fences.get(ack.partition)
            if known is None or (known[1].epoch, known[0]) < (ack.epoch, offset):
                fences[ack.partition] = (offset, ack)
            return
        if isinstance(ack, Checkpointed):
            stored = self._stored.setdefault(ack.request_id, {})
            if ack.partition not in stored or stored[ack.partition][0] < offset:
                stored[ack.partition] = (offset, ack)
            return
        attempt = (ack.feature_set, ack.version, ack.generation)
        said = self._prepared.setdefault(attempt, {})
        if ack.partition not in said or said[ack.partition][0] < offset:
            said[ack.partition] = (offset, ack)

    def ready(self, feature_set: str, live: LiveVersion, partitions: int) -> int:
        """How many of the set's partitions have this attempt ready."""
        return len(self.ready_on(feature_set, live, partitions))

    def ready_on(self, feature_set: str, live: LiveVersion, partitions: int) -> frozenset[int]:
        """The partitions of the set that have this attempt ready."""
        said = self._prepared.get((feature_set, live.version, live.generation), {})
        return frozenset(
            partition
            for partition, (_, ack) in said.items()
            if partition < partitions and isinstance(ack, Ready)
        )

    def failed(self, feature_set: str, live: LiveVersion) -> list[Failed]:
        """The partitions whose last word is that this attempt failed, in order."""
        said = self._prepared.get((feature_set, live.version, live.generation), {})
        found = (ack for _, ack in said.values() if isinstance(ack, Failed))
        return sorted(found, key=lambda ack: ack.partition)

    def cut(self, feature_set: str, epoch: int, partitions: int) -> dict[int, int] | None:
        """The fences of `epoch`; None while some partition has none, or has corrections to make.

        A partition that fenced a later epoch fenced this one with it.
        """
        fences = self._fenced.get(feature_set, {})
        cut = {
            partition: ack.offset
            for partition, (_, ack) in sorted(fences.items())
            if partition < partitions and ack.epoch >= epoch and ack.corrections is not None
        }
        return cut if len(cut) == partitions else None

    def corrections(self, feature_set: str, epoch: int) -> int:
        """How many corrections the fences of `epoch` have led to."""
        fences = self._fenced.get(feature_set, {}).values()
        return sum(ack.corrections or 0 for _, ack in fences if ack.epoch == epoch)

    def checkpoints(self, request_id: str) -> dict[int, Checkpointed]:
        """What partitions have said of the checkpoint that a request asks for, in their order."""
        return {p: ack for p, (_, ack) in sorted(self._stored.get(request_id, {}).items())}

    def forget(self, state: ControlState) -> None:
        """Drop what no decision can depend on any more."""
        for attempt in [one for one in self._prepared if not _matters(one, state)]:
            del self._prepared[attempt]
        for name, fences in list(self._fenced.items()):
            decided = state.sets.get(name)
            least = 0 if decided is None else decided.epoch + (name not in state.in_flight)
            self._fenced[name] = {p: it for p, it in fences.items() if it[1].epoch >= least}
        for request_id in list(self._stored):
            asked = state.requests.get(request_id)
            if asked is None or asked.state in FINAL:
                del self._stored[request_id]

    def lowest(self) -> int:
        """Where one who takes over has to begin to read, so as to know all that this knows."""
        prepared = (offset for said in self._prepared.values() for offset, _ in said.values())
        fenced = (offset for said in self._fenced.values() for offset, _ in said.values())
        stored = (offset for said in self._stored.values() for offset, _ in said.values())
        return min((*prepared, *fenced, *stored), default=self.position)


def _matters(attempt: Attempt, state: ControlState) -> bool:
    """Acks of versions that are not ready yet, or of what is not decided yet."""
    name, version, generation = attempt
    record = state.sets.get(name)
    if record is None or generation > record.generation:
        return True
    return any(
        (one.version, one.generation) == (version, generation) and not one.ready
        for one in record.live
    )
