"""A worker as a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from streams.devstack.process import Guard
from streams.errors import RewindowError

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE_S = 0.1
STOP_S = 60.0
LOG_LINES = 15


def command(*arguments: str) -> list[str]:
    """`rewindow …` of the Python that runs this."""
    return [str(Path(sys.executable).with_name("rewindow")), *arguments]


class Worker:
    """`rewindow worker --json` while the `with` block lasts."""

    def __init__(self, config: Path) -> None:
        self._command = command("worker", "--json", "--config", str(config))
        self._log = config.with_name("worker.log")
        self._latest: dict[str, Any] | None = None
        self.peak_rss_bytes = 0
        """Highest memory seen of the process and its children together."""

    def __enter__(self) -> Self:
        self._guard = Guard()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C is for us, who stop the worker in good order.
                start_new_session=True,
            )
        self._guard.add(self._process.pid)
        self._threads = [threading.Thread(target=one) for one in (self._listen, self._measure)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RewindowError):
            self.stop()
        # A signal to all of us at once ends the guard too.
        with contextlib.suppress(BrokenPipeError):
            self._guard.remove(self._process.pid)
            self._guard.close()

    @property
    def latest(self) -> Mapping[str, Any] | None:
        """What the worker last said of itself; None before it said anything.

        Raises as `check`.
        """
        self.check()
        return self._latest

    def check(self) -> None:
        """Raises `RewindowError` with the end of its log if it has ended."""
        if self._process.poll() is not None:
            raise RewindowError(f"the worker ended by itself:\n{self._end_of_log()}")

    def stop(self) -> None:
        """Ask it to stop as Ctrl-C does, and wait.

        Raises `RewindowError` if it ends with an error, or does not end.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RewindowError(
                f"the worker did not stop within {STOP_S:.0f} s:\n{self._end_of_log()}"
            ) from None
        finally:
            for thread in self._threads:
                thread.join()
        if code != 0:
            raise RewindowError(f"the worker ended with {code}:\n{self._end_of_log()}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._latest = json.loads(line)

    def _measure(self) -> None:
        while self._process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                one = psutil.Process(self._process.pid)
                family = [one, *one.children(recursive=True)]
                size = sum(member.memory_info().rss for member in family)
                self.peak_rss_bytes = max(self.peak_rss_bytes, size)
            time.sleep(SAMPLE_S)

    def _end_of_log(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        # What it says itself, rather than what libraries say while it goes.
        said = next((i for i, line in enumerate(lines) if line.startswith("error:")), None)
        shown = lines[-LOG_LINES:] if said is None else lines[said : said + LOG_LINES]
        return "\n".join(shown) or "it logged nothing"
