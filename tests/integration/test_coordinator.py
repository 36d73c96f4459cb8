"""The coordinator on a real Kafka and registry, with the test in the part of partition owners."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from streams.control.codec import Kind, encode
from streams.control.facts import Target
from streams.control.records import Action, Replay, Request
from streams.control.set_record import Held
from streams.definitions.store import pack, read_definitions
from streams.definitions.topics import control_topics
from streams.errors import RewindowError
from streams.kafka import ensure_topics, topic_config
from streams.names import subjects
from streams.runtime.control.routes import Routes
from streams.runtime.control.schemas import register_schemas
from streams.schema.registry import Registry
from tests.integration.control_rig import (
    PARTITIONS,
    V1,
    V2,
    V3,
    ControlRig,
)
from tests.integration.deadly import Deadly, killed
from tests.integration.run_coordinator import RunningCoordinator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from streams.runtime.control.published import Published
    from tests.integration.kafka_tools import KafkaTools

CUT = {0: 7, 1: 9}
DECISION_POINTS = ("before_decision", "in_decision", "after_decision")


@pytest.fixture
async def rig(kafka: KafkaTools, prefix: str, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """One version is published, and the test fails if an operator were called."""
    made = ControlRig(kafka, prefix, tmp_path)
    await made.start()
    yield made
    await made.close()
    assert made.failures == []


async def test_a_hot_switch_completes_with_the_cut_once_all_partitions_have_fenced(
    rig: ControlRig,
) -> None:
    rig.publish(V2)
    async with rig.service():
        await rig.all_ready(V1)
        await rig.all_ready(V2)
        request = await rig.ask(action="activate", target=V2, requested_by="test", reason="new")
        await rig.fence(1, at={0: CUT[0]})
        assert await rig.states(request, last="accepted") == ["accepted"]
        await rig.fence(1, at={1: CUT[1]})
        replies = await rig.replies(request, last="completed")
    assert [reply.state for reply in replies] == ["accepted", "switched", "completed"]
    assert (replies[-1].epoch, replies[-1].cut_topic, replies[-1].cut) == (1, rig.topic, CUT)
    state = await rig.state()
    assert state.sets[rig.set_name].serving == V2
    assert not state.in_flight
    events = [(record.event, record.version) for record in await rig.audit()]
    assert [version for _, version in events[:2]] == [V1, V2]
    assert events[-4:] == [(one, V2) for one in ("accepted", "switching", "switched", "completed")]
    assert await rig.findings() == []
    committed = rig.kafka.committed(rig.names.coordinator_group, rig.names.rollback_topic)
    assert committed[0][0] == 1


async def test_a_cold_target_is_prepared_before_the_switch(rig: ControlRig) -> None:
    rig.publish(V2)
    async with rig.alone():
        await rig.all_ready(V1)
        request = await rig.ask(action="activate", target=V2)
        assert await rig.states(request, last="preparing") == ["accepted", "preparing"]
        await rig.ready(V2, 0)
        await rig.ready(V2, 1)
        await rig.fence(1, at=CUT)
        replies = await rig.replies(request, last="completed")
    plan = replies[0].plan
    assert plan is not None
    assert (plan.how, plan.partitions) == ("cold", PARTITIONS)
    assert [(one.partition, one.log_start) for one in plan.replays] == [(0, 0), (1, 0)]


async def test_a_request_may_be_avro(rig: ControlRig) -> None:
    request = Request(
        request_id="by hand", feature_set=rig.set_name, action=Action.ACTIVATE, target="9.9.9"
    )
    async with rig.alone():
        await rig.send(encode(request, rig.ids[Kind.REQUEST]))
        (reply,) = await rig.replies("by hand", last="rejected")
    assert [reason.code for reason in reply.reasons] == ["unknown_version"]


async def test_avro_by_a_schema_of_the_senders_own_is_read_too(rig: ControlRig) -> None:
    schema = {
        "type": "record",
        "name": "mine",
        "fields": [{"name": name, "type": "string"} for name in ("request_id", "feature_set")],
    }
    schema_id = rig.kafka.register(f"{rig.names.app}.mine", schema)
    async with rig.alone():
        fields = {"request_id": "mine", "feature_set": rig.set_name}
        await rig.send(rig.kafka.encode(schema_id, fields))
        (reply,) = await rig.replies("mine", last="rejected")
    assert [reason.code for reason in reply.reasons] == ["nothing_to_undo"]


UNREADABLE = (
    *(None, b"", b"hello", b"{nonsense", b"[1]", b"\0\0\0", b"\0\x7f\xff\xff\xff123"),
    b'{"a": 1}',
)


async def test_what_can_not_be_read_is_answered_with_where_it_lies(rig: ControlRig) -> None:
    async with rig.alone():
        for value in UNREADABLE:
            await rig.send(value, key=b"any")
        replies = await rig.replies(None, last="rejected", count=len(UNREADABLE))
    assert [reply.origin.offset for reply in replies] == list(range(len(UNREADABLE)))
    for reply in replies:
        assert (reply.origin.topic, reply.origin.partition) == (rig.names.rollback_topic, 0)
        assert {reason.code for reason in reply.reasons} <= {"unreadable", "missing_request_id"}
    told = [(record.event, record.detail) for record in (await rig.audit())[-len(UNREADABLE) :]]
    where = [f"{rig.names.rollback_topic}[0]@{offset}" for offset in range(len(UNREADABLE))]
    assert told == [("rejected", one) for one in where]


async def test_a_refusal_is_on_the_reply_topic_and_in_the_audit_and_changes_nothing(
    rig: ControlRig,
) -> None:
    async with rig.alone():
        route = await rig.route(lambda _: True)
        request = await rig.ask(target="9.9.9", if_serving="8.0.0")
        (reply,) = await rig.replies(request, last="rejected")
    codes = {reason.code for reason in reply.reasons}
    assert codes == {"unknown_version", "if_serving_differs"}
    assert {reason.code for reason in (await rig.audit())[-1].reasons} == codes
    assert (await rig.state()).sets[rig.set_name] == route


async def test_a_request_that_comes_twice_is_done_once(rig: ControlRig) -> None:
    rig.publish(V2)
    async with rig.alone():
        await rig.all_ready(V2)
        request = await rig.ask(action="activate", target=V2)
        await rig.ask(action="activate", target=V2, request_id=request)
        await rig.fence(1, at=CUT)
        states = await rig.states(request, last="completed")
    assert states == ["accepted", "accepted", "switched", "completed"]
    assert (await rig.state()).sets[rig.set_name].epoch == 1


async def test_the_deadline_of_a_preparation_passes(rig: ControlRig) -> None:
    rig.publish(V2)
    async with rig.alone():
        deadline_ms = rig.clock.now_ms() + 1_500
        request = await rig.ask(action="activate", target=V2, deadline_ms=deadline_ms)
        replies = await rig.replies(request, last="failed")
    assert [reply.state for reply in replies] == ["accepted", "preparing", "failed"]
    assert [reason.code for reason in replies[-1].reasons] == ["deadline_passed"]
    assert replies[-1].at_ms >= deadline_ms
    assert (await rig.state()).sets[rig.set_name].serving == V1


async def test_what_is_published_meanwhile_becomes_live(rig: ControlRig) -> None:
    async with rig.alone():
        await rig.route(lambda _: True)
        await asyncio.to_thread(rig.publish, V2)
        route = await rig.route(lambda found: found.live_version(V2) is not None)
    assert [one.version for one in route.live] == [V1, V2]
    assert route.definitions_offset > 0
    assert V2 in [one.version for one in await rig.audit()]


async def test_commit_metadata_on_the_acks_topic_is_no_ack(rig: ControlRig) -> None:
    rig.publish(V2)
    async with rig.alone():
        acks = rig.names.acks_topic
        await rig.send(b'{"f":1}', topic=acks, key=b"flights/0")
        await rig.send(b"\0\0\0", topic=acks, headers=[("rewindow.ack", b"ready")])
        await rig.all_ready(V2)


async def test_a_version_whose_output_schema_is_refused_is_not_activated(rig: ControlRig) -> None:
    rig.publish(V2, "m: {mean: delay, window: 1h}")
    await _publish_by_hand(rig, V3)
    async with rig.alone():
        await rig.all_ready(V1)
        fine = await rig.ask(action="activate", target=V2, dry_run=True)
        assert await rig.states(fine, last="completed") == ["accepted", "completed"]
        request = await rig.ask(target=V3)
        (reply,) = await rig.replies(request, last="rejected")
    (reason,) = reply.reasons
    assert reason.code == "schema_refused"
    assert "field 'm' changes from" in reason.message


async def test_a_cold_target_whose_source_is_gone_is_refused_with_both_offsets(
    rig: ControlRig,
) -> None:
    for _ in range(5):
        await rig.send(b"any", topic=rig.topic)
    here = TopicPartition(rig.topic, 0, 3)
    rig.kafka.admin.delete_records([here])[here].result(10)

    async def replays(target: Target, _: Published) -> tuple[Replay, ...]:
        assert (target.version, target.cold) == (V2, True)
        return (
            Replay(topic=rig.topic, partition=0, needs_offset=1, log_start=3),
            Replay(topic=rig.topic, partition=1, needs_offset=0, log_start=0),
        )

    rig.publish(V2)
    async with rig.alone(replays=replays):
        request = await rig.ask(action="activate", target=V2)
        (reply,) = await rig.replies(request, last="rejected")
    (reason,) = reply.reasons
    assert (reason.code, reason.subject) == ("source_gone", f"{rig.topic}[0]")
    assert "from offset 1, and the topic begins at 3" in reason.message


async def test_the_topics_are_kept_and_their_schemas_may_not_change_freely(rig: ControlRig) -> None:
    kept = {"replies": "2592000000", "rollback": "2592000000"}
    for spec in control_topics(rig.settings):
        config = topic_config(rig.settings, spec.name)
        assert rig.kafka.partitions(spec.name) == [0]
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert config["cleanup.policy"] == "delete"
        assert config["retention.ms"] == kept.get(spec.name.rpartition(".")[2], "-1")
        subject = subjects(spec.name)[1]
        assert rig.registry.compatibility(subject) == "FULL_TRANSITIVE"
    assert register_schemas(rig.names, rig.registry) == rig.ids


async def test_a_request_waits_for_the_registry_and_nothing_else_does(rig: ControlRig) -> None:
    away = Registry("http://127.0.0.1:1")
    rig.publish(V2)
    async with rig.alone(registry=away):
        waits = await rig.ask(action="activate", target=V2)
        await rig.all_ready(V2)
        await asyncio.to_thread(rig.publish, V3)
        await rig.route(lambda found: found.live_version(V3) is not None)
    async with rig.alone():
        await rig.fence(1, at=CUT)
        states = await rig.states(waits, last="completed")
    assert states == ["accepted", "switched", "completed"]


async def test_a_deadline_ends_the_wait_for_the_registry(rig: ControlRig) -> None:
    async with rig.alone(registry=Registry("http://127.0.0.1:1")):
        deadline_ms = rig.clock.now_ms() + 500
        request = await rig.ask(action="activate", target=V1, deadline_ms=deadline_ms)
        (reply,) = await rig.replies(request, last="rejected")
    assert "deadline_passed" in {reason.code for reason in reply.reasons}


async def _publish_by_hand(rig: ControlRig, version: str) -> None:
    """A version like the newest one, whose schema was registered while anything went."""
    newest = read_definitions(rig.settings).sets[rig.set_name][-1]
    subject = subjects(rig.names.features_topic(rig.set_name))[1]
    schema = rig.registry.latest(subject).schema
    schema["fields"][-1]["type"] = ["null", "string"]
    rig.registry.set_compatibility(subject, "NONE")
    schema_id = rig.registry.register(subject, schema)
    rig.registry.set_compatibility(subject, "FULL_TRANSITIVE")
    made = replace(
        newest,
        feature_set=replace(newest.feature_set, version=version),
        value_schema_id=schema_id,
        order=newest.order + 1,
    )
    key, value = pack(made)
    await rig.send(value, topic=rig.names.definitions_topic, key=key)


# -- one after the other, and two at once ---------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "count"),
    [
        ("in_take_over", 1),
        *((point, count) for count in (1, 2, 3, 4) for point in DECISION_POINTS),
    ],
)
async def test_one_that_is_killed_is_followed_by_another_with_one_outcome(
    rig: ControlRig, point: str, count: int
) -> None:
    """Decisions: a version is live; a request is accepted; all is ready: switch; completed."""
    async with rig.alone():
        await rig.all_ready(V1)
    rig.publish(V2)
    request = await rig.ask(action="activate", target=V2)
    doomed = rig.alone("one", crash=Deadly(point, count))
    async with rig.owners(CUT, lazy=True), doomed as first:
        await killed(first)
        async with rig.alone("two"):
            replies = await rig.replies(request, last="completed")
    assert [reply.state for reply in replies] == [
        "accepted",
        "preparing",
        "switched",
        "completed",
    ]
    assert replies[-1].cut == CUT
    events = [record.event for record in await rig.audit() if record.request_id == request]
    assert [event for event in events if event != "resumed"] == [
        "accepted",
        "preparing",
        "switching",
        "switched",
        "completed",
    ]
    assert (await rig.state()).sets[rig.set_name].epoch == 1
    assert await rig.findings() == []


async def test_of_two_that_both_believe_to_have_the_topic_only_the_last_decides(
    rig: ControlRig,
) -> None:
    async with rig.alone("one"):
        await rig.all_ready(V1)
        async with rig.alone("two") as second:
            rig.publish(V2)
            await rig.all_ready(V2)
            requests = [await rig.ask(action="activate", target=V2) for _ in range(3)]
            await rig.fence(1, at=CUT)
            await rig.states(requests[0], last="completed")
            for request in requests[1:]:
                assert await rig.states(request, last="rejected") == ["rejected"]
            assert second.claims == 1
    assert await rig.findings() == []


async def test_one_that_was_frozen_in_the_middle_of_a_decision_can_not_finish_it(
    rig: ControlRig,
) -> None:
    """A process of its own that stops with all of a decision sent, and goes on too late."""
    rig.publish(V2)
    async with rig.service("clean"):
        await rig.all_ready(V1)
        await rig.all_ready(V2)
    frozen = RunningCoordinator(rig, "frozen", REWINDOW_FREEZE_AT="in_decision")
    try:
        await asyncio.to_thread(frozen.coordinates)
        request = await rig.ask(action="activate", target=V2)
        await asyncio.to_thread(frozen.stands_still)
        async with rig.owners(CUT), rig.service("next"):
            await rig.states(request, last="completed")
            control = await rig.control()
            frozen.thaw()
            await asyncio.to_thread(frozen.fenced)
            assert await rig.control() == control
    finally:
        frozen.kill()
    assert await rig.states(request, last="completed") == ["accepted", "switched", "completed"]
    assert await rig.findings() == []


async def test_topics_that_do_not_belong_together_are_refused(rig: ControlRig) -> None:
    async with rig.alone():
        await rig.all_ready(V1)
        await rig.states(await rig.ask(), last="rejected")
    rig.kafka.admin.delete_topics([rig.names.control_topic])[rig.names.control_topic].result(10)
    await asyncio.to_thread(ensure_topics, rig.settings, control_topics(rig.settings))
    async with rig.alone():
        async with asyncio.timeout(20):
            while not rig.failures:
                await asyncio.sleep(0.05)
    assert "control knows of none beyond 0" in str(rig.failures.pop())


# -- routes ---------------------------------------------------------------------------------------


async def test_routes_are_as_new_as_the_topic_and_know_who_served_before(rig: ControlRig) -> None:
    rig.publish(V2)
    async with rig.alone(), rig.owners(CUT) as routes:
        await rig.route(lambda found: all(one.ready for one in found.live))
        await rig.states(await rig.ask(action="activate", target=V2), last="completed")
        late = Routes(rig.parts("late").context, rig.ids, on_failure=rig.failures.append)
        await late.start()
        try:
            await late.reach(routes.next_offset)
            await routes.reach(late.next_offset)
            assert late.state == routes.state
            assert late.held_at(rig.set_name, 0) == Held(serving=V1)
            assert late.held_at(rig.set_name, 1) == Held(serving=V2)
            assert late.held_at(rig.set_name, 2) is None
            assert late.held_at("another", 0) is None
            with pytest.raises(RewindowError, match="was deleted or made anew"):
                await late.reach(late.next_offset + 100)
        finally:
            await late.stop()
