"""What publishing a version would come to, from what is decided and how far partitions are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streams.control.preview import PartitionFacts, Preview, preview
from streams.control.routes import Rules
from streams.control.set_record import LiveVersion, SetRecord
from streams.definitions.model import FeatureSet, Function
from streams.definitions.plan import plan_versions
from streams.schema.types import field_types
from tests.small import feature, feature_set, schema, source

FIELDS = field_types(schema(x="long"))
SET = "clicks_by_who"
FIRST = feature_set(feature("n", window_ms=20))
LONGER = feature_set(feature("n", window_ms=100), version="1.1.0")
OTHER = feature_set(feature("total", Function.SUM, "x", 20), version="1.1.0")


def facts(partition: int = 0, **given: Any) -> PartitionFacts:
    """The stream was read from its beginning up to offset 70; C is 200."""
    fields: dict[str, Any] = {
        "topic": "clicks",
        "partition": partition,
        "log_start": 0,
        "begin": 0,
        "position": 70,
        "closed_ms": 200,
        "floors_ms": {"1.0.0": None},
        **given,
    }
    return PartitionFacts(**fields)


def decided(serving: str, *live: str, **given: Any) -> SetRecord:
    """The live versions, all of them ready."""
    return SetRecord(
        feature_set=SET,
        serving=serving,
        live=tuple(LiveVersion(version=one, ready=True) for one in live),
        **{"served": (serving,), **given},
    )


def seen(
    *versions: FeatureSet,
    route: SetRecord | None = None,
    at: tuple[PartitionFacts, ...] = (facts(),),
) -> Preview:
    """What the last of the versions comes to."""
    *before, version = [one.version for one in versions]
    plans = plan_versions(versions, source(), FIELDS)
    return preview(plans, version, route, Rules(published=before), at)


def test_the_first_version_of_a_set_serves_and_reads_what_is_there() -> None:
    found = seen(FIRST, at=(facts(closed_ms=None), facts(1, closed_ms=None, position=5)))
    assert found.serves
    assert found.live_after == ("1.0.0",)
    assert found.records_to_replay == 75
    assert (found.whole_from_ms, found.ready_after_ms) == (None, None)
    assert (found.stops_being_live, found.stops_when_activated) == ((), ())


def test_what_shares_all_is_ready_at_once() -> None:
    same = replace(FIRST, version="1.1.0", allowed_lateness_ms=5)
    found = seen(FIRST, same, route=decided("1.0.0", "1.0.0"))
    assert not found.replays
    assert found.whole_from_ms == 210
    assert (found.ready_after_ms, found.waits_for) == (None, ())
    assert (found.serves, found.live_after) == (False, ("1.0.0", "1.1.0"))


def test_new_accumulators_are_replayed_from_where_the_log_begins() -> None:
    trimmed = facts(1, log_start=30, begin=30, begin_floor_ms=195)
    found = seen(FIRST, OTHER, route=decided("1.0.0", "1.0.0"), at=(facts(), trimmed))
    assert [(one.start, one.end, one.records) for one in found.replays] == [
        (0, 70, 70),
        (30, 70, 40),
    ]
    assert found.records_to_replay == 110
    # Panes from 195 on are whole, so the first window of 20 is that as of 220.
    assert (found.whole_from_ms, found.ready_after_ms) == (220, 210)


def test_a_longer_window_waits_until_the_panes_that_are_kept_fill_it() -> None:
    """Those of the last 20 ms are kept: from 180 on, so the window of 100 is whole as of 280."""
    found = seen(FIRST, LONGER, route=decided("1.0.0", "1.0.0"))
    assert not found.replays
    assert (found.whole_from_ms, found.ready_after_ms) == (280, 270)
    kept = replace(FIRST, retention_ms=200)
    assert seen(kept, LONGER, route=decided("1.0.0", "1.0.0")).ready_after_ms is None


def test_panes_that_were_never_whole_count_though_they_would_be_kept() -> None:
    kept = replace(FIRST, retention_ms=200)
    late = facts(floors_ms={"1.0.0": 150})
    found = seen(kept, LONGER, route=decided("1.0.0", "1.0.0"), at=(facts(), late))
    assert (found.whole_from_ms, found.ready_after_ms) == (250, 240)


def test_it_waits_for_versions_that_it_shares_with_and_that_are_not_ready() -> None:
    same = replace(FIRST, version="2.0.0")
    route = SetRecord(
        feature_set=SET,
        serving="1.0.0",
        live=(LiveVersion(version="1.0.0"), LiveVersion(version="1.1.0")),
        served=("1.0.0",),
    )
    assert seen(FIRST, OTHER, same, route=route).waits_for == ("1.0.0",)


def test_versions_stop_being_live_when_it_is_activated_and_not_before() -> None:
    versions = [replace(FIRST, version=f"1.{number}.0") for number in range(4)]
    names = [one.version for one in versions[:3]]
    route = decided("1.2.0", *names, served=tuple(names))
    found = seen(*versions, route=route)
    assert found.stops_being_live == ()
    assert found.live_after == ("1.0.0", "1.1.0", "1.2.0", "1.3.0")
    assert found.stops_when_activated == ("1.0.0",)


def test_before_any_decision_the_first_version_serves_and_all_are_live() -> None:
    found = seen(FIRST, OTHER, replace(OTHER, version="2.0.0"))
    assert found.live_after == ("1.0.0", "1.1.0", "2.0.0")
    assert not found.replays
    assert found.waits_for == ("1.1.0",)
