"""Runs a command with a Kafka and a registry beside it, for tests in several processes to share:

    python -m tests.integration.on_servers pytest -n 3

Exits as the command does. Where `REWINDOW_BOOTSTRAP_SERVERS` is set, it starts nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys

from streams.devstack import DevStack


def main() -> int:
    """Run what the arguments say; its exit code."""
    command, environ = sys.argv[1:], dict(os.environ)
    if "REWINDOW_BOOTSTRAP_SERVERS" in environ:
        return subprocess.call(command)
    with DevStack.temporary() as stack:
        environ["REWINDOW_BOOTSTRAP_SERVERS"] = stack.bootstrap_servers
        environ["REWINDOW_REGISTRY_URL"] = stack.registry_url
        return subprocess.call(command, env=environ)


if __name__ == "__main__":
    sys.exit(main())
