"""Requests as people send them: what is taken, and what is said about the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.control.records import Action, Code, Request
from streams.control.requests import (
    MAX_RANGES,
    MAX_REASONS,
    Unreadable,
    parse_fields,
    parse_json,
    read_request,
    request_fields,
)
from streams.definitions.exclusions import Exclude, OffsetRange
from streams.errors import RewindowError, UnreachableError

LEAST = {"request_id": "r1", "feature_set": "departures"}


def read(value: bytes | None) -> Request | Unreadable:
    return read_request(value, lambda _: {})


def refused(found: Request | Unreadable) -> list[tuple[str, str]]:
    assert isinstance(found, Unreadable)
    return [(reason.subject, reason.message) for reason in found.reasons]


def test_absent_fields_have_their_defaults() -> None:
    assert read(b' \n{"request_id": "r1", "feature_set": "departures"}') == Request(
        request_id="r1",
        feature_set="departures",
        action=Action.ROLLBACK,
        target=None,
        if_serving=None,
        checkpoint=None,
        exclude=None,
        repair=False,
        dry_run=False,
        feature=None,
        enabled=None,
        fallback=None,
        reason="",
        requested_by="",
        deadline_ms=None,
    )


def test_every_field_is_read() -> None:
    fields: dict[str, Any] = {
        **LEAST,
        "action": "rollback",
        "target": "1.0.0",
        "if_serving": "1.1.0",
        "checkpoint": "c1",
        "exclude": {"where": "a > 1", "offsets": [{"partition": 0, "from": 0, "to": 5}]},
        "repair": True,
        "dry_run": True,
        "feature": None,
        "enabled": None,
        "fallback": None,
        "reason": "schlecht ✗",
        "requested_by": "me",
        "deadline_ms": 5,
        "cancels": None,
    }
    found = parse_json(json.dumps(fields).encode())
    assert isinstance(found, Request)
    assert found.exclude == Exclude(
        where="a > 1", offsets=(OffsetRange(partition=0, start=0, end=5),)
    )
    assert request_fields(found) == fields


def test_a_toggle_is_read() -> None:
    toggle = {"action": "toggle", "feature": "n", "enabled": False, "fallback": "previous"}
    found = parse_fields({**LEAST, **toggle})
    assert isinstance(found, Request)
    assert (found.feature, found.enabled, found.fallback) == ("n", False, "previous")


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"[1]", b"hello", b"\xff{"])
def test_what_is_no_request_is_unreadable(value: bytes | None) -> None:
    def decode(_: bytes) -> dict[str, Any]:
        raise RewindowError("the registry knows no schema with id 7")

    found = read_request(value, decode)
    assert isinstance(found, Unreadable)
    assert [reason.code for reason in found.reasons] == [Code.UNREADABLE]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}}",
        '{"request_id": "a", "request_id": "b", "feature_set": "c"}',
        '{"request_id": "a", "feature_set": "c", "deadline_ms": NaN}',
        '{"request_id": "a", "feature_set": "c", "deadline_ms": ' + "9" * 5_000 + "}",
        '{"a":' * 100_000,
    ],
)
def test_broken_json_is_unreadable(text: str) -> None:
    found = read(text.encode())
    assert isinstance(found, Unreadable)
    assert found.reasons[0].message.startswith("no JSON object: ")


def test_text_that_is_not_utf8_is_unreadable() -> None:
    assert isinstance(read(b'{"request_id": "\xff"}'), Unreadable)


def test_avro_is_read_by_its_schema() -> None:
    assert read_request(b"\x00...", lambda _: dict(LEAST)) == parse_fields(LEAST)


def test_an_unreachable_registry_says_nothing_about_a_request() -> None:
    def decode(_: bytes) -> dict[str, Any]:
        raise UnreachableError("later")

    with pytest.raises(UnreachableError):
        read_request(b"\x00...", decode)


def test_the_id_is_needed() -> None:
    for fields in ({"feature_set": "a"}, {"feature_set": "a", "request_id": None}):
        found = parse_fields(fields)
        assert isinstance(found, Unreadable)
        assert [reason.code for reason in found.reasons] == [Code.MISSING_REQUEST_ID]


def test_the_id_is_given_back_with_the_faults() -> None:
    found = parse_fields({**LEAST, "actoin": "rollback"})
    assert isinstance(found, Unreadable)
    assert found.request_id == "r1"
    assert refused(found) == [("actoin", "actoin: is no field: did you mean 'action'?")]


@pytest.mark.parametrize(
    ("fields", "subject", "words"),
    [
        ({"request_id": 5}, "request_id", "needs to be text, not 5"),
        ({"request_id": ""}, "request_id", "is empty"),
        ({"request_id": "x" * 201}, "request_id", "longer than 200"),
        ({"feature_set": None}, "feature_set", "is needed"),
        ({"feature_set": []}, "feature_set", "needs to be text, not a list"),
        ({"action": "undo"}, "action", "no action"),
        ({"action": "Activate", "target": "1.0.0"}, "action", "did you mean 'activate'?"),
        ({"action": 1}, "action", "no action 1"),
        ({"action": "activate"}, "target", "is needed for activate"),
        ({"action": "retire"}, "target", "is needed for retire"),
        ({"action": "cancel"}, "cancels", "is needed for cancel"),
        ({"cancels": "r1"}, "cancels", "goes with cancel, not with rollback"),
        ({"action": "pin"}, "target", "is needed for pin"),
        ({"action": "unpin"}, "target", "is needed for unpin"),
        ({"action": "toggle", "enabled": True}, "feature", "is needed for toggle"),
        ({"action": "toggle", "feature": "n"}, "enabled", "is needed for toggle"),
        ({"repair": "yes"}, "repair", 'needs to be true or false, not "yes"'),
        ({"repair": 1}, "repair", "needs to be true or false"),
        ({"dry_run": 0}, "dry_run", "needs to be true or false"),
        ({"deadline_ms": 1.5}, "deadline_ms", "needs to be a whole number"),
        ({"deadline_ms": True}, "deadline_ms", "needs to be a whole number"),
        ({"deadline_ms": 1 << 63}, "deadline_ms", "needs to be from"),
        ({"reason": "\ud800"}, "reason", "surrogate"),
        ({"reason": "x" * 4_001}, "reason", "longer than 4000"),
        ({"target": {}}, "target", "not an object"),
        ({"feature": "n"}, "feature", "goes with toggle, not with rollback"),
        ({"enabled": False}, "enabled", "goes with toggle, not with rollback"),
        ({"fallback": "previous"}, "fallback", "goes with toggle"),
        ({"action": "retire", "target": "1.0.0", "repair": True}, "repair", "not with retire"),
        ({"action": "activate", "target": "1", "exclude": {"where": "a"}}, "exclude", "rollback"),
        ({"action": "toggle", "feature": "n", "enabled": False, "fallback": "1.0.0"}, "fallback",
         "null or 'previous'"),
        ({"action": "toggle", "feature": "n", "enabled": True, "fallback": "previous"}, "fallback",
         "enabled = false"),
        ({"exclude": {}}, "exclude", "needs `where` or `offsets`"),
        ({"exclude": "a > 1"}, "exclude", "needs to be an object"),
        ({"exclude": {"where": ""}}, "exclude.where", "is empty"),
        ({"exclude": {"were": "a", "where": "a"}}, "exclude.were", "did you mean 'where'?"),
        ({"exclude": {"offsets": {}}}, "exclude.offsets", "needs to be a list"),
        ({"exclude": {"offsets": [1]}}, "exclude.offsets[0]", "needs to be an object"),
        ({"exclude": {"offsets": [{"partition": 0, "from": 0}]}}, "exclude.offsets[0].to",
         "is needed"),
        ({"exclude": {"offsets": [{"partition": 0, "from": 5, "to": 5}]}}, "exclude.offsets[0]",
         "0 <= from < to"),
        ({"exclude": {"offsets": [{"partition": -1, "from": 0, "to": 5}]}},
         "exclude.offsets[0].partition", "needs to be from 0"),
        ({"exclude": {"offsets": [{}] * (MAX_RANGES + 1)}}, "exclude.offsets", "more than"),
    ],
)  # fmt: skip
def test_each_fault_is_named(fields: dict[str, Any], subject: str, words: str) -> None:
    faults = dict(refused(parse_fields({**LEAST, **fields})))
    assert words in faults[subject]


def test_all_faults_are_named_up_to_a_limit() -> None:
    assert len(refused(parse_fields({}))) == 2
    assert len(refused(parse_fields({str(at): at for at in range(1_000)}))) == MAX_REASONS
