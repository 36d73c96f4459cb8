"""A bundle on disk: whose it is, who may open it, what damage and death leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from streams.errors import InvalidInputError, RefusedError, RewindowError
from streams.state.bundle import Bundle, Resources
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from streams.state.store import Meta, PaneStore

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = RowLayout([("n", pl.Int64()), ("sketch", pl.Binary())])
IDENTITY = {"app": "flights", "stream": "flights", "partition": "0", "bundle": "ab12"}
EVERYTHING = (-(1 << 63), (1 << 63) - 1)
ROOT = Path(__file__).parents[3]


def opened(path: Path, **changed: str) -> Bundle:
    return Bundle.open(path, LAYOUT, identity={**IDENTITY, **changed}, resources=Resources())


def rows(*cells: tuple[int, str, int]) -> pl.DataFrame:
    full = [(pane, entity, n, bytes([n % 256]) * 40) for pane, entity, n in cells]
    return pl.DataFrame(full, schema=LAYOUT.schema, orient="row")


@pytest.fixture(params=["bundle", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PaneStore]:
    made: PaneStore = MemoryStore(LAYOUT) if request.param == "memory" else opened(tmp_path / "b")
    yield made
    made.close()


def test_an_empty_store_has_no_meta_and_no_rows(store: PaneStore) -> None:
    assert store.meta is None
    assert store.scan(*EVERYTHING).schema == LAYOUT.schema
    assert store.lookup(rows((0, "a", 0))).is_empty()


def test_a_flush_adds_and_replaces_rows(store: PaneStore) -> None:
    store.flush(rows((60, "b", 1), (0, "a", 2)), Meta(next_offset=5))
    store.flush(rows((60, "b", 3), (-60, "", 4)), Meta(next_offset=9, floor_ms=-60))
    assert store.meta == Meta(next_offset=9, floor_ms=-60)
    assert store.scan(*EVERYTHING).equals(rows((-60, "", 4), (0, "a", 2), (60, "b", 3)))
    assert store.scan(-60, 60).equals(rows((-60, "", 4), (0, "a", 2)))
    assert store.scan(60, 60).is_empty()


def test_a_flush_without_rows_moves_the_meta(store: PaneStore) -> None:
    store.flush(rows((0, "a", 1)), Meta(next_offset=1))
    store.flush(rows(), Meta(next_offset=2))
    assert store.meta == Meta(next_offset=2)
    assert store.scan(*EVERYTHING).equals(rows((0, "a", 1)))


def test_a_refused_flush_changes_nothing(store: PaneStore) -> None:
    store.flush(rows((0, "a", 1)), Meta(next_offset=1))
    with pytest.raises(ValueError, match="two rows"):
        store.flush(rows((0, "a", 2), (0, "a", 3)), Meta(next_offset=2))
    assert store.meta == Meta(next_offset=1)
    assert store.scan(*EVERYTHING).equals(rows((0, "a", 1)))


def test_a_lookup_finds_each_existing_row_once(store: PaneStore) -> None:
    many = rows(*((pane, f"e{n:03}", n) for pane in (0, 60) for n in range(200)))
    store.flush(many, Meta(next_offset=1))
    few = rows((60, "e007", 0), (0, "e001", 0), (60, "e007", 0), (60, "nobody", 0), (30, "e001", 0))
    assert store.lookup(few).equals(rows((0, "e001", 1), (60, "e007", 7)))
    assert store.lookup(many.reverse()).equals(many)


def test_a_scan_may_end_early(store: PaneStore) -> None:
    store.flush(rows((0, "a", 1), (0, "b", 2), (60, "a", 3)), Meta(next_offset=1))
    assert store.scan(*EVERYTHING, limit=2).equals(rows((0, "a", 1), (0, "b", 2)))
    assert store.scan(*EVERYTHING, limit=3).equals(store.scan(*EVERYTHING))
    assert store.scan(*EVERYTHING, limit=4).equals(store.scan(*EVERYTHING))
    assert store.scan(*EVERYTHING, limit=0).equals(rows())


def test_panes_are_those_that_have_rows(store: PaneStore) -> None:
    assert store.panes(*EVERYTHING) == []
    store.flush(rows((-60, "a", 1), (0, "a", 1), (0, "b", 2), (120, "", 3)), Meta(next_offset=1))
    assert store.panes(*EVERYTHING) == [-60, 0, 120]
    assert store.panes(-59, 120) == [0]
    assert store.panes(120, 0) == []
    store.drop_below(0)
    assert store.panes(*EVERYTHING) == [0, 120]


def test_runs_of_entities_are_read_pane_by_pane(store: PaneStore) -> None:
    #     -60    a       c
    #       0    a  a\0  c  ü
    #      60       a\0
    there = [(-60, "a", 1), (-60, "c", 2), (0, "a", 3), (0, "a\0", 4), (0, "c", 5), (0, "ü", 6)]
    store.flush(rows(*there, (60, "a\0", 7)), Meta(next_offset=1))
    panes = [-60, 0, 60]
    assert store.scan_each(panes, None, 2).equals(rows(*there[:4], (60, "a\0", 7)))
    assert store.scan_each(panes, "a", 1).equals(rows(there[1], there[3], (60, "a\0", 7)))
    assert store.scan_each([-60, 0], "a\0", 9).equals(rows(there[1], there[4], there[5]))
    assert store.scan_each(panes, "ü", 9).equals(rows())
    assert store.scan_each([], None, 9).equals(rows())
    assert store.scan_each([-120], None, 9).equals(rows())


def test_dropping_takes_only_what_is_below(store: PaneStore) -> None:
    store.flush(rows((-60, "a", 1), (0, "a", 2), (60, "a", 3)), Meta(next_offset=1))
    for _ in range(2):
        store.drop_below(60)
        assert store.scan(*EVERYTHING).equals(rows((60, "a", 3)))
    store.drop_below(EVERYTHING[1])
    assert store.scan(*EVERYTHING).is_empty()
    store.flush(rows((0, "b", 4)), Meta(next_offset=2))
    assert store.scan(*EVERYTHING).equals(rows((0, "b", 4)))


def test_rows_and_meta_are_there_after_reopening(tmp_path: Path) -> None:
    meta = Meta(next_offset=7, watermark_ms=1, source_watermarks={0: 3}, extra={"k": "v"})
    bundle = opened(tmp_path)
    bundle.flush(rows((0, "a", 1), (60, "b", 2)), meta)
    bundle.drop_below(60)
    bundle.close()
    bundle.close()
    again = opened(tmp_path)
    assert again.meta == meta
    assert again.scan(*EVERYTHING).equals(rows((60, "b", 2)))
    again.close()


def test_dropped_rows_leave_the_disk(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    noise = [os.urandom(1000) for _ in range(2000)]
    frame = pl.DataFrame(
        {
            "@pane": [0] * 2000,
            "@entity": [f"{n}" for n in range(2000)],
            "n": [0] * 2000,
            "sketch": noise,
        },
        schema=LAYOUT.schema,
    )
    bundle.flush(frame, Meta(next_offset=1))
    bundle.flush(frame.with_columns(pl.lit(60, pl.Int64).alias("@pane")), Meta(next_offset=2))
    before = _size_bytes(tmp_path)
    bundle.drop_below(60)
    reclaiming = bundle._reclaiming
    assert reclaiming is not None
    reclaiming.join()
    bundle.close()
    opened(tmp_path).close()
    assert _size_bytes(tmp_path) < before * 0.6


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.sst"))


def test_closing_stops_a_reclaim_and_frees_the_lock(tmp_path: Path) -> None:
    for turn in range(5):
        bundle = opened(tmp_path)
        many = rows(*((pane, f"e{n}", n) for pane in (turn, turn + 1) for n in range(5000)))
        bundle.flush(many, Meta(next_offset=turn))
        bundle.drop_below(turn + 1)
        bundle.close()
        again = opened(tmp_path)
        assert again.meta == Meta(next_offset=turn)
        assert again.scan(turn + 1, turn + 2).height == 5000
        again.close()


def test_a_closed_bundle_says_so(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    bundle.flush(rows((0, "a", 1)), Meta(next_offset=1))
    bundle.close()
    with pytest.raises(ValueError, match="closed"):
        bundle.scan(*EVERYTHING)


def test_the_state_of_another_app_is_refused_and_left_alone(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    bundle.flush(rows((0, "a", 1)), Meta(next_offset=1))
    bundle.close()
    with pytest.raises(RefusedError, match=r"state of app 'flights'.*'weather'.*\[state\]\.dir"):
        opened(tmp_path, app="weather")
    with pytest.raises(RefusedError, match="partition '0', wanted is partition '1'"):
        opened(tmp_path, partition="1")
    again = opened(tmp_path)
    assert again.scan(*EVERYTHING).equals(rows((0, "a", 1)))
    again.close()


def test_a_second_opening_is_refused(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    with pytest.raises(RefusedError, match="another worker uses this directory"):
        opened(tmp_path)
    bundle.close()
    opened(tmp_path).close()


def test_a_flush_of_another_worker_is_not_removed_by_opening(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    (tmp_path / "flush.sst").write_bytes(b"being written")
    with pytest.raises(RefusedError):
        opened(tmp_path)
    assert (tmp_path / "flush.sst").exists()
    bundle.close()
    opened(tmp_path).close()
    assert not (tmp_path / "flush.sst").exists()


def test_a_directory_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below", Path("/proc/rewindow")):
        with pytest.raises(InvalidInputError, match=r"\[state\]\.dir"):
            opened(path)


@pytest.mark.parametrize("what", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_damaged_bundle_is_named_and_may_be_deleted(tmp_path: Path, what: str) -> None:
    bundle = opened(tmp_path)
    bundle.flush(rows((0, "a", 1)), Meta(next_offset=1))
    bundle.close()
    for file in tmp_path.glob(what):
        file.write_bytes(b"garbage\n")
    with pytest.raises(RewindowError, match=r"is damaged.*Delete that directory.*Kafka") as caught:
        opened(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert type(caught.value) is RewindowError


def test_a_block_that_cannot_be_read_never_shortens_a_scan(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    frame = pl.DataFrame(
        {
            "@pane": [n // 5 for n in range(1000)],
            "@entity": [f"{n:04}" for n in range(1000)],
            "n": list(range(1000)),
            "sketch": [os.urandom(200) for _ in range(1000)],
        },
        schema=LAYOUT.schema,
    )
    bundle.flush(frame, Meta(next_offset=1))
    bundle.close()
    [file] = [f for f in tmp_path.glob("*.sst") if f.stat().st_size > 100_000]
    with file.open("r+b") as sst:
        sst.seek(100_000)
        sst.write(b"\xaa" * 64)
    bundle = opened(tmp_path)
    with pytest.raises(RewindowError, match="is damaged"):
        bundle.scan(*EVERYTHING)
    with pytest.raises(RewindowError, match="is damaged"):
        bundle.lookup(frame.gather_every(10))
    with pytest.raises(RewindowError, match="is damaged"):
        bundle.panes(*EVERYTHING)
    with pytest.raises(RewindowError, match="is damaged"):
        bundle.scan_each(range(200), None, 9)
    bundle.close()
    opened(tmp_path).close()


CHILD = """
import sys
from pathlib import Path
from tests.unit.state.test_bundle import opened, rows
from streams.state.store import Meta

bundle = opened(Path(sys.argv[1]))
print("opened", flush=True)
if sys.argv[2] == "hold":
    sys.stdin.read()
n = 0 if bundle.meta is None else bundle.meta.next_offset
while True:
    n += 1
    cells = [(n // 8, f"e{e:03}", n) for e in range(300)]
    bundle.flush(rows(*cells, (1 << 30, "always", n)), Meta(next_offset=n))
    print(n, flush=True)
    if n % 16 == 0:
        bundle.drop_below(n // 8 - 3)
"""


def child(path: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "opened\n"
    return process


def test_two_processes_cannot_have_one_bundle(tmp_path: Path) -> None:
    process = child(tmp_path, "hold")
    try:
        with pytest.raises(RefusedError, match="another worker uses this directory"):
            opened(tmp_path)
    finally:
        process.kill()
        process.communicate()
    opened(tmp_path).close()


def test_after_a_kill_rows_and_meta_agree(tmp_path: Path) -> None:
    """Killed again and again while flushing and dropping: always exactly a prefix of flushes."""
    done = 0
    for flushes in (1, 5, 17, 30, 48):
        process = child(tmp_path, "flush")
        assert process.stdout is not None
        for _ in range(flushes):
            done = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        # Through the same reader: lines may be in its buffer already.
        printed = process.stdout.read().split()
        process.wait()
        done = int(printed[-1]) if printed else done
        bundle = opened(tmp_path)
        assert bundle.meta is not None
        last = bundle.meta.next_offset
        # What was acknowledged is there; the kill may have hit just before the next print.
        assert done <= last <= done + 1
        dropped_below = last // 16 * 2 - 3
        expected = [
            (pane, f"e{e:03}", min(pane * 8 + 7, last))
            for pane in range(max(dropped_below, 0), last // 8 + 1)
            for e in range(300)
        ]
        found = bundle.scan(dropped_below, EVERYTHING[1])
        assert found.equals(rows(*expected, (1 << 30, "always", last)))
        bundle.close()
        done = last
    assert not (tmp_path / "flush.sst").exists()
