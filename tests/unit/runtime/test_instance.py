"""The instance that a process is: one process for a name, the first free slot without one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from streams.errors import InvalidInputError, RefusedError
from streams.runtime.instance import SLOTS, hold_instance

HOST = socket.gethostname() or "worker"


def test_a_named_instance_has_a_directory_of_its_own(tmp_path: Path) -> None:
    held = hold_instance(tmp_path / "new" / "state", "blue")
    assert (held.name, held.state_dir) == ("blue", tmp_path / "new" / "state" / "blue")
    assert held.state_dir.is_dir()
    held.release()


def test_a_name_is_held_by_one_process_until_it_lets_go(tmp_path: Path) -> None:
    first = hold_instance(tmp_path, "blue")
    with pytest.raises(RefusedError, match="another worker runs as instance blue"):
        hold_instance(tmp_path, "blue")
    first.release()
    hold_instance(tmp_path, "blue").release()


def test_without_a_name_the_first_free_slot_is_taken(tmp_path: Path) -> None:
    first, second = hold_instance(tmp_path, None), hold_instance(tmp_path, None)
    assert (first.name, second.name) == (f"{HOST}-0", f"{HOST}-1")
    first.release()
    again = hold_instance(tmp_path, None)
    assert again.name == f"{HOST}-0"
    again.release()
    second.release()


def test_there_is_an_end_to_slots(tmp_path: Path) -> None:
    held = [hold_instance(tmp_path, None) for _ in range(SLOTS)]
    with pytest.raises(RefusedError, match="give this one an --instance"):
        hold_instance(tmp_path, None)
    for one in held:
        one.release()


def test_a_state_directory_that_is_a_file_says_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("")
    with pytest.raises(InvalidInputError, match=r"set \[state\].dir or REWINDOW_STATE_DIR"):
        hold_instance(file, "blue")


def test_a_read_only_state_directory_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who runs the tests may be allowed to write anywhere.
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(InvalidInputError, match="Permission denied"):
        hold_instance(tmp_path, "blue")
