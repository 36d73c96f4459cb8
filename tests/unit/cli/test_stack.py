"""What `rewindow up` and `down` say beside starting and stopping."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams import devstack
from tests.unit.cli.runs import run

ADDRESSES = devstack.Addresses(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:2")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devstack, "up", lambda **_: ADDRESSES)
    monkeypatch.setattr(devstack, "running", lambda: ADDRESSES)
    monkeypatch.setattr(devstack, "down", lambda **_: True)


def test_up_says_where_both_are(capsys: Capture) -> None:
    ran = run(capsys, "up")
    assert (ran.exit_code, ran.stdout) == (0, "")
    kafka, registry = ran.stderr.splitlines()
    assert kafka.endswith("is up at 127.0.0.1:1")
    assert registry.endswith("is up at http://127.0.0.1:2")


def test_up_says_so_when_commands_use_another(capsys: Capture) -> None:
    Path("rewindow.toml").write_text('[kafka]\nbootstrap.servers = "far:9092"\n')
    ran = run(capsys, "up", "--json")
    assert json.loads(ran.stdout)["bootstrap_servers"] == "127.0.0.1:1"
    (note,) = ran.stderr.splitlines()
    assert note.startswith("note: other commands use Kafka at far:9092, as ")


def test_down_names_the_state_that_a_deletion_leaves(capsys: Capture) -> None:
    Path("rewindow.toml").write_text('app = "shop"\n[state]\ndir = "state"\n')
    assert "note" not in run(capsys, "down", "--delete").stderr
    Path("state").mkdir()
    assert "note" not in run(capsys, "down").stderr
    note, stopped = run(capsys, "down", "--delete").stderr.splitlines()
    assert note.startswith("note: the state of app shop is still in state: delete it")
    assert stopped == "Kafka and the registry are stopped."
