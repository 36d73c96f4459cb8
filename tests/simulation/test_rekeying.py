"""The rekeying stage in simulation, and defects that it finds."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.polars_pool import in_pool
from tests.simulation.run_rekeying import MODULE, defects, failures

SEEDS = 200
TOP = Path(__file__).parents[2]


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    command = [sys.executable, "-m", MODULE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def test_every_event_is_rekeyed_once_whatever_happens() -> None:
    code, report = run("--seeds", str(SEEDS))
    assert report["failures"] == []
    assert (code, report["seeds"], report["failed"]) == (0, SEEDS, 0)


@pytest.mark.parametrize("defect", defects())
def test_a_planted_defect_is_found(defect: str) -> None:
    assert in_pool(partial(failures, 0, SEEDS, defect))


def test_what_fails_fails_again() -> None:
    defect = "claimed-before-sought"
    code, report = run("--break", defect)
    assert (code, report["failed"]) == (0, 1)
    (failure,) = report["failures"]
    _, again = run("--first", str(failure["seed"]), "--seeds", "1", "--break", defect)
    assert again["failures"] == [failure]
