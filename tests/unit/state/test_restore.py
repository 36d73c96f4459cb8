"""Restoring: whole or not at all, whatever happens, without reading what was linked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.errors import RefusedError, RewindowError
from streams.state.manifest import BundleId
from streams.state.prune import prune
from streams.state.restore import RESTORE_STEPS, newest_whole, restore, restore_newest
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, DAY_MS, World, frame, opened, rows_at

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.bundle.close()


def test_on_the_same_disk_sst_files_are_links_and_are_not_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.taken(1)
    read: list[str] = []
    chunks = type(world.archive).chunks

    def noted(self: object, key: str, size_bytes: int) -> object:
        read.append(key)
        return chunks(self, key, size_bytes)  # type: ignore[arg-type]

    monkeypatch.setattr(type(world.archive), "chunks", noted)
    assert restore(world.checkpoints, made, tmp_path / "new") == []
    for file in made.files:
        linked = (tmp_path / "new" / file.name).samefile(world.file(file.key))
        assert linked == file.immutable == (file.key not in read)


def test_what_was_restored_lives_on_without_touching_the_archive(
    world: World, tmp_path: Path
) -> None:
    made = world.taken(1)
    restore(world.checkpoints, made, tmp_path / "new")
    bundle = opened(tmp_path / "new")
    bundle.flush(frame({(0, "e1"): 9}), Meta(next_offset=2))
    bundle.drop_below(60)
    bundle.close()
    assert world.checkpoints.verify(made) == []
    assert newest_whole(world.checkpoints, BUNDLE).manifest == made


def test_what_was_restored_may_be_checkpointed_in_turn(world: World, tmp_path: Path) -> None:
    made = world.taken(1)
    restore(world.checkpoints, made, tmp_path / "new")
    world.bundle.close()
    world.bundle = opened(tmp_path / "new")
    stored = set(world.keys("objects"))
    again = world.taken(2)
    shared = {file.key for file in again.files} & stored
    assert any(file.key in shared for file in again.files if file.immutable)
    assert world.checkpoints.verify(again) == []


def test_a_bundle_may_begin_with_the_files_of_another(world: World, tmp_path: Path) -> None:
    cleaned = BundleId(app=BUNDLE.app, stream=BUNDLE.stream, partition=3, bundle="cd34")
    restore(world.checkpoints, world.taken(1), tmp_path / "new")
    opened(tmp_path / "new", cleaned, formerly=BUNDLE).close()
    assert rows_at(tmp_path / "new", cleaned) == (Meta(next_offset=1), {(0, "e1"): 1})


def test_state_that_is_there_is_never_replaced(world: World, tmp_path: Path) -> None:
    made = world.taken(1)
    (tmp_path / "empty").mkdir()
    assert restore(world.checkpoints, made, tmp_path / "empty") == []
    with pytest.raises(RefusedError, match="not empty"):
        restore(world.checkpoints, made, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RewindowError, match="can't be restored"):
        restore(world.checkpoints, made, tmp_path / "file")
    with pytest.raises(RewindowError, match="can't be restored"):
        restore(world.checkpoints, made, tmp_path / "file" / "below")


@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_ended_at_any_step_it_is_whole_or_not_there(
    world: World, tmp_path: Path, step: str
) -> None:
    made = world.taken(1)

    def fail(reached: str) -> None:
        if reached == step:
            raise RewindowError("ended")

    world.checkpoints.step = fail
    with pytest.raises(RewindowError, match="ended"):
        restore(world.checkpoints, made, tmp_path / "new")
    world.checkpoints.step = lambda _: None
    assert (tmp_path / "new").exists() == (step == "done")
    if step != "done":
        restore(world.checkpoints, made, tmp_path / "new")
    assert rows_at(tmp_path / "new") == (Meta(next_offset=1), {(0, "e1"): 1})
    assert not (tmp_path / ".new.restoring").exists()


def test_none_at_all_is_no_error(world: World, tmp_path: Path) -> None:
    found = restore_newest(world.checkpoints, BUNDLE, tmp_path / "new")
    assert (found.manifest, found.damages) == (None, ())
    assert not (tmp_path / "new").exists()


# Dies at the so-many-th time that a step is reached: kill -9, not an exception.
CHILD = """
import os, signal, sys
from pathlib import Path
from streams.state.prune import prune
from streams.state.restore import restore_newest
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, World

base, work, step, times = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
left = [times]

def die(reached):
    if reached == step:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

world = World(base, step=die)
world.clock.ms += 10_000
if work == "take":
    world.taken(2)
elif work == "restore":
    restore_newest(world.checkpoints, BUNDLE, base / "new")
else:
    prune(world.checkpoints, keep=1)
"""


def killed(base: Path, work: str, step: str, times: int = 1) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(base), work, step, str(times)],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()


@pytest.mark.parametrize(("step", "times"), [("hash", 1), ("object", 3), ("manifest", 1)])
def test_killed_while_one_is_taken_the_one_before_is_used(
    tmp_path: Path, step: str, times: int
) -> None:
    world = World(tmp_path)
    first = world.taken(1)
    world.bundle.close()
    killed(tmp_path, "take", step, times)
    assert [*world.staging.iterdir()]
    found = restore_newest(world.checkpoints, BUNDLE, tmp_path / "new")
    assert (found.manifest, found.damages) == (first, ())
    assert rows_at(tmp_path / "new")[0] == Meta(next_offset=1)
    world.clock.ms += 2 * DAY_MS
    prune(world.checkpoints, keep=1)
    assert set(world.keys("objects")) == {file.key for file in first.files}
    assert rows_at(tmp_path / "state")[0] == Meta(next_offset=2)


@pytest.mark.parametrize(("step", "times"), [("file", 2), ("rename", 1)])
def test_killed_while_it_is_restored_nothing_opens_and_it_can_begin_anew(
    tmp_path: Path, step: str, times: int
) -> None:
    world = World(tmp_path)
    world.taken(1)
    world.bundle.close()
    killed(tmp_path, "restore", step, times)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / ".new.restoring").exists()
    restore_newest(world.checkpoints, BUNDLE, tmp_path / "new")
    assert rows_at(tmp_path / "new") == (Meta(next_offset=1), {(0, "e1"): 1})
    assert not (tmp_path / ".new.restoring").exists()


@pytest.mark.parametrize("step", ["condemn", "manifest"])
def test_killed_while_it_prunes_the_newest_is_whole_and_the_next_prune_ends_it(
    tmp_path: Path, step: str
) -> None:
    world = World(tmp_path)
    world.taken(1)
    newest = world.taken(2)
    world.bundle.close()
    killed(tmp_path, "prune", step)
    assert len(world.keys("manifests")) == 2
    assert world.checkpoints.verify(newest) == []
    world.clock.ms += 2 * DAY_MS
    prune(world.checkpoints, keep=1)
    assert world.checkpoints.all() == [newest]
    assert set(world.keys("objects")) == {file.key for file in newest.files}
    assert world.keys("condemned") == []
