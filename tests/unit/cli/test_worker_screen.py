"""What the worker shows of itself."""

from __future__ import annotations

import pytest
from rich.console import Console

from streams.cli.worker import check_instance, screen
from streams.errors import InvalidInputError
from streams.runtime.stats import PartitionStats, SnapshotStats, Stats

NOW_MS = 1_767_268_800_000


def stats(partitions: int) -> Stats:
    found = Stats(events=1_234_567, vectors=89, late=1, dead=2, transactions=3)
    for number in range(partitions):
        found.partitions["orders.by.product", number] = PartitionStats(
            stream="orders.by.product",
            partition=number,
            state="running",
            position=number,
            end=2 * number,
            watermark_ms=NOW_MS - 90_000,
            open_windows=1_000,
        )
    return found


def lines(found: Stats, *, width: int, height: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(found, 4_321.6, NOW_MS, height))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_totals_and_a_line_for_each_partition() -> None:
    shown = lines(stats(2), width=100, height=24)
    assert shown[1].split() == ["4,322", "1,234,567", "89", "1", "2", "3"]
    assert len(shown) == 6
    assert "2026-01-01 11:58:30" in shown[-1]
    assert "1 m 30 s" in shown[-1]
    assert shown[-1].endswith("1,000")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 12)])
def test_it_fits_the_terminal_however_many_partitions_there_are(width: int, height: int) -> None:
    shown = lines(stats(200), width=width, height=height)
    assert max(len(line) for line in shown) <= width
    assert len(shown) < height
    assert "partitions with less lag" in shown[-1]
    assert " 199 " in shown[-2]


def test_the_last_checkpoint_and_what_keeps_it_away() -> None:
    found = stats(2)
    found.snapshots = SnapshotStats(enabled=True)
    assert "no checkpoint taken yet" in lines(found, width=100, height=24)
    found.snapshots.last_id, found.snapshots.last_ms = "20260101T115800000Z-0a1b2c3d", NOW_MS
    said = "last checkpoint 20260101T115800000Z-0a1b2c3d, 0 s ago"
    assert said in lines(found, width=100, height=24)
    found.snapshots.error = "the archive can't be reached"
    said = "the last checkpoint failed: the archive can't be reached"
    assert said in lines(found, width=100, height=24)


def test_before_the_first_partition() -> None:
    assert lines(stats(0), width=100, height=24)[-1] == "no partitions yet: joining the group"


@pytest.mark.parametrize("name", ["a b", "../x", "", "a/b"])
def test_an_instance_name_that_cannot_be_a_directory_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="--instance"):
        check_instance(name)


@pytest.mark.parametrize("name", [None, "one", "worker-1", "a_b"])
def test_an_instance_name(name: str | None) -> None:
    check_instance(name)
