"""Leaving events out gives what the reference model gives for a set that never had them, but whose
watermark they moved; what was said with them is corrected."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.control.set_record import Held
from streams.definitions.exclusions import Exclusion, OffsetRange
from tests.left_out import OFFSET_FIELD, without
from tests.property.test_switching import Item, items, rows, small_versions
from tests.reference import Event, Idle, Reference, Switch, compare
from tests.unit.datapath.rig import Click, Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streams.definitions.model import FeatureSet

pytestmark = pytest.mark.polars_pool

NUMBER = 7

exclusions = st.builds(
    Exclusion,
    number=st.just(NUMBER),
    where=st.sampled_from((None, "x = 2", "x <= 0", "who = 'a' AND x IS NULL", "x / 0 > 1")),
    offsets=st.lists(
        st.builds(
            lambda partition, start, count: OffsetRange(
                partition=partition, start=start, end=start + count
            ),
            st.sampled_from((0, 0, 1)),
            st.integers(0, 20),
            st.integers(1, 6),
        ),
        max_size=2,
    ).map(tuple),
)


def plain(found: Sequence[Item]) -> list[Item]:
    """Switches that correct nothing."""
    return [item.rstrip("!") if isinstance(item, str) else item for item in found]


class Both:
    """The rig and the reference, fed with the same."""

    def __init__(self, sets: Sequence[FeatureSet], exclusion: Exclusion, pairs: int) -> None:
        self.rig = Rig(*sets, exclusions=(exclusion,), pairs_per_step=pairs)
        both = [*sets, *(without(one, [exclusion], partition=0) for one in sets)]
        self.reference = Reference(both, ("who", "at", "x", OFFSET_FIELD))
        self.held = Held(serving=sets[0].version)
        self._offset = 0

    def feed(self, found: Sequence[Item], data: st.DataObject) -> None:
        waiting: list[Click] = []
        for item in (*found, None):
            if isinstance(item, tuple):
                waiting.append(item)
                self._expect(item)
                if data.draw(st.integers(0, 3)):
                    continue
            if waiting:
                self._dies(data, partial(self.rig.take, *waiting))
                self.rig.take_rest()
                waiting = []
            if isinstance(item, str):
                self.hold(replace(self.held, serving=item), data)
            elif isinstance(item, int):
                self.rig.idle(item)
                self.reference.feed(Idle(watermark_ms=item))

    def hold(self, held: Held, data: st.DataObject) -> None:
        """The next epoch; what is left out from it on corrects what was said before."""
        epoch = self.rig.progress.epochs.get("a", 0) + 1
        self._dies(data, partial(self.rig.hold, "a", held, epoch=epoch))
        if self.rig.progress.epochs.get("a", 0) < epoch:
            self.rig.hold("a", held, epoch=epoch)
        repair = held.corrects == self.held.speaker
        self.reference.feed(Switch(feature_set="a", version=held.speaker, repair=repair))
        self.held = held

    def _expect(self, item: Click) -> None:
        who, at, x = item
        fields = {"who": who, "at": at, "x": x, OFFSET_FIELD: self._offset}
        self.reference.feed(
            Event(offset=self._offset, timestamp_ms=0, event_time_ms=at, fields=fields)
        )
        self._offset += 1

    def _dies(self, data: st.DataObject, work: Callable[..., None]) -> None:
        after = data.draw(st.sampled_from((None, None, 0, 1, 2, 3)))
        work(crash_after=after)
        if after is not None:
            self.rig.crash()
        elif not data.draw(st.integers(0, 3)):
            self.rig.pipeline.flush()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_events_that_are_left_out_never_were(data: st.DataObject) -> None:
    sets = data.draw(small_versions())
    exclusion = data.draw(exclusions)
    both = Both(sets, exclusion, data.draw(st.sampled_from((1, 4, 400_000))))
    both.feed(plain(data.draw(items(sets))), data)
    target = data.draw(st.sampled_from((both.held.serving, sets[0].version)))
    withdrawn = both.held.speaker
    both.hold(Held(serving=target, corrects=withdrawn, excluding=NUMBER), data)
    both.feed(plain(data.draw(items(sets))), data)
    rig, reference = both.rig, both.reference
    assert compare(reference.vectors, rows(rig), reference.corrections) == []
    assert sorted((one.feature_set, one.offset) for one in rig.late) == sorted(reference.late)
