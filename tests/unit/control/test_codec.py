"""What is written can be read back, by the schemas that are shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from streams.control.codec import (
    SCHEMAS,
    Kind,
    decode_ack,
    decode_audit,
    decode_control,
    decode_reply,
    encode,
    kind_of,
    named_schema,
    reply_fields,
)
from streams.control.records import (
    Action,
    AuditEvent,
    AuditRecord,
    ControlRecord,
    Failed,
    Fenced,
    Head,
    How,
    Origin,
    Plan,
    Ready,
    Reason,
    Replay,
    Reply,
    ReplyState,
    Request,
    RequestRecord,
    Stamp,
    State,
)
from streams.control.requests import parse_fields, read_request
from streams.control.set_record import Activation, LiveVersion, Pin, SetRecord, Toggle
from streams.definitions.exclusions import Exclude, Exclusion, OffsetRange
from streams.schema.compat import incompatibilities
from streams.schema.values import ValueReader

STAMP = Stamp(at_ms=5, requests_offset=3, acks_offset=9, audit=Head(next_seq=4, hash="ab"))
ORIGIN = Origin(topic="app.rollback", partition=0, offset=7)
REASONS = (Reason(code="unknown_set", message="there is none", subject="a"),)
REPLAYS = (
    Replay(topic="flights", partition=0, needs_offset=None, log_start=0),
    Replay(topic="flights", partition=1, needs_offset=5, log_start=2),
)
PLAN = Plan(
    how=How.COLD,
    target="1.1.0",
    from_version="1.0.0",
    topic="flights",
    partitions=12,
    partitions_ready=3,
    replays=REPLAYS,
    undoes=("2.0.0",),
    becomes_cold=("0.9.0",),
    checkpoint="c",
)
REQUEST = Request(
    request_id="r1",
    feature_set="departures",
    action=Action.ROLLBACK,
    target="1.1.0",
    exclude=Exclude(where="a > 1", offsets=(OffsetRange(partition=1, start=2, end=3),)),
    repair=True,
    reason="nöt right",
    deadline_ms=1 << 40,
)
SET = SetRecord(
    feature_set="departures",
    serving="1.1.0",
    epoch=4,
    live=(
        LiveVersion(version="1.1.0", generation=2, ready=True),
        LiveVersion(version="2.0.0", excluding=9, checkpoint="c"),
    ),
    generation=2,
    served=("1.0.0", "1.1.0"),
    retired=("0.9.0",),
    pinned=(Pin(version="1.0.0", key_schema_id=7, value_schema_id=8),),
    toggles=(Toggle(version="1.1.0", feature="n", fallback="1.0.0"),),
    activations=(Activation(version="1.1.0", from_version="1.0.0", epoch=4),),
    definitions_offset=8,
    request_id="r1",
    exclusions=(
        Exclusion(number=2, where="a > 1"),
        Exclusion(number=9, offsets=(OffsetRange(partition=1, start=2, end=1 << 40),)),
    ),
    excluding=2,
)
RECORD = RequestRecord(
    request_id="r1",
    state=State.SWITCHING,
    origin=ORIGIN,
    request=REQUEST,
    plan=PLAN,
    epoch=4,
    cut={0: 10, 11: 12},
    reasons=REASONS,
    times={"received": 1, "switching": 2},
)
UNREADABLE = RequestRecord(
    request_id=None, state=State.REJECTED, origin=ORIGIN, reasons=REASONS, times={"received": 1}
)
REPLY = Reply(
    request_id="r1",
    state=ReplyState.SWITCHED,
    origin=ORIGIN,
    action=Action.ROLLBACK,
    feature_set="departures",
    target="1.1.0",
    dry_run=True,
    reasons=REASONS,
    plan=PLAN,
    cut_topic="flights",
    cut={0: 10, 11: 12},
    checkpoint="c",
    epoch=4,
    at_ms=9,
    times={"received": 1},
)
AUDIT = AuditRecord(
    seq=3,
    previous="0" * 64,
    at_ms=9,
    event=AuditEvent.COMPLETED,
    request_id="r1",
    feature_set="departures",
    version="1.1.0",
    epoch=4,
    requested_by="me",
    reason="so",
    cut={0: 10},
    reasons=REASONS,
    checkpoints=("c",),
    duration_ms=12,
    detail="…",
    hash="ff",
)
ACKS = (
    Ready(
        feature_set="departures", version="1.1.0", generation=2, stream="s", partition=1, offset=5
    ),
    Failed(
        feature_set="departures", version="1.1.0", generation=2, stream="s", partition=1, reason="x"
    ),
    Fenced(
        feature_set="departures",
        epoch=3,
        version="1.1.0",
        stream="s",
        partition=1,
        offset=5,
        closed_through_ms=60_000,
    ),
)


@pytest.mark.parametrize("body", [SET, RECORD, UNREADABLE, replace(SET, request_id=None)])
def test_control_records_come_back(body: SetRecord | RequestRecord) -> None:
    record = ControlRecord(stamp=STAMP, body=body)
    assert decode_control(encode(record, 7)) == record


def test_the_others_come_back() -> None:
    assert decode_reply(encode(REPLY, 7)) == REPLY
    assert decode_reply(encode(Reply(request_id=None, state=REPLY.state, origin=ORIGIN), 7))
    assert decode_audit(encode(AUDIT, 7)) == AUDIT
    assert [decode_ack(encode(ack, 7)) for ack in ACKS] == list(ACKS)


def test_a_request_in_avro_is_read_like_any_other() -> None:
    class Shipped:
        def schema_by_id(self, schema_id: int) -> dict[str, Any]:
            assert schema_id == 7
            return SCHEMAS[Kind.REQUEST]

    reader = ValueReader(Shipped())  # type: ignore[arg-type]  # all of a registry that is asked
    for request in (REQUEST, Request(request_id="r", feature_set="a")):
        assert read_request(encode(request, 7), reader.read) == request


def test_values_are_framed() -> None:
    value = encode(AUDIT, 7)
    assert value[:5] == b"\x00\x00\x00\x00\x07"
    assert named_schema(value) == 7
    for other in (None, b"", b"\x00\x00", b"{}......"):
        with pytest.raises(ValueError, match="wire format"):
            named_schema(other)


def test_older_and_newer_writers_are_resolved() -> None:
    writer = json.loads(json.dumps(SCHEMAS[Kind.AUDIT]))
    writer["fields"].append({"name": "new", "type": "string", "default": ""})
    assert decode_audit(encode(AUDIT, 7) + b"\x02x", writer) == AUDIT


def test_what_was_not_written_by_us_is_refused() -> None:
    readers = (decode_control, decode_ack, decode_audit, decode_reply)
    for reader in readers:
        for value in (b"", b"\x00\x00\x00\x00\x07", b"\x00\x00\x00\x00\x07\xff\xff"):
            with pytest.raises(ValueError, match=r"."):
                reader(value)


def test_a_reply_as_json() -> None:
    fields = json.loads(json.dumps(reply_fields(REPLY)))
    assert fields["state"] == "switched"
    assert fields["cut"] == {"0": 10, "11": 12}
    assert fields["plan"]["how"] == "cold"


def test_each_value_has_its_schema() -> None:
    control = ControlRecord(stamp=STAMP, body=SET)
    kinds = [kind_of(value) for value in (REQUEST, REPLY, control, ACKS[0], AUDIT)]
    assert kinds == list(Kind)


def test_schemas_are_valid_and_may_grow() -> None:
    for schema in SCHEMAS.values():
        assert incompatibilities(schema, [schema], "FULL_TRANSITIVE") == []


def test_a_request_is_the_same_wherever_it_is_written() -> None:
    text = json.dumps(SCHEMAS[Kind.CONTROL])
    assert json.dumps(SCHEMAS[Kind.REQUEST]) in text


def test_the_defaults_of_the_schema_are_those_of_a_request() -> None:
    fields = {one["name"]: one for one in SCHEMAS[Kind.REQUEST]["fields"]}
    defaults = {name: one["default"] for name, one in fields.items() if "default" in one}
    assert set(fields) - set(defaults) == {"request_id", "feature_set"}
    least = {"request_id": "r", "feature_set": "a"}
    assert parse_fields({**least, **defaults}) == parse_fields(least)
