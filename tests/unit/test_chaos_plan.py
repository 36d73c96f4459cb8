"""The plan of a chaos run."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from tests.chaos.plan import PLACES, RANDOM, plan
from tests.integration.load import Load


def test_the_same_seed_gives_the_same_plan_and_load() -> None:
    assert plan(20, 7) == plan(20, 7) != plan(20, 8)
    first, second = (Load(seed=7, events=100, schema_id=1) for _ in range(2))
    assert list(first.records()) == list(second.records())


@pytest.mark.parametrize("kills", [4, 5, 20, 33])
def test_every_place_is_in_the_plan(kills: int) -> None:
    places = Counter(kill.place for kill in plan(kills, 7))
    assert places.total() == kills
    assert all(places[place] > 0 for place in PLACES)
    assert kills < 6 or places[RANDOM] > 0


def test_a_load_holds_late_events_and_bad_records() -> None:
    load = Load(seed=1, events=5_000, schema_id=1)
    values = [record.value for record in islice(load.records(), 5_000)]
    assert None in values
    assert len({record.partition for record in load.records()}) == load.partitions
