"""The pipeline gives what the reference model gives, however the stream is cut or restarted."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.pipeline_driver import Driver
from tests.property.strategies import (
    FIELDS,
    REKEYED_ENTITY,
    SOURCE,
    Stream,
    keyed_streams,
    rekeyed_streams,
    several_sets,
)
from tests.reference import Decided, Idle, Record, Reference, compare

pytestmark = pytest.mark.polars_pool

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(driver: Driver, stream: Stream, data: st.DataObject) -> None:
    """Feed the stream in its batches; crash where it says so, flush here and there."""
    for number, batch in enumerate(stream.cut()):
        crash = number in stream.restarts
        after = data.draw(st.integers(0, 3)) if crash and data.draw(st.booleans()) else None
        *before, last = runs(batch)
        for part in before:
            feed(driver, part, None)
        feed(driver, last, after)
        if crash:
            driver.crash()
            driver.take_rest()
        elif data.draw(st.integers(0, 3)) == 0:
            driver.flush()
        elif data.draw(st.integers(0, 15)) == 0:
            driver.die_flushing(data.draw(st.integers(0, 2)))


def runs(batch: tuple[Record, ...]) -> list[list[Record]]:
    """The records of a batch in runs; what is no record of the log is a run by itself."""
    found: list[list[Record]] = []
    for record in batch:
        alone = isinstance(record, Idle | Decided)
        if not found or alone or isinstance(found[-1][0], Idle | Decided):
            found.append([])
        found[-1].append(record)
    return found


def feed(driver: Driver, run: list[Record], crash_after: int | None) -> None:
    """Give the driver one run."""
    if isinstance(run[0], Idle):
        driver.idle(run[0].watermark_ms, crash_after=crash_after)
    elif isinstance(run[0], Decided):
        driver.obey(run[0], crash_after=crash_after)
    else:
        driver.take(run, crash_after=crash_after)


def check(driver: Driver, reference: Reference) -> None:
    """Vectors, late copies and dead letters are the expected ones, each once."""
    assert compare(reference.vectors, driver.rows, reference.corrections) == []
    assert sorted(driver.late) == sorted(reference.late)
    assert sorted(set(driver.dead)) == sorted(set(reference.dead))


@EXAMPLES
@given(st.data())
def test_keyed_stream(data: st.DataObject) -> None:
    sets = data.draw(several_sets())
    stream = data.draw(keyed_streams(sets))
    driver = Driver(sets, pairs_per_step=data.draw(st.sampled_from((3, 50, 400_000))))
    run(driver, stream, data)
    check(
        driver,
        Reference(sets, FIELDS, max_ahead_ms=SOURCE.max_ahead_ms).feed_all(stream.records),
    )


@EXAMPLES
@given(st.data())
def test_rekeyed_stream(data: st.DataObject) -> None:
    sets = data.draw(several_sets(entities=(REKEYED_ENTITY,)))
    sources = data.draw(st.integers(1, 3))
    stream = data.draw(rekeyed_streams(sets, sources))
    driver = Driver(
        sets, sources=sources, pairs_per_step=data.draw(st.sampled_from((3, 50, 400_000)))
    )
    run(driver, stream, data)
    check(
        driver,
        Reference(sets, FIELDS, source_partitions=sources).feed_all(stream.records),
    )
