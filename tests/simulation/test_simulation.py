"""The simulation, as the normal test run has it: many seeds, the same again, and planted defects.

Each run is a process of its own, since what makes it repeatable is the interpreter's environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SEEDS = 2_000
TOP = Path(__file__).parents[2]


def run(*arguments: str, processes: int = 1) -> tuple[int, dict[str, Any]]:
    """The exit code and the report of `scripts/simulate`; 0 processes: one for each core."""
    command = [sys.executable, "-m", "tests.simulation.run", *arguments]
    command += ["--processes", str(processes)]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=False, cwd=TOP
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


@pytest.mark.timeout(1_800)
def test_nothing_is_lost_whatever_happens() -> None:
    code, report = run("--seeds", str(SEEDS), processes=0)
    assert report["failures"] == []
    assert (code, report["seeds"], report["failed"]) == (0, SEEDS, 0)
    # The rarest ones may take some thousand seeds more.
    assert len(report["missing_transitions"]) <= 2
    assert len(report["missing_excludes"]) <= 4


def test_the_same_seed_gives_the_same_trace() -> None:
    (_, one), (_, other), (_, different) = (
        run("--first", first, "--seeds", "8") for first in ("40", "40", "48")
    )
    assert one["digest"] == other["digest"] != different["digest"]


@pytest.mark.parametrize("defect", ["c-not-inherited", "lost-ack", "excluded-one-replayed"])
def test_a_planted_defect_is_found(defect: str) -> None:
    code, report = run("--break", defect, "--seeds", "100")
    assert (code, report["found"]) == (0, True)
    assert report["problems"]
    # The command that it names finds it again.
    seed = str(report["seed"])
    code, again = run("--break", defect, "--first", seed, "--seeds", "1")
    assert again["problems"] == report["problems"]
