"""Which versions are live, and what activations and rollbacks make of a set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.control.routes import (
    Rules,
    activated,
    default_route,
    prepared,
    retired,
    rolled_back,
    settled,
    undo_target,
    undone,
)
from streams.control.set_record import Activation, Pin, SetRecord, Toggle

VERSIONS = ("a", "b", "c", "d", "e")
RULES = Rules(published=VERSIONS, keep=2, definitions_offset=9)


def went(*versions: str, rules: Rules = RULES) -> SetRecord:
    """A set that served the first version, and activated the others one after the other."""
    record = settled(default_route("s", Rules(published=versions)), rules)
    for version in versions[1:]:
        record = activated(record, version, rules)
    return record


def live(record: SetRecord) -> str:
    return "".join(one.version for one in record.live)


def chain(record: SetRecord) -> str:
    return " ".join(f"{one.from_version}{one.version}" for one in record.activations)


def test_by_default_the_first_version_serves() -> None:
    record = default_route("s", RULES)
    assert (record.serving, record.epoch, live(record), record.served) == ("a", 0, "a", ("a",))


def test_versions_that_never_served_wait_live() -> None:
    assert live(settled(default_route("s", RULES), RULES)) == "abcde"


@pytest.mark.parametrize(("keep", "expected"), [(0, "e"), (1, "de"), (2, "cde"), (9, "abcde")])
def test_as_many_versions_before_as_are_kept(keep: int, expected: str) -> None:
    assert live(went(*VERSIONS, rules=replace(RULES, keep=keep))) == expected


def test_a_version_that_came_twice_is_kept_once() -> None:
    rules = Rules(published=("a", "b", "c", "d"))
    assert live(went("a", "b", "c", "d", "c", "d", rules=rules)) == "bcd"


def test_pinned_ones_and_fallbacks_stay_live() -> None:
    record = replace(
        went(*VERSIONS), pinned=(Pin(version="a", key_schema_id=1, value_schema_id=2),)
    )
    assert "a" in live(settled(record, RULES))
    toggle = Toggle(version="e", feature="n", fallback="b")
    assert "b" in live(settled(replace(record, toggles=(toggle,)), RULES))


def test_a_version_that_becomes_live_again_has_a_new_generation() -> None:
    record = went(*VERSIONS)
    assert live(record) == "cde"
    again = prepared(record, "a", RULES, again=False)
    found = again.live_version("a")
    assert found is not None
    assert (found.generation, found.ready) == (record.generation + 1, False)
    assert again.definitions_offset == 9
    assert prepared(again, "a", RULES, again=False) == again
    anew = prepared(again, "a", RULES, again=True).live_version("a")
    assert anew is not None
    assert anew.generation == record.generation + 2


def test_what_is_live_already_stays_as_it_is() -> None:
    record = went(*VERSIONS)
    assert settled(record, replace(RULES, definitions_offset=20)) == record


def test_each_activation_can_be_undone() -> None:
    record = went("a", "b", "c")
    assert (chain(record), record.epoch, undo_target(record)) == ("ab bc", 2, "b")
    back = rolled_back(record, "b", RULES)
    assert (back.serving, chain(back), back.epoch, undo_target(back)) == ("b", "ab", 3, "a")
    first = rolled_back(back, "a", RULES)
    assert (first.serving, chain(first), first.epoch, undo_target(first)) == ("a", "", 4, None)


def test_a_rollback_over_several_activations_undoes_them_all() -> None:
    record = went("a", "b", "c", "d")
    assert [one.version for one in undone(record, "b")] == ["c", "d"]
    assert chain(rolled_back(record, "b", RULES)) == "ab"


def test_of_several_activations_from_one_version_the_latest_counts() -> None:
    record = went("a", "b", "a", "c")
    back = rolled_back(record, "a", RULES)
    assert (chain(back), undo_target(back)) == ("ab ba", "b")


def test_a_rollback_elsewhere_undoes_the_latest_only() -> None:
    record = went("a", "b", "c")
    back = rolled_back(record, "e", RULES)
    assert (back.serving, chain(back)) == ("e", "ab")
    assert undone(went("a"), "e") == ()


def test_retired_versions_are_not_live() -> None:
    record = retired(went("a", "b", "c"), "b", RULES)
    assert live(record) == "acde"
    assert live(retired(record, "e", RULES)) == "acd"


def test_a_retired_version_does_not_take_the_place_of_another() -> None:
    record = retired(went("a", "b", "c", "d"), "c", RULES)
    assert live(record) == "abde"


def test_activations_carry_their_epoch() -> None:
    assert went("a", "b").activations == (Activation(version="b", from_version="a", epoch=1),)
