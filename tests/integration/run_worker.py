"""Runs a worker as `rewindow worker --json` does, with other limits than a user can set."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from streams.cli.worker import _log_to_stderr, _run
from streams.config import load_settings
from streams.errors import RewindowError
from streams.runtime.context import Limits
from streams.runtime.worker import Worker


def main() -> int:
    """Parse, run, and give the exit code of what went wrong."""
    parser = argparse.ArgumentParser()
    for option in ("limits", "app", "instance", "bootstrap-servers", "registry-url"):
        parser.add_argument(f"--{option}", required=True)
    given = parser.parse_args()
    settings = load_settings(
        app=given.app,
        bootstrap_servers=given.bootstrap_servers,
        registry_url=given.registry_url,
    )
    limits = Limits(**json.loads(given.limits))
    _log_to_stderr(verbose=False)
    try:
        worker = Worker(settings, instance=given.instance, limits=limits)
        asyncio.run(_run(worker, settings.app, as_json=True))
    except RewindowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
