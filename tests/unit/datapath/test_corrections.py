"""A version that takes over says again what the one before it has said: `repair`.

Drawings: one column is 10 ms of event time.
"""

from __future__ import annotations

from typing import Any

import pytest

from streams.control.set_record import Held, Toggle
from streams.definitions.model import FeatureSet, Function
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click, Rig


def version(number: int, *features: Any, **changed: Any) -> FeatureSet:
    changed = {"retention_ms": 1000, **changed}
    return feature_set(*features, name="a", version=f"{number}.0.0", **changed)


TOTAL = feature("total", Function.SUM, "x")
V1 = version(1)
V2 = version(2, feature(), TOTAL)

#     0         10        20        30        40
#     |-ann-----|-ann-bob-|---------|--x       v1 until 10 is closed, then v2
BEFORE: list[Click] = [("ann", 3, 1), ("ann", 14, 2), ("bob", 15, 4)]
AFTER: list[Click] = [("cid", 35, 1)]

SAID_BY_V2 = [(20, "ann", "correction", 1), (20, "bob", "correction", 1)]


def corrections(rig: Rig) -> list[tuple[Any, ...]]:
    return [
        (at, who, kind, *values) for _, at, who, kind, values in rig.vectors if kind == "correction"
    ]


def withdrawn(**options: Any) -> Rig:
    """v2 has served from 10 on, and has closed 20 and 30."""
    rig = Rig(V1, V2, **options)
    rig.take(*BEFORE)
    rig.switch("a", "2.0.0")
    rig.take(*AFTER)
    return rig


def test_what_the_withdrawn_version_has_said_is_said_again_and_nothing_else() -> None:
    rig = withdrawn()
    rig.switch("a", "1.0.0", corrects="2.0.0")
    assert corrections(rig) == SAID_BY_V2
    assert [(one.epoch, one.corrections) for one in rig.acks] == [(1, 0), (2, None), (2, 2)]


def test_without_repair_nothing_is_said_again() -> None:
    rig = withdrawn()
    rig.switch("a", "1.0.0")
    assert corrections(rig) == []
    assert [one.corrections for one in rig.acks] == [0, 0]


@pytest.mark.parametrize("crash_after", [1, 2, 3])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_crash_between_corrections_doubles_and_loses_none(
    crash_after: int, *, flushed: bool
) -> None:
    rig = withdrawn(pairs_per_step=1)
    if flushed:
        rig.pipeline.flush()
    rig.switch("a", "1.0.0", corrects="2.0.0", crash_after=crash_after)
    rig.open()
    rig.run(rig.pipeline.resume())
    assert corrections(rig) == SAID_BY_V2
    assert rig.acks[-1].corrections == 2
    assert rig.progress.correcting is None


def test_an_entity_that_only_the_withdrawn_version_has_gets_a_correction_over_nothing() -> None:
    positive = version(1, where="x > 2")
    rig = Rig(positive, V2)
    rig.take(*BEFORE)
    rig.switch("a", "2.0.0")
    rig.take(*AFTER)
    rig.switch("a", "1.0.0", corrects="2.0.0")
    assert corrections(rig) == [(20, "ann", "correction", 0), (20, "bob", "correction", 1)]


def test_as_of_times_that_the_target_does_not_have_are_corrected_with_nothing_in_them() -> None:
    coarse = version(1, feature(window_ms=20), every_ms=20)
    rig = Rig(coarse, V2)
    rig.take(("ann", 3, 1))
    rig.switch("a", "2.0.0")
    rig.take(("ann", 14, 2), ("bob", 15, 4), ("cid", 35, 1))
    rig.switch("a", "1.0.0", corrects="2.0.0")
    said = corrections(rig)
    assert (20, "ann", "correction", 2) in said
    assert (10, "ann", "correction", 0) in said
    assert all(values[-1] == 0 for values in said if values[0] % 20)


def test_panes_that_are_not_retained_any_more_are_not_corrected() -> None:
    short = version(1, retention_ms=0)
    rig = Rig(short, V2)
    rig.take(*BEFORE)
    rig.switch("a", "2.0.0")
    rig.take(*AFTER, ("cid", 45, 1))
    rig.switch("a", "1.0.0", corrects="2.0.0")
    assert [at for at, *_ in corrections(rig)] == [40]


def test_a_feature_that_is_off_is_off_in_corrections_too() -> None:
    rig = withdrawn()
    off = Toggle(version="1.0.0", feature="n")
    rig.hold("a", Held(serving="1.0.0", corrects="2.0.0", toggles=(off,)))
    assert [values[-1] for values in corrections(rig)] == [None, None]


def test_who_never_served_here_has_said_nothing_that_is_to_be_corrected() -> None:
    rig = Rig(V1, V2, version(3))
    rig.take(*BEFORE, *AFTER)
    rig.switch("a", "3.0.0", corrects="2.0.0")
    assert corrections(rig) == []
    assert [one.corrections for one in rig.acks] == [0]


def test_what_a_version_that_stands_in_does_not_retain_is_not_corrected() -> None:
    rig = Rig(V1, V2, version(3, retention_ms=0))
    rig.take(*BEFORE)
    rig.switch("a", "2.0.0")
    rig.take(*AFTER, ("cid", 45, 1))
    off = Toggle(version="1.0.0", feature="n", fallback="3.0.0")
    rig.hold("a", Held(serving="1.0.0", corrects="2.0.0", toggles=(off,)))
    assert [at for at, *_ in corrections(rig)] == [40]
