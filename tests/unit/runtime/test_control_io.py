"""The control path's records, catalog and checks, without a broker."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from streams.control.audit import verify
from streams.control.codec import Kind, decode_ack, decode_audit, decode_control, decode_reply
from streams.control.facts import Outside
from streams.control.records import Fenced, Ready
from streams.control.requests import Unreadable, parse_json
from streams.control.state import ControlState
from streams.datapath.records import OneRecord
from streams.definitions.model import EventTime, Feature, FeatureSet, Function, Source
from streams.definitions.store import PublishedSet, PublishedSource, collect
from streams.errors import RefusedError, UnreachableError
from streams.names import Names, subjects
from streams.runtime.control.acks import ack_records, is_ack
from streams.runtime.control.outside import schema_reasons
from streams.runtime.control.published import catalog_of
from streams.runtime.control.reading import ControlReader
from streams.runtime.control.start import Positions, refuse_gaps
from streams.runtime.control.transaction import records_of
from streams.runtime.schemas import SchemaBook
from streams.schema.registry import Registry
from tests.unit.control.small import SET, V1, V2, Run, activate, raw

NAMES = Names(app="app")
IDS = {kind: number for number, kind in enumerate(Kind, 1)}
SOURCE = Source(
    name="flights",
    topic="flights",
    schema="flights-value",
    event_time=EventTime(field="at"),
    key=("origin",),
)


def published(version: str, *, entity: tuple[str, ...] = ("origin",), order: int) -> PublishedSet:
    feature = Feature(name="n", function=Function.COUNT, expression=None, window_ms=60_000)
    return PublishedSet(
        feature_set=FeatureSet(
            name="_".join(entity),
            version=version,
            source="flights",
            entity=entity,
            every_ms=60_000,
            features=(feature,),
        ),
        digest=version,
        key_schema_id=1,
        value_schema_id=2,
        order=order,
    )


def test_a_decision_is_records_in_their_order_under_text_keys() -> None:
    run = Run(V1, V2)
    run.ready(V1)
    run.ready(V2)
    content = activate(V2)
    decision = run.coordinator.on_request(raw(content), Outside(), run.now_ms)
    assert decision is not None
    outgoing = {one.topic: one for one in records_of(decision, NAMES, IDS)}
    assert list(outgoing) == ["app.control", "app.audit", "app.replies"]
    assert all(one.partition == 0 for one in outgoing.values())
    control = outgoing["app.control"]
    assert control.keys == [f"set/{SET}".encode(), b"request/r1"]
    assert [decode_control(value or b"") for value in control.values] == list(decision.control)
    audit = [decode_audit(value or b"") for value in outgoing["app.audit"].values]
    assert outgoing["app.audit"].keys == [str(record.seq).encode() for record in audit]
    assert verify([*run.audit, *audit], [decision.stamp.audit]) == []
    assert [decode_reply(value or b"") for value in outgoing["app.replies"].values] == list(
        decision.replies
    )


def test_what_has_no_id_has_no_key() -> None:
    run = Run(V1)
    content = parse_json(b"{}")
    assert isinstance(content, Unreadable)
    decision = run.coordinator.on_request(raw(content), Outside(), run.now_ms)
    assert decision is not None
    control, _, replies = records_of(decision, NAMES, IDS)
    assert (control.keys, replies.keys) == ([None], [None])


def test_acks_carry_a_header_and_commit_metadata_does_not() -> None:
    ready = Ready(
        feature_set=SET, version=V1, generation=0, stream="flights", partition=1, offset=5
    )
    fenced = Fenced(feature_set=SET, epoch=1, version=V1, stream="flights", partition=1, offset=6)
    (outgoing,) = ack_records(NAMES, IDS, [ready, fenced])
    assert (outgoing.topic, outgoing.partition) == ("app.acks", 0)
    assert [decode_ack(value or b"") for value in outgoing.values] == [ready, fenced]
    assert outgoing.each_headers is not None
    assert [dict(headers)["rewindow.ack"] for headers in outgoing.each_headers] == [
        b"ready",
        b"fenced",
    ]
    assert all(is_ack(headers) for headers in outgoing.each_headers)
    assert not is_ack(())
    assert ack_records(NAMES, IDS, []) == []


def test_the_catalog_has_the_stream_of_each_set_and_its_partitions() -> None:
    source = PublishedSource(
        source=SOURCE,
        schema={"type": "record", "name": "flight", "fields": []},
        schema_id=1,
        order=0,
    )
    sets = [published(V1, order=1), published(V2, order=3)]
    rekeyed = published(V1, entity=("carrier",), order=2)
    definitions = collect([source, *sets, rekeyed], next_offset=9)
    catalog = catalog_of(NAMES, definitions, {"flights": 3})
    assert catalog.definitions_offset == 9
    own, other = catalog.sets["origin"], catalog.sets["carrier"]
    assert (own.stream, own.topic, own.partitions) == ("flights", "flights", 3)
    assert [(one.version, one.every_ms) for one in own.versions] == [(V1, 60_000), (V2, 60_000)]
    assert own.versions[0].features == {"n": "Int64"}
    assert (other.stream, other.topic) == ("flights.by.carrier", "app.stream.flights.by.carrier")
    assert other.partitions == 0


# -- topics that belong together ----------------------------------------------------------------

TOGETHER = Positions(committed=5, control_end=20, rollback=(0, 6), acks=(0, 40))


@pytest.mark.parametrize("committed", [None, 0, 5])
def test_a_position_that_is_gone_or_set_back_does_not_matter(committed: int | None) -> None:
    state = ControlState(requests_offset=5, acks_offset=30)
    refuse_gaps(NAMES, state, replace(TOGETHER, committed=committed))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"committed": 6}, "app.control knows of none beyond 5"),
        ({"committed": None, "rollback": (0, 4)}, "the topic ends at 4"),
        ({"acks": (31, 40)}, "holds 31 to 40"),
        ({"acks": (0, 29)}, "holds 0 to 29"),
    ],
)
def test_topics_that_were_made_anew_are_refused(changes: dict[str, Any], words: str) -> None:
    state = ControlState(requests_offset=5, acks_offset=30)
    with pytest.raises(RefusedError, match=words):
        refuse_gaps(NAMES, state, replace(TOGETHER, **changes))


# -- what the registry says ---------------------------------------------------------------------


def record(kind: str) -> dict[str, Any]:
    return {"type": "record", "name": "v", "fields": [{"name": "n", "type": kind}]}


class FakeRegistry:
    """Subjects with schemas by id, in order of their versions, and a level."""

    def __init__(self, level: str | None, **held: dict[int, dict[str, Any]]) -> None:
        topic = NAMES.features_topic("origin")
        self.subjects = dict(zip(subjects(topic), held.values(), strict=True))
        self.level = level
        self.away = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("no")
        parts = request.url.path.split("/")
        if parts[1] == "config":
            if self.level is None:
                return httpx.Response(404, json={"error_code": 40408, "message": "none"})
            return httpx.Response(200, json={"compatibilityLevel": self.level})
        held = list(self.subjects[parts[2]].items())
        if len(parts) == 4:
            return httpx.Response(200, json=list(range(1, len(held) + 1)))
        number, schema = held[int(parts[4]) - 1]
        return httpx.Response(
            200,
            json={
                "subject": parts[2],
                "version": int(parts[4]),
                "id": number,
                "schema": json.dumps(schema),
            },
        )

    def client(self) -> Registry:
        return Registry("http://registry", transport=httpx.MockTransport(self.answer))


KEY = {1: {"type": "string"}}


@pytest.mark.parametrize(
    ("level", "value", "refused"),
    [
        ("FULL_TRANSITIVE", {2: record("long")}, False),
        ("FULL_TRANSITIVE", {7: record("string"), 2: record("long")}, True),
        (None, {7: record("string"), 2: record("long")}, True),
        ("NONE", {7: record("string"), 2: record("long")}, False),
        # What came later is not in the way of what was there before.
        ("FULL_TRANSITIVE", {2: record("long"), 7: record("string")}, False),
        ("FULL_TRANSITIVE", {7: record("long")}, True),
    ],
)
def test_an_output_schema_has_to_follow_those_before_it(
    level: str | None, value: dict[int, dict[str, Any]], refused: bool
) -> None:
    registry = FakeRegistry(level, key=KEY, value=value).client()
    reasons = schema_reasons(NAMES, registry, published(V1, order=1))
    assert bool(reasons) is refused
    assert all("features.origin-value" in reason for reason in reasons)


def test_a_registry_that_is_away_says_nothing() -> None:
    fake = FakeRegistry(None, key=KEY, value={2: record("long")})
    fake.away = True
    with pytest.raises(UnreachableError):
        schema_reasons(NAMES, fake.client(), published(V1, order=1))


# -- requests -----------------------------------------------------------------------------------


class Known(SchemaBook):
    """Schemas of other writers."""

    def __init__(self, **known: Any) -> None:
        self._by_id = {int(number[1:]): schema for number, schema in known.items()}

    async def get(self, ids: Any) -> Any:
        return {number: self._by_id.get(number) for number in ids}


def stored(value: bytes | None) -> OneRecord:
    return OneRecord(offset=3, timestamp=99, key=None, value=value, headers=())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no value"),
        (b"hello", "neither a JSON object nor Avro"),
        (b"\0\0\0\0\x08x", "knows no schema with id 8"),
        (b"\0\0\0\0\x09\x02x", "not a record"),
        (b"\0\0\0\0\x07\x02xx", "nope: is no field"),
    ],
)
async def test_what_is_no_request_says_why(value: bytes | None, words: str) -> None:
    own = {"type": "record", "name": "r", "fields": [{"name": "nope", "type": "string"}]}
    reader = ControlReader(Known(_7=own, _9={"type": "string"}), IDS)
    read = await reader.request("app.rollback", stored(value))
    assert isinstance(read.content, Unreadable)
    assert words in " ".join(reason.message for reason in read.content.reasons)
    assert (read.origin.topic, read.origin.offset, read.at_ms) == ("app.rollback", 3, 99)
