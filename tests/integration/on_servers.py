"""Runs a command with a Kafka and a registry beside it, for tests in several processes to share:

    python -m tests.integration.on_servers pytest -n 3

Exits as the command does. Where the environment names servers, it starts none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from streams.errors import RewindowError
from tests.servers import (
    BOOTSTRAP_SERVERS,
    INTERRUPTED_EXIT_CODE,
    REGISTRY_URL,
    end_in_order,
    some_servers,
)


def main() -> int:
    """Run what the arguments say; its exit code."""
    end_in_order()
    try:
        with some_servers() as addresses:
            shared = {
                BOOTSTRAP_SERVERS: addresses.bootstrap_servers,
                REGISTRY_URL: addresses.registry_url,
            }
            # Ctrl-C is for the command, which has things to put away before it ends.
            signal.signal(signal.SIGINT, lambda *_: None)
            return subprocess.call(sys.argv[1:], env={**os.environ, **shared})
    except RewindowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
