"""Writers' schemas: asked for once; an unknown id is asked for again, later."""

from __future__ import annotations

from typing import Any, cast

import pytest

from streams.errors import UnreachableError
from streams.runtime import schemas
from streams.runtime.schemas import ASK_AGAIN_S, SchemaBook
from streams.schema.registry import Registry

RECORD = {"type": "record", "name": "r", "fields": []}


class FakeRegistry:
    """Answers from a list, one answer for each question; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    def schema_by_id(self, schema_id: int) -> Any:
        self.asked.append(schema_id)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeClock:
    """Time stands still until it is moved."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return 0


def book(registry: FakeRegistry, clock: FakeClock | None = None) -> SchemaBook:
    return SchemaBook(cast("Registry", registry), clock or FakeClock())


async def test_a_known_id_is_asked_for_once() -> None:
    registry = FakeRegistry(RECORD)
    known = book(registry)
    assert await known.get([7]) == {7: RECORD}
    assert await known.get([7]) == {7: RECORD}
    assert registry.asked == [7]


async def test_an_unknown_id_is_asked_for_again_after_a_while_only() -> None:
    registry, clock = FakeRegistry(None, None, RECORD), FakeClock()
    known = book(registry, clock)
    assert await known.get([7]) == {7: None}
    clock.now_s = ASK_AGAIN_S - 1
    assert await known.get([7]) == {7: None}
    assert registry.asked == [7]
    clock.now_s = ASK_AGAIN_S
    assert await known.get([7]) == {7: None}
    clock.now_s = 2 * ASK_AGAIN_S
    assert await known.get([7]) == {7: RECORD}
    assert await known.get([7]) == {7: RECORD}
    assert registry.asked == [7, 7, 7]


async def test_a_registry_that_is_away_is_waited_for_and_decides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schemas, "FIRST_PAUSE_S", 0.0)
    registry = FakeRegistry(UnreachableError("away"), UnreachableError("away"), RECORD)
    assert await book(registry).get([7]) == {7: RECORD}
    assert registry.asked == [7, 7, 7]


async def test_of_unknown_ids_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MOST_UNKNOWN", 2)
    registry = FakeRegistry(None, None, None, None)
    known = book(registry)
    assert await known.get([1, 2, 3]) == {1: None, 2: None, 3: None}
    await known.get([3, 2])
    assert registry.asked == [1, 2, 3]
    await known.get([1])
    assert registry.asked == [1, 2, 3, 1]
