"""Which vectors a run of as-of times has, over rows drawn by hand.

A row is (pane, entity, closed, number of events); `closed` is the highest as-of time that was
closed when the events came, None if they were in time for all that the pane belongs to.
"""

from __future__ import annotations

import polars as pl

from streams.datapath.closing import CLOSED, Windows
from streams.datapath.partials import ENTITY, PANE
from streams.definitions.model import FeatureSet
from streams.names import AS_OF, KIND_FIELD
from tests.small import feature, feature_set
from tests.unit.datapath.rig import planned

TUMBLING = feature_set()
HOPPING = feature_set(feature(window_ms=30))

Row = tuple[int, str, int | None, int]
Vector = tuple[int, str, str, int]


def windows(one: FeatureSet) -> Windows:
    return Windows(view=planned(one).view)


def rows(one: FeatureSet, *cells: Row) -> pl.DataFrame:
    ((name, dtype),) = planned(one).view.columns
    schema = {PANE: pl.Int64(), ENTITY: pl.String(), CLOSED: pl.Int64(), name: dtype}
    return pl.DataFrame(cells, schema=schema, orient="row")


def close(one: FeatureSet, after_ms: int | None, through_ms: int, *cells: Row) -> list[Vector]:
    vectors = windows(one).close(rows(one, *cells), after_ms, through_ms)
    return vectors.select(AS_OF, ENTITY, KIND_FIELD, "n").rows()


def test_a_watermark_closes_the_multiples_at_or_below_it_less_the_lateness() -> None:
    patient = windows(feature_set(allowed_lateness_ms=25))
    assert [windows(TUMBLING).closed_through(ms) for ms in (-1, 0, 9, 10)] == [-10, 0, 0, 10]
    assert [patient.closed_through(ms) for ms in (34, 35, 45)] == [0, 10, 20]


def test_the_oldest_pane_is_the_one_that_decides_on_the_next_empty() -> None:
    assert windows(HOPPING).oldest_pane_ms(40) == 10


def test_a_tumbling_window_speaks_once_and_then_says_that_it_is_empty() -> None:
    #     0         10        20        30
    #     |-a-a-a---|---------|
    #              T=10 a:3  T=20 a: empty   T=30 nothing
    assert close(TUMBLING, 0, 30, (0, "a", None, 3)) == [
        (10, "a", "final", 3),
        (20, "a", "empty", 0),
    ]


def test_a_hopping_window_speaks_for_as_long_as_it_holds_an_event() -> None:
    #     0         10        20        30        40
    #     |-a-------|-a-a-----|         |         |
    #              1         3         3          2      T=50 empty
    assert close(HOPPING, 0, 60, (0, "a", None, 1), (10, "a", None, 2)) == [
        (10, "a", "final", 1),
        (20, "a", "final", 3),
        (30, "a", "final", 3),
        (40, "a", "final", 2),
        (50, "a", "empty", 0),
    ]


def test_only_the_asked_for_times_speak() -> None:
    cells = [(0, "a", None, 1), (10, "a", None, 2)]
    assert close(HOPPING, 20, 40, *cells) == [(30, "a", "final", 3), (40, "a", "final", 2)]
    assert close(HOPPING, 40, 40, *cells) == []
    assert close(HOPPING, 50, 90, *cells) == []


def test_at_the_beginning_the_first_time_is_that_of_the_first_event() -> None:
    assert close(TUMBLING, None, 10, (-500, "a", None, 1), (0, "b", None, 1)) == [
        (-490, "a", "final", 1),
        (-480, "a", "empty", 0),
        (10, "b", "final", 1),
    ]


def test_events_that_came_after_a_time_had_closed_count_for_later_ones_only() -> None:
    #     0         10        20        30        40
    #     |-a-------|         |
    #      (+2 when T=10 had closed)
    #              1         3         3      T=40 empty
    assert close(HOPPING, 0, 40, (0, "a", None, 1), (0, "a", 10, 2)) == [
        (10, "a", "final", 1),
        (20, "a", "final", 3),
        (30, "a", "final", 3),
        (40, "a", "empty", 0),
    ]


def test_an_entity_known_too_late_for_its_window_is_empty_only_where_that_is_news() -> None:
    # Known when T=10 had closed: as of 20 it had an event as of 10, and has none.
    assert close(TUMBLING, 0, 30, (0, "a", 10, 1)) == [(20, "a", "empty", 0)]
    # Known when T=20 had closed: nothing to say any more.
    assert close(TUMBLING, 0, 30, (0, "a", 20, 1)) == []


def test_a_gap_of_event_time_is_not_filled() -> None:
    far = 10_000_000_000
    assert close(TUMBLING, 0, far + 10, (0, "a", None, 1), (far, "a", None, 1)) == [
        (10, "a", "final", 1),
        (20, "a", "empty", 0),
        (far + 10, "a", "final", 1),
    ]


def test_vectors_are_ordered_by_time_then_by_entity_bytes() -> None:
    cells = [(0, name, None, 1) for name in ("ü", "b", "", "Z")]
    assert [who for _, who, _, _ in close(TUMBLING, 0, 10, *cells)] == ["", "Z", "b", "ü"]


def test_a_short_window_is_zero_where_only_a_longer_one_holds_an_event() -> None:
    both = feature_set(feature("n"), feature("wide", window_ms=20))
    found = windows(both).close(rows(both, (0, "a", None, 1)), 0, 30)
    assert found.select(AS_OF, KIND_FIELD, "n", "wide").rows() == [
        (10, "final", 1, 1),
        (20, "final", 0, 1),
        (30, "empty", 0, 0),
    ]


def test_the_cost_is_never_below_the_number_of_vectors() -> None:
    cells = [(0, "a", None, 1), (10, "a", None, 2), (0, "b", 10, 1)]
    made = close(HOPPING, 0, 60, *cells)
    assert windows(HOPPING).cost(rows(HOPPING, *cells), 0, 60) >= len(made)
    assert windows(HOPPING).cost(rows(HOPPING, *cells), 60, 90) == 0


def test_the_next_time_with_anything_to_say_skips_the_others() -> None:
    found = rows(HOPPING, (1000, "a", None, 1))
    assert windows(HOPPING).next_as_of(found, 0, 5000) == 1010
    assert windows(HOPPING).next_as_of(found, 1010, 5000) == 1020
    assert windows(HOPPING).next_as_of(found, 1030, 5000) == 1040  # the empty
    assert windows(HOPPING).next_as_of(found, 1040, 5000) is None
    assert windows(HOPPING).next_as_of(found, 0, 1000) is None


def test_updates_go_to_open_times_of_what_was_touched() -> None:
    known = rows(HOPPING, (0, "a", None, 1), (0, "b", None, 5), (10, "a", None, 2))
    touched = rows(HOPPING, (10, "a", None, 2))
    found = windows(HOPPING).updates(known, touched, 10, 30, 100)
    assert found.select(AS_OF, ENTITY, KIND_FIELD, "n").rows() == [
        (20, "a", "update", 3),
        (30, "a", "update", 3),
    ]


def test_updates_are_the_same_however_many_pairs_are_taken_together() -> None:
    known = [(pane, who, None, 1) for pane in range(0, 100, 10) for who in "ab"]
    touched = rows(HOPPING, (30, "a", None, 1), (80, "a", 90, 1), (0, "b", None, 1))
    made = [
        windows(HOPPING).updates(rows(HOPPING, *known), touched, closed_ms, 110, pairs)
        for closed_ms in (0, None)
        for pairs in (1, 2, 5, 20, 1_000)
    ]
    assert all(one.equals(made[0]) for one in made)
    assert made[0].select(AS_OF, ENTITY).rows() == [
        *((at, who) for at in (10, 20, 30) for who in "b"),
        *((at, "a") for at in (40, 50, 60, 100, 110)),
    ]
    assert windows(HOPPING).most_updates(touched, 0, 110) >= made[0].height
