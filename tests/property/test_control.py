"""The control path under anything: every request ends once, whoever coordinates, whatever is lost.

Topics are lists. Owners obey what the control topic says and acknowledge, repeat themselves,
or fail; decisions are committed or lost; coordinators come and go between any two steps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.control.audit import verify
from streams.control.codec import decode_ack, decode_audit, decode_control, encode
from streams.control.coordinator import Coordinator
from streams.control.draft import Decision
from streams.control.facts import Catalog, Outside, PublishedSet, PublishedVersion
from streams.control.machine import FINAL
from streams.control.records import (
    Ack,
    Action,
    AuditEvent,
    AuditRecord,
    ControlRecord,
    Failed,
    Fenced,
    Origin,
    Ready,
    Reply,
    ReplyState,
    Request,
    RequestRecord,
    State,
)
from streams.control.requests import RawRequest, Unreadable, parse_json
from streams.control.set_record import SetRecord
from streams.control.state import ControlState, fold

SETS = ("a", "b")
VERSIONS = ("1.0.0", "1.1.0", "2.0.0", "3.0.0")
PARTITIONS = 2
ENDS = (AuditEvent.REJECTED, AuditEvent.DRY_RUN, AuditEvent.COMPLETED, AuditEvent.FAILED)

sets = st.sampled_from(SETS)
partitions = st.integers(0, PARTITIONS - 1)
versions = st.sampled_from(VERSIONS)
mostly = st.sampled_from([True, True, True, False])
ids = st.sampled_from([f"r{number}" for number in range(30)])
rare = st.sampled_from([False] * 7 + [True])
requests = (
    st.builds(
        Request,
        request_id=ids,
        feature_set=sets,
        action=st.just(Action.ACTIVATE),
        target=versions,
        dry_run=rare,
    )
    | st.builds(
        Request,
        request_id=ids,
        feature_set=sets,
        action=st.sampled_from([*[Action.ROLLBACK] * 4, Action.RETIRE, Action.PIN]),
        target=st.none() | versions,
        if_serving=st.sampled_from([*[None] * 9, *VERSIONS]),
    )
    | st.builds(
        Request, request_id=ids, feature_set=sets, action=st.just(Action.CANCEL), cancels=ids
    )
)
allowed = st.sampled_from([*[None] * 6, 0, 20, 50])


def usable(request: Request) -> Request | Unreadable:
    """As reading it would give it."""
    free = (Action.ROLLBACK, Action.CANCEL)
    if request.action not in free and request.target is None:
        return parse_json(b'{"request_id": "%s"}' % request.request_id.encode())
    return request


class ControlPath(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.published: dict[str, list[str]] = {}
        self.sent: list[RawRequest] = []
        self.acks: list[Ack] = []
        self.control: list[ControlRecord] = []
        self.audit: list[AuditRecord] = []
        self.replies: list[Reply] = []
        self.fences: dict[tuple[str, int], tuple[int, int]] = {}
        self.prepared: set[tuple[str, str, int, int]] = set()
        self.coordinator = Coordinator(ControlState(), self.catalog())

    @initialize(first=st.integers(0, 3), second=st.integers(0, 3))
    def begin(self, first: int, second: int) -> None:
        self.published = {"a": list(VERSIONS[: first + 1]), "b": list(VERSIONS[: second + 1])}
        self.settle(self.coordinator.on_published(self.catalog(), self.now_ms), True)

    def catalog(self) -> Catalog:
        made = {
            name: PublishedSet(
                stream="s",
                topic="s",
                partitions=PARTITIONS,
                versions=tuple(PublishedVersion(version=one) for one in names),
            )
            for name, names in self.published.items()
        }
        return Catalog(sets=made, definitions_offset=sum(map(len, self.published.values())))

    def settle(self, decision: Decision | None, committed: bool) -> None:
        """The transaction: all of the decision, or nothing of it."""
        before = fold(self.control)
        if decision is not None and committed:
            assert decision.control
            self.control += decision.control
            self.audit += decision.audit
            self.replies += decision.replies
            self.coordinator.commit(decision)
        else:
            assert self.coordinator.state == before

    def route(self, name: str) -> SetRecord | None:
        """What an owner knows that has read the control topic to its end."""
        return fold(self.control).sets.get(name)

    @rule(name=sets, committed=mostly)
    def publish(self, name: str, committed: bool) -> None:
        names = self.published.setdefault(name, [])
        if len(names) < len(VERSIONS):
            names.append(VERSIONS[len(names)])
        decision = self.coordinator.on_published(self.catalog(), self.now_ms)
        self.settle(decision, committed)

    @rule(request=requests, allowed_ms=allowed, again=rare)
    def send(self, request: Request, allowed_ms: int | None, again: bool) -> None:
        if allowed_ms is not None:
            request = replace(request, deadline_ms=self.now_ms + allowed_ms)
        content = self.sent[-1].content if again and self.sent else usable(request)
        origin = Origin(topic="rollback", partition=0, offset=len(self.sent))
        self.sent.append(RawRequest(origin=origin, at_ms=self.now_ms, content=content))

    @rule(request=requests, allowed_ms=allowed, after_all=st.booleans())
    def ask(self, request: Request, allowed_ms: int | None, after_all: bool) -> None:
        """One that is read at once, where that is asked for with nothing else under way."""
        if after_all:
            self.work()
        self.send(request, allowed_ms, False)
        for _ in self.sent:
            self.read_a_request(True, ())

    @rule(several=st.lists(requests, max_size=4), crashing=st.booleans())
    def ask_several(self, several: list[Request], crashing: bool) -> None:
        for request in several:
            self.send(request, None, False)
        self.work(crashing=crashing)

    @rule(committed=mostly, refused=st.sampled_from([*[()] * 7, ("a type changes",)]))
    def read_a_request(self, committed: bool, refused: tuple[str, ...]) -> None:
        offset = self.coordinator.state.requests_offset
        if offset < len(self.sent):
            outside = Outside(schema_reasons=refused)
            decision = self.coordinator.on_request(self.sent[offset], outside, self.now_ms)
            assert decision is not None
            self.settle(decision, committed)

    @rule(offset=st.integers(0, 50))
    def read_an_old_request(self, offset: int) -> None:
        if offset < self.coordinator.state.requests_offset:
            raw = self.sent[offset]
            assert self.coordinator.on_request(raw, Outside(), self.now_ms) is None

    @rule(name=sets, partition=partitions, fails=st.sampled_from([False, False, True]))
    def prepare(self, name: str, partition: int, fails: bool) -> None:
        """An owner has brought the live versions to the stream, or could not. It says so once."""
        route = self.route(name)
        for one in () if route is None else route.live:
            done = (name, one.version, one.generation, partition)
            if done in self.prepared:
                continue
            where: dict[str, Any] = {
                "feature_set": name,
                "version": one.version,
                "generation": one.generation,
                "stream": "s",
                "partition": partition,
            }
            if fails:
                self.acks.append(Failed(reason="no disk", **where))
            else:
                self.acks.append(Ready(offset=len(self.acks), **where))
                self.prepared.add(done)

    @rule(name=sets, partition=partitions)
    def fence_one(self, name: str, partition: int) -> None:
        self.fence(name, partition)
        self.read_acks(1_000, 0, True)

    def fence(self, name: str, partition: int) -> None:
        """An owner sees the newest epoch, and fences it once."""
        route = self.route(name)
        fenced, _ = self.fences.get((name, partition), (0, 0))
        if route is not None and route.epoch > fenced:
            self.fences[name, partition] = (route.epoch, len(self.acks))
            self.acks.append(
                Fenced(
                    feature_set=name,
                    epoch=route.epoch,
                    version=route.serving,
                    stream="s",
                    partition=partition,
                    offset=len(self.acks),
                )
            )

    @rule(name=sets)
    def repeat_the_fences(self, name: str) -> None:
        """New owners tell again what the ones before them did."""
        for (of, _), (_, offset) in list(self.fences.items()):
            if of == name:
                self.acks.append(self.acks[offset])
        self.read_acks(1_000, 0, True)

    @precondition(lambda self: self.acks)
    @rule(at=st.integers(0, 1_000))
    def repeat_an_ack(self, at: int) -> None:
        self.acks.append(self.acks[at % len(self.acks)])

    @rule(count=st.integers(0, 9), back=st.integers(0, 5), committed=mostly)
    def read_acks(self, count: int, back: int, committed: bool) -> None:
        start = max(0, self.coordinator.acks_offset - back)
        batch = list(enumerate(self.acks))[start : start + back + count]
        self.settle(self.coordinator.on_acks(batch, self.now_ms), committed)

    @rule(passed_ms=st.integers(0, 100), committed=mostly)
    def wait(self, passed_ms: int, committed: bool) -> None:
        self.now_ms += passed_ms
        self.settle(self.coordinator.on_time(self.now_ms), committed)
        for record in self.coordinator.state.under_way() if committed else ():
            assert record.request is not None
            deadline_ms = record.request.deadline_ms
            late = deadline_ms is not None and deadline_ms <= self.now_ms
            assert record.state is State.SWITCHING or not late

    @rule(committed=mostly)
    def take_over(self, committed: bool) -> None:
        self.coordinator = Coordinator(fold(self.control), self.catalog())
        self.settle(self.coordinator.resume(self.now_ms), committed)

    @invariant()
    def the_state_is_what_the_topic_says(self) -> None:
        assert self.coordinator.state == fold(self.control)

    @invariant()
    def one_request_at_a_time_for_a_set(self) -> None:
        newest: dict[str, RequestRecord] = {}
        for record in self.control:
            body = record.body
            if isinstance(body, RequestRecord) and body.request is not None:
                before = newest.get(body.request.request_id)
                if before is not None and before.state in FINAL:
                    assert body == before
                newest[body.request.request_id] = body
        open_ones = Counter(
            one.request.feature_set
            for one in newest.values()
            if one.request is not None and one.state not in FINAL
        )
        assert all(count == 1 for count in open_ones.values())
        assert set(open_ones) == set(self.coordinator.state.in_flight)

    @invariant()
    def routes_follow_each_other(self) -> None:
        before: dict[str, SetRecord] = {}
        for record in self.control:
            body = record.body
            if not isinstance(body, SetRecord):
                continue
            last = before.get(body.feature_set)
            serving = body.live_version(body.serving)
            assert serving is not None
            assert not {one.version for one in body.live} & set(body.retired)
            if last is not None and body.epoch == last.epoch:
                assert body.serving == last.serving
            elif last is not None:
                assert body.epoch == last.epoch + 1
                assert serving.ready
                self.assert_ready(body.feature_set, body.serving, serving.generation)
            before[body.feature_set] = body

    def assert_ready(self, name: str, version: str, generation: int) -> None:
        ready = {
            ack.partition
            for ack in self.acks
            if isinstance(ack, Ready)
            and (ack.feature_set, ack.version, ack.generation) == (name, version, generation)
        }
        assert ready == set(range(PARTITIONS))

    def work(self, *, crashing: bool = False) -> None:
        """Everyone does all that there is to do, a step at a time."""
        for _ in range(100):
            done = self.coordinator.state.requests_offset == len(self.sent)
            if done and not self.coordinator.state.in_flight:
                return
            for name in SETS:
                for partition in range(PARTITIONS):
                    self.prepare(name, partition, False)
                    self.fence(name, partition)
                    self.read_acks(1_000, 0, True)
                    self.read_a_request(True, ())
                    if crashing:
                        self.take_over(True)

    def teardown(self) -> None:
        self.work()
        self.check_ends()
        heads = [record.stamp.audit for record in self.control]
        assert verify(self.audit, heads) == []
        self.check_bytes()

    def check_ends(self) -> None:
        state = self.coordinator.state
        assert state.requests_offset == len(self.sent)
        assert not state.in_flight
        first: dict[str, RawRequest] = {}
        for raw in self.sent:
            if isinstance(raw.content, Request):
                first.setdefault(raw.content.request_id, raw)
        unreadable = sum(isinstance(raw.content, Unreadable) for raw in self.sent)
        ends = Counter(record.request_id for record in self.audit if record.event in ENDS)
        assert sum(ends.values()) == len(first) + unreadable
        repeated = [record for record in self.audit if record.event is AuditEvent.REPEATED]
        assert len(repeated) == len(self.sent) - len(first) - unreadable
        answered = {reply.origin.offset for reply in self.replies}
        assert answered == set(range(len(self.sent)))
        for request_id, raw in first.items():
            record = state.requests[request_id]
            assert (record.request, record.state in FINAL) == (raw.content, True)
            last = [one for one in self.replies if one.request_id == request_id][-1]
            assert last.state == ReplyState(record.state.value) or last.origin != record.origin
            if record.state is State.COMPLETED and record.epoch is not None:
                assert set(record.cut) == set(range(PARTITIONS))
                self.check_cut(record)

    def check_cut(self, record: RequestRecord) -> None:
        assert record.request is not None
        assert record.epoch is not None
        for partition, offset in record.cut.items():
            ack = self.acks[offset]
            assert isinstance(ack, Fenced)
            assert (ack.feature_set, ack.partition) == (record.request.feature_set, partition)
            assert ack.epoch == record.epoch

    def check_bytes(self) -> None:
        again = [decode_control(encode(record, 1)) for record in self.control]
        assert fold(again) == self.coordinator.state
        assert [decode_audit(encode(record, 1)) for record in self.audit] == self.audit
        assert [decode_ack(encode(ack, 1)) for ack in self.acks] == self.acks


TestControlPath = ControlPath.TestCase
TestControlPath.settings = settings(max_examples=150, stateful_step_count=50)
