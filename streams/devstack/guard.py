"""Ends the processes it was told about when whoever started it is gone.

Runs as a program of its own and imports nothing but the standard library. Its standard input
is a pipe that only the parent writes: `+PID` adds a process, `-PID` takes it off the list, the
end of the pipe means that the parent ended, however it did (kill -9 included).
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_POLLS = 100
POLL_S = 0.1


def main() -> None:
    """Read orders until the pipe ends, then terminate what is still on the list."""
    # Ctrl-C, a closed terminal and `timeout` reach the whole process group: it is for the parent to
    # act on it, and where that ends at once, so does the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pids: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            pids.add(pid)
        else:
            pids.discard(pid)
    _send(pids, signal.SIGTERM)
    for _ in range(GRACE_POLLS):
        pids = {pid for pid in pids if _alive(pid)}
        if not pids:
            return
        time.sleep(POLL_S)
    _send(pids, signal.SIGKILL)


def _send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
