"""One set with a few versions on two partitions, and a coordinator that is driven by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streams.control.coordinator import Coordinator
from streams.control.facts import Catalog, Facts, Outside, PublishedSet, PublishedVersion
from streams.control.records import (
    Action,
    AuditRecord,
    Checkpointed,
    ControlRecord,
    Failed,
    Fenced,
    Origin,
    Ready,
    Reply,
    Request,
)
from streams.control.requests import RawRequest, Unreadable
from streams.control.routes import Rules
from streams.control.set_record import LiveVersion, SetRecord
from streams.control.state import ControlState, fold

if TYPE_CHECKING:
    from streams.control.draft import Decision
    from streams.control.facts import NewCheckpoint
    from streams.control.records import Ack

SET = "departures"
STREAM = "flights"
V1, V2, V3 = "1.0.0", "1.1.0", "2.0.0"
NOW = 1_000_000
PARTITIONS = 2


def published(*versions: str, partitions: int = PARTITIONS) -> PublishedSet:
    return PublishedSet(
        stream=STREAM,
        topic="flights",
        partitions=partitions,
        source_partitions=partitions,
        versions=tuple(
            PublishedVersion(version=one, features={"n": "Int64"}, every_ms=60_000)
            for one in versions
        ),
    )


def catalog(*versions: str, partitions: int = PARTITIONS) -> Catalog:
    offset = len(versions) + 1
    return Catalog(
        sets={SET: published(*versions, partitions=partitions)}, definitions_offset=offset
    )


def request(**fields: Any) -> Request:
    return Request(**{"request_id": "r1", "feature_set": SET, **fields})


def activate(target: str, **fields: Any) -> Request:
    return request(action=Action.ACTIVATE, target=target, **fields)


def raw(content: Request | Unreadable, offset: int = 0, at_ms: int = NOW) -> RawRequest:
    return RawRequest(
        origin=Origin(topic="app.rollback", partition=0, offset=offset),
        at_ms=at_ms,
        content=content,
    )


def route(serving: str = V1, *ready: str, **fields: Any) -> SetRecord:
    """`serving` and the `ready` versions are live and ready."""
    live = tuple(LiveVersion(version=one, ready=True) for one in (serving, *ready))
    made: dict[str, Any] = {
        "feature_set": SET,
        "serving": serving,
        "live": live,
        "served": (serving,),
        **fields,
    }
    return SetRecord(**made)


def facts(**fields: Any) -> Facts:
    made: dict[str, Any] = {
        "now_ms": NOW,
        "sets": (SET,),
        "published": published(V1, V2, V3),
        "route": route(V1, V2, V3),
        "rules": Rules(published=(V1, V2, V3)),
        "partitions_ready": PARTITIONS,
        **fields,
    }
    return Facts(**made)


class Run:
    """Topics in memory, and the coordinator that writes them."""

    def __init__(
        self, *versions: str, keep: int = 2, new_checkpoint: NewCheckpoint | None = None
    ) -> None:
        self.keep = keep
        self.catalog = catalog(*versions)
        self.control: list[ControlRecord] = []
        self.audit: list[AuditRecord] = []
        self.replies: list[Reply] = []
        self.acks: list[Ack] = []
        self.requests = 0
        self.now_ms = NOW
        self.new_checkpoint = new_checkpoint
        self.coordinator = Coordinator(
            ControlState(), self.catalog, keep=keep, new_checkpoint=new_checkpoint
        )
        self.commit(self.coordinator.resume(self.now_ms))

    @property
    def state(self) -> ControlState:
        return self.coordinator.state

    @property
    def set(self) -> SetRecord:
        return self.state.sets[SET]

    def commit(self, decision: Decision | None) -> None:
        if decision is not None:
            self.control += decision.control
            self.audit += decision.audit
            self.replies += decision.replies
            self.coordinator.commit(decision)

    def publish(self, *versions: str) -> None:
        self.catalog = catalog(*versions)
        self.commit(self.coordinator.on_published(self.catalog, self.now_ms))

    def ask(self, content: Request | Unreadable, outside: Outside | None = None) -> list[str]:
        """What is answered, as states."""
        before = len(self.replies)
        it = raw(content, self.requests, self.now_ms)
        self.requests += 1
        self.commit(self.coordinator.on_request(it, outside or Outside(), self.now_ms))
        return [reply.state for reply in self.replies[before:]]

    def ack(self, *acks: Ack) -> list[str]:
        before = len(self.replies)
        start = len(self.acks)
        self.acks += acks
        self.commit(self.coordinator.on_acks(enumerate(acks, start), self.now_ms))
        return [reply.state for reply in self.replies[before:]]

    def ready(self, version: str, *partitions: int) -> list[str]:
        live = self.set.live_version(version)
        assert live is not None
        return self.ack(
            *(
                Ready(
                    feature_set=SET,
                    version=version,
                    generation=live.generation,
                    stream=STREAM,
                    partition=partition,
                    offset=100 + partition,
                )
                for partition in partitions or range(PARTITIONS)
            )
        )

    def failed(self, version: str, partition: int) -> list[str]:
        live = self.set.live_version(version)
        assert live is not None
        return self.ack(
            Failed(
                feature_set=SET,
                version=version,
                generation=live.generation,
                stream=STREAM,
                partition=partition,
                reason="no disk",
            )
        )

    def fence(self, *partitions: int, epoch: int | None = None) -> list[str]:
        return self.ack(
            *(
                Fenced(
                    feature_set=SET,
                    epoch=self.set.epoch if epoch is None else epoch,
                    version=self.set.serving,
                    stream=STREAM,
                    partition=partition,
                    offset=200 + partition,
                )
                for partition in partitions or range(PARTITIONS)
            )
        )

    def stored(
        self,
        request_id: str,
        *partitions: int,
        kept: tuple[str, ...] = (),
        reason: str | None = None,
    ) -> list[str]:
        """Acks of the checkpoint that a request asks for."""
        checkpoint = self.state.requests[request_id].checkpoint
        assert checkpoint is not None
        return self.ack(
            *(
                Checkpointed(
                    request_id=request_id,
                    feature_set=SET,
                    version=V2,
                    stream="flights",
                    partition=partition,
                    checkpoint=checkpoint,
                    offset=300 + partition,
                    kept=kept,
                    reason=reason,
                )
                for partition in partitions
            )
        )

    def tick(self, after_ms: int) -> list[str]:
        self.now_ms += after_ms
        before = len(self.replies)
        self.commit(self.coordinator.on_time(self.now_ms))
        return [reply.state for reply in self.replies[before:]]

    def take_over(self) -> None:
        """Another coordinator, with nothing but the topics."""
        state = fold(self.control)
        assert state == self.state
        self.coordinator = Coordinator(
            state, self.catalog, keep=self.keep, new_checkpoint=self.new_checkpoint
        )
        self.commit(self.coordinator.resume(self.now_ms))
        start = self.coordinator.acks_offset
        seen = list(enumerate(self.acks))[start:]
        self.commit(self.coordinator.on_acks(seen, self.now_ms))

    def events(self) -> list[str]:
        return [record.event for record in self.audit]
