"""Features that are switched off, and on again: what goes out from the fence on.

Version 1 counts events of 20 ms; version 2 counts those of 10 ms and adds up their `x`.
"""

from __future__ import annotations

from typing import Any

import pytest

from streams.control.set_record import Held, Toggle
from streams.definitions.model import Emit, Function
from tests.small import feature
from tests.unit.datapath.rig import Click, Rig
from tests.unit.datapath.test_switch import spoken, version

TOTAL = feature("total", Function.SUM, "x")
WIDE = version(1, feature(window_ms=20), TOTAL)
NARROW = version(2, feature(), TOTAL, where="x > 0")
MANY: list[Click] = [(f"e{n:02}", at, n % 3) for at in (1, 11) for n in range(20)]


def off(feature: str, version: str = "2.0.0", stand_in: str | None = None) -> Toggle:
    return Toggle(version=version, feature=feature, fallback=stand_in)


def rig_of(*toggles: Toggle, serving: str = "2.0.0", **given: Any) -> Rig:
    """Version 2 serves from the start, with these features off."""
    rig = Rig(WIDE, NARROW, **given)
    rig.hold("a", Held(serving=serving, toggles=toggles))
    return rig


def test_a_feature_is_null_from_the_fence_on_and_comes_back_whole() -> None:
    rig = Rig(version(1, feature(window_ms=30), TOTAL))
    rig.take(("ann", 3, 5), ("ann", 14, 6))
    rig.hold("a", Held(serving="1.0.0", toggles=(off("n", "1.0.0"),)))
    rig.take(("ann", 25, 7))
    rig.hold("a", Held(serving="1.0.0"))
    rig.take(("ann", 31, 8))
    assert spoken(rig) == [
        (10, "ann", "final", 1, 5),
        (20, "ann", "final", None, 6),
        (30, "ann", "final", 3, 7),
    ]


def test_of_an_empty_vector_a_count_is_null_too() -> None:
    rig = rig_of(off("n"))
    rig.take(("ann", 3, 5), ("bob", 25, 1))
    assert spoken(rig) == [(10, "ann", "final", None, 5), (20, "ann", "empty", None, None)]


def test_the_version_before_stands_in_by_its_own_window_and_filter() -> None:
    # ann's second event counts for version 1 only; as of 20 both of hers are in its window.
    rig = rig_of(off("n", stand_in="1.0.0"))
    rig.take(("ann", 3, 5), ("ann", 4, 0), ("ann", 14, 6), ("bob", 25, 1))
    assert spoken(rig) == [(10, "ann", "final", 2, 5), (20, "ann", "final", 3, 6)]


def test_what_stands_in_may_have_a_value_where_the_rest_is_empty() -> None:
    rig = rig_of(off("n", stand_in="1.0.0"), off("total", stand_in="1.0.0"))
    rig.take(("ann", 3, 5), ("bob", 35, 1))
    assert spoken(rig) == [(10, "ann", "final", 1, 5), (20, "ann", "empty", 1, None)]


def test_over_nothing_a_count_that_stands_in_is_0() -> None:
    strict = version(1, feature(where="x > 7"), TOTAL)
    rig = Rig(strict, NARROW)
    rig.hold("a", Held(serving="2.0.0", toggles=(off("n", stand_in="1.0.0"),)))
    rig.take(("ann", 3, 5), ("bob", 4, 8), ("bob", 15, 1))
    assert spoken(rig) == [(10, "ann", "final", 0, 5), (10, "bob", "final", 1, 8)]


def test_what_comes_after_a_closing_in_its_batch_is_not_in_the_value_that_stands_in() -> None:
    # The third event closes 10; the fourth belongs to 10 for nobody, and to 20 for version 1.
    rig = rig_of(off("n", stand_in="1.0.0"))
    rig.take(("ann", 3, 5), ("ann", 4, 5), ("ann", 12, 1), ("ann", 5, 5), ("ann", 21, 1))
    assert spoken(rig) == [(10, "ann", "final", 2, 10), (20, "ann", "final", 4, 1)]


def test_as_of_times_are_closed_by_the_lateness_of_who_speaks() -> None:
    patient = version(1, feature(window_ms=20), TOTAL, allowed_lateness_ms=50)
    rig = Rig(patient, NARROW)
    rig.hold("a", Held(serving="2.0.0", toggles=(off("n", stand_in="1.0.0"),)))
    rig.take(("ann", 3, 5), ("ann", 12, 1), ("ann", 4, 5), ("ann", 22, 1))
    assert spoken(rig) == [(10, "ann", "final", 1, 5), (20, "ann", "final", 3, 1)]


@pytest.mark.parametrize("pairs", [1, 3, 10, 400_000])
@pytest.mark.parametrize("flushed", [False, True])
def test_the_cut_into_transactions_does_not_show(pairs: int, flushed: bool) -> None:
    found = []
    for limit in (pairs, 400_000):
        rig = rig_of(off("n", stand_in="1.0.0"), off("total"), pairs_per_step=limit)
        rig.take(*MANY)
        if flushed:
            rig.pipeline.flush()
        rig.take(("e00", 45, 1))
        found.append(sorted(spoken(rig)))
    assert found[0] == found[1]
    assert len(found[0]) == 13 * 3


def test_updates_obey_too() -> None:
    eager = version(2, feature(), TOTAL, emit=Emit.UPDATES)
    rig = Rig(WIDE, eager)
    rig.hold("a", Held(serving="2.0.0", toggles=(off("n", stand_in="1.0.0"), off("total"))))
    rig.take(("ann", 3, 5))
    rig.take(("ann", 14, 6))
    assert spoken(rig) == [
        (10, "ann", "update", 1, None),
        (10, "ann", "final", 1, None),
        (20, "ann", "update", 2, None),
    ]


def test_a_toggle_belongs_to_its_version() -> None:
    held = Held(serving="1.0.0", toggles=(off("n"), off("total", "1.0.0")))
    rig = Rig(WIDE, NARROW)
    rig.hold("a", held)
    rig.take(("ann", 3, 5), ("ann", 14, 6))
    rig.hold("a", Held(serving="2.0.0", toggles=held.toggles))
    rig.take(("ann", 25, 7))
    rig.hold("a", held)
    rig.take(("ann", 31, 8))
    assert spoken(rig) == [
        (10, "ann", "final", 1, None),
        (20, "ann", "final", None, 6),
        (30, "ann", "final", 2, None),
    ]


def test_a_claim_goes_on_by_the_epoch_that_is_committed() -> None:
    # The crash comes within a closing that is larger than a transaction.
    toggles = (off("n", stand_in="1.0.0"),)
    whole, crashed = (rig_of(*toggles, pairs_per_step=6) for _ in range(2))
    for rig in (whole, crashed):
        rig.take(*MANY)
    whole.take(("e00", 25, 1))
    crashed.take(("e00", 25, 1), crash_after=1)
    assert crashed.progress.cursor is not None
    crashed.held["a", 2] = Held(serving="1.0.0")  # decided, and not fenced here
    crashed.crash()
    crashed.take_rest()
    assert crashed.vectors == whole.vectors


def test_who_stands_in_can_not_leave() -> None:
    rig = rig_of(off("n", stand_in="1.0.0"))
    assert rig.pipeline.needed == {("a", "1.0.0"), ("a", "2.0.0")}
    with pytest.raises(ValueError, match=r"a@1\.0\.0 is pinned or stands in"):
        rig.pipeline.leave("a", "1.0.0")
    rig.hold("a", Held(serving="2.0.0"))
    rig.take(("ann", 3, 5), ("ann", 14, 6))
    assert [state.bundle.digest for state in rig.pipeline.leave("a", "1.0.0")]


def test_who_stands_in_has_to_follow() -> None:
    rig = Rig(WIDE, NARROW)
    with pytest.raises(LookupError, match=r"a@0\.9\.0 does not follow"):
        rig.hold("a", Held(serving="1.0.0", toggles=(off("n", "1.0.0", "0.9.0"),)))
