"""What was committed with a position, wherever Kafka holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streams.cli import outlook
from streams.cli.control_topics import Stored
from streams.cli.outlook import progress_of
from streams.config import load_settings
from streams.datapath.progress import Closed, Progress
from streams.errors import RewindowError
from streams.runtime.offsets import Committed
from streams.runtime.producer import SPILLED
from streams.settings import Settings

PROGRESS = Progress(closed={"a": Closed(through_ms=10, version="1.0.0")}, start=3)


def settings() -> Settings:
    return load_settings(app="shop", environ={"HOME": "."})


def holding(monkeypatch: pytest.MonkeyPatch, *records: Stored) -> list[tuple[str, int]]:
    """Topics hold these records; what is read is noted."""
    asked: list[tuple[str, int]] = []

    class Reader:
        def rest(self) -> Iterator[Stored]:
            return iter(records)

    @contextmanager
    def reading(_: Settings, topic: str, start: int) -> Iterator[Reader]:
        asked.append((topic, start))
        yield Reader()

    monkeypatch.setattr(outlook, "reading", reading)
    return asked


def committed(metadata: str) -> Committed:
    return Committed(offset=7, metadata=metadata)


def test_it_is_in_the_metadata() -> None:
    assert progress_of(settings(), committed(PROGRESS.encode())) == PROGRESS


def test_nothing_is_known_of_a_position_that_somebody_set_by_hand() -> None:
    assert progress_of(settings(), committed("")) == Progress()
    assert progress_of(settings(), None) == Progress()


def test_what_is_too_long_is_in_the_record_that_the_metadata_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = holding(monkeypatch, Stored(offset=40, value=PROGRESS.encode().encode()))
    assert progress_of(settings(), committed(f"{SPILLED}40 short")) == PROGRESS
    assert asked == [("shop.acks", 40)]


def test_a_record_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch, Stored(offset=41, value=b"later"))
    with pytest.raises(RewindowError, match=r"offset 40 of shop\.acks, which is gone"):
        progress_of(settings(), committed(f"{SPILLED}40 short"))
