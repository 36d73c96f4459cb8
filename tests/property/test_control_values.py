"""The pure parts of the control path, over anything that may come."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.control.audit import chained, record_hash, verify
from streams.control.codec import decode_control, encode
from streams.control.facts import Facts, Outside, PublishedSet, PublishedVersion
from streams.control.gate import Accept, decide
from streams.control.records import (
    GENESIS,
    Action,
    AuditEvent,
    AuditRecord,
    ControlRecord,
    Head,
    How,
    Origin,
    Replay,
    Request,
    RequestRecord,
    Stamp,
    State,
)
from streams.control.requests import Unreadable, parse_fields, read_request, request_fields
from streams.control.routes import Rules
from streams.control.set_record import Activation, LiveVersion, Pin, SetRecord, Toggle
from streams.control.state import fold
from streams.definitions.exclusions import Exclude, OffsetRange

VERSIONS = ("1.0.0", "1.1.0", "2.0.0")

versions = st.sampled_from(VERSIONS)
targets = st.none() | st.sampled_from((*VERSIONS, "9.9.9", ""))
mostly_none = st.sampled_from((*[None] * 5, *VERSIONS))
few = st.sampled_from(((), (), (), *((version,) for version in VERSIONS)))
features = st.dictionaries(st.sampled_from(("n", "m")), st.sampled_from(("Int64", "Float64")))
excludes = st.builds(
    Exclude,
    where=st.none() | st.just("a > 1"),
    offsets=st.just(()) | st.just((OffsetRange(partition=0, start=1, end=2),)),
)
requests = st.builds(
    Request,
    request_id=st.sampled_from(("r1", "r2", "r3")),
    feature_set=st.sampled_from(("a", "b")),
    action=st.sampled_from(Action),
    target=targets,
    if_serving=targets,
    checkpoint=st.none() | st.just("c"),
    exclude=st.none() | excludes,
    repair=st.booleans(),
    dry_run=st.booleans(),
    feature=st.none() | st.sampled_from(("n", "m", "o")),
    enabled=st.none() | st.booleans(),
    fallback=st.none() | st.just("previous"),
    deadline_ms=st.none() | st.integers(0, 20),
)
plain_requests = st.builds(
    Request,
    request_id=st.just("r1"),
    feature_set=st.just("a"),
    action=st.sampled_from((Action.ROLLBACK, Action.ACTIVATE, Action.RETIRE)),
    target=versions | targets,
    if_serving=mostly_none,
)
routes = st.builds(
    SetRecord,
    feature_set=st.sampled_from(("a", "b")),
    serving=versions,
    epoch=st.integers(0, 3),
    live=st.lists(
        st.builds(LiveVersion, version=versions, ready=st.booleans()),
        unique_by=lambda one: one.version,
    ).map(tuple),
    generation=st.integers(0, 3),
    served=st.lists(versions, unique=True).map(tuple),
    retired=few,
    pinned=st.lists(
        st.builds(
            Pin,
            version=versions,
            key_schema_id=st.integers(1, 9),
            value_schema_id=st.integers(1, 9),
        ),
        unique_by=lambda one: one.version,
    ).map(tuple),
    toggles=st.lists(
        st.builds(Toggle, version=versions, feature=st.just("n"), fallback=st.none() | versions)
    ).map(tuple),
    activations=st.lists(
        st.builds(Activation, version=versions, from_version=versions, epoch=st.integers(0, 3))
    ).map(tuple),
)
published_sets = st.builds(
    PublishedSet,
    stream=st.just("s"),
    topic=st.just("t"),
    partitions=st.sampled_from((0, 1, 2, 3)),
    versions=st.sampled_from((1, 2, 3, 3)).flatmap(
        lambda count: st.tuples(
            *(
                st.builds(
                    PublishedVersion,
                    version=st.just(version),
                    features=features,
                    every_ms=st.sampled_from((1, 2)),
                )
                for version in VERSIONS[:count]
            )
        )
    ),
)
replays = st.builds(
    Replay,
    topic=st.just("t"),
    partition=st.integers(0, 2),
    needs_offset=st.none() | st.integers(0, 5),
    log_start=st.integers(0, 5),
)
all_facts = st.builds(
    Facts,
    now_ms=st.integers(0, 20),
    sets=st.just(("a", "b")),
    published=st.one_of(published_sets, published_sets, published_sets, st.none()),
    route=st.one_of(routes, routes, routes, st.none()),
    rules=st.builds(Rules, published=st.just(VERSIONS), keep=st.integers(0, 3)),
    partitions_ready=st.integers(0, 3),
    in_flight=st.sampled_from((None, None, None, "r9")),
    outside=st.builds(
        Outside,
        schema_reasons=st.sampled_from(((), (), (), ("a type changes",))),
        replays=st.lists(replays, max_size=2).map(tuple),
    ),
)


@given(request=requests | plain_requests, facts=all_facts)
def test_the_gate_always_answers_and_always_the_same(request: Request, facts: Facts) -> None:
    verdict = decide(request, facts)
    assert decide(request, facts) == verdict
    if not isinstance(verdict, Accept):
        assert verdict.reasons
        assert all(reason.code and reason.message for reason in verdict.reasons)


@given(
    request=plain_requests,
    facts=all_facts,
    published=published_sets,
    route=routes,
)
def test_what_the_gate_accepts_can_be_done(
    request: Request, facts: Facts, published: PublishedSet, route: SetRecord
) -> None:
    facts = replace(facts, published=published, route=route, in_flight=None)
    verdict = decide(request, facts)
    if not isinstance(verdict, Accept):
        return
    plan = verdict.plan
    assert published.version(plan.target) is not None
    assert plan.target not in route.retired
    assert plan.target != route.serving
    assert request.if_serving in (None, route.serving)
    live = route.live_version(plan.target)
    if plan.how is How.HOT:
        assert live is not None
        assert live.ready
    if plan.how is How.COLD:
        assert all(
            it.needs_offset is None or it.log_start <= it.needs_offset for it in plan.replays
        )
    if request.action is not Action.RETIRE:
        assert plan.partitions > 0
        assert plan.target not in plan.becomes_cold


numbers = st.integers() | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = [one.name for one in fields(Request)]
wire_offsets = st.fixed_dictionaries(
    {}, optional={name: st.integers() | anything for name in ("partition", "from", "to", "x")}
)
wire_excludes = st.fixed_dictionaries(
    {}, optional={"where": st.text() | anything, "offsets": st.lists(wire_offsets, max_size=2)}
)
hints: dict[str, st.SearchStrategy[Any]] = {
    "request_id": st.text(min_size=1),
    "feature_set": st.text(min_size=1),
    "action": st.sampled_from([action.value for action in Action]),
    "exclude": wire_excludes,
}
wire_requests = st.fixed_dictionaries(
    {"request_id": hints["request_id"], "feature_set": hints["feature_set"]},
    optional={
        **{name: hints.get(name, st.none() | st.text() | numbers) | anything for name in NAMES[2:]},
        "unknown": anything,
    },
)


@given(wire_requests | st.dictionaries(st.text(), anything))
def test_whatever_is_read_can_be_written_and_read_again(given_fields: dict[str, Any]) -> None:
    found = parse_fields(given_fields)
    if isinstance(found, Unreadable):
        assert found.reasons
        return
    assert parse_fields(request_fields(found)) == found
    origin = Origin(topic="t", partition=0, offset=0)
    body = RequestRecord(request_id=found.request_id, state=State.FAILED, origin=origin)
    stamp = Stamp(at_ms=0, requests_offset=0, acks_offset=0, audit=Head())
    record = ControlRecord(stamp=stamp, body=replace(body, request=found))
    assert decode_control(encode(record, 1)) == record


@given(st.binary() | st.binary().map(lambda it: b"{" + it) | st.text().map(str.encode))
def test_any_bytes_are_a_request_or_are_not(value: bytes) -> None:
    def decode(_: bytes) -> dict[str, Any]:
        raise EOFError

    assert isinstance(read_request(value, decode), Request | Unreadable)


states = st.builds(
    RequestRecord,
    request_id=st.just("r"),
    state=st.sampled_from([state for state in State if state is not State.RECEIVED]),
    origin=st.just(Origin(topic="t", partition=0, offset=0)),
    request=st.none() | requests,
)
control_records = st.builds(
    ControlRecord,
    stamp=st.builds(
        Stamp,
        at_ms=st.integers(0, 9),
        requests_offset=st.integers(0, 9),
        acks_offset=st.integers(0, 9),
        audit=st.builds(Head, next_seq=st.integers(0, 9)),
    ),
    body=routes | states,
)


@given(records=st.lists(control_records, max_size=8), at=st.integers(0, 8))
def test_any_prefix_and_then_the_rest_is_the_whole(records: list[ControlRecord], at: int) -> None:
    state = fold(records[:at])
    for record in records[at:]:
        state.apply(record)
    assert state == fold(records)


def audit_chain() -> tuple[list[AuditRecord], list[Head]]:
    head, records, heads = Head(), [], []
    for number in range(5):
        one = AuditRecord(seq=0, previous=GENESIS, at_ms=number, event=AuditEvent.READY)
        linked, head = chained(head, one)
        records.append(linked)
        heads.append(head)
    return records, heads


CHAIN, HEADS = audit_chain()


@given(st.data())
def test_whatever_is_done_to_the_audit_trail_is_found(data: st.DataObject) -> None:
    records = list(CHAIN)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(records) - 1)))
        match data.draw(st.sampled_from(("drop", "copy", "move", "edit", "renew"))):
            case "drop":
                del records[at : at + 1]
            case "copy":
                records[at:at] = records[at : at + 1]
            case "move":
                moved = records[at : at + 1]
                del records[at : at + 1]
                to = data.draw(st.integers(0, len(records)))
                records[to:to] = moved
            case "edit":
                records[at : at + 1] = [replace(it, at_ms=9) for it in records[at : at + 1]]
            case "renew":
                changed = [replace(it, at_ms=9) for it in records[at : at + 1]]
                records[at : at + 1] = [replace(it, hash=record_hash(it)) for it in changed]
    assert bool(verify(records, HEADS)) == (records != CHAIN)
