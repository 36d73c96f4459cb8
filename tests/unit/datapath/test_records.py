"""Records as columns are the same records."""

from __future__ import annotations

from streams.datapath.records import OneRecord, Records, as_columns, columns

ROWS = [
    OneRecord(
        offset=2 * n,
        timestamp=1_000 + n,
        key=None if n == 1 else b"k%d" % n,
        value=b"v%d" % n,
        headers=(("n", b"%d" % n),) if n else (),
    )
    for n in range(5)
]


def test_columns_are_the_runs_one_after_the_other() -> None:
    run = columns([ROWS[:2], [], ROWS[2:]])
    assert list(run) == ROWS
    assert run.offsets == [0, 2, 4, 6, 8]
    assert as_columns(run) is run
    assert list(as_columns(ROWS)) == ROWS
    assert len(columns([])) == 0


def test_parts_of_a_run_are_runs() -> None:
    run = columns([ROWS])
    parts: list[tuple[Records, list[OneRecord]]] = [
        (run[1:3], ROWS[1:3]),
        (run.where([True, False, False, True, False]), [ROWS[0], ROWS[3]]),
        (run.take([3, 0]), [ROWS[3], ROWS[0]]),
    ]
    for part, rows in parts:
        assert isinstance(part, Records)
        assert list(part) == rows
    assert run[4] == ROWS[4]
