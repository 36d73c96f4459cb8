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
    rig.crash()
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


# -- beside batches -------------------------------------------------------------------------------

#     what comes after the fence: late for 20, on time for 40
LATER: list[Click] = [("ann", 15, 7), ("bob", 36, 1), ("cid", 45, 1)]


@pytest.mark.parametrize("made", [0, 1, 2])
@pytest.mark.parametrize("crashed", [False, True])
def test_records_after_the_fence_go_on_and_change_no_correction(
    made: int, *, crashed: bool
) -> None:
    rig = withdrawn(pairs_per_step=1, beside=True)
    rig.switch("a", "1.0.0", corrects="2.0.0")
    rig.correct(crash_after=made)
    rig.take(*LATER)
    if crashed:
        rig.crash()
    assert rig.progress.correcting is not None
    assert rig.position == 7
    assert {(at, who) for _, at, who, kind, _ in rig.of("a") if kind == "final" and at == 40} == {
        (40, "bob"),
        (40, "cid"),
    }
    rig.correct()
    assert corrections(rig) == SAID_BY_V2
    assert rig.acks[-1].offset == 4, "that of the fence"
    assert rig.progress.correcting is None


def test_nothing_is_flushed_beyond_the_fence_before_all_of_them_are_made() -> None:
    rig = withdrawn(beside=True)
    rig.switch("a", "1.0.0", corrects="2.0.0")
    assert rig.pipeline.may_flush, "at the fence it is what they are made of"
    rig.take(*LATER)
    assert not rig.pipeline.may_flush
    with pytest.raises(ValueError, match="no flush at 7 while corrections are pending"):
        rig.pipeline.flush()
    rig.correct()
    rig.pipeline.flush()


def test_they_are_not_made_of_anything_but_the_fence() -> None:
    rig = withdrawn(beside=True)
    rig.switch("a", "1.0.0", corrects="2.0.0", crash_after=1)  # and nothing is flushed there
    assert rig.pipeline.correcting
    assert not rig.pipeline.corrections_ready
    with pytest.raises(ValueError, match="the disk is not as of 4"):
        rig.correct()


def test_panes_that_are_still_to_be_corrected_outlive_what_closes_meanwhile() -> None:
    rig = withdrawn(beside=True)
    rig.switch("a", "1.0.0", corrects="2.0.0", crash_after=1)
    # Far beyond the retention: by the C of now a flush could let go of all that is corrected.
    rig.take(("cid", 5000, 1))
    rig.crash()
    rig.correct()
    assert corrections(rig) == SAID_BY_V2


def test_the_version_that_is_corrected_goes_on_following_until_that_is_done() -> None:
    rig = withdrawn(beside=True)
    rig.switch("a", "1.0.0", corrects="2.0.0")
    rig.take(*LATER)
    assert ("a", "2.0.0") in rig.pipeline.needed
    with pytest.raises(ValueError, match=r"a@2\.0\.0 is needed"):
        rig.pipeline.leave("a", "2.0.0")
    rig.correct()
    rig.pipeline.leave("a", "2.0.0")


def test_another_set_goes_on_and_its_fences_wait_only_where_they_correct_too() -> None:
    other = [feature_set(*one.features, name="b", version=one.version) for one in (V1, V2)]
    rig = Rig(V1, V2, *other, beside=True)
    rig.take(*BEFORE)
    rig.switch("a", "2.0.0")
    rig.take(*AFTER)
    rig.switch("a", "1.0.0", corrects="2.0.0")
    repair = Held(serving="2.0.0", corrects="1.0.0")
    assert rig.pipeline.must_wait("b", repair)
    assert rig.pipeline.must_wait("a", Held(serving="2.0.0"))
    assert not rig.pipeline.must_wait("b", Held(serving="2.0.0"))
    rig.switch("b", "2.0.0")
    rig.take(*LATER)
    assert rig.serving == {"a": "1.0.0", "b": "2.0.0"}
    assert rig.of("b")[-1][1] == 40
    rig.correct()
    assert corrections(rig) == SAID_BY_V2
    assert not rig.pipeline.must_wait("b", repair)


def test_a_transaction_is_bounded_where_many_as_of_times_say_little() -> None:
    rig = Rig(
        version(1, retention_ms=100_000), version(2, TOTAL, retention_ms=100_000), beside=True
    )
    rig.take(("ann", 3, 1), ("ann", 14, 2))
    rig.switch("a", "2.0.0")
    rig.take(*(("ann", 15 + 10 * number, 1) for number in range(100)))
    rig.switch("a", "1.0.0", corrects="2.0.0")
    step = next(rig.pipeline.corrections())
    assert sum(one.height for one in step.vectors.values()) == 25, "each has its price"
