"""A worker in a process of its own, to be watched, stopped, frozen and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from streams.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streams.devstack import Addresses

LOOK_AGAIN_S = 0.1
PATIENCE_S = 90.0
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """How to start a worker: what the command line would be given, and limits for tests.

    With `limits` (fields of `streams.runtime.context.Limits`) the worker is run by
    tests/integration/run_worker.py, without them by the command line itself.
    """

    app: str
    addresses: Addresses
    state_dir: Path
    instance: str = "one"
    limits: Mapping[str, float] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    def command(self) -> list[str]:
        if self.limits:
            given = json.dumps(dict(self.limits))
            start = [sys.executable, "-m", "tests.integration.run_worker", given]
        else:
            start = [str(Path(sys.executable).parent / "rewindow")]
        return [
            *start,
            *("worker", "--json"),
            *("--app", self.app),
            *("--instance", self.instance),
            *("--bootstrap-servers", self.addresses.bootstrap_servers),
            *("--registry-url", self.addresses.registry_url),
            *self.extra,
        ]


class WorkerProcess:
    """A running worker. As a context manager it is killed at the end if it still runs."""

    def __init__(self, spec: WorkerSpec, log_dir: Path, **environ: str) -> None:
        """`environ` are variables for this start alone."""
        log_dir.mkdir(parents=True, exist_ok=True)
        number = len(list(log_dir.glob("*.err")))
        self._out = log_dir / f"{spec.instance}-{number}.out"
        self._err = log_dir / f"{spec.instance}-{number}.err"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REWINDOW_")}
        self._clock = SystemClock()
        self.started_s = self._clock.monotonic_s()
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                spec.command(),
                cwd=REPOSITORY,
                env={
                    **inherited,
                    "REWINDOW_STATE_DIR": str(spec.state_dir),
                    **spec.environ,
                    **environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    @property
    def messages(self) -> str:
        """What it wrote for people so far."""
        return self._err.read_text(errors="replace")

    @property
    def stats(self) -> dict[str, Any]:
        """The newest of its reports, which come once a second; empty before the first."""
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        for line in reversed(lines):
            try:
                found: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            return found
        return {}

    def kill(self) -> None:
        """End it as kill -9 does."""
        self.process.kill()
        self.process.wait()

    def stop(self, *, seconds: float = PATIENCE_S) -> int:
        """Stop it as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait(seconds=seconds)

    def freeze(self) -> None:
        """It stands still, and knows nothing of it."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it stood."""
        self.process.send_signal(signal.SIGCONT)

    def wait(self, *, seconds: float = PATIENCE_S) -> int:
        """Its exit code, when it ends by itself; -9 for kill -9."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the worker still runs after {seconds} s:\n{self.messages}"
            ) from None

    def until(
        self, condition: Callable[[], object], what: str, *, seconds: float = PATIENCE_S
    ) -> None:
        """Wait for `condition`, as long as the worker runs.

        Raises AssertionError if the worker ends or `seconds` pass before.
        """
        deadline_s = self._clock.monotonic_s() + seconds
        while not condition():
            late = self._clock.monotonic_s() >= deadline_s
            if late or self.process.poll() is not None:
                ended = "" if late else f" and the worker ended with {self.process.returncode}"
                raise AssertionError(f"not {what}{ended}:\n{self.messages}\n{self.stats}")
            self.pause()

    def pause(self, seconds: float = LOOK_AGAIN_S) -> None:
        """Let so much time pass, less if it ends before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
