"""A server's process: started, watched and ended, by whoever started it or by someone later.

A running server holds an exclusive lock on the file with its process id: the lock is inherited
from the process that starts it and the system lets go of it when the server ends, however it
ends. So nobody takes another process for the server because it got the same number later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.clock import SystemClock
from streams.devstack import guard
from streams.errors import DeadlinePassedError, InvalidInputError, RewindowError

if TYPE_CHECKING:
    from collections.abc import Callable

HOST: Final = "127.0.0.1"
POLL_S: Final = 0.05
STOP_S: Final = 30.0
"""How long a server may take to stop by itself."""

_LOWEST_PORT: Final = 20_000
_EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOG_TAIL_LINES: Final = 5


def wait_until(done: Callable[[], bool], *, seconds: float) -> bool:
    """Poll `done` until it is true; false if `seconds` are over first."""
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + seconds
    while not done():
        if clock.monotonic_s() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback address now."""
    with socket.socket() as probe:
        # As servers do: a connection of the last server that lingers does not take the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(*preferred: int) -> int:
    """The first of `preferred` that is free, else any free port.

    Not one of those that the system gives to outgoing connections: such a port could be taken
    while a server that is to come back on it is down, even by a client's own attempts to
    connect to it.
    """
    for port in preferred:
        if port_is_free(port):
            return port
    try:
        first_ephemeral = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except OSError:
        first_ephemeral = 49_152  # what IANA says; macOS has no such file
    candidates = range(_LOWEST_PORT, max(first_ephemeral, _LOWEST_PORT + 1_000))
    for port in random.sample(candidates, k=200):
        if port_is_free(port):
            return port
    raise RewindowError(f"No free port found on {HOST}: stop something that listens there.")


def pid_file(directory: Path) -> Path:
    """The file that a server which keeps its things in `directory` locks."""
    return directory / "server.pid"


def server_log(directory: Path) -> Path:
    """Where a server which keeps its things in `directory` logs."""
    return directory / "server.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a server: its command and the directory in which it keeps all it writes."""

    title: str
    directory: Path
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the server prints, over all its starts."""
        return server_log(self.directory)

    @property
    def pid_file(self) -> Path:
        """Process id of the server, locked while it runs."""
        return pid_file(self.directory)


class Guard:
    """Ends this process's servers when this process is gone, even by kill -9."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", guard.__file__], stdin=subprocess.PIPE, text=True
        )

    def _order(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def add(self, pid: int) -> None:
        """Watch over `pid`."""
        self._order(f"+{pid}")

    def remove(self, pid: int) -> None:
        """Forget `pid`; to be called once it has ended, as the number may be used again."""
        # A guard that somebody ended has nothing left to forget.
        with contextlib.suppress(BrokenPipeError):
            self._order(f"-{pid}")

    def close(self) -> None:
        """End the guard, and with it whatever it still watches."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may have been ended with us
            self._process.stdin.close()
        self._process.wait()


class ServerProcess:
    """One server of the stack. `guard` is for servers that must not outlive this process."""

    def __init__(self, launch: Launch, guard: Guard | None) -> None:
        self.launch = launch
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the server that this object started.

        Raises:
            RewindowError: It is not running.
        """
        if self._process is None:
            raise RewindowError(f"{self.launch.title} is not running: start it first.")
        return self._process.pid

    def start(self) -> None:
        """Start the server; it may take seconds until it answers, see `wait_for`.

        Raises:
            InvalidInputError: Another process already runs it in this directory.
        """
        launch = self.launch
        launch.directory.mkdir(parents=True, exist_ok=True)
        with launch.pid_file.open("a") as lock, launch.log.open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidInputError(
                    f"{launch.title} already runs in {launch.directory}: stop it first, or use "
                    f"another directory."
                ) from None
            lock.truncate(0)
            self._process = subprocess.Popen(
                launch.command,
                cwd=launch.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
                # Ctrl-C is for us: we still need the server while we stop in good order.
                start_new_session=True,
            )
            lock.write(str(self._process.pid))
        if self._guard is not None:
            self._guard.add(self._process.pid)

    def wait_for(self, answers: Callable[[], bool], *, seconds: float) -> None:
        """Wait until the server started last answers.

        Raises:
            RewindowError: It ended instead; the message shows the end of its log.
            DeadlinePassedError: It did not answer within `seconds`.
        """
        process = self._process

        def ended() -> bool:
            return process is None or process.poll() is not None

        answered = wait_until(lambda: ended() or answers(), seconds=seconds)
        if ended():
            self._forget()
            raise RewindowError(
                f"{self.launch.title} ended while it started. The end of its log "
                f"({self.launch.log}):\n{_tail(self.launch.log)}"
            )
        if not answered:
            raise DeadlinePassedError(
                f"{self.launch.title} did not answer within {seconds:.0f} s; its log is "
                f"{self.launch.log}."
            )

    def stop(self) -> None:
        """Let the server stop in good order; kill it if it takes longer than `STOP_S`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as kill -9 does: it writes nothing more."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._guard is not None:
            self._guard.remove(self._process.pid)
        self._process = None


def running_pid(file: Path) -> int | None:
    """Process id of the server that locks `file`, `None` if none does."""
    try:
        with file.open() as lock:
            try:
                # Shared: two who look at the same time must not see each other.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # Empty for the moment between lock and start.
                return int(lock.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def end_detached(file: Path) -> bool:
    """Stop the server that locks `file`, whoever started it; false if none does.

    SIGTERM first, SIGKILL if it takes longer than `STOP_S`.

    Raises:
        RewindowError: It runs on even so.
    """
    pid = running_pid(file)
    if pid is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: running_pid(file) is None, seconds=STOP_S):
            return True
    raise RewindowError(f"Process {pid} did not end, even after kill -9.")


def _tail(log: Path) -> str:
    """The last lines that say something: not those of Java's stack traces."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip() == line]
    return "\n".join(lines[-_LOG_TAIL_LINES:])
