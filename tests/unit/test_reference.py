"""The reference model does what the definitions say: small cases, worked out by hand.

Drawings: one column is one interval of 10 ms, `x` an event, `|` where the watermark is.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.definitions.model import Feature, FeatureSet, Function
from tests.expected import Distinct, Exactly, Frequent, Near, Ranked, expect, nothing
from tests.property.strategies import FIELDS as GENERATED_FIELDS
from tests.property.strategies import keyed_streams, rekeyed_streams, several_sets
from tests.reference import Event, Idle, Marker, Pin, Reference, Row, Switch, compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.expected import Expected
    from tests.reference import VectorKey

FIELDS = ("who", "where_from", "x", "ok")


def feature(
    function: Function = Function.COUNT,
    window_ms: int = 10,
    *,
    name: str = "f",
    expression: str | None = None,
    where: str | None = None,
    q: float | None = None,
    k: int | None = None,
) -> Feature:
    if function is not Function.COUNT and expression is None:
        expression = "x"
    return Feature(
        name=name,
        function=function,
        expression=expression,
        window_ms=window_ms,
        where=where,
        q=q,
        k=k,
    )


def feature_set(
    *features: Feature,
    lateness_ms: int = 0,
    where: str | None = None,
    entity: tuple[str, ...] = ("who",),
    every_ms: int = 10,
) -> FeatureSet:
    return FeatureSet(
        name="set",
        version="1.0.0",
        source="s",
        entity=entity,
        every_ms=every_ms,
        features=features or (feature(),),
        allowed_lateness_ms=lateness_ms,
        where=where,
    )


def event(offset: int, event_time_ms: int | None, **fields: object) -> Event:
    return Event(
        offset=offset,
        timestamp_ms=1_000_000,
        event_time_ms=event_time_ms,
        fields={"who": "a", **fields},
    )


def at_times(*times_ms: int) -> list[Event]:
    return [event(offset, time_ms) for offset, time_ms in enumerate(times_ms)]


def seen(reference: Reference, name: str = "f") -> dict[int, tuple[str, object]]:
    """{as-of: (kind, exact value)} of the only entity."""
    out = {}
    for (_, _, as_of), vector in reference.vectors.items():
        expected = vector.values[name]
        assert isinstance(expected, Exactly)
        out[as_of] = (vector.kind, expected.value)
    return out


def run(definition: FeatureSet, records: Iterable[Event | Marker | Idle]) -> Reference:
    return Reference([definition], FIELDS).feed_all(records)


class TestClosing:
    def test_a_tumbling_window_closes_when_the_watermark_reaches_its_end(self) -> None:
        #  0    10   20
        #  x x  x  → T=10 holds two, closed by the third
        assert seen(run(feature_set(), at_times(1, 9, 10))) == {10: ("final", 2)}

    def test_nothing_closes_before_the_end_of_lateness(self) -> None:
        definition = feature_set(lateness_ms=5)
        assert seen(run(definition, at_times(1, 14))) == {}
        assert seen(run(definition, at_times(1, 14, 15))) == {10: ("final", 1)}

    def test_the_closing_record_itself_is_not_in_what_it_closes(self) -> None:
        definition = feature_set(feature(window_ms=20))
        assert seen(run(definition, at_times(1, 10)))[10] == ("final", 1)

    def test_an_entity_that_left_gets_one_empty(self) -> None:
        #  x |    |    |    x: T=10 holds it, T=20 says that it left, later ones are silent
        assert seen(run(feature_set(), at_times(1, 50))) == {10: ("final", 1), 20: ("empty", 0)}

    def test_a_hopping_window_is_emitted_at_each_interval_it_covers(self) -> None:
        definition = feature_set(feature(window_ms=30))
        assert seen(run(definition, at_times(1, 100))) == {
            10: ("final", 1),
            20: ("final", 1),
            30: ("final", 1),
            40: ("empty", 0),
        }

    def test_a_short_window_is_zero_while_a_longer_one_is_not(self) -> None:
        definition = feature_set(feature(name="f"), feature(window_ms=20, name="g"))
        reference = run(definition, at_times(1, 20))
        assert seen(reference, "f")[20] == ("final", 0)
        assert seen(reference, "g")[20] == ("final", 1)

    def test_windows_before_1970_are_aligned_the_same_way(self) -> None:
        assert seen(run(feature_set(), at_times(-11, 0))) == {-10: ("final", 1), 0: ("empty", 0)}

    def test_a_leap_over_ages_of_silence_costs_nothing(self) -> None:
        definition = feature_set(feature(window_ms=1), every_ms=1)
        reference = run(definition, at_times(0, 10**15, 10**15 + 10))
        assert len(reference.vectors) == 4

    def test_silence_closes_up_to_the_first_interval_after_the_last_event(self) -> None:
        reference = run(feature_set(lateness_ms=5), at_times(1, 10))
        reference.silence(10)
        assert seen(reference) == {10: ("final", 1), 20: ("final", 1)}
        assert reference.watermark_ms == 10

    def test_an_idle_partition_follows_the_others(self) -> None:
        assert seen(run(feature_set(), [event(0, 1), Idle(watermark_ms=10)])) == {10: ("final", 1)}


class TestLateness:
    def test_an_event_behind_the_watermark_counts_until_its_time_closes(self) -> None:
        reference = run(feature_set(lateness_ms=5), at_times(1, 14, 2, 15))
        assert seen(reference) == {10: ("final", 2)}
        assert reference.late == []

    def test_an_event_is_late_when_all_its_times_are_closed(self) -> None:
        assert run(feature_set(), at_times(1, 10, 9)).late == [("set", 2)]

    def test_a_late_event_for_some_windows_counts_in_the_others(self) -> None:
        reference = run(feature_set(feature(window_ms=20)), at_times(1, 10, 9, 20))
        assert reference.late == []
        assert seen(reference) == {10: ("final", 1), 20: ("final", 3)}

    def test_a_late_event_still_makes_its_entity_known(self) -> None:
        late = event(1, 9, who="b")
        reference = run(feature_set(), [event(0, 10), late, event(2, 20)])
        assert reference.late == [("set", 1)]
        assert reference.vectors[("set", ("b",), 20)].kind == "empty"

    def test_a_filtered_event_moves_the_watermark_and_is_never_late(self) -> None:
        definition = feature_set(where="ok")
        records = [event(0, 1, ok=True), event(1, 10, ok=False), event(2, 2, ok=None)]
        reference = run(definition, records)
        assert seen(reference) == {10: ("final", 1)}
        assert reference.late == []


class TestRekeyed:
    def marked(self, *records: Event | Marker) -> Reference:
        return Reference([feature_set()], FIELDS, source_partitions=2).feed_all(records)

    def test_the_watermark_is_the_lowest_marker(self) -> None:
        first = (event(0, 1), event(1, 99), Marker(source_partition=0, watermark_ms=99))
        assert seen(self.marked(*first)) == {}
        both = self.marked(*first, Marker(source_partition=1, watermark_ms=10))
        assert seen(both) == {10: ("final", 1)}

    def test_events_before_the_first_whole_set_of_markers_are_not_forgotten(self) -> None:
        reference = self.marked(
            event(0, 1),
            Marker(source_partition=0, watermark_ms=500),
            Marker(source_partition=1, watermark_ms=400),
        )
        assert seen(reference) == {10: ("final", 1), 20: ("empty", 0)}

    def test_a_marker_never_lowers(self) -> None:
        reference = self.marked(
            Marker(source_partition=0, watermark_ms=10),
            Marker(source_partition=0, watermark_ms=5),
            Marker(source_partition=1, watermark_ms=20),
        )
        assert reference.watermark_ms == 10

    def test_silence_is_obeyed_when_the_newest_marker_of_all_is_silent(self) -> None:
        silent = [
            Marker(source_partition=p, watermark_ms=[1, None][p], silent=True) for p in (0, 1)
        ]
        assert seen(self.marked(event(0, 1), silent[0])) == {}
        assert seen(self.marked(event(0, 1), *silent)) == {10: ("final", 1)}
        awake = Marker(source_partition=0, watermark_ms=1)
        assert seen(self.marked(event(0, 1), silent[0], awake, silent[1])) == {}

    def test_ties_go_by_source_partition_and_offset(self) -> None:
        definition = feature_set(feature(Function.FIRST), feature(Function.LAST, name="g"))
        reference = Reference([definition], FIELDS, source_partitions=1)
        for offset, (partition, source_offset, x) in enumerate([(1, 0, 3), (0, 9, 2), (0, 8, 1)]):
            reference.feed(
                Event(
                    offset=offset,
                    timestamp_ms=0,
                    event_time_ms=0,
                    fields={"who": "a", "x": x},
                    source_partition=partition,
                    source_offset=source_offset,
                )
            )
        reference.feed(Marker(source_partition=0, watermark_ms=10))
        assert seen(reference)[10] == ("final", 1)
        assert seen(reference, "g")[10] == ("final", 3)


class TestFloor:
    def test_the_first_vector_has_its_longest_window_after_the_floor(self) -> None:
        definition = feature_set(feature(window_ms=20))
        reference = Reference([definition], FIELDS, floor_ms=5)
        reference.feed_all(at_times(4, 6, 11, 31, 50))
        assert seen(reference) == {30: ("final", 1), 40: ("final", 1), 50: ("final", 1)}


class TestDeadRecords:
    def test_each_gets_its_reason(self) -> None:
        reference = Reference([feature_set()], FIELDS, max_ahead_ms=10)
        reference.feed_all(
            [event(0, None), event(1, 1_000_011), event(2, 1_000_010), event(3, 1, who=None)]
        )
        assert reference.dead == [
            (0, "missing_event_time"),
            (1, "event_time_ahead"),
            (3, "missing_entity"),
        ]
        assert reference.watermark_ms == 1_000_010

    def test_what_a_filter_takes_out_needs_no_entity(self) -> None:
        records = [event(0, 1, who=None, x=1), event(1, 2, who=None, x=3)]
        assert run(feature_set(where="x > 2"), records).dead == [(1, "missing_entity")]


class TestLeavingOut:
    @pytest.fixture
    def reference(self) -> Reference:
        """T=10 is said to hold two; without `x > 2` it holds one of `a`, and none of `b`."""
        full = feature_set()
        records = [event(0, 1, x=1), event(1, 2, x=3), event(2, 3, who="b", x=3), event(3, 11, x=3)]
        cleaned = replace(full, version="1.0.0~7", where="x <= 2")
        return Reference([full, cleaned], FIELDS).feed_all(records)

    def test_what_a_version_has_said_is_corrected_again_after_events_are_left_out(
        self, reference: Reference
    ) -> None:
        for version in ("1.0.0~7", "1.0.0"):
            reference.feed(Switch(feature_set="set", version=version, repair=True))
        counts = {
            entity: [one.values["f"] for one in found]
            for (_, (entity,), as_of), found in reference.corrections.items()
            if as_of == 10
        }
        assert counts == {"a": [Exactly(1), Exactly(2)], "b": [Exactly(0), Exactly(1)]}

    def test_a_pin_goes_on_without_the_events(self, reference: Reference) -> None:
        reference.feed(Pin(feature_set="set", version="1.0.0", pinned=True))
        reference.feed_all([event(4, 12, x=1), event(5, 13, who="c", x=3), event(6, 21, x=1)])
        reference.feed(Pin(feature_set="set", version="1.0.0~7", pinned=True))
        reference.feed(event(7, 31))
        said = {
            (entity, as_of): (vector.kind, vector.values["f"])
            for (name, (entity,), as_of), vector in reference.vectors.items()
            if name == "set@1.0.0"
        }
        assert said == {
            ("a", 20): ("final", Exactly(2)),
            ("b", 20): ("empty", Exactly(0)),
            ("c", 20): ("final", Exactly(1)),
            ("a", 30): ("final", Exactly(1)),
            ("c", 30): ("empty", Exactly(0)),
        }


class TestAggregates:
    def value(self, function: Function, values: Sequence[object], **more: float) -> Expected:
        q, k = more.get("q"), more.get("k")
        return expect(feature(function, q=q, k=None if k is None else int(k)), values)

    def test_sums_of_integers_are_exact_or_null_when_they_overflow(self) -> None:
        top = 2**63 - 1
        assert self.value(Function.SUM, [top, -1, 1]) == Exactly(top)
        assert self.value(Function.SUM, [top, 1]) == Exactly(None)

    def test_sums_of_doubles_are_near_relative_to_what_was_added(self) -> None:
        near = self.value(Function.SUM, [1e20, 1.0, -1e20])
        assert near.judge(0.0) is None
        assert near.judge(1e12) is not None

    def test_variance_of_one_value_is_null(self) -> None:
        assert self.value(Function.VARIANCE, [5]) == Exactly(None)

    def test_a_textbook_variance_is_not_good_enough(self) -> None:
        values = [1e9 + x for x in (0.0, 0.1, 0.2)]
        expected = self.value(Function.VARIANCE, values)
        n, total = len(values), math.fsum(values)
        textbook = (math.fsum(x * x for x in values) - total * total / n) / (n - 1)
        mean = total / n
        stable = sum((x - mean) ** 2 for x in values) / (n - 1)
        assert expected.judge(stable) is None
        assert expected.judge(textbook) is not None

    def test_nothing_counts_zero_and_is_otherwise_null(self) -> None:
        assert nothing(feature()).judge(0) is None
        assert nothing(feature(Function.APPROX_DISTINCT)).judge(0) is None
        assert nothing(feature(Function.SUM)).judge(None) is None
        assert nothing(feature(Function.SUM)).judge(0) is not None

    def test_nan_is_null(self) -> None:
        definition = feature_set(
            feature(expression="x"), feature(Function.MAX, name="g", where="x < 3")
        )
        records = [event(i, i, x=x) for i, x in enumerate((math.nan, 2.0, None, 5.0))]
        reference = run(definition, [*records, event(9, 10)])
        assert seen(reference)[10] == ("final", 2)
        assert seen(reference, "g")[10] == ("final", 2.0)

    def test_few_distinct_values_are_counted_exactly_many_nearly(self) -> None:
        assert Distinct(60).judge(61) is not None
        assert Distinct(10_000).judge(10_400) is None
        assert Distinct(10_000).judge(10_600) is not None

    def test_quantiles_are_judged_by_rank(self) -> None:
        ordered = array("d", range(1_000))
        assert Ranked(ordered, 0.5).judge(510.0) is None
        assert Ranked(ordered, 0.5).judge(560.0) is not None
        assert Ranked(array("d", [1, 2, 3, 4]), 0.5).judge(2.0) is None
        assert Ranked(array("d", [1, 2, 3, 4]), 0.0).judge(4.0) is not None

    def test_frequent_values_may_come_in_any_order_of_ties(self) -> None:
        expected = Frequent.over(list("abaca"), 2)
        a, b, c = ({"value": v, "count": n} for v, n in (("a", 3), ("b", 1), ("c", 1)))
        assert expected.judge([a, b]) is None
        assert expected.judge([a, c]) is None
        assert expected.judge([b, a]) is not None
        assert expected.judge([b, c]) is not None
        assert expected.judge([a]) is not None

    def test_near_does_not_take_null(self) -> None:
        assert Near(0.0, 1.0).judge(None) is not None


class TestCompare:
    def test_it_names_every_kind_of_difference(self) -> None:
        expected = run(feature_set(), at_times(1, 50)).vectors

        def row(as_of_ms: int, kind: str, value: int) -> Row:
            return Row(
                feature_set="set", entity=("a",), as_of_ms=as_of_ms, kind=kind, values={"f": value}
            )

        good = [row(10, "update", 7), row(10, "final", 1), row(20, "empty", 0)]
        assert compare(expected, good) == []
        bad = [row(10, "final", 2), row(10, "final", 1), row(30, "final", 1)]
        whats = [one.what for one in compare(expected, bad)]
        assert whats == ["wrong", "duplicate", "unexpected", "missing"]


def by_definition(definition: FeatureSet, records: Sequence[Event]) -> dict[VectorKey, str]:
    """Kinds of all vectors, each T on its own: a second reading of the same definitions."""
    out: dict[VectorKey, str] = {}
    good = [one for one in records if one.event_time_ms is not None]
    times = [one.event_time_ms for one in good if one.event_time_ms is not None]
    if not times:
        return out
    every, longest = definition.every_ms, definition.longest_window_ms
    candidates = {
        time // every * every + hop * every for time in times for hop in range(longest // every + 2)
    }
    watermarks = [max(times[: i + 1]) for i in range(len(times))]
    for as_of in sorted(candidates):
        closing = [
            i for i, w in enumerate(watermarks) if w >= as_of + definition.allowed_lateness_ms
        ]
        if not closing:
            continue
        known = list(zip(good, times, strict=True))[: closing[0]]
        for entity in {tuple(one.fields[name] for name in definition.entity) for one in good}:
            mine = [
                time
                for one, time in known
                if tuple(one.fields[name] for name in definition.entity) == entity
            ]
            if any(as_of - longest <= time < as_of for time in mine):
                out[(definition.name, entity, as_of)] = "final"
            elif any(as_of - every - longest <= time < as_of - every for time in mine):
                out[(definition.name, entity, as_of)] = "empty"
    return out


class TestGenerated:
    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_kinds_agree_with_a_second_reading_of_the_definitions(
        self, data: st.DataObject
    ) -> None:
        (definition,) = data.draw(several_sets().filter(lambda sets: len(sets) == 1))
        stream = data.draw(keyed_streams((definition,)))
        records = [
            one
            for one in stream.records
            if isinstance(one, Event)
            and one.event_time_ms is not None
            and one.event_time_ms - one.timestamp_ms <= 3_600_000
        ]
        unfiltered = FeatureSet(
            **{
                name: getattr(definition, name)
                for name in FeatureSet.__dataclass_fields__
                if name != "where"
            }
        )
        reference = Reference([unfiltered], GENERATED_FIELDS).feed_all(records)
        kinds = {key: vector.kind for key, vector in reference.vectors.items()}
        assert kinds == by_definition(unfiltered, records)

    @settings(max_examples=50, deadline=None)
    @given(st.data())
    def test_rekeyed_streams_run(self, data: st.DataObject) -> None:
        sets = data.draw(several_sets(entities=(("region",),)))
        stream = data.draw(rekeyed_streams(sets, 3))
        reference = Reference(sets, GENERATED_FIELDS, source_partitions=3)
        reference.feed_all(stream.records)
        assert sum(len(batch) for batch in stream.cut()) == len(stream.records)
        assert all(vector.kind in ("final", "empty") for vector in reference.vectors.values())
