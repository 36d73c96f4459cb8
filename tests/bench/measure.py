"""Runs one system over its topic and measures it, in the same way for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from streams.clock import SystemClock
from streams.errors import DeadlinePassedError, RewindowError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

POLL_S = 0.1
STOP_S = 30.0
LOG_LINES = 20
MIB = 1024 * 1024
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a system's process does: `main()` of `module` with `arguments`, until `group` has
    committed the `ends` (offset by partition) of `topic`."""

    name: str
    module: str
    arguments: Sequence[str]
    topic: str
    group: str
    ends: Mapping[int, int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """From first fetch to last commit; `start_s` is the time from nothing to the first fetch,
    `started_ms` when the process was started."""

    seconds: float
    cpu_s: float
    peak_rss_mb: float
    start_s: float
    started_ms: int


def measure(
    work: Work, committed: Callable[[str, str], Mapping[int, int]], directory: Path
) -> Measured:
    """Run `work` to its end and stop it; `committed` gives offsets by group and topic.

    CPU time and memory are those of its process and of any that it starts. Raises
    RewindowError if it ends by itself, DeadlinePassedError if it takes too long.
    """
    clock = SystemClock()
    mark = directory / f"{work.name}.mark"
    log = directory / f"{work.name}.log"
    started_s, started_ms = clock.monotonic_s(), clock.now_ms()
    with log.open("wb") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "tests.bench.launch", str(mark), work.topic,
             work.module, *work.arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    peak_bytes = 0
    try:
        while True:
            now_s = clock.monotonic_s()
            peak_bytes = max(peak_bytes, process.memory_info().rss)
            if process.poll() is not None:
                raise RewindowError(f"{work.name} ended by itself:\n{_tail(log)}")
            if mark.exists() and _reached(committed(work.group, work.topic), work.ends):
                break
            if now_s - started_s > work.seconds:
                raise DeadlinePassedError(
                    f"{work.name} has not come to the end of {work.topic} within "
                    f"{work.seconds:.0f} s:\n{_tail(log)}"
                )
            time.sleep(POLL_S)
        ended_s, used = clock.monotonic_s(), process.cpu_times()
    finally:
        _stop(process)
    first = json.loads(mark.read_text())
    return Measured(
        seconds=ended_s - first["at_s"],
        cpu_s=used.user + used.system - first["cpu_s"],
        peak_rss_mb=peak_bytes / MIB,
        start_s=first["at_s"] - started_s,
        started_ms=started_ms,
    )


def _reached(at: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(at.get(partition, -1) >= end for partition, end in ends.items())


def _stop(process: psutil.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
