"""Pinned versions close for themselves, whoever serves."""

from __future__ import annotations

from typing import Any

import pytest

from streams.control.set_record import Held, Pin, Toggle
from streams.datapath.batch import Marker
from streams.datapath.progress import Closed
from streams.definitions.model import Function
from tests.small import feature
from tests.unit.datapath.rig import Click, Rig
from tests.unit.datapath.test_switch import MANY, V1, version

TOTAL = feature("total", Function.SUM, "x")
V2 = version(2, feature("n", window_ms=20), TOTAL, allowed_lateness_ms=10)


def held(serving: str, *pins: str, toggles: tuple[Toggle, ...] = ()) -> Held:
    pinned = tuple(Pin(version=one, key_schema_id=1, value_schema_id=2) for one in pins)
    return Held(serving=serving, pinned=pinned, toggles=toggles)


def spoken(rig: Rig, name: str = "a@1.0.0") -> list[tuple[Any, ...]]:
    return [(at, who, kind, *values) for _, at, who, kind, values in rig.of(name)]


def test_a_pin_begins_where_the_watermark_and_the_set_have_come_to() -> None:
    # Version 2 would have 10 to close. Panes before what is closed may be gone, and are not asked.
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.hold("a", held("1.0.0", "1.0.0", "2.0.0"))
    assert rig.progress.closed == {
        "a": Closed(through_ms=10, version="1.0.0"),
        "a@1.0.0": Closed(through_ms=10, version="1.0.0"),
        "a@2.0.0": Closed(through_ms=10, version="2.0.0"),
    }
    (ack,) = rig.acks
    assert (ack.version, ack.epoch, ack.offset) == ("1.0.0", 1, 2)
    rig.take(("ann", 25, 4))
    assert spoken(rig) == spoken(rig, "a")[1:] == [(20, "ann", "final", 1)]
    rig.take(("ann", 31, 4))
    assert spoken(rig, "a@2.0.0") == [(20, "ann", "final", 2, 2)]


def test_a_pin_that_is_less_patient_begins_where_it_would_have_come_to_itself() -> None:
    rig = Rig(V2, version(3))
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.hold("a", held("2.0.0", "3.0.0"))
    assert rig.progress.closed["a"] == Closed(through_ms=0, version="2.0.0")
    assert rig.progress.closed["a@3.0.0"] == Closed(through_ms=10, version="3.0.0")


def test_a_pin_on_an_empty_stream_says_everything() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("2.0.0", "1.0.0"))
    assert "a@1.0.0" not in rig.progress.closed
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    assert spoken(rig) == [(10, "ann", "final", 1)]


def test_a_pinned_version_goes_on_while_another_one_serves() -> None:
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1))
    rig.hold("a", held("1.0.0", "1.0.0"))
    rig.take(("ann", 14, 2))
    rig.hold("a", held("2.0.0", "1.0.0"))
    rig.take(("ann", 25, 4), ("bob", 36, 1))
    assert spoken(rig) == [
        (10, "ann", "final", 1),
        (20, "ann", "final", 1),
        (30, "ann", "final", 1),
    ]
    assert spoken(rig, "a") == [(10, "ann", "final", 1), (20, "ann", "final", 2, 2)]


def test_nothing_is_late_or_dead_for_a_pin() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("1.0.0", "1.0.0", "2.0.0"))
    rig.take(("ann", 55, 1), ("ann", 3, 1), (None, 56, 1))
    assert [(one.feature_set, one.offset) for one in rig.late] == [("a", 1)]
    assert [one.feature_set for step in rig.steps for one in step.dead] == ["a"]


def test_from_the_end_of_a_pin_on_nothing_more_is_said() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("2.0.0", "1.0.0"))
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.hold("a", held("2.0.0"))
    assert set(rig.progress.closed) == {"a"}
    rig.take(("ann", 25, 4))
    assert spoken(rig) == [(10, "ann", "final", 1)]
    # Pinned again, it begins anew: what closed meanwhile is not said.
    rig.hold("a", held("2.0.0", "1.0.0"))
    rig.take(("ann", 36, 4))
    assert spoken(rig)[1:] == [(30, "ann", "final", 1)]


def test_a_pinned_version_can_not_leave() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("2.0.0", "1.0.0"))
    rig.take(("ann", 3, 1), ("ann", 24, 2))
    with pytest.raises(ValueError, match=r"a@1\.0\.0 is pinned"):
        rig.pipeline.leave("a", "1.0.0")


def test_a_pin_keeps_the_panes_that_it_needs() -> None:
    patient = version(2, feature(), allowed_lateness_ms=100)
    clicks: list[Click] = [("ann", at, 1) for at in range(3, 203, 10)]
    kept = []
    for pins in ((), ("2.0.0",)):
        rig = Rig(V1, patient)
        rig.hold("a", held("1.0.0", *pins))
        rig.take(*clicks)
        rig.pipeline.flush()
        kept.append(next(iter(rig.stores.values())).scan(0, 1_000)["@pane"].min())
    assert kept == [180, 80]  # C is 190, and the pin's is 90


def test_a_closing_of_a_pin_goes_on_after_a_crash() -> None:
    whole, crashed = Rig(V1, V2, pairs_per_step=6), Rig(V1, V2, pairs_per_step=6)
    for rig in (whole, crashed):
        rig.hold("a", held("2.0.0", "1.0.0"))
        rig.take(*MANY)
    whole.take(("ann", 15, 1))
    crashed.take(("ann", 15, 1), crash_after=2)
    cursor = crashed.progress.cursor
    assert cursor is not None
    assert (cursor.outlet, cursor.version) == ("a@1.0.0", "1.0.0")
    crashed.crash()
    crashed.take_rest()
    assert crashed.vectors == whole.vectors
    assert len(spoken(crashed)) == 20


def test_what_is_switched_off_in_a_pinned_version_is_off_in_its_topic() -> None:
    rig = Rig(V1, V2)
    toggles = (Toggle(version="2.0.0", feature="n", fallback="1.0.0"),)
    rig.hold("a", held("1.0.0", "2.0.0", toggles=toggles))
    rig.take(("ann", 3, 1), ("ann", 14, 2), ("ann", 35, 4))
    assert spoken(rig, "a@2.0.0") == [(10, "ann", "final", 1, 1), (20, "ann", "final", 1, 2)]


def test_silence_closes_for_a_pin_too() -> None:
    rig = Rig(V1, V2, sources=1)
    rig.hold("a", held("1.0.0", "2.0.0"))
    rig.take(("ann", 3, 1), Marker(offset=-1, source_partition=0, watermark_ms=3, silent=True))
    assert spoken(rig, "a@2.0.0") == [(10, "ann", "final", 1, 1)]
    assert rig.progress.closed["a@2.0.0"] == Closed(through_ms=10, version="2.0.0")


def test_several_decisions_may_hold_at_once() -> None:
    # While a partition had no owner: a switch, a pin and a toggle, fenced together.
    rig = Rig(V1, V2)
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    toggles = (Toggle(version="2.0.0", feature="total"),)
    rig.hold("a", held("2.0.0", "1.0.0", toggles=toggles), epoch=3)
    rig.take(("ann", 35, 4))
    assert spoken(rig)[-1:] == [(30, "ann", "empty", 0)]
    assert spoken(rig, "a")[-1:] == [(20, "ann", "final", 2, None)]
