"""Which versions a claim has to bring to the committed position."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from streams.control.set_record import Held, LiveVersion, Toggle
from streams.datapath.progress import Closed, Progress
from streams.definitions.exclusions import Exclusion
from streams.runtime.roster import Roster, live, roster
from tests.unit.runtime.town import Decisions

STREAM = cast(
    "Any",
    SimpleNamespace(
        sets={"a": {"1.0.0": None, "1.1.0": None, "1.2.0": None}, "b": {"1.0.0": None}},
        first=lambda _: "1.0.0",
    ),
)


def found(progress: Progress, decided: Decisions) -> Roster:
    return roster(STREAM, progress, decided)


def test_before_any_decision_the_first_versions_serve_and_nothing_follows() -> None:
    made = found(Progress(), Decisions())
    assert made == Roster(
        held={"a": Held(serving="1.0.0"), "b": Held(serving="1.0.0")}, following=()
    )


def test_the_committed_epoch_serves_and_the_newest_follows() -> None:
    decided = Decisions()
    decided.decide("1.0.0!", "1.1.0!", serving="1.1.0", epoch=1)
    decided.decide("1.0.0!", "1.1.0!", "1.2.0!", serving="1.2.0", epoch=2)
    made = found(Progress(epochs={"a": 1}), decided)
    assert made.serving["a"] == "1.1.0"
    assert made.following == (("a", "1.2.0"), ("a", "1.0.0"))


def test_an_epoch_that_nobody_decided_is_that_of_the_first_version() -> None:
    decided = Decisions()
    decided.decide("1.1.0!", serving="1.1.0", epoch=3)
    made = found(Progress(), decided)
    assert made.serving["a"] == "1.0.0"
    assert made.following == (("a", "1.1.0"),)


def test_who_closed_last_follows_though_it_is_not_live() -> None:
    decided = Decisions()
    decided.decide("1.1.0!", serving="1.1.0", epoch=1)
    progress = Progress(epochs={"a": 1}, closed={"a": Closed(through_ms=20, version="1.0.0")})
    made = found(progress, decided)
    assert made.serving["a"] == "1.1.0"
    assert made.following == (("a", "1.0.0"),)


def test_what_is_not_ready_is_left_to_warming() -> None:
    decided = Decisions()
    decided.decide("1.0.0!", "1.1.0", "1.2.0!")
    assert found(Progress(), decided).following == (("a", "1.2.0"),)


def test_each_version_follows_once() -> None:
    decided = Decisions()
    decided.decide("1.0.0!", "1.1.0!", serving="1.1.0", epoch=1)
    progress = Progress(closed={"a": Closed(through_ms=20, version="1.1.0")})
    assert found(progress, decided).following == (("a", "1.1.0"),)


def test_pinned_versions_and_stand_ins_follow() -> None:
    decided = Decisions()
    toggle = Toggle(version="1.1.0", feature="n", fallback="1.0.0")
    decided.decide("1.1.0!", serving="1.1.0", epoch=1, toggles=(toggle,), pins=("1.2.0",))
    decided.decide("1.1.0!", serving="1.1.0", epoch=2)
    made = found(Progress(epochs={"a": 1}), decided)
    assert made.following == (("a", "1.2.0"), ("a", "1.0.0"))
    assert made.held["a"].off("1.1.0") == {"n": "1.0.0"}
    # Once nothing takes them any more, they don't.
    assert found(Progress(epochs={"a": 2}), decided).following == ()


def test_a_live_version_that_is_not_known_here_is_left_out() -> None:
    decided = Decisions()
    decided.decide("1.0.0!", "9.0.0!")
    assert [one.version for one in live(STREAM, decided, "a")] == ["1.0.0"]
    assert found(Progress(), decided).following == ()


def test_an_epoch_says_which_events_are_left_out() -> None:
    stream = cast(
        "Any",
        SimpleNamespace(
            sets={"a": dict.fromkeys(("1.0.0", "1.1.0", "1.0.0~3", "1.1.0~3"))},
            first=lambda _: "1.0.0",
        ),
    )
    decided = Decisions()
    decided.decide("1.0.0!", "1.1.0!")
    before = decided.sets["a"]
    exclusion = Exclusion(number=3, where="x > 1")
    decided.sets["a"] = replace(
        before,
        epoch=1,
        exclusions=(exclusion,),
        excluding=3,
        live=(
            LiveVersion(version="1.0.0", generation=3, ready=True, excluding=3),
            LiveVersion(version="1.1.0", generation=4, excluding=3),
        ),
    )
    decided.history["a", 1] = decided.sets["a"].held
    # Decided, and not fenced here yet: what has the events still speaks.
    made = roster(stream, Progress(), decided)
    assert made.serving == {"a": "1.0.0"}
    assert made.following == (("a", "1.0.0~3"),)
    assert [one.name for one in live(stream, decided, "a")] == ["1.0.0~3", "1.1.0~3"]
    # Fenced; it has closed nothing since.
    closed = {"a": Closed(through_ms=20, version="1.0.0")}
    made = roster(stream, Progress(epochs={"a": 1}, closed=closed), decided)
    assert made.serving == {"a": "1.0.0~3"}
    assert made.following == (("a", "1.0.0"),)


def test_who_closed_last_for_a_pin_follows() -> None:
    closed = {"a@1.1.0": Closed(through_ms=20, version="1.2.0")}
    assert ("a", "1.2.0") in found(Progress(closed=closed), Decisions()).following
