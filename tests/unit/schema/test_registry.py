"""What the client makes of each answer, told by a registry that only pretends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from streams.errors import InvalidInputError, RefusedError, UnreachableError
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "http://registry:8081/apis/ccompat/v7"


def registry(answer: Callable[[httpx.Request], httpx.Response]) -> Registry:
    return Registry(URL, transport=httpx.MockTransport(answer))


def always(status: int, content: Any) -> Registry:
    if isinstance(content, str):
        return registry(lambda _: httpx.Response(status, html=content))
    return registry(lambda _: httpx.Response(status, json=content))


def missing(code: int) -> Registry:
    return always(404, {"error_code": code, "message": "not found"})


def test_only_the_registrys_own_word_makes_an_id_unknown() -> None:
    assert missing(40403).schema_by_id(9) is None
    for client in (
        always(404, "<html>not here</html>"),
        always(404, {"error_code": 404, "message": "HTTP 404 Not Found"}),
        always(404, {"status": 404}),
        always(200, "<html>welcome</html>"),
    ):
        with pytest.raises(UnreachableError, match="ends in /apis/ccompat/v7"):
            client.schema_by_id(9)


def test_an_odd_answer_for_an_id_stalls_and_an_impossible_id_does_not_ask() -> None:
    for client in (always(200, {}), always(200, []), always(400, {"error_code": 40001})):
        with pytest.raises(UnreachableError):
            client.schema_by_id(9)
    assert always(404, "<html>").schema_by_id(2**31) is None


@pytest.mark.parametrize("status", [500, 502, 503, 429, 401])
def test_a_registry_in_trouble_is_unreachable(status: int) -> None:
    with pytest.raises(UnreachableError, match=str(status)):
        always(status, "<html>oops</html>").schema_by_id(9)


def test_no_connection_names_the_address() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnreachableError, match="registry:8081"):
        registry(refuse).ping()


def test_schemas_come_as_objects_and_foreign_kinds_by_name() -> None:
    record = {"type": "record", "name": "r", "fields": []}
    assert always(200, {"schema": json.dumps(record)}).schema_by_id(1) == record
    assert always(200, {"schema": '"string"'}).schema_by_id(1) == {"type": "string"}
    foreign = {"schema": "syntax = 3", "schemaType": "PROTOBUF"}
    assert always(200, foreign).schema_by_id(1) == {"type": "PROTOBUF"}


def test_absent_things_are_none_or_say_what_to_do() -> None:
    assert missing(40401).versions("s") == []
    assert missing(40402).schema("s", 3) is None
    assert missing(40403).lookup("s", {"type": "string"}) is None
    assert missing(40408).compatibility("s") is None
    with pytest.raises(InvalidInputError, match="register its schema first"):
        missing(40401).latest("s")


def test_references_are_refused_by_name() -> None:
    found = {"subject": "s", "version": 1, "id": 1, "schema": '"x"', "references": [{"name": "x"}]}
    with pytest.raises(InvalidInputError, match="refers to other subjects"):
        always(200, found).latest("s")


def test_a_refusal_carries_reasons() -> None:
    def record(declared: str) -> dict[str, Any]:
        return {"type": "record", "name": "r", "fields": [{"name": "a", "type": declared}]}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            assert request.url.params["normalize"] == "true"
            if not request.url.path.endswith("/versions"):
                return httpx.Response(404, json={"error_code": 40403, "message": "none"})
            return httpx.Response(409, json={"error_code": 409, "message": "no"})
        if request.url.path.endswith("/config/s"):
            return httpx.Response(200, json={"compatibilityLevel": "FULL"})
        if request.url.path.endswith("/versions"):
            return httpx.Response(200, json=[1])
        held = {"subject": "s", "version": 1, "id": 1, "schema": json.dumps(record("int"))}
        return httpx.Response(200, json=held)

    with pytest.raises(RefusedError, match="field 'a' changes from int to string"):
        registry(answer).register("s", record("string"))


def test_an_invalid_schema_is_the_users_to_mend() -> None:
    with pytest.raises(InvalidInputError, match="no such type"):
        always(422, {"error_code": 42201, "message": "no such type"}).register("s", {"type": "x"})


def test_settings_take_librdkafkas_names() -> None:
    client = Registry.from_settings(
        {"url": f"{URL}/", "basic.auth.user.info": "me:secret:", "timeout.ms": "500"}
    )
    assert client.url == URL
    client.close()
    for wrong in ({}, {"url": "registry:8081"}, {"url": URL, "ssl.ca.location": "/nowhere"}):
        with pytest.raises(InvalidInputError):
            Registry.from_settings(wrong)


def test_a_level_that_somebody_else_sets_at_the_same_time_is_set() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            message = "A rule named 'COMPATIBILITY' already exists."
            return httpx.Response(409, json={"error_code": 409, "message": message})
        return httpx.Response(200, json={"compatibilityLevel": "FULL"})

    registry(answer).set_compatibility("s", "FULL")
    with pytest.raises(RefusedError):
        registry(answer).set_compatibility("s", "BACKWARD")
