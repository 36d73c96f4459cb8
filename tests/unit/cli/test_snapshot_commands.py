"""`rewindow snapshots` over an archive in a directory."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from streams.cli.main import main
from streams.clock import SystemClock
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, World, flip, rows_at

EARLY, LATE = Meta(next_offset=5, watermark_ms=1_000), Meta(next_offset=9, watermark_ms=2_000)


class Shell:
    """Runs commands of an app whose archive has two checkpoints of a bundle."""

    def __init__(self, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.base = base
        self._capsys = capsys
        self.world = World(base)
        self.world.clock.ms = SystemClock().now_ms() - 3_600_000
        self.config = base / "rewindow.toml"
        self.config.write_text(
            f'app = "{BUNDLE.app}"\n[state]\ndir = "workers"\n[snapshots]\nurl = "archive"\n'
        )
        self.world.flush({(0, "ann"): 1}, EARLY)
        self.early = self.world.take(reason="periodic").checkpoint
        self.world.flush({(0, "ann"): 2, (1, "bob"): 3}, LATE)
        self.late = self.world.take(reason="clean stop").checkpoint

    def run(self, *words: str, code: int = 0) -> str:
        """What a command prints on stdout, or with another code than 0 on stderr."""
        given = ["snapshots", *words, "--config", str(self.config)]
        given += ["--bootstrap-servers", "127.0.0.1:1", "--registry-url", "http://127.0.0.1:1"]
        with pytest.raises(SystemExit) as ended:
            main(given)
        said = self._capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.err if code else said.out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def spoil(self) -> None:
        """One bit of the later checkpoint's own files."""
        early, late = self.world.checkpoints.all()
        shared = {file.key for file in early.files}  # type: ignore[union-attr]
        own = next(f.key for f in late.files if f.key not in shared)  # type: ignore[union-attr]
        flip(self.world.file(own))


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(tmp_path, capsys)


def test_list_tells_when_why_how_far_how_large_and_whether_whole(shell: Shell) -> None:
    shell.run("keep", shell.early, "--reason", "before the sale")
    found = shell.json("list")
    assert [one["checkpoint"] for one in found["checkpoints"]] == [shell.early, shell.late]
    assert [one["reason"] for one in found["checkpoints"]] == ["periodic", "clean stop"]
    assert [one["offsets"] for one in found["checkpoints"]] == [
        {BUNDLE.stream: {"3": 5}},
        {BUNDLE.stream: {"3": 9}},
    ]
    assert [one["state"] for one in found["checkpoints"]] == ["whole", "whole"]
    assert [pin["reason"] for pin in found["checkpoints"][0]["kept"]] == ["before the sale"]
    assert found["checkpoints"][1]["kept"] == []
    [bundle] = found["bundles"]
    assert bundle["checkpoints"] == 2
    assert bundle["stored_bytes"] == found["stored_bytes"] > bundle["newest_bytes"] > 0
    text = shell.run("list")
    assert shell.early in text
    assert "before the sale" in text


def test_show_names_every_file(shell: Shell) -> None:
    [bundle] = shell.json("show", shell.late)["bundles"]
    assert bundle["next_offset"] == 9
    assert bundle["watermark_ms"] == 2_000
    assert "CURRENT" in {file["name"] for file in bundle["files"]}
    assert BUNDLE.stream in shell.run("show", shell.late)


def test_verify_names_the_file_that_is_damaged_and_fails(shell: Shell) -> None:
    whole = shell.json("verify")
    assert whole["whole"]
    assert whole["bytes"] > 0
    shell.spoil()
    assert "its bytes were changed" in shell.run("verify", code=1)
    assert shell.late in shell.run("verify", shell.late, code=1)
    assert shell.json("verify", shell.early)["whole"]
    assert [one["state"] for one in shell.json("list")["checkpoints"]] == ["whole", "touched"]


def test_a_missing_file_is_seen_without_reading(shell: Shell) -> None:
    late = shell.world.checkpoints.all()[1]
    shell.world.file(late.files[-1].key).unlink()  # type: ignore[union-attr]
    assert shell.json("list")["checkpoints"][1]["state"] == "damaged"


def test_restore_fills_a_directory_as_a_worker_has_it(shell: Shell) -> None:
    to = shell.base / "workers" / "one"
    done = shell.json("restore", shell.early, "--to", str(to))
    [path] = done["bundles"]
    assert Path(path) == to / BUNDLE.stream / "3" / BUNDLE.bundle
    assert rows_at(Path(path)) == (EARLY, {(0, "ann"): 1})
    assert "has state in it already" in shell.run("restore", shell.late, "--to", str(to), code=3)


def test_restore_leaves_nothing_of_what_is_damaged(shell: Shell) -> None:
    shell.spoil()
    to = shell.base / "restored"
    assert "nothing was restored" in shell.run("restore", shell.late, "--to", str(to), code=1)
    assert not [path for path in to.rglob("*") if path.is_file()]


@pytest.mark.parametrize("where", ["", "one"])
def test_restore_refuses_a_directory_that_a_worker_uses(shell: Shell, where: str) -> None:
    instance = shell.base / "workers" / "one"
    instance.mkdir(parents=True)
    with (instance / "instance.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        to = shell.base / "workers" / where
        assert "a worker uses" in shell.run("restore", shell.early, "--to", str(to), code=3)
    shell.run("restore", shell.early, "--to", str(to))


def test_what_is_kept_outlives_a_prune_until_it_is_released(shell: Shell) -> None:
    shell.run("keep", shell.early, "--reason", "a test")
    assert shell.json("prune", "--keep", "1")["removed"] == []
    assert "not kept by 'r1', but by manual" in shell.run(
        "release", shell.early, "--pin", "r1", code=3
    )
    assert shell.json("release", shell.early)["released"] == ["manual"]
    asked = shell.json("prune", "--keep", "1", "--dry-run")
    assert [one["checkpoint"] for one in asked["removed"]] == [shell.early]
    assert len(shell.json("list")["checkpoints"]) == 2
    assert shell.json("prune", "--keep", "1")["removed"] == asked["removed"]
    assert [one["checkpoint"] for one in shell.json("list")["checkpoints"]] == [shell.late]


def test_prune_finds_files_of_nobodys(shell: Shell) -> None:
    shell.world.archive.put(BUNDLE.object("20200101T000000000Z-0a1b2c3d", "ab" * 32), b"1234")
    told = shell.json("prune", "--dry-run")
    assert (told["orphans"], told["freed_bytes"]) == (1, 4)
    assert shell.json("list")["orphan_bytes"] == 4
    assert shell.json("prune")["orphans"] == 1
    assert shell.json("list")["orphan_bytes"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "today"), "is no checkpoint id"),
        (("show", "20200101T000000000Z-0a1b2c3d"), "there is no checkpoint"),
        (("keep", "today", "--reason", "x"), "is no checkpoint id"),
        (("restore", "20200101T000000000Z-0a1b2c3d", "--to", "x"), "there is no checkpoint"),
    ],
)
def test_ids_that_are_none(shell: Shell, words: tuple[str, ...], message: str) -> None:
    assert message in shell.run(*words, code=2)


def test_where_no_checkpoints_are_kept_commands_say_so(shell: Shell) -> None:
    shell.config.write_text('app = "flights"\n[snapshots]\nurl = "none"\n')
    assert '[snapshots].url is "none"' in shell.run("list", code=2)


def test_an_app_without_any(shell: Shell) -> None:
    shell.config.write_text('app = "other"\n[snapshots]\nurl = "archive"\n')
    assert shell.json("list")["checkpoints"] == []
    shell.run("list")
