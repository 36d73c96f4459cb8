"""What a worker plans with, as versions are published and events are left out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from streams.definitions.exclusions import Exclusion
from streams.definitions.store import PublishedSet
from streams.definitions.topics import SourceTopic
from streams.errors import RewindowError
from streams.runtime.streams import StreamBook
from tests.small import feature, feature_set
from tests.unit.runtime.test_needs import COUNT, PUBLISHED, TOPIC, V1, V2, V3

if TYPE_CHECKING:
    from pathlib import Path

FIRST = Exclusion(number=2, where="x > 5")
SECOND = Exclusion(number=5, where="x < 0")


@pytest.fixture
def book(tmp_path: Path) -> StreamBook:
    settings = load_settings(app="app", environ={"HOME": str(tmp_path)})
    return StreamBook(settings, PUBLISHED.definitions, {TOPIC: SourceTopic(partitions=2)})


def names(book: StreamBook) -> list[str]:
    return list(book.stream(TOPIC).sets["a"])


def test_exclusions_add_variants_of_all_versions_and_the_first_stays_first(
    book: StreamBook,
) -> None:
    book.exclude({"a": (FIRST, SECOND)})
    assert names(book) == [f"{one}{end}" for end in ("", "~2", "~5") for one in (V1, V2, V3)]
    stream = book.stream(TOPIC)
    assert stream.first("a") == V1
    both = stream.version("a", f"{V1}~5")
    assert [one.where for one in both.plan.bundles[0].exclusions] == ["x > 5", "x < 0"]
    assert both.output is stream.version("a", V1).output


def test_an_attempt_that_failed_is_in_no_later_one(book: StreamBook) -> None:
    book.exclude({"a": (FIRST,)})
    book.exclude({"a": ()})
    book.exclude({"a": (SECOND,)})
    later = book.stream(TOPIC).version("a", f"{V1}~5")
    assert [one.where for one in later.plan.bundles[0].exclusions] == ["x < 0"]
    assert book.stream(TOPIC).version("a", f"{V1}~2").plan.view.excluding == 2


def test_later_versions_leave_the_events_out_too(book: StreamBook) -> None:
    book.exclude({"a": (FIRST,)})
    one = PublishedSet(
        feature_set=feature_set(COUNT, feature("m"), name="a", version="2.0.0"),
        digest="d",
        key_schema_id=2,
        value_schema_id=3,
        order=9,
    )
    known = PUBLISHED.definitions
    book.take(
        replace(known, sets={"a": (*known.sets["a"], one)}, next_offset=known.next_offset + 1)
    )
    assert book.stream(TOPIC).version("a", "2.0.0~2").plan.view.name == "2.0.0~2"


def test_a_new_stream_is_read_once_its_sources_topic_is_there(book: StreamBook) -> None:
    known = PUBLISHED.definitions
    of = known.sources["clicks"]
    other = replace(of.source, name="others", topic="others")
    one = PublishedSet(
        feature_set=replace(feature_set(COUNT, name="b", version=V1), source="others"),
        digest="d",
        key_schema_id=2,
        value_schema_id=3,
        order=9,
    )
    book.take(
        replace(
            known,
            sources={**known.sources, "others": replace(of, source=other)},
            sets={**known.sets, "b": (one,)},
            next_offset=known.next_offset + 1,
        )
    )
    assert book.waiting == {"others": other}
    assert [stream.topic for stream in book.streams] == [TOPIC]
    book.found({"others": SourceTopic(partitions=3)})
    assert book.waiting == {}
    assert book.stream("others").partitions == 3
    assert list(book.stream("others").sets) == ["b"]


def test_a_new_entity_of_a_known_source_waits_for_topics_that_nobody_has_looked_at(
    book: StreamBook,
) -> None:
    """The topic that it is rekeyed to may not be there, nor be as it has to be."""
    known = PUBLISHED.definitions
    one = PublishedSet(
        feature_set=replace(feature_set(COUNT, name="b", version=V1), entity=("x",)),
        digest="d",
        key_schema_id=2,
        value_schema_id=3,
        order=9,
    )
    book.take(replace(known, sets={**known.sets, "b": (one,)}, next_offset=known.next_offset + 1))
    assert list(book.waiting.values()) == [known.sources["clicks"].source]
    book.exclude({"a": (FIRST,)})
    assert [stream.topic for stream in book.streams] == [TOPIC]
    book.found({TOPIC: SourceTopic(partitions=2)})
    assert book.waiting == {}
    assert [list(stream.sets) for stream in book.streams] == [["a"], ["b"]]


def test_an_app_of_which_nothing_can_be_read_yet_is_told_so(tmp_path: Path) -> None:
    settings = load_settings(app="app", environ={"HOME": str(tmp_path)})
    with pytest.raises(RewindowError, match=f"topic {TOPIC} of source clicks does not exist"):
        StreamBook(settings, PUBLISHED.definitions, {})
