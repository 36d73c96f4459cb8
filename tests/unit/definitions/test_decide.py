"""What becomes of definitions that are to be published."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streams.definitions.decide import Change, Decision, LatestSchema, decide
from streams.definitions.load import Loaded, record_key
from streams.definitions.model import EventTime, Feature, FeatureSet, Function, Source
from streams.definitions.problems import Origin
from streams.definitions.store import (
    Definitions,
    PublishedSet,
    PublishedSource,
    collect,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "flight",
    "fields": [
        {"name": "origin", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "delay", "type": ["null", "int"], "default": None},
    ],
}
WIDER = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "seats", "type": "int", "default": 0}]}
SOURCE = Source(
    name="flights",
    topic="flights",
    schema="flights-value",
    event_time=EventTime(field="at"),
    key=("origin",),
)
FEATURE = Feature(name="n", function=Function.COUNT, expression=None, window_ms=60_000)
FIRST = FeatureSet(
    name="departures",
    version="1.0.0",
    source="flights",
    entity=("origin",),
    every_ms=60_000,
    features=(FEATURE,),
)
SECOND = replace(FIRST, version="1.1.0", features=(replace(FEATURE, window_ms=120_000),))
SEATS = Feature(name="seats", function=Function.SUM, expression="seats", window_ms=60_000)
NOTHING = collect([])


def loaded(*definitions: Source | FeatureSet) -> Loaded:
    return Loaded(
        sources=tuple(one for one in definitions if isinstance(one, Source)),
        feature_sets=tuple(one for one in definitions if isinstance(one, FeatureSet)),
        origins={record_key(one): Origin(file="one.yaml", lines={(): 1}) for one in definitions},
    )


def decided(
    published: Definitions,
    *definitions: Source | FeatureSet,
    schema: Mapping[str, Any] = SCHEMA,
    schema_id: int = 1,
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> Decision:
    latest = LatestSchema(schema=schema, schema_id=schema_id)
    return decide(
        loaded(*definitions),
        published,
        {"flights-value": latest, "other": latest},
        {} if left_out is None else left_out,
    )


def after(decision: Decision) -> Definitions:
    """Everything published, as the topic would give it back."""
    assert not decision.invalid
    assert not decision.refused
    records: list[PublishedSource | PublishedSet] = [one.published for one in decision.sources]
    records += [
        PublishedSet(
            feature_set=one.feature_set,
            digest=one.digest,
            key_schema_id=1,
            value_schema_id=2,
            order=one.order,
        )
        for one in decision.sets
    ]
    return collect([unpack(pack(record)[1], at) for at, record in enumerate(records)])


def test_a_source_and_its_first_version_are_published_and_serve() -> None:
    decision = decided(NOTHING, SOURCE, FIRST)
    assert [one.change for one in decision.sources] == [Change.PUBLISHED]
    assert [(one.change, one.serves) for one in decision.sets] == [(Change.PUBLISHED, True)]


def test_the_same_content_twice_changes_nothing() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    decision = decided(published, SOURCE, FIRST, schema=WIDER, schema_id=2)
    assert [one.change for one in decision.sources] == [Change.UNCHANGED]
    assert [one.change for one in decision.sets] == [Change.UNCHANGED]


def test_a_set_needs_no_source_file_where_the_source_is_published() -> None:
    published = after(decided(NOTHING, SOURCE))
    assert [one.change for one in decided(published, FIRST).sets] == [Change.PUBLISHED]


def test_other_content_under_a_published_version_is_refused() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    other = replace(FIRST, every_ms=30_000, features=(replace(FEATURE, name="m"),))
    (line,) = decided(published, other).refused
    assert line == (
        "one.yaml:1: version: 1.0.0 of departures is published with other content "
        "(every, features.m, features.n): give this a new version"
    )


def test_a_description_may_change_under_a_published_version() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST, SECOND))
    decision = decided(published, replace(FIRST, description="more"))
    assert [(one.change, one.serves) for one in decision.sets] == [(Change.UPDATED, True)]
    assert decision.sets[0].order == published.sets["departures"][0].order


def test_a_rewritten_record_keeps_its_place_in_the_order() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST, SECOND))
    first, second = published.sets["departures"]
    again = collect([second, replace(first, offset=9)])
    assert again.first("departures") == replace(first, offset=9)


def test_a_later_version_does_not_serve() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    (change,) = decided(published, SECOND).sets
    assert (change.change, change.serves) == (Change.PUBLISHED, False)


def test_of_two_versions_published_together_the_first_in_the_files_serves() -> None:
    decision = decided(NOTHING, SOURCE, SECOND, FIRST)
    assert [one.serves for one in decision.sets] == [True, False]
    serving = after(decision).first("departures")
    assert serving is not None
    assert serving.feature_set.version == "1.1.0"


def test_what_is_fixed_of_a_source_can_not_change() -> None:
    published = after(decided(NOTHING, SOURCE))
    changed = replace(SOURCE, topic="other", key=(), max_ahead_ms=1, schema="other")
    lines = decided(published, changed).refused
    assert [line.split(": ")[1] for line in lines] == ["key", "max_ahead", "schema", "topic"]


def test_what_is_not_fixed_of_a_source_may_change() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    decision = decided(published, replace(SOURCE, idle_after_ms=1), FIRST)
    assert [one.change for one in decision.sources] == [Change.UPDATED]
    assert [one.change for one in decision.sets] == [Change.UNCHANGED]


def test_source_and_entity_stay_the_same_over_versions() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    (line,) = decided(published, replace(SECOND, entity=("delay",))).refused
    assert "entity: stays the same over a set's versions, and 1.0.0 has [origin]" in line
    both = decided(NOTHING, SOURCE, FIRST, replace(SECOND, entity=("delay",)))
    assert len(both.refused) == 1


def test_an_unknown_source_is_refused() -> None:
    (line,) = decided(after(decided(NOTHING, SOURCE)), replace(FIRST, source="flight")).invalid
    assert line.startswith("one.yaml:1: source: unknown source 'flight': did you mean 'flights'?")


def test_a_set_as_source_is_refused_for_now() -> None:
    decision = decided(NOTHING, SOURCE, FIRST, replace(FIRST, name="more", source="departures"))
    (line,) = decision.invalid
    assert "'departures' is a feature set: one can't be another's source yet" in line


def test_two_sources_of_one_topic_are_refused() -> None:
    other = replace(SOURCE, name="departures_log")
    (line,) = decided(NOTHING, SOURCE, other).refused
    assert "'flights' is what source 'flights' reads: use that one" in line
    published = after(decided(NOTHING, SOURCE, FIRST))
    (line,) = decided(published, other).refused
    assert line.startswith("one.yaml:1: topic:")


def test_a_field_that_is_not_in_the_schema_is_refused() -> None:
    (line,) = decided(NOTHING, SOURCE, replace(FIRST, features=(SEATS,))).invalid
    assert line.startswith("one.yaml:1: features.seats.sum: unknown field 'seats'")


def test_a_new_version_takes_the_newest_schema() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    wanted = replace(SECOND, features=(SEATS,))
    decision = decided(published, wanted, schema=WIDER, schema_id=2)
    (source,) = decision.sources
    assert (source.change, source.published.schema_id) == (Change.UPDATED, 2)
    assert [one.change for one in decision.sets] == [Change.PUBLISHED]


def test_a_schema_that_breaks_what_a_set_leaves_out_is_refused() -> None:
    published = after(decided(NOTHING, SOURCE, FIRST))
    left_out = {"departures": ["delay > 1000"], "others": ["what > 1"]}
    narrower = {**SCHEMA, "fields": SCHEMA["fields"][:2]}
    decision = decided(published, SECOND, schema=narrower, schema_id=2, left_out=left_out)
    (line,) = decision.refused
    assert "does not fit what departures leaves out (delay > 1000)" in line
    assert "'delay'" in line
    wider = decided(published, SECOND, schema=WIDER, schema_id=2, left_out=left_out)
    assert not wider.refused


def test_a_schema_that_breaks_a_published_version_is_refused() -> None:
    delay = Feature(name="delay", function=Function.SUM, expression="delay", window_ms=60_000)
    published = after(decided(NOTHING, SOURCE, replace(FIRST, features=(delay,))))
    narrower = {**SCHEMA, "fields": SCHEMA["fields"][:2]}
    (line,) = decided(published, SECOND, schema=narrower, schema_id=2).refused
    assert "the newest schema of 'flights-value' does not fit departures@1.0.0" in line
    longer = {**SCHEMA, "fields": [*SCHEMA["fields"][:2], {"name": "delay", "type": "long"}]}
    (line,) = decided(published, SECOND, schema=longer, schema_id=2).refused
    assert "changes types that departures@1.0.0 reads" in line
