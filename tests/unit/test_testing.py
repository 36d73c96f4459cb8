"""`streams.testing` as a user's own test would use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.definitions.model import Emit, EventTime, Function, TimeUnit
from streams.errors import InvalidInputError
from streams.testing import Harness
from tests.small import feature, feature_set, schema, source, spoken

SUM = Function.SUM


def clicks(*features: object, **changed: object) -> Harness:
    return Harness(
        source(),
        feature_set(*features, **changed),  # type: ignore[arg-type]  # features, as it takes them
        schema=schema(x=["null", "long"]),
    )


def test_a_window_closes_at_the_event_that_passes_it() -> None:
    #     0         10        20
    #     |--ann-ann-|---------|ann
    #               T=10      T=20: nobody, T=20 says empty
    harness = clicks()
    harness.send({"who": "ann", "at": 3, "x": 1}, {"who": "ann", "at": 7, "x": 1})
    assert harness.vectors == []
    harness.send({"who": "ann", "at": 20, "x": 1})
    assert spoken(harness) == [(10, "ann", "final", 2), (20, "ann", "empty", 0)]


def test_time_passes_without_an_event() -> None:
    harness = clicks()
    harness.send({"who": "ann", "at": 3, "x": 1})
    harness.advance_to(9)
    assert harness.vectors == []
    harness.advance_to(10)
    assert spoken(harness) == [(10, "ann", "final", 1)]
    harness.advance_to(10)
    assert len(harness.vectors) == 1


def test_the_newest_vector_of_an_entity_can_be_asked_for() -> None:
    harness = clicks()
    harness.send({"who": "ann", "at": 3, "x": 1})
    harness.advance_to(20)
    one = harness.vector(10, who="ann")
    assert one is not None
    assert one.values == {"n": 1}
    assert harness.vector(10, who="bob") is None
    assert harness.vector(30, who="ann") is None


def test_a_late_event_is_reported_for_its_set_and_changes_no_vector() -> None:
    #     0         10        20
    #     |--ann-----|-----ann-|
    #       bob (after T=10 closed)
    harness = clicks()
    harness.send({"who": "ann", "at": 3, "x": 1}, {"who": "ann", "at": 16, "x": 1})
    harness.send({"who": "bob", "at": 2, "x": 1})
    harness.advance_to(20)
    assert [(one.offset, one.feature_set) for one in harness.late] == [(2, "clicks_by_who")]
    assert spoken(harness) == [
        (10, "ann", "final", 1),
        (20, "ann", "final", 1),
        # By what is known at T=20, bob had an event as of T=10.
        (20, "bob", "empty", 0),
    ]


def test_bad_records_are_dead_and_say_why() -> None:
    harness = clicks()
    harness.send_raw([None, b"\x07not ours", b"\x00\x00\x00\x00\x63body"])
    harness.send({"who": None, "at": 1, "x": 1}, {"who": "ann", "at": None, "x": 1})
    assert [(one.offset, one.error) for one in harness.dead] == [
        (0, "tombstone"),
        (1, "wrong_magic_byte"),
        (2, "unknown_schema_id"),
        (4, "missing_event_time"),
        (3, "missing_entity"),
    ]


def test_an_event_far_ahead_of_its_records_timestamp_is_dead() -> None:
    hour = 3_600_000
    harness = clicks()
    harness.send({"who": "ann", "at": 1_000 + hour, "x": 1}, timestamp_ms=1_000)
    assert harness.dead == []
    harness.send({"who": "ann", "at": 1_001 + hour, "x": 1}, timestamp_ms=1_000)
    assert [one.error for one in harness.dead] == ["event_time_ahead"]


def test_a_restart_changes_nothing_with_or_without_a_flush_before() -> None:
    events = [{"who": who, "at": at, "x": at} for at in range(0, 60, 4) for who in ("a", "b")]
    plain = clicks(feature("total", SUM, "x", 30))
    plain.send(*events)
    restarted = clicks(feature("total", SUM, "x", 30))
    for number, event in enumerate(events):
        restarted.send(event)
        if number % 5 == 0:
            restarted.flush()
        restarted.restart()
    assert len(plain.vectors) == 10
    assert spoken(restarted) == spoken(plain)


def test_several_sets_run_over_the_same_events() -> None:
    harness = Harness(
        source(),
        feature_set(name="tens"),
        feature_set(feature(window_ms=20), name="twenties", every_ms=20),
        schema=schema(),
    )
    harness.send({"who": "ann", "at": 3}, {"who": "ann", "at": 12})
    harness.advance_to(20)
    assert [(v.feature_set, v.as_of_ms, v.values["n"]) for v in harness.vectors] == [
        ("tens", 10, 1),
        ("tens", 20, 1),
        ("twenties", 20, 2),
    ]


def test_updates_come_as_values_change_and_a_final_follows() -> None:
    harness = clicks(emit=Emit.UPDATES)
    harness.send({"who": "ann", "at": 3, "x": 1}, {"who": "ann", "at": 4, "x": 1})
    harness.send({"who": "ann", "at": 5, "x": 1})
    harness.advance_to(10)
    assert spoken(harness) == [
        (10, "ann", "update", 2),
        (10, "ann", "update", 3),
        (10, "ann", "final", 3),
    ]


def test_what_does_not_fit_the_schema_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidInputError, match="unknown field 'nope'"):
        clicks(feature("total", SUM, "nope"))


def test_event_time_needs_a_number_or_a_timestamp() -> None:
    timed = source(event_time=EventTime(field="who", unit=TimeUnit.MS))
    with pytest.raises(InvalidInputError, match="a unit needs an int or long"):
        Harness(timed, feature_set(), schema=schema())


def test_files_must_define_one_source(tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(
        "kind: feature_set\nname: s\nversion: 1.0.0\nsource: clicks\nentity: [who]\nevery: 10ms\n"
        'features:\n  n: {count: "*", window: 10ms}\n'
    )
    with pytest.raises(InvalidInputError, match="0 sources: give one"):
        Harness.from_files(file, schema=tmp_path / "schema.json")


NAMES_OF_OURS = (
    "closed pane entity count value as_of rewindow_kind _time _offset _partition _source_offset "
    "_timestamp _error _first _last _v0"
)


@pytest.mark.parametrize("name", NAMES_OF_OURS.split())
def test_a_field_may_have_any_name_that_avro_allows(name: str) -> None:
    total = feature("total", SUM, name)
    harness = Harness(
        source(), feature_set(total, where=f"{name} > 1"), schema=schema(**{name: "long"})
    )
    harness.send(*({"who": "ann", "at": at, name: at + 4} for at in (0, 1, 2)))
    harness.send({"who": "ann", "at": 3, name: 1})
    harness.advance_to(10)
    assert spoken(harness) == [(10, "ann", "final", 4 + 5 + 6)]


@pytest.mark.parametrize("name", ["entity", "pane", "closed", "offset", "value", "count"])
def test_a_feature_may_have_any_name_that_is_not_reserved(name: str) -> None:
    harness = clicks(feature(name), feature("other", SUM, "x", 20))
    harness.send({"who": "ann", "at": 3, "x": 5})
    harness.advance_to(20)
    assert [one.values for one in harness.vectors] == [
        {name: 1, "other": 5},
        {name: 0, "other": 5},
    ]
