"""Named moments: counted down where they are asked for, free where they are not."""

from __future__ import annotations

import os
import signal

import pytest

from streams.runtime.crashpoints import (
    CRASH_VARIABLE,
    FAIL_VARIABLE,
    FREEZE_VARIABLE,
    POINTS,
    CrashPoints,
    InjectedError,
)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Signals that would have been sent: (process, signal)."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


def test_without_being_asked_nothing_happens(signals: list[tuple[int, int]]) -> None:
    points = CrashPoints({})
    for name in POINTS:
        points.reach(name)
    assert signals == []


@pytest.mark.parametrize(
    ("variable", "number"),
    [(CRASH_VARIABLE, signal.SIGKILL), (FREEZE_VARIABLE, signal.SIGSTOP)],
)
def test_the_process_is_signalled_once_at_the_asked_for_arrival(
    signals: list[tuple[int, int]], variable: str, number: int
) -> None:
    points = CrashPoints({variable: "in_batch:3"})
    for _ in range(2):
        points.reach("in_batch")
        points.reach("in_flush")
    assert signals == []
    for _ in range(3):
        points.reach("in_batch")
    assert signals == [(os.getpid(), number)]


def test_a_failure_is_raised_once() -> None:
    points = CrashPoints({FAIL_VARIABLE: "in_claim"})
    with pytest.raises(InjectedError, match="in_claim"):
        points.reach("in_claim")
    points.reach("in_claim")


@pytest.mark.parametrize("variable", [CRASH_VARIABLE, FREEZE_VARIABLE, FAIL_VARIABLE])
def test_a_point_that_does_not_exist_is_refused(variable: str) -> None:
    with pytest.raises(ValueError, match="somewhere is none of in_claim"):
        CrashPoints({variable: "somewhere:1"})
