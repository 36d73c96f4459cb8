"""The benchmark on few events: its outputs are right, or it ends with an error. No times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from streams.devstack import Addresses

ROOT = Path(__file__).parents[2]
FIGURES = ("events_per_s", "events_per_cpu_s", "peak_rss_mb")


def _bench(stack: Addresses, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "REWINDOW_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "REWINDOW_REGISTRY_URL": stack.registry_url,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_systems_are_checked_and_reported(stack: Addresses) -> None:
    ended = _bench(
        stack, "--peers", "faust", "--events", "20000", "--peer-events", "2000", "--json"
    )

    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    assert set(report) == {"systems", "ratios"}
    assert set(report["systems"]) == {"rewindow", "faust"}
    for figures in report["systems"].values():
        assert all(figures[name] > 0 for name in FIGURES)
    assert report["systems"]["rewindow"]["guarantee"] == "exactly-once"
    assert report["systems"]["faust"]["guarantee"] == "at-least-once"
    assert set(report["ratios"]) == {"faust"}
    assert report["ratios"]["faust"] > 0
    assert "producing" in ended.stderr


def test_switches_are_checked_and_reported(stack: Addresses) -> None:
    ended = _bench(stack, "switch", "--quick", "--json")

    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    # Whether a checkpoint is taken within so short a time is chance.
    for name in (
        "hot_p50_ms",
        "hot_p99_ms",
        "size_ratio",
        "longest_gap_ms",
        "shared_ratio",
        "disjoint_ratio",
        "restore_ms",
        "replay_ratio",
    ):
        assert report[name] > 0
    assert "checking the vectors" in ended.stderr


@pytest.mark.parametrize(
    "arguments", [("--peers", "flint"), ("--events", "many"), ("--events", "10")]
)
def test_wrong_usage_says_so(stack: Addresses, arguments: tuple[str, str]) -> None:
    ended = _bench(stack, *arguments)

    assert ended.returncode == 2
    assert arguments[0] in ended.stderr
    assert not ended.stdout
